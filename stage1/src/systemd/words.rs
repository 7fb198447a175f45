//! The vocabulary of systemd's D-Bus interface: verbs, job results, states, properties, names of objects and errors.

use super::wire::Value;
use crate::error::Error;

/// Path of systemd's manager object.
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

/// An error reply of systemd to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Name of the error, such as `org.freedesktop.systemd1.NoSuchUnit`.
    pub name: String,
    /// systemd's message.
    pub message: String,
}

impl Refused {
    /// The error reply in the chain of `error`, if there is one.
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

    /// Whether systemd knows no such unit: it is not loaded and, for a start, it has no file.
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

/// The type of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Start the unit, unless it runs.
    Start,
    /// Stop the unit, if it runs. The job ends after the unit's `ExecStopPost=`.
    Stop,
    /// Stop the unit, if it runs, and start it.
    Restart,
}

/// A queued job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    pub(super) path: String,
    pub(super) unit: String,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    /// It succeeded.
    Done,
    /// It was cancelled before it ended, for example because another job replaced it.
    Canceled,
    /// It timed out.
    Timeout,
    /// The unit failed.
    Failed,
    /// A unit that it depends on failed.
    Dependency,
    /// It did not apply to the unit's current state.
    Skipped,
    /// Any other result.
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

/// The D-Bus interface that has a property of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// Properties of all units: `LoadState`, `ActiveState`, `SubState`…
    Unit,
    /// Properties of services: `Result`, `MainPID`, `ExecMainStatus`, `ControlGroup`, `NRestarts`…
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

/// The properties of a unit at the time of the call.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(pub(super) Vec<(String, Value)>);

impl Properties {
    /// The value of a property.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The value of a property that is a string.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a property that is a number of any width, or a boolean as 0 or 1.
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
    /// It is being started, or waits for its restart.
    Activating,
    /// It is being stopped.
    Deactivating,
    /// A state that is not known here.
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

    /// Whether no process of the unit runs.
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Inactive | Self::Failed)
    }
}

/// Path of the object of the unit `name`: sd_bus_path_encode(3).
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
