//! `podctl top`

use clap::Args;
use serde::Serialize;
use stage1::error::Result;

use super::args::listing::{ListFormat, Listing};
use super::args::one_app::OneApp;
use super::output;
use super::session::Session;
use super::table;
use crate::app::processes::{self, Member};
use crate::fsutil::time::{age, rfc3339};
use crate::poddir::find::running_pid;
use crate::poddir::manifest::must_have;

/// Lists the processes of a pod, or of one of its apps; the first process of an app comes first.
#[derive(Args, Debug)]
pub struct Top {
    #[command(flatten)]
    one: OneApp,
    #[command(flatten)]
    how: Listing,
}

/// A process, for programs: `started_at` in nanoseconds since 1970, `cpu_us` in microseconds, `memory` in bytes.
#[derive(Serialize)]
struct Shown<'a> {
    pid: i32,
    pid_in_pod: i32,
    uid: u32,
    started_at: i64,
    /// As RFC 3339.
    started: String,
    cpu_us: u64,
    memory: u64,
    threads: u64,
    command: &'a str,
}

impl Top {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find_named(session)?;
        app.as_ref().map_or(Ok(()), |app| must_have(&pod, app))?;
        running_pid(&pod)?;
        let members = processes::list(&pod, app.as_ref())?;
        match self.how {
            Listing { quiet: true, .. } => members.iter().try_for_each(|member| output::say(member.pid)),
            Listing { format: ListFormat::Json, .. } => output::json(&members.iter().map(shown).collect::<Vec<_>>()),
            Listing { no_trunc, format, .. } => table::show_chosen(
                ["PID", "IN POD", "UID", "AGE", "CPU", "MEMORY", "COMMAND"],
                members.iter().map(row).collect(),
                no_trunc,
                format.columns(),
            ),
        }
    }
}

fn shown(member: &Member) -> Shown<'_> {
    let Member { pid, pid_in_pod, uid, started_at, cpu_us, memory, threads, command, .. } = member;
    Shown {
        pid: *pid,
        pid_in_pod: *pid_in_pod,
        uid: *uid,
        started_at: *started_at,
        started: rfc3339(*started_at),
        cpu_us: *cpu_us,
        memory: *memory,
        threads: *threads,
        command,
    }
}

fn row(member: &Member) -> [table::Cell; 7] {
    [
        member.pid.to_string().into(),
        member.pid_in_pod.to_string().into(),
        member.uid.to_string().into(),
        age(member.started_at).into(),
        format!("{}.{:02}s", member.cpu_us / 1_000_000, member.cpu_us / 10_000 % 100).into(),
        output::memory(member.memory).into(),
        member.command.clone().into(),
    ]
}
