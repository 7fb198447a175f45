//! How a command on a terminal of its own gets the end of the caller's input, and the end that a signal asks for. Host
//! side.
//!
//! A pipe at its end stays there: every read returns nothing. A terminal has no such state. It has a character, VEOF,
//! that ends one read; and only in canonical mode: a program in another mode reads the character itself, and a VEOF that
//! was not read yet when a program leaves canonical mode, as a shell with line editing does at its start, becomes a
//! zero byte. So the character is sent again whenever what was sent before is read, and a terminal in whose other mode
//! nobody takes it as the end is hung up.

use std::time::{Duration, Instant};

use crate::sys::pty::EndOfInput;

/// How often to look whether the terminal's input was read.
const LOOK: Duration = Duration::from_millis(100);
/// How many looks in turn find all input read outside canonical mode before the terminal is hung up: five seconds.
const LOOKS: u32 = 50;
/// How long a command may take to end by SIGTERM or SIGHUP before its terminal is hung up.
const GRACE: Duration = Duration::from_secs(3);
/// Ctrl-D, which programs that edit lines take for the end of the input.
const CTRL_D: u8 = 4;

/// What to do with the terminal now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// Write this character to it.
    Send(u8),
    /// Hang it up.
    HangUp,
}

/// The ends that a command on a terminal has yet to get.
#[derive(Debug, Default)]
pub(super) struct Ending {
    input: Option<Input>,
    hang_up: Option<Instant>,
}

/// The caller's input has ended.
#[derive(Debug)]
struct Input {
    look: Instant,
    /// How many looks in turn have found that no character ends a read, and all input read.
    deaf: u32,
}

impl Ending {
    /// The caller's input has ended: all of it was written to the terminal.
    pub(super) fn input_ended(&mut self) {
        self.input = Some(Input { look: Instant::now(), deaf: 0 });
    }

    /// The command was sent a signal that is to end it. An interactive shell ignores SIGTERM; the end of its terminal
    /// ends it.
    pub(super) fn asked_to_end(&mut self) {
        self.hang_up.get_or_insert_with(|| Instant::now() + GRACE);
    }

    /// How long nothing is due; `None` if that does not end by itself.
    pub(super) fn quiet(&self) -> Option<Duration> {
        let look = self.input.as_ref().map(|input| input.look);
        look.into_iter().chain(self.hang_up).min().map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What is due. `unread`: whether the terminal has input that can be read.
    ///
    /// # Errors
    /// Those of `unread` and `end`.
    pub(super) fn due<E>(
        &mut self,
        unread: impl FnOnce() -> Result<bool, E>,
        end: impl FnOnce() -> Result<EndOfInput, E>,
    ) -> Result<Due, E> {
        let now = Instant::now();
        if self.hang_up.is_some_and(|at| at <= now) {
            return Ok(Due::HangUp);
        }
        match &mut self.input {
            Some(input) if input.look <= now => {
                input.look = now + LOOK;
                Ok(if unread()? { Due::Nothing } else { input.after_all_is_read(&end()?) })
            }
            _ => Ok(Due::Nothing),
        }
    }
}

impl Input {
    fn after_all_is_read(&mut self, end: &EndOfInput) -> Due {
        if let (true, Some(character)) = (end.is_canonical, end.character) {
            self.deaf = 0;
            return Due::Send(character);
        }
        self.deaf += 1;
        match self.deaf {
            // A shell that has just read a line returns to canonical mode before it runs the line's command.
            1 => Due::Nothing,
            LOOKS.. => Due::HangUp,
            // A last line without a newline: the shell takes no end in the middle of it.
            4 => Due::Send(b'\n'),
            _ if end.is_canonical => Due::Nothing,
            _ => Due::Send(end.character.unwrap_or(CTRL_D)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(end: EndOfInput, count: u32) -> Vec<Due> {
        let mut input = Input { look: Instant::now(), deaf: 0 };
        (0..count).map(|_| input.after_all_is_read(&end)).collect()
    }

    #[test]
    fn a_terminal_in_canonical_mode_gets_its_character_again_and_again() {
        let end = EndOfInput { is_canonical: true, character: Some(24) };
        assert!(all(end, 3 * LOOKS).iter().all(|due| *due == Due::Send(24)));
    }

    #[test]
    fn a_terminal_in_another_mode_gets_it_at_last_on_a_line_of_its_own_and_is_hung_up() {
        use Due::{HangUp, Nothing, Send};
        for (character, sent) in [(Some(24), 24), (None, CTRL_D)] {
            let seen = all(EndOfInput { is_canonical: false, character }, LOOKS);
            assert_eq!(seen[..5], [Nothing, Send(sent), Send(sent), Send(b'\n'), Send(sent)]);
            let hung_up = seen.iter().position(|due| *due == HangUp);
            assert_eq!(hung_up, Some(seen.len() - 1), "{seen:?}");
        }
        // No character ends a read: none but the newline is sent.
        let seen = all(EndOfInput { is_canonical: true, character: None }, LOOKS);
        let sent: Vec<_> = seen.iter().filter(|due| matches!(due, Send(_))).collect();
        assert_eq!((sent, seen.last()), (vec![&Send(b'\n')], Some(&HangUp)));
    }

    #[test]
    fn input_that_is_not_read_yet_is_waited_for() {
        let mut ending = Ending::default();
        assert_eq!(ending.quiet(), None);
        ending.input_ended();
        assert_eq!(ending.quiet(), Some(Duration::ZERO));
        let end = || Ok::<_, ()>(EndOfInput { is_canonical: true, character: Some(4) });
        assert_eq!(ending.due(|| Ok(true), end), Ok(Due::Nothing));
        assert!(ending.quiet().is_some_and(|quiet| quiet <= LOOK));
        // Not before the next look.
        ending.input = Some(Input { look: Instant::now() + GRACE, deaf: 0 });
        assert_eq!(ending.due(|| Ok(false), end), Ok(Due::Nothing));
        ending.input_ended();
        assert_eq!(ending.due(|| Ok(false), end), Ok(Due::Send(4)));
    }

    #[test]
    fn a_signal_hangs_up_after_a_while() {
        let mut ending = Ending::default();
        ending.asked_to_end();
        assert!(ending.quiet().is_some_and(|quiet| quiet <= GRACE));
        let end = || Ok::<_, ()>(EndOfInput { is_canonical: true, character: Some(4) });
        ending.hang_up = Some(Instant::now());
        assert_eq!(ending.due(|| Ok(true), end), Ok(Due::HangUp));
    }
}
