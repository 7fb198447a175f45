//! Known attacks on container runtimes, on real pods.
//!
//! | what happened elsewhere | the test here | what stops it |
//! |---|---|---|
//! | CVE-2019-10144, -10145, -10147 (rkt): what is entered has all capabilities, no filter, no limits | [`enter::it_is_held_as_the_app_is`](crate::enter) | `enter` takes cgroup and confinement of the app |
//! | CVE-2016-9962 (runc): an app reaches the host through a process that enters | [`entering`] | what the pod sees is born there, with nothing of the host |
//! | CVE-2024-21626 (runc): a descriptor of the host is the working directory | [`entering`], [`files`] | the same; files of the caller stay outside |
//! | CVE-2019-5736 (runc): the program that crosses is overwritten | [`programs`], [`exec::the_hosts_program_is_out_of_reach`](crate::exec) | it is executed from a read-only mount |
//! | CVE-2022-0492: an app becomes the host's root by `release_agent` | [`kernel::no_release_agent_can_be_reached`](kernel), [`kernel_files::every_file_that_opens_for_writing`](crate::kernel_files) | cgroups are read-only, neither mount nor unshare |
//! | CVE-2025-31133, -52565, -52881, CVE-2019-19921 (runc): masks and mounts of /proc, /sys and /dev by way of links | [`kernel_files::an_image_cant_choose_where_kernel_files_are`](crate::kernel_files), [`kernel::nothing_is_masked_with_a_link`](kernel), [`kernel::nothing_is_written_through_an_apps_proc`](kernel) | they lie on directories only, and on their own file systems; nothing is written by way of an app's /proc |
//! | CVE-2021-30465 (runc): a mount's target is exchanged for a link | [`trees`] | targets are resolved by descriptors, in the app's root |
//! | CVE-2017-1002101 (Kubernetes): a subPath is exchanged for a link | [`trees`], [`podfile_table`](crate::podfile_table) | a part of a volume is resolved with the volume as the root, and mounted by its descriptor |
//! | CVE-2022-29162 (runc): inheritable capabilities | [`inside::default_confinement`](crate::inside), [`enter::it_is_held_as_the_app_is`](crate::enter) | the set is empty |
//! | CVE-2018-15664, CVE-2019-14271 (docker): links and programs of an image are used on the host | [`trees`], [`mounts::targets_through_links_of_the_image`](crate::mounts) | files of an app are opened in its root, none is executed outside |
//! | a recycled PID is entered | [`contract::a_recycled_pid_is_refused`](crate::contract) | the root of PID 1 is compared, by a pidfd |
//! | words of a manifest become directives of a unit | [`manifests::no_string_of_a_manifest_becomes_a_directive`](manifests), [`contract::hostile_manifests`](crate::contract) | units have words of our own only |
//! | what the host reads back is something else | [`readback`], [`attach_contract::hostile_places_and_annotations`](crate::attach_contract) | no link is followed, nothing is waited for, amounts are bounded |

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::{fs, io};

use tests::podctl::Podctl;

pub mod entering;
pub mod files;
pub mod kernel;
pub mod manifests;
pub mod programs;
pub mod readback;
pub mod trees;

/// The output of the program in the attacking app so far.
fn lines(log: &Path) -> Vec<String> {
    fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Runs an immutable pod: its first app, `attacker`, runs `command` of the probe, with /out shared; the `others` wait
/// until the file `log.stop` exists. Returns the process of podctl, and the path of the log.
fn run_attacker(podctl: &Podctl, caps: &str, command: &[&str], others: &[&str]) -> io::Result<(Child, PathBuf)> {
    podctl.import_probe();
    let out = podctl.out();
    fs::create_dir_all(&out)?;
    let volume = format!("--volume=out,kind=host,source={}", out.display());
    let program = ["--mount=volume=out,target=/out", "--exec=/probe", "--"];
    let mut words = [&["run", "--net=none", &volume, "probe", "--name=attacker", caps], &program[..], command].concat();
    let names: Vec<String> = others.iter().map(|name| format!("--name={name}")).collect();
    for name in &names {
        words.extend([&["---", "probe", name], &program[..], &["wait", "/out/log.stop"]].concat());
    }
    let child = podctl.command(&words).stdout(Stdio::null()).spawn()?;
    Ok((child, out.join("log")))
}
