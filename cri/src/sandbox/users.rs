//! The user namespace that a request asks for.

use stage1::uid_range::UidRange;

use crate::api::{IdMapping, NamespaceMode, NamespaceOption, UserNamespace};
use crate::fault::{Fault, Result};

/// The host ids of the pod's own user namespace; `None` if it has the host's.
///
/// # Errors
/// The options make no sense, or the pod shares another namespace with the host, which its own users may not use.
pub fn of_request(options: &NamespaceOption) -> Result<Option<UidRange>> {
    let Some(users) = &options.userns_options else { return Ok(None) };
    match users.mode() {
        NamespaceMode::Node if users.uids.is_empty() && users.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(Fault::invalid("user namespace NODE: the host's ids take no mapping")),
        NamespaceMode::Container | NamespaceMode::Target => {
            Err(Fault::invalid(format!("user namespace {}: there are POD and NODE", users.mode().as_str_name())))
        }
        NamespaceMode::Pod => {
            let shared = [("network", options.network()), ("PID", options.pid()), ("IPC", options.ipc())];
            if let Some((name, _)) = shared.iter().find(|(_, mode)| *mode == NamespaceMode::Node) {
                return Err(Fault::invalid(format!("user namespace POD: the pod has the host's {name} namespace")));
            }
            of_mappings(&users.uids, &users.gids).map(Some)
        }
    }
}

/// The range of the mappings of users and of groups: one each, the same, from id 0 of the pod.
///
/// # Errors
/// The mappings are others.
pub fn of_mappings(uids: &[IdMapping], gids: &[IdMapping]) -> Result<UidRange> {
    let ([mapping], true) = (uids, uids == gids) else {
        return Err(Fault::invalid(format!(
            "id mappings: expected one of users and the same of groups, but there are {} of users and {} of groups",
            uids.len(),
            gids.len()
        )));
    };
    let IdMapping { host_id, container_id, length } = *mapping;
    if container_id != 0 {
        return Err(Fault::invalid(format!("id mappings: the first id in the pod is {container_id}, not 0")));
    }
    format!("{host_id}:{length}")
        .parse()
        .map_err(|_| Fault::invalid(format!("id mappings: {length} ids from {host_id} are not a range of ids")))
}

/// The options for a range, as the API says it.
pub fn described(ids: UidRange) -> UserNamespace {
    let mappings = vec![IdMapping { host_id: ids.first, container_id: 0, length: ids.count }];
    UserNamespace { mode: NamespaceMode::Pod.into(), uids: mappings.clone(), gids: mappings }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_for_users_and_groups() {
        let ids = UidRange { first: 1000, count: 100_000 };
        let options = |users| NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
        assert_eq!(of_request(&options(described(ids))).unwrap(), Some(ids));
        assert_eq!(of_request(&NamespaceOption::default()).unwrap(), None);
        let mode = |mode: NamespaceMode| UserNamespace { mode: mode.into(), ..UserNamespace::default() };
        assert_eq!(of_request(&options(mode(NamespaceMode::Node))).unwrap(), None);
        let map = |host_id, container_id, length| IdMapping { host_id, container_id, length };
        let with = |uids: &[IdMapping], gids: &[IdMapping]| UserNamespace {
            uids: uids.to_vec(),
            gids: gids.to_vec(),
            ..mode(NamespaceMode::Pod)
        };
        let good = map(1000, 0, 65536);
        for (users, why) in [
            (mode(NamespaceMode::Container), "CONTAINER"),
            (mode(NamespaceMode::Target), "TARGET"),
            (mode(NamespaceMode::Pod), "0 of users"),
            (UserNamespace { uids: vec![good], ..mode(NamespaceMode::Node) }, "no mapping"),
            (with(&[good, map(2000, 0, 5)], &[good, map(2000, 0, 5)]), "2 of users"),
            (with(&[good], &[map(2000, 0, 65536)]), "the same of groups"),
            (with(&[map(1000, 1, 5)], &[map(1000, 1, 5)]), "not 0"),
            (with(&[map(1000, 0, 0)], &[map(1000, 0, 0)]), "not a range"),
            (with(&[map(u32::MAX, 0, 2)], &[map(u32::MAX, 0, 2)]), "not a range"),
        ] {
            let fault = of_request(&options(users)).unwrap_err();
            assert!(fault.code == tonic::Code::InvalidArgument && fault.message.contains(why), "{}", fault.message);
        }
        let host = NamespaceOption { network: NamespaceMode::Node.into(), ..options(described(ids)) };
        assert!(of_request(&host).unwrap_err().message.contains("host's network namespace"));
    }
}
