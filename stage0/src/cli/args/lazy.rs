//! Options of a verb that clap builds only when the verb is named.
//!
//! clap builds every option of every verb before it parses the first word, which takes longer than many verbs take. So
//! the options of verbs are built on demand. clap's own attribute `defer` does that for all verbs of an
//! enum, but then takes a verb's description from the comment of its type instead of that of its variant.

use std::ops::{Deref, DerefMut};

use clap::builder::Resettable;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// The options `T` of a verb.
#[derive(Debug)]
pub struct Lazy<T>(pub Box<T>);

/// Adds the options of `T` to a verb, and keeps the verb's description and examples.
fn with_options<T: Args>(verb: Command) -> Command {
    let (about, long_about) = (verb.get_about().cloned(), verb.get_long_about().cloned());
    let examples = verb.get_after_help().map(ToString::to_string);
    let mut verb = T::augment_args(verb);
    if let (Some(examples), Some(own)) = (examples, verb.get_after_help().map(ToString::to_string))
        && own != examples
    {
        verb = verb.after_help(format!("{own}\n\n{examples}"));
    }
    let long_about = long_about.or_else(|| verb.get_long_about().cloned());
    match about {
        Some(about) => verb.about(about).long_about(Resettable::from(long_about)),
        None => verb,
    }
}

impl<T: Args> Args for Lazy<T> {
    fn group_id() -> Option<Id> {
        T::group_id()
    }

    fn augment_args(verb: Command) -> Command {
        verb.defer(with_options::<T>)
    }

    fn augment_args_for_update(verb: Command) -> Command {
        T::augment_args_for_update(verb)
    }
}

impl<T: FromArgMatches> FromArgMatches for Lazy<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches(matches).map(|options| Self(Box::new(options)))
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        T::from_arg_matches_mut(matches).map(|options| Self(Box::new(options)))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}

impl<T> Deref for Lazy<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Lazy<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}
