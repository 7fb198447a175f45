//! `podctl tree`

use clap::Args;
use serde::Serialize;
use stage1::appc::AcName;
use stage1::error::{Result, escape_control};
use unicode_width::UnicodeWidthChar;

use super::args::candidates::a_pod;
use super::condition;
use super::output::{self, Format};
use super::screen::{self, Tone};
use super::session::Session;
use crate::app::processes::{self, Member};
use crate::app::status::{self, AppStatus};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::pause;

/// Prints pods, their apps, and the apps' processes, each below its parent process.
#[derive(Args, Debug)]
pub struct Tree {
    /// Pods: their names, their UUIDs, or the start of these (default: all)
    #[arg(value_name = "POD", add = a_pod())]
    pods: Vec<String>,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Do not cut lines to fit the screen
    #[arg(long)]
    no_trunc: bool,
}

/// A pod with its apps.
#[derive(Serialize)]
struct PodTree {
    /// The pod's UUID.
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<String>,
    state: String,
    /// Whether the whole pod is paused.
    paused: bool,
    apps: Vec<AppTree>,
}

#[derive(Serialize)]
struct AppTree {
    name: String,
    state: String,
    /// Whether it runs, and it or its whole pod is paused.
    paused: bool,
    #[serde(skip)]
    shown: (String, Option<Tone>),
    image_id: String,
    processes: Vec<Process>,
}

#[derive(Serialize)]
struct Process {
    pid: i32,
    pid_in_pod: i32,
    command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Process>,
}

impl Tree {
    pub fn run(self, session: &Session) -> Result<()> {
        let wanted = match self.pods.as_slice() {
            [] => pods::list(&session.store)?,
            named => named.iter().map(|name| pods::find(&session.store, name)).collect::<Result<_>>()?,
        };
        let mut trees = Vec::new();
        for pod in wanted {
            // `None` if another process has just removed it
            match pods::while_others_work(&session.store, &pod, PodTree::of) {
                Ok(tree) => trees.extend(tree),
                // one pod that can't be read does not hide the others
                Err(error) if self.pods.is_empty() => log::warn!("pod {}: {}", pod.uuid(), error.one_line()),
                Err(error) => return Err(error),
            }
        }
        trees.sort_by(|a, b| (&a.pod_name, &a.name).cmp(&(&b.pod_name, &b.name)));
        if self.format == Format::Json {
            return output::json(&trees);
        }
        let width = screen::width().filter(|_| !self.no_trunc);
        trees.iter().flat_map(|tree| tree.lines(screen::has_colours(), width)).try_for_each(output::say)
    }
}

impl PodTree {
    fn of(pod: &Pod) -> Result<Self> {
        let runs = pod.state() == State::Running;
        let app = |app: AppStatus| {
            let name: AcName = app.name.parse()?;
            let members = if runs { processes::list(pod, Some(&name))? } else { Vec::new() };
            let shown = condition::words_of(&app);
            Ok(AppTree {
                name: app.name,
                state: app.state,
                paused: app.paused,
                shown,
                image_id: app.image_id,
                processes: below(None, &members),
            })
        };
        Ok(Self {
            name: pod.uuid().to_string(),
            pod_name: pod.name()?.map(|name| name.to_string()),
            state: pod.state().word().to_owned(),
            paused: pause::is_paused(pod, None)?,
            apps: status::list(pod)?.into_iter().map(app).collect::<Result<_>>()?,
        })
    }

    fn lines(&self, colours: bool, width: Option<usize>) -> Vec<String> {
        let name = self.pod_name.clone().unwrap_or_else(|| self.name.clone());
        let state = if self.paused { "paused" } else { &self.state };
        let mut lines = vec![cut(&format!("{name}  {state}"), width)];
        for (number, app) in self.apps.iter().enumerate() {
            let (branch, trunk) = joints(number, self.apps.len());
            let (state, tone) = &app.shown;
            let text = cut(&format!("{branch}{}  {state}", app.name), width);
            // only the state has a colour, as far as it is on the screen
            let start = text.len().min(branch.len() + app.name.len() + 2);
            let (before, shown) = text.split_at(text.floor_char_boundary(start));
            lines.push(match tone.filter(|_| colours) {
                Some(tone) => format!("{before}{0}{shown}{0:#}", tone.style()),
                None => text,
            });
            branches(&app.processes, trunk, width, &mut lines);
        }
        lines
    }
}

fn branches(processes: &[Process], before: &str, width: Option<usize>, lines: &mut Vec<String>) {
    for (number, process) in processes.iter().enumerate() {
        let (branch, trunk) = joints(number, processes.len());
        let text = format!("{before}{branch}{} {}", process.pid, process.command);
        lines.push(cut(&text, width));
        branches(&process.children, &format!("{before}{trunk}"), width, lines);
    }
}

/// The lines drawn before the `number`th of `all` branches, and before the branches below it.
fn joints(number: usize, all: usize) -> (&'static str, &'static str) {
    if number + 1 == all { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

/// The processes whose parent is `parent`; for `None` those whose parent is not in `all`, which are the roots.
fn below(parent: Option<i32>, all: &[Member]) -> Vec<Process> {
    let is_member = |pid: i32| all.iter().any(|member| member.pid == pid);
    let is_child = |member: &&Member| match parent {
        Some(parent) => member.parent == parent,
        None => !is_member(member.parent),
    };
    let process = |member: &Member| Process {
        pid: member.pid,
        pid_in_pod: member.pid_in_pod,
        command: member.command.clone(),
        children: below(Some(member.pid), all),
    };
    all.iter().filter(is_child).map(process).collect()
}

/// Escapes control characters in a line, and cuts it to the width of the screen.
fn cut(text: &str, width: Option<usize>) -> String {
    let text = escape_control(text).to_string();
    let Some(width) = width else { return text };
    let mut used = 0;
    let mut short = String::new();
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= width && short.len() + c.len_utf8() < text.len() {
            return short + "…";
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(pid: i32, parent: i32, command: &str) -> Member {
        Member { pid, parent, command: command.to_owned(), ..Member::default() }
    }

    #[test]
    fn processes_are_below_those_that_started_them() {
        let all = [member(7, 1, "db"), member(9, 7, "writer"), member(10, 7, "reader\n"), member(12, 9, "child")];
        let app = |name: &str, processes| AppTree {
            name: name.to_owned(),
            state: "running".into(),
            paused: false,
            shown: ("running".into(), Some(Tone::Good)),
            image_id: String::new(),
            processes,
        };
        let tree = PodTree {
            name: "0123".into(),
            pod_name: Some("shop".into()),
            state: "running".into(),
            paused: false,
            apps: vec![app("db", below(None, &all)), app("web", Vec::new())],
        };
        let expected = "shop  running\n├─ db  running\n│  └─ 7 db\n│     ├─ 9 writer\n│     │  └─ 12 child\n\
                        │     └─ 10 reader\\n\n└─ web  running";
        assert_eq!(tree.lines(false, None).join("\n"), expected);
        assert!(tree.lines(true, None)[1].contains("db  \u{1b}[32mrunning\u{1b}[0m"));

        let narrow = tree.lines(false, Some(12));
        assert!(narrow.iter().all(|line| line.chars().count() <= 12), "{narrow:?}");
        assert_eq!(narrow[4], "│     │  └─…");
        assert_eq!(PodTree { paused: true, ..tree }.lines(false, None)[0], "shop  paused");
    }
}
