//! Tickets: random words that stand for a request, valid once and for a short time

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// How long a ticket is valid.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// The most tickets at a time.
const MOST: usize = 1000;

/// The tickets that were not taken yet, each with its request.
#[derive(Debug)]
pub struct Tickets<T> {
    given: Mutex<HashMap<String, (Instant, T)>>,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self { given: Mutex::default() }
    }
}

impl<T> Tickets<T> {
    /// Makes a ticket that can't be guessed; `None` if there are too many tickets.
    pub fn give(&self, what: T) -> Option<String> {
        self.give_at(what, Instant::now())
    }

    fn give_at(&self, what: T, now: Instant) -> Option<String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.retain(|_, (end, _)| *end > now);
        if given.len() >= MOST {
            return None;
        }
        let ticket = Uuid::new_v4().simple().to_string();
        given.insert(ticket.clone(), (now + GOOD_FOR, what));
        Some(ticket)
    }

    /// Takes the request of a ticket, which is invalid then; `None` if the ticket does not exist or has expired.
    pub fn take(&self, ticket: &str) -> Option<T> {
        self.take_at(ticket, Instant::now())
    }

    fn take_at(&self, ticket: &str, now: Instant) -> Option<T> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let (end, what) = given.remove(ticket)?;
        (end > now).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_a_minute() {
        let tickets = Tickets::default();
        let now = Instant::now();
        let first = tickets.give_at(1, now).unwrap();
        assert_eq!((first.len(), tickets.take_at("x", now)), (32, None));
        assert_eq!((tickets.take_at(&first, now), tickets.take_at(&first, now)), (Some(1), None));
        let late = tickets.give_at(2, now).unwrap();
        assert_eq!(tickets.take_at(&late, now + GOOD_FOR), None);
        for number in 0..MOST {
            assert!(tickets.give_at(number, now).is_some());
        }
        assert!(tickets.give_at(0, now).is_none(), "there are too many");
        assert!(tickets.give_at(0, now + GOOD_FOR).is_some(), "their time is over");
    }
}
