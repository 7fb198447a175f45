//! What is said to systemd and what it says: orders, answers, properties, the names of its objects.

use super::wire::Value;
use crate::error::Error;

/// The object of systemd itself.
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// systemd has understood a call and refused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Name of the error, such as `org.freedesktop.systemd1.NoSuchUnit`.
    pub name: String,
    /// What systemd says about it.
    pub message: String,
}

impl Refused {
    /// The refusal in the chain of `error`, if that is what it is about.
    pub fn in_chain(error: &Error) -> Option<&Self> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(refused) = error.downcast_ref() {
                return Some(refused);
            }
            next = error.source();
        }
        None
    }

    /// The unit is not loaded, and for a start: there is no file for it either.
    pub fn is_no_such_unit(&self) -> bool {
        self.name == "org.freedesktop.systemd1.NoSuchUnit"
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.message, self.name)
    }
}

impl std::error::Error for Refused {}

/// Whether `error` says that systemd knows no such unit.
pub fn is_no_such_unit(error: &Error) -> bool {
    Refused::in_chain(error).is_some_and(Refused::is_no_such_unit)
}

/// What to do with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start it, unless it runs.
    Start,
    /// Stop it, if it runs; ends after its `ExecStopPost=`.
    Stop,
    /// Stop it, if it runs, and start it.
    Restart,
}

/// A job that was queued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub(super) path: String,
    pub(super) unit: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// As wanted.
    Done,
    /// Another job replaced it.
    Canceled,
    /// It took longer than the unit allows.
    Timeout,
    /// The unit failed.
    Failed,
    /// A unit that it needs failed.
    Dependency,
    /// It did not apply to the unit's state, or a condition of the unit did not hold.
    Skipped,
    /// Any other of systemd's words.
    Other(String),
}

impl JobResult {
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "done" => Self::Done,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "failed" => Self::Failed,
            "dependency" => Self::Dependency,
            "skipped" => Self::Skipped,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl std::fmt::Display for JobResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::Dependency => "dependency",
            Self::Skipped => "skipped",
            Self::Other(word) => word,
        })
    }
}

/// Where a property of a unit is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// What all units have: `LoadState`, `ActiveState`, `SubState`…
    Unit,
    /// What services have: `Result`, `MainPID`, `ExecMainStatus`, `ControlGroup`, `NRestarts`…
    Service,
}

impl Interface {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Unit => "org.freedesktop.systemd1.Unit",
            Self::Service => "org.freedesktop.systemd1.Service",
        }
    }
}

/// Properties of a unit at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(pub(super) Vec<(String, Value)>);

impl Properties {
    /// A property.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// A property that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A property that is a number of any width, or a boolean.
    pub fn number(&self, name: &str) -> Option<i128> {
        match *self.get(name)? {
            Value::Bool(value) => Some(value.into()),
            Value::I32(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::I64(value) => Some(value.into()),
            Value::U64(value) => Some(value.into()),
            Value::Text(_)
            | Value::Texts(_)
            | Value::Numbers(_)
            | Value::Pairs(_)
            | Value::Job(_)
            | Value::Other(_) => None,
        }
    }
}

/// The `ActiveState` of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActiveState {
    /// It runs.
    Active,
    /// It runs and reads its configuration.
    Reloading,
    /// It is not loaded, or does not run.
    Inactive,
    /// It does not run: it has failed.
    Failed,
    /// On its way to running, or waiting to be restarted.
    Activating,
    /// On its way to not running.
    Deactivating,
    /// A state that this version does not know.
    Unknown,
}

impl ActiveState {
    pub(super) fn from_word(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "reloading" => Self::Reloading,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            _ => Self::Unknown,
        }
    }

    /// Nothing of the unit runs.
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// The object of the unit `name`, as systemd spells it.
pub(super) fn unit_path(name: &str) -> String {
    let mut path = format!("{MANAGER_PATH}/unit/");
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}
