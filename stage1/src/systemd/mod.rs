//! A blocking client of systemd's private socket: one connection and the few calls that are needed here. The calls are
//! those of org.freedesktop.systemd1(5).
//!
//! systemd accepts only peers whose credentials it can see: the connecting process must be root in the PID and user
//! namespaces of the pod's systemd. Pod side; the same code talks to the host's systemd from the host side.
//!
//! The socket speaks D-Bus without a bus: there is no Hello and there are no names, and systemd sends all its signals
//! to every peer. No call waits beyond its deadline; the error of a call that timed out has the errno ETIMEDOUT.

mod signature;
mod socket;
mod wire;
mod words;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::{Context, Error, Result};
use wire::{Body, Message, MessageKind};

pub use wire::Value;
pub use words::{ActiveState, Interface, Job, JobResult, Properties, Refused, Verb, is_no_such_unit};
use words::{MANAGER_PATH, unit_path};

/// Path of systemd's private socket.
pub const PRIVATE_SOCKET: &str = "/run/systemd/private";

/// Maximum number of ended jobs that are kept for a later [`Client::wait`].
const ENDED_MAX: usize = 4096;

const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const JOB: &str = "org.freedesktop.systemd1.Job";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A connection to a systemd.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    path: PathBuf,
    input: Vec<u8>,
    serial: u32,
    ended: Vec<(String, JobResult)>,
    usable: bool,
}

impl Client {
    /// Connects to the systemd that listens at `path`, and authenticates.
    ///
    /// # Errors
    /// No process listens there, systemd does not accept this process as root in its namespaces, or the deadline has
    /// passed (ETIMEDOUT).
    pub fn connect(path: &Path, deadline: Instant) -> Result<Self> {
        let connect = || -> Result<Self> {
            let socket = socket::connect(path, deadline)?;
            let mut client =
                Self { socket, path: path.to_owned(), input: Vec::new(), serial: 0, ended: Vec::new(), usable: true };
            client.authenticate(deadline)?;
            Ok(client)
        };
        connect().context(|| format!("connect to systemd at {}", path.display()))
    }

    /// Queues a job for `unit`, replacing a conflicting one that is queued already. The job runs whether the caller
    /// waits for it or not.
    ///
    /// # Errors
    /// [`Refused`], among others with [`is_no_such_unit`] if the unit to stop is not loaded or the unit to start has no
    /// file; or as [`Self::wait`].
    pub fn queue(&mut self, verb: Verb, unit: &str, deadline: Instant) -> Result<Job> {
        let member = match verb {
            Verb::Start => "StartUnit",
            Verb::Stop => "StopUnit",
            Verb::Restart => "RestartUnit",
        };
        let body = Body::default().text(unit)?.text("replace")?;
        let path = self.manager_call(member, unit, body, deadline, object_path)?;
        Ok(Job { path, unit: unit.to_owned() })
    }

    /// Waits until `job` has ended. After a timeout the job can be waited for again.
    ///
    /// # Errors
    /// The deadline has passed (ETIMEDOUT), or the connection is broken.
    pub fn wait(&mut self, job: &Job, deadline: Instant) -> Result<JobResult> {
        loop {
            if let Some(at) = self.ended.iter().position(|(path, _)| *path == job.path) {
                return Ok(self.ended.swap_remove(at).1);
            }
            self.next_message(deadline, |_| Ok(None::<()>)).context(|| format!("wait for the job of {}", job.unit))?;
        }
    }

    /// Waits for `job` until `time`, and returns whether it has ended. It can be waited for again in both cases.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn ends_by(&mut self, job: &Job, time: Instant) -> Result<bool> {
        match self.wait(job, time) {
            Ok(result) => {
                self.ended.push((job.path.clone(), result));
                Ok(true)
            }
            Err(error) if error.errno() == Some(libc::ETIMEDOUT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts `unit` and waits until its start job has ended.
    ///
    /// # Errors
    /// As [`Self::queue`] and [`Self::wait`].
    pub fn start_unit(&mut self, unit: &str, deadline: Instant) -> Result<JobResult> {
        self.run(Verb::Start, unit, deadline)
    }

    /// Stops `unit` and waits until its stop job has ended; then no process of it runs any more.
    ///
    /// # Errors
    /// As [`Self::queue`] and [`Self::wait`].
    pub fn stop_unit(&mut self, unit: &str, deadline: Instant) -> Result<JobResult> {
        self.run(Verb::Stop, unit, deadline)
    }

    fn run(&mut self, verb: Verb, unit: &str, deadline: Instant) -> Result<JobResult> {
        let job = self.queue(verb, unit, deadline)?;
        self.wait(&job, deadline)
    }

    /// Makes a transient unit, starts it, and waits until its start job has ended.
    ///
    /// # Errors
    /// [`Refused`] if a unit of that name is loaded or a property is not valid; or as [`Self::wait`].
    pub fn start_transient_unit(
        &mut self,
        unit: &str,
        properties: &[(&str, Value)],
        deadline: Instant,
    ) -> Result<JobResult> {
        let body = Body::default().text(unit)?.text("fail")?.properties(properties)?.no_units()?;
        let path = self.manager_call("StartTransientUnit", unit, body, deadline, object_path)?;
        self.wait(&Job { path, unit: unit.to_owned() }, deadline)
    }

    /// Sets properties of a loaded unit at runtime, until systemd is restarted.
    ///
    /// # Errors
    /// [`Refused`] if a property can't be set, or with [`is_no_such_unit`]; or as [`Self::wait`].
    pub fn set_properties(&mut self, unit: &str, properties: &[(&str, Value)], deadline: Instant) -> Result<()> {
        let body = Body::default().text(unit)?.bool(true).properties(properties)?;
        self.manager_call("SetUnitProperties", unit, body, deadline, nothing)
    }

    /// Sends `signal` to the main process of `unit`.
    ///
    /// # Errors
    /// [`Refused`] if the unit has no main process; or as [`Self::wait`].
    pub fn kill_main_process(&mut self, unit: &str, signal: i32, deadline: Instant) -> Result<()> {
        self.manager_call("KillUnit", unit, Body::default().text(unit)?.text("main")?.i32(signal), deadline, nothing)
    }

    /// A property of `unit`, which systemd loads for that.
    ///
    /// # Errors
    /// [`Refused`] if systemd does not know the property; or as [`Self::wait`].
    pub fn property(&mut self, unit: &str, interface: Interface, name: &str, deadline: Instant) -> Result<Value> {
        self.get(&unit_path(unit), interface.name(), name, deadline).context(|| format!("Get({unit}, {name})"))
    }

    fn get(&mut self, path: &str, interface: &str, name: &str, deadline: Instant) -> Result<Value> {
        let body = Body::default().text(interface)?.text(name)?;
        self.call(path, PROPERTIES, "Get", &body, deadline, |message| {
            let mut reader = message.body("v")?;
            let value = reader.variant()?;
            reader.finished()?;
            Ok(value)
        })
    }

    /// The type of the queued or running job of `unit`: `start`, `stop`, `restart` and others; `None` if it has no job.
    ///
    /// # Errors
    /// systemd's reply has an unexpected type, or as [`Self::wait`].
    pub fn pending_job(&mut self, unit: &str, deadline: Instant) -> Result<Option<String>> {
        let number = match self.property(unit, Interface::Unit, "Job", deadline)? {
            Value::Job(0) => return Ok(None),
            Value::Job(number) => number,
            other => return Err(Error::new(format!("Job of {unit} is {other:?}"))),
        };
        match self.get(&format!("{MANAGER_PATH}/job/{number}"), JOB, "JobType", deadline) {
            Ok(Value::Text(word)) => Ok(Some(word)),
            Ok(other) => Err(Error::new(format!("JobType of {unit}'s job is {other:?}"))),
            // The job ended between the two calls.
            Err(error) if Refused::in_chain(&error).is_some() => Ok(None),
            Err(error) => Err(error).context(|| format!("Get(job of {unit}, JobType)")),
        }
    }

    /// All properties of `unit` in an interface; systemd loads the unit for that. A unit without a file has the
    /// `LoadState` `not-found`.
    ///
    /// # Errors
    /// systemd's reply has an unexpected type, or as [`Self::wait`].
    pub fn properties(&mut self, unit: &str, interface: Interface, deadline: Instant) -> Result<Properties> {
        let body = Body::default().text(interface.name())?;
        self.call(&unit_path(unit), PROPERTIES, "GetAll", &body, deadline, |message| {
            let mut reader = message.body("a{sv}")?;
            let properties = Properties(reader.dictionary()?);
            reader.finished()?;
            Ok(properties)
        })
        .context(|| format!("GetAll({unit})"))
    }

    /// The `ActiveState` of `unit`; inactive if it is not loaded. systemd keeps a unit loaded while it starts, runs, stops
    /// or waits for its restart; loading one takes longer than the rest of the question.
    ///
    /// # Errors
    /// systemd's reply has an unexpected type, or as [`Self::wait`].
    pub fn active_state(&mut self, unit: &str, deadline: Instant) -> Result<ActiveState> {
        match self.manager_call("GetUnit", unit, Body::default().text(unit)?, deadline, object_path) {
            Err(error) if is_no_such_unit(&error) => return Ok(ActiveState::Inactive),
            loaded => loaded.map(drop)?,
        }
        match self.property(unit, Interface::Unit, "ActiveState", deadline)? {
            Value::Text(word) => Ok(ActiveState::from_word(&word)),
            other => Err(Error::new(format!("ActiveState of {unit} is {other:?}"))),
        }
    }

    /// Has systemd reload all unit files.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn reload(&mut self, deadline: Instant) -> Result<()> {
        self.manager_call("Reload", "", Body::default(), deadline, nothing)
    }

    fn manager_call<T>(
        &mut self,
        member: &str,
        unit: &str,
        body: Body,
        deadline: Instant,
        read: impl Fn(&Message<'_>) -> Result<T>,
    ) -> Result<T> {
        self.call(MANAGER_PATH, MANAGER, member, &body, deadline, read).context(|| format!("{member}({unit})"))
    }

    /// Sends a call and waits for its reply.
    fn call<T>(
        &mut self,
        path: &str,
        interface: &str,
        member: &str,
        body: &Body,
        deadline: Instant,
        read: impl Fn(&Message<'_>) -> Result<T>,
    ) -> Result<T> {
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let serial = self.serial;
        let bytes = wire::method_call(serial, path, interface, member, body)?;
        self.check_usable()?;
        if let Err(error) = socket::send_all(&self.socket, &bytes, deadline) {
            // A part of the message may have been sent, so no further call can follow.
            self.usable = false;
            return Err(error);
        }
        loop {
            let answer = self.next_message(deadline, |message| match (message.reply_serial, message.kind) {
                (Some(answered), MessageKind::MethodReturn) if answered == serial => Ok(Some(Ok(read(message)?))),
                (Some(answered), MessageKind::Error) if answered == serial => {
                    let name = message.error_name.context(|| "an error without a name")?.to_owned();
                    let message = message.leading_text().unwrap_or_default().to_owned();
                    Ok(Some(Err(Refused { name, message })))
                }
                _ => Ok(None),
            })?;
            match answer {
                Some(Ok(value)) => return Ok(value),
                Some(Err(refused)) => return Err(Error::caused_by("refused", refused)),
                None => {}
            }
        }
    }

    fn check_usable(&self) -> Result<()> {
        if self.usable {
            return Ok(());
        }
        Err(Error::new(format!("the connection to {} broke in an earlier call", self.path.display())))
    }

    /// Waits for a message and passes it to `read`; if it reports the end of a job, that is kept for [`Self::wait`].
    fn next_message<T>(&mut self, deadline: Instant, read: impl Fn(&Message<'_>) -> Result<T>) -> Result<T> {
        self.check_usable()?;
        let taken = self.take_message(deadline, read);
        if let Err(error) = &taken {
            // A timeout loses nothing, even in the middle of a message: what was received is kept.
            self.usable = error.errno() == Some(libc::ETIMEDOUT);
        }
        taken
    }

    fn take_message<T>(&mut self, deadline: Instant, read: impl Fn(&Message<'_>) -> Result<T>) -> Result<T> {
        let length = loop {
            match wire::message_length(&self.input)? {
                Some(length) if length <= self.input.len() => break length,
                _ => socket::receive(&self.socket, &mut self.input, deadline)?,
            }
        };
        let message = Message::parse(&self.input[..length])?;
        if let Some(ended) = job_removed(&message)? {
            if self.ended.len() == ENDED_MAX {
                self.ended.remove(0);
            }
            self.ended.push(ended);
        }
        let value = read(&message)?;
        self.input.drain(..length);
        Ok(value)
    }

    fn authenticate(&mut self, deadline: Instant) -> Result<()> {
        self.shake_hands(deadline).map_err(|error| match error.errno() {
            // systemd closes the connection of peers whose credentials it can't see.
            Some(libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN) => Error::caused_by(socket::NOT_ACCEPTED, error),
            _ => error,
        })
    }

    fn shake_hands(&mut self, deadline: Instant) -> Result<()> {
        socket::send_all(&self.socket, socket::HANDSHAKE, deadline)?;
        loop {
            if let Some(length) = socket::handshake_length(&self.input)? {
                self.input.drain(..length);
                return Ok(());
            }
            if self.input.len() > socket::HANDSHAKE_ANSWER_MAX {
                return Err(Error::new("the answer to the handshake is too long"));
            }
            socket::receive(&self.socket, &mut self.input, deadline)?;
        }
    }
}

/// The path and the result of a job, if `message` is the signal `JobRemoved`.
fn job_removed(message: &Message<'_>) -> Result<Option<(String, JobResult)>> {
    let wanted = (MessageKind::Signal, Some(MANAGER_PATH), Some(MANAGER), Some("JobRemoved"));
    if (message.kind, message.path, message.interface, message.member) != wanted {
        return Ok(None);
    }
    let mut reader = message.body("uoss").context(|| "JobRemoved")?;
    reader.u32()?;
    let path = reader.text()?.to_owned();
    reader.text()?;
    let result = JobResult::from_word(reader.text()?);
    reader.finished()?;
    Ok(Some((path, result)))
}

fn object_path(message: &Message<'_>) -> Result<String> {
    let mut reader = message.body("o")?;
    let path = reader.text()?.to_owned();
    reader.finished()?;
    Ok(path)
}

fn nothing(message: &Message<'_>) -> Result<()> {
    message.body("")?.finished()
}
