//! `podctl port …`

use clap::{Args, Subcommand};
use stage1::error::{Context, Error, Result};

use super::args::listing::ListFormat;
use super::args::pod::OnePod;
use super::args::publish;
use super::output;
use super::session::Session;
use super::table::{self, Cell};
use crate::pod::network;
use crate::pod::ports::{self, HostPort};
use crate::pod::published_port::{self, Published};

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Port {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    pod: Option<OnePod>,
    #[command(flatten)]
    how: How,
}

#[derive(Args, Debug)]
struct How {
    /// Print a line for each port (text), json, or a table with these columns, in lower case: host port,pod port
    #[arg(long, default_value = "text", value_name = "text|json|COLUMN,…", value_parser = ListFormat::parse)]
    format: ListFormat,
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    pod: OnePod,
    #[command(flatten)]
    how: How,
}

impl List {
    fn run(self, session: &Session) -> Result<()> {
        let found = published_port::of(&self.pod.find(session)?)?;
        match self.how.format {
            ListFormat::Text => found.iter().try_for_each(output::say),
            ListFormat::Json => output::json(&found),
            ListFormat::Columns(columns) => table::show_chosen(
                ["NAME", "HOST IP", "HOST PORT", "POD PORT", "PROTOCOL"],
                found.iter().map(row).collect(),
                false,
                Some(&columns),
            ),
        }
    }
}

fn row(port: &Published) -> [Cell; 5] {
    [
        port.name().into(),
        port.host_ip().unwrap_or("-").into(),
        port.host_port().to_string().into(),
        port.pod_port().map_or_else(|| "-".to_owned(), |port| port.to_string()).into(),
        port.protocol().into(),
    ]
}

#[derive(Subcommand, Debug)]
enum Command {
    /// List the published ports of a pod
    #[command(visible_alias = "ls")]
    List(List),
    /// Publish more ports of a running pod
    Add(Add),
    /// Unpublish ports of a running pod
    Rm(Rm),
}

#[derive(Args, Debug)]
struct Add {
    #[command(flatten)]
    pod: OnePod,
    /// The ports: [HOSTIP:]HOSTPORT:PODPORT[/PROTOCOL]
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
}

#[derive(Args, Debug)]
struct Rm {
    #[command(flatten)]
    pod: OnePod,
    /// The ports of the host: HOSTPORT[/PROTOCOL]
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
}

impl Port {
    pub fn run(self, session: &Session) -> Result<()> {
        let how = self.how;
        match self.command.or(self.pod.map(|pod| Command::List(List { pod, how }))) {
            // clap prints the help instead
            None => Ok(()),
            Some(Command::List(list)) => list.run(session),
            Some(Command::Add(Add { pod, ports: texts })) => {
                let pod = pod.find(session)?;
                let words = texts.iter().map(|text| publish::port(text).context(|| format!("port {text:?}")));
                let added = network::ports(&words.collect::<Result<Vec<_>>>()?, None)?;
                ports::add(&session.store, &pod, &added).context(|| format!("add a port to pod {}", pod.short()))
            }
            Some(Command::Rm(Rm { pod, ports: texts })) => {
                let pod = pod.find(session)?;
                let removed = texts.iter().map(|text| host_port(text)).collect::<Result<Vec<_>>>()?;
                ports::remove(&pod, &removed).context(|| format!("remove a port of pod {}", pod.short()))
            }
        }
    }
}

fn host_port(text: &str) -> Result<HostPort> {
    let (number, protocol) = match text.split_once('/') {
        Some((number, protocol)) => (number, Some(protocol.to_owned())),
        None => (text, None),
    };
    match number.parse::<u16>() {
        Ok(port) if port > 0 => Ok(HostPort { port: port.into(), protocol }),
        _ => Err(Error::new(format!("port {text:?}: expected HOSTPORT[/PROTOCOL]"))),
    }
}
