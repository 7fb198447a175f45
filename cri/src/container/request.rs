//! Translates a request for a container to the options of an app. Reads only the request, and the host's paths to
//! mount.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use stage0::app::groups::ImageGroups;
use stage0::app::image_volumes::ImageMount;
use stage0::app::mounts;
use stage0::app::options::AddOptions;
use stage0::app::profile;
use stage0::image::store::Image;
use stage1::appc::{self, Isolator, Isolators, NameValue};
use stage1::confine::caps::CapSet;
use stage1::confine::insecure::InsecureOptions;
use stage1::error::Context;
use stage1::sys::mount::Propagation;
use stage1::uid_range::UidRange;

use crate::api::security_profile::ProfileType;
use crate::api::{
    Capability, ContainerConfig, Device, ImageSpec, KeyValue, LinuxContainerSecurityContext, Mount, MountPropagation,
    NamespaceMode, SeLinuxOption, Signal, SupplementalGroupsPolicy,
};
use crate::fault::{Fault, Result};
use crate::id::ContainerId;
use crate::limits::{self, isolator};
use crate::record;
use crate::sandbox::users;

/// The command of an image's configuration, as in the OCI image-spec.
#[derive(Debug, Default)]
pub struct ImageCommand {
    /// `Entrypoint`.
    pub entrypoint: Vec<String>,
    /// `Cmd`.
    pub cmd: Vec<String>,
}

impl ImageCommand {
    /// The command of an image's configuration; for an image without one (ACI), its manifest's `exec` as entrypoint.
    pub fn of(image: &Image, config: Option<&Value>) -> Self {
        let words = |name: &str| -> Vec<String> {
            let list = config.and_then(|config| config["config"][name].as_array()).into_iter().flatten();
            list.filter_map(|word| word.as_str().map(str::to_owned)).collect()
        };
        match config {
            Some(_) => Self { entrypoint: words("Entrypoint"), cmd: words("Cmd") },
            None => {
                let exec = image.parsed.app.as_ref().map(|app| app.exec.clone()).unwrap_or_default();
                Self { entrypoint: exec, cmd: Vec::new() }
            }
        }
    }

    /// The command line of a container: `command` replaces both parts of the image's, `args` alone only `Cmd`.
    fn with(self, command: Vec<String>, args: Vec<String>) -> Vec<String> {
        let (command, args) = match (command.is_empty(), args.is_empty()) {
            (true, true) => (self.entrypoint, self.cmd),
            (true, false) => (self.entrypoint, args),
            (false, _) => (command, args),
        };
        command.into_iter().chain(args).collect()
    }
}

/// What a sandbox gives its containers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SandboxLimits {
    /// The host ids of its own user namespace; `None` if it has the host's.
    pub users: Option<UidRange>,
    /// Whether it was asked to have the host's PID namespace.
    pub has_hosts_pids: bool,
}

/// The options of the app of the container `own_id`, of the image with the id `image`. `limits` are those of
/// the sandbox.
///
/// # Errors
/// The request is invalid, or asks for something that is not supported.
pub fn options(
    own_id: &ContainerId,
    limits: SandboxLimits,
    image: String,
    own: ImageCommand,
    config: ContainerConfig,
) -> Result<AddOptions> {
    let metadata = config.metadata.ok_or_else(|| Fault::invalid("the container has no metadata"))?;
    if metadata.name.is_empty() {
        return Err(Fault::invalid("the container has no name"));
    }
    let mut words = own.with(config.command, config.args).into_iter();
    let exec = words.next().ok_or_else(|| Fault::invalid("neither the container nor its image says what to run"))?;
    let linux = config.linux.unwrap_or_default();
    let context = linux.security_context.unwrap_or_default();
    let mut isolators = linux.resources.as_ref().map(limits::of_container).transpose()?.unwrap_or_default();
    isolators.extend(capabilities(&context)?);
    isolators.push(isolator("os/linux/no-new-privileges", json!(context.no_new_privs)));
    // kubelets rank pods by what they use, with limits or without
    isolators.push(isolator("os/linux/accounting", json!(true)));
    isolators.extend(paths(&context));
    isolators.extend(seccomp(&context)?);
    labels(&context)?;
    isolators.extend(pid_namespace(&context, own_id, limits.has_hosts_pids)?);
    let SandboxLimits { users, .. } = limits;
    must_be_the_sandboxs(&context, users)?;
    Isolators::parse(&isolators).map_err(|error| Fault::invalid(error.one_line()))?;
    let is_tty = config.tty;
    let mode = |word: &str| Some(if is_tty { "tty" } else { word }.to_owned());
    let devices = config.devices.iter().enumerate().map(|(number, one)| device(number, one));
    let devices = devices.collect::<Result<Vec<_>>>()?;
    let (images, paths): (Vec<&Mount>, Vec<&Mount>) = config.mounts.iter().partition(|mount| image_of(mount).is_some());
    let image_mounts = images.into_iter().map(|mount| image_mount(mount, users)).collect::<Result<Vec<_>>>()?;
    let mounts =
        paths.into_iter().map(|wanted| mount(wanted, users, context.privileged)).chain(devices.into_iter().map(Ok));
    let mounts = mounts.enumerate().map(|(number, mount)| volume(number, mount?, users)).collect::<Result<Vec<_>>>()?;
    let signal = Signal::try_from(config.stop_signal).unwrap_or(Signal::RuntimeDefault);
    let record = record::Container {
        name: metadata.name,
        attempt: metadata.attempt,
        image: config.image.map(name_of).unwrap_or_default(),
        image_id: image.clone(),
        log_path: config.log_path.clone(),
        tty: config.tty,
        stdin_once: config.stdin_once,
        mounts: config.mounts.iter().map(kept).collect(),
        stop_signal: signal.into(),
    };
    let (user, group) = identity(&context)?;
    let image_groups = match context.supplemental_groups_policy() {
        SupplementalGroupsPolicy::Merge => ImageGroups::All,
        SupplementalGroupsPolicy::Strict => ImageGroups::Primary,
    };
    let gids = context.supplemental_groups.iter().map(|gid| id("supplemental group", *gid));
    Ok(AddOptions {
        image,
        name: Some(own_id.app.to_string()),
        exec: Some(exec),
        args: words.collect(),
        env: config.envs.into_iter().map(variable).collect::<Result<_>>()?,
        user,
        group,
        supplementary_gids: gids.collect::<Result<_>>()?,
        image_groups: Some(image_groups),
        working_dir: Some(config.working_dir).filter(|dir| !dir.is_empty()),
        isolators,
        read_only_rootfs: context.readonly_rootfs,
        mounts,
        image_mounts,
        insecure: InsecureOptions {
            disable_paths: context.privileged,
            disable_capabilities: false,
            disable_seccomp: false,
        },
        stop_signal: signal_name(signal),
        // a call says how long; this is what counts if the pod ends
        stop_timeout: Some(Duration::from_secs(10)),
        streams: [if config.stdin { mode("stream") } else { mode("null") }, mode("stream"), mode("stream")],
        k8s_log_path: Some(config.log_path).filter(|path| !path.is_empty()),
        user_annotations: record::annotations(&record, &config.annotations)?,
        user_labels: record::labels(&config.labels),
        ..AddOptions::default()
    })
}

/// The name of a container's image: the user's, where the client asks for the image by its id.
fn name_of(image: ImageSpec) -> String {
    if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image }
}

fn variable(KeyValue { key, value }: KeyValue) -> Result<NameValue> {
    match String::from_utf8(value) {
        Ok(value) => Ok(NameValue::new(key, value)),
        Err(_) => Err(Fault::invalid(format!("the value of {key:?} is not UTF-8"))),
    }
}

/// A signal's name, such as `TERM` or `RTMIN+3`; `None` for the image's stop signal.
fn signal_name(signal: Signal) -> Option<String> {
    let name = signal.as_str_name().strip_prefix("SIGNAL_SIG").filter(|_| signal != Signal::RuntimeDefault)?;
    Some(name.replace("PLUS", "+").replace("MINUS", "-"))
}

/// The capabilities of a container: the default set with those added and without those dropped; all if it is
/// privileged. Those that are ambient are added, too.
fn capabilities(context: &LinuxContainerSecurityContext) -> Result<[Isolator; 2]> {
    const ALL: &str = "ALL";
    let Capability { add_capabilities: add, drop_capabilities: drop, add_ambient_capabilities: ambient } =
        context.capabilities.clone().unwrap_or_default();
    let parse = |names: &[String]| -> Result<CapSet> {
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
        if names.iter().any(|name| name == ALL) {
            return Ok(CapSet::ALL);
        }
        let full: Vec<String> =
            names.into_iter().map(|name| if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }).collect();
        CapSet::parse(full.iter().map(String::as_str))
            .map_err(|name| Fault::invalid(format!("{name:?} is not a capability")))
    };
    let has_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case(ALL));
    let set = match (context.privileged, has_all(&add), has_all(&drop)) {
        (true, ..) => CapSet::ALL,
        // a named capability takes precedence over ALL
        (_, true, false) => CapSet::ALL.without(parse(&drop)?),
        (_, _, true) => parse(&add)?,
        (_, false, false) => CapSet::app_default().or(parse(&add)?).without(parse(&drop)?),
    };
    let ambient = parse(&ambient)?;
    let of = |name: &str, set: CapSet| isolator(name, json!({ "set": set.names().collect::<Vec<_>>() }));
    Ok([of("os/linux/capabilities-retain-set", set.or(ambient)), of("os/linux/capabilities-ambient-set", ambient)])
}

/// The PID namespace, if that is not the pod's.
fn pid_namespace(
    context: &LinuxContainerSecurityContext,
    id: &ContainerId,
    has_hosts: bool,
) -> Result<Option<Isolator>> {
    let Some(options) = &context.namespace_options else { return Ok(None) };
    let word = match options.pid() {
        NamespaceMode::Pod => return Ok(None),
        NamespaceMode::Container => "private".to_owned(),
        NamespaceMode::Target => {
            let target = ContainerId::parse(&options.target_id).filter(|target| target.pod == id.pod);
            let target = target.ok_or_else(|| {
                Fault::invalid(format!("the target {:?} is not a container of the sandbox", options.target_id))
            })?;
            format!("app:{}", target.app)
        }
        NamespaceMode::Node if has_hosts => "host".to_owned(),
        NamespaceMode::Node => return Err(Fault::invalid("the sandbox does not have the host's PID namespace")),
    };
    Ok(Some(isolator("os/linux/pid-namespace", json!(word))))
}

/// Fails if the container asks for another user namespace than its sandbox's.
fn must_be_the_sandboxs(context: &LinuxContainerSecurityContext, users: Option<UidRange>) -> Result<()> {
    let asked = context.namespace_options.as_ref().filter(|options| options.userns_options.is_some());
    match asked.map(users::of_request).transpose()? {
        Some(asked) if asked != users => Err(Fault::invalid("the user namespace is not the sandbox's")),
        _ => Ok(()),
    }
}

/// The paths that are hidden or read-only besides those of the kernel, which no container sees unless it is privileged.
fn paths(context: &LinuxContainerSecurityContext) -> Vec<Isolator> {
    let lists =
        [("os/linux/masked-paths", &context.masked_paths), ("os/linux/read-only-paths", &context.readonly_paths)];
    let asked = lists.into_iter().filter(|(_, paths)| !paths.is_empty() && !context.privileged);
    asked.map(|(name, paths)| isolator(name, json!({ "set": paths }))).collect()
}

/// The filter of system calls: none, podctl's own (`None`), or one of the host's.
fn seccomp(context: &LinuxContainerSecurityContext) -> Result<Option<Isolator>> {
    const NONE: &str = "unconfined";
    #[allow(deprecated)]
    let old = context.seccomp_profile_path.as_str();
    let file = match &context.seccomp {
        _ if context.privileged => NONE,
        Some(profile) => match profile.profile_type() {
            ProfileType::RuntimeDefault => return Ok(None),
            ProfileType::Unconfined => NONE,
            ProfileType::Localhost => profile.localhost_ref.as_str(),
        },
        None if matches!(old, "" | NONE) => NONE,
        None if matches!(old, "runtime/default" | "docker/default") => return Ok(None),
        None => match old.strip_prefix("localhost/") {
            Some(file) => file,
            None => return Err(Fault::invalid(format!("seccomp profile {old:?} is of no kind that there is"))),
        },
    };
    if file != NONE && !file.starts_with('/') {
        return Err(Fault::invalid(format!("seccomp profile {file:?}: not an absolute path")));
    }
    let found = profile::isolator(Path::new(file));
    found.map(Some).map_err(|error| Fault::invalid(format!("seccomp profile {file:?}: {}", error.one_line())))
}

/// Refuses profiles of AppArmor, and labels of SELinux where the host has it: neither is set here. A host without SELinux
/// has no labels, and what is asked for means nothing there.
fn labels(context: &LinuxContainerSecurityContext) -> Result<()> {
    #[allow(deprecated)]
    let old = context.apparmor_profile.as_str();
    let profile = match &context.apparmor {
        Some(profile) if profile.profile_type() == ProfileType::Localhost => profile.localhost_ref.as_str(),
        None => old.strip_prefix("localhost/").unwrap_or_default(),
        Some(_) => "",
    };
    if !profile.is_empty() {
        let why = match Path::new("/sys/kernel/security/apparmor").exists() {
            true => "profiles of the host are not implemented yet",
            false => "AppArmor is not enabled on this host",
        };
        return Err(Fault::unimplemented(format!("AppArmor profile {profile:?}: {why}")));
    }
    let asked = context.selinux_options.as_ref().is_some_and(|options| *options != SeLinuxOption::default());
    if asked && Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(Fault::unimplemented("SELinux labels are not implemented yet"));
    }
    Ok(())
}

/// The user and the group; `None` for those of the image.
fn identity(context: &LinuxContainerSecurityContext) -> Result<(Option<String>, Option<String>)> {
    let name = Some(context.run_as_username.clone()).filter(|name| !name.is_empty());
    let user = match (&context.run_as_user, name) {
        (Some(_), Some(name)) => {
            return Err(Fault::invalid(format!(
                "run_as_user and run_as_username {name:?}: only one of them may be set"
            )));
        }
        (Some(uid), None) => Some(id("user", uid.value)?.to_string()),
        (None, name) => name,
    };
    let group = context.run_as_group.as_ref().map(|gid| id("group", gid.value)).transpose()?;
    match (&user, group) {
        (None, Some(_)) => Err(Fault::invalid("run_as_group needs run_as_user or run_as_username")),
        (_, group) => Ok((user, group.map(|gid| gid.to_string()))),
    }
}

fn id(what: &str, number: i64) -> Result<u32> {
    let number = u32::try_from(number).ok().filter(|number| *number != u32::MAX);
    number.ok_or_else(|| Fault::invalid(format!("{what}: out of range")))
}

/// The image that a mount shows; `None` for a path of the host.
fn image_of(mount: &Mount) -> Option<&ImageSpec> {
    mount.image.as_ref().filter(|spec| !spec.image.is_empty())
}

/// The mount of an image, whose id is known. Its files have the owners of the image, as the pod sees them.
fn image_mount(mount: &Mount, users: Option<UidRange>) -> Result<ImageMount> {
    let refused = |why: &str| Err(Fault::invalid(format!("mount of an image at {:?}: {why}", mount.container_path)));
    if is_mapped(mount) && users != Some(users::of_mappings(&mount.uid_mappings, &mount.gid_mappings)?) {
        return refused("the id mappings are not those of the sandbox");
    }
    if !mount.readonly {
        return refused("the files of an image are read-only, and readonly has to say so");
    }
    if !mount.host_path.is_empty() {
        return refused("host_path names another source");
    }
    if !mount.mount_options.is_empty() {
        return refused("mount options are not implemented yet");
    }
    if mount.propagation() != MountPropagation::PropagationPrivate {
        return refused("only private propagation applies to it");
    }
    if !mount.container_path.starts_with('/') {
        return refused("not an absolute path");
    }
    Ok(ImageMount {
        image: image_of(mount).map(|spec| spec.image_ref.clone()).unwrap_or_default(),
        path: mount.container_path.clone(),
        sub_path: Some(mount.image_sub_path.clone()).filter(|part| !part.is_empty()),
    })
}

/// Whether the mount has mappings of ids of its own.
fn is_mapped(mount: &Mount) -> bool {
    !(mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty())
}

/// A mount of the host's path `source` at `target` in the container.
struct Bind {
    source: String,
    target: String,
    read_only: bool,
    /// What is mounted below a read-only source stays as it is.
    below_as_it_is: bool,
    propagation: Option<Propagation>,
    /// The owners of its files are those on the host, also in a pod with ids of its own.
    host_ids: bool,
}

fn mount(mount: &Mount, users: Option<UidRange>, privileged: bool) -> Result<Bind> {
    let target = &mount.container_path;
    let shown = || format!("mount at {target:?}");
    if !mount.image_sub_path.is_empty() {
        return Err(Fault::invalid(format!("{}: image_sub_path goes with an image", shown())));
    }
    let host_ids = !is_mapped(mount);
    if !host_ids && users != Some(users::of_mappings(&mount.uid_mappings, &mount.gid_mappings)?) {
        return Err(Fault::invalid(format!("{}: the id mappings are not those of the sandbox", shown())));
    }
    if !mount.mount_options.is_empty() {
        return Err(Fault::unimplemented(format!("{}: mount options are not implemented yet", shown())));
    }
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::Slave,
        MountPropagation::PropagationBidirectional if !privileged => {
            return Err(Fault::invalid(format!("{}: bidirectional propagation takes a privileged container", shown())));
        }
        MountPropagation::PropagationBidirectional => Propagation::Shared,
    };
    if mount.recursive_read_only && !mount.readonly {
        return Err(Fault::invalid(format!("{}: recursive_read_only goes with readonly", shown())));
    }
    if mount.recursive_read_only && propagation != Propagation::Private {
        return Err(Fault::invalid(format!("{}: recursive_read_only goes with private propagation", shown())));
    }
    let below_as_it_is = mount.readonly && !mount.recursive_read_only;
    bind(&mount.host_path, target, mount.readonly)
        .map(|bind| Bind { below_as_it_is, propagation: Some(propagation), host_ids, ..bind })
        .map_err(|fault| Fault { message: format!("{}: {}", shown(), fault.message), ..fault })
}

/// A device node of the host. Of a directory, not even the devices in it are taken.
fn device(number: usize, device: &Device) -> Result<Bind> {
    let Device { container_path, host_path, permissions } = device;
    let refused = |field: &str, why: String| Fault::invalid(format!("devices[{number}].{field}: {why}"));
    let of_host = mounts::absolute(host_path).and_then(|source| mounts::is_device(&source));
    if !of_host.map_err(|error| refused("host_path", error.one_line()))? {
        return Err(refused(
            "host_path",
            format!("{host_path:?} is not a device; mounts are for files and directories"),
        ));
    }
    mounts::absolute(container_path).map_err(|error| refused("container_path", error.one_line()))?;
    if let Some(other) = permissions.chars().find(|letter| !"rwm".contains(*letter)) {
        return Err(refused("permissions", format!("{permissions:?}: {other:?} is not r, w or m")));
    }
    bind(host_path, container_path, !permissions.contains('w'))
}

fn bind(source: &str, target: &str, read_only: bool) -> Result<Bind> {
    if !source.starts_with('/') {
        return Err(Fault::invalid(format!("the host's path {source:?} is not absolute")));
    }
    if target.is_empty() {
        return Err(Fault::invalid("there is no path in the container"));
    }
    let (source, target) = (source.to_owned(), target.to_owned());
    Ok(Bind { source, target, read_only, below_as_it_is: false, propagation: None, host_ids: true })
}

/// The mount of an app for a path of the host. Makes a directory there if the path does not exist, as kubelets expect.
fn volume(number: usize, bind: Bind, users: Option<UidRange>) -> Result<appc::Mount> {
    let Bind { source, target, read_only, below_as_it_is, propagation, host_ids } = bind;
    if !Path::new(&source).try_exists().context(|| format!("stat {source:?}"))? {
        std::fs::create_dir_all(&source).context(|| format!("make directory {source:?}"))?;
    }
    let mount = mounts::host_named(format!("host-{number}").parse()?, &target, &source, read_only);
    let mount = mounts::with_ways(mount, propagation, below_as_it_is);
    Ok(if host_ids && users.is_some() { mounts::with_host_ids(mount) } else { mount })
}

fn kept(mount: &Mount) -> record::Mount {
    record::Mount {
        container_path: mount.container_path.clone(),
        host_path: mount.host_path.clone(),
        readonly: mount.readonly,
        propagation: mount.propagation,
        image: image_of(mount).map(|spec| (spec.image.clone(), spec.image_ref.clone())),
        image_sub_path: mount.image_sub_path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_nodes_of_the_host() {
        let of = |host_path: &str, container_path: &str, permissions: &str| {
            let (host_path, container_path) = (host_path.to_owned(), container_path.to_owned());
            device(2, &Device { host_path, container_path, permissions: permissions.to_owned() })
        };
        let own = tempfile::tempdir().unwrap();
        let link = own.path().join("link").display().to_string();
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let plain = own.path().join("plain").display().to_string();
        std::fs::write(&plain, "").unwrap();
        for (source, permissions, read_only) in
            [("/dev/null", "rwm", false), ("/dev/null", "w", false), (&link, "mr", true), ("/dev/null", "", true)]
        {
            let bind = of(source, "/dev/own", permissions).unwrap();
            assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.read_only), (source, "/dev/own", read_only));
        }
        for (source, target, permissions, why) in [
            (plain.as_str(), "/x", "rwm", format!("devices[2].host_path: {plain:?} is not a device")),
            ("/dev", "/x", "rwm", "devices[2].host_path: \"/dev\" is not a device".into()),
            ("/dev/none", "/x", "rwm", "devices[2].host_path: the device \"/dev/none\": No such file".into()),
            ("dev/null", "/x", "rwm", "devices[2].host_path: \"dev/null\" is not an absolute path".into()),
            ("/dev/null", "/etc/../../../q", "r", "devices[2].container_path: \"/etc/../../../q\" is not an".into()),
            ("/dev/null", "dev/x", "r", "devices[2].container_path: \"dev/x\" is not an absolute path".into()),
            ("/dev/null", "", "r", "devices[2].container_path: \"\" is not an absolute path".into()),
            ("/dev/null", "/x", "zz", "devices[2].permissions: \"zz\": 'z' is not r, w or m".into()),
        ] {
            let fault = of(source, target, permissions).map(|bind| bind.source).unwrap_err();
            assert_eq!(fault.code, tonic::Code::InvalidArgument, "{}", fault.message);
            assert!(fault.message.starts_with(&why), "{why}: {}", fault.message);
        }
    }
}
