//! Events of containers (`GetContainerEvents`): found by comparing the pods from time to time, so that nothing is
//! stored.
//!
//! After a restart the server reports what happens from then on; a client that reconnects lists the containers for what
//! happened meanwhile.

use std::collections::BTreeMap;

use crate::api::{ContainerEventResponse, ContainerEventType, ContainerState, ContainerStatus, PodSandboxStatus};
use crate::container::state;
use crate::fault::Result;
use crate::node::Node;
use crate::sandbox;

/// The sandboxes and containers that existed at one moment, by their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Picture(BTreeMap<String, Pod>);

#[derive(Clone, Debug, Default, PartialEq)]
struct Pod {
    status: PodSandboxStatus,
    containers: BTreeMap<String, ContainerStatus>,
}

impl Picture {
    /// Reads all sandboxes and containers. One that can't be read is left out: it is being removed.
    ///
    /// # Errors
    /// The pods can't be listed.
    pub fn take(node: &Node) -> Result<Self> {
        let mut pods = BTreeMap::new();
        for sandbox in sandbox::all(node)? {
            let read = sandbox::state::describe(&sandbox).and_then(|status| Ok((status, state::of(&sandbox)?)));
            match read {
                Ok((status, containers)) => {
                    let containers = containers.into_iter().map(|one| (one.id.clone(), one)).collect();
                    pods.insert(sandbox.id(), Pod { status, containers });
                }
                Err(fault) => log::debug!("sandbox {}: {}", sandbox.id(), fault.message),
            }
        }
        Ok(Self(pods))
    }

    /// The events since `before`, in order for each sandbox and container. `now` is in nanoseconds since 1970, for
    /// events whose time is unknown.
    pub fn since(&self, before: &Self, now: i64) -> Vec<ContainerEventResponse> {
        let mut events = Vec::new();
        let none = Pod::default();
        let ids: std::collections::BTreeSet<&String> = before.0.keys().chain(self.0.keys()).collect();
        for id in ids {
            let (old, new) = (before.0.get(id), self.0.get(id));
            let told = new.or(old).unwrap_or(&none);
            let mut tell = |what: &str, kind: ContainerEventType, at: i64| {
                events.push(ContainerEventResponse {
                    container_id: what.to_owned(),
                    container_event_type: kind.into(),
                    created_at: if at > 0 { at } else { now },
                    pod_sandbox_status: Some(told.status.clone()),
                    containers_statuses: told.containers.values().cloned().collect(),
                });
            };
            let ready = |pod: Option<&Pod>| pod.is_some_and(|pod| pod.status.state == 0);
            // sandboxes have events, too
            if old.is_none() {
                tell(id, ContainerEventType::ContainerCreatedEvent, told.status.created_at);
            }
            if ready(new) && !ready(old) {
                tell(id, ContainerEventType::ContainerStartedEvent, 0);
            }
            let containers = |pod: Option<&Pod>| pod.map(|pod| pod.containers.clone()).unwrap_or_default();
            let (olds, news) = (containers(old), containers(new));
            let all: std::collections::BTreeSet<&String> = olds.keys().chain(news.keys()).collect();
            for container in all {
                for (kind, at) in changes(olds.get(container), news.get(container)) {
                    tell(container, kind, at);
                }
            }
            if ready(old) && !ready(new) {
                tell(id, ContainerEventType::ContainerStoppedEvent, 0);
            }
            if new.is_none() {
                tell(id, ContainerEventType::ContainerDeletedEvent, 0);
            }
        }
        events
    }
}

/// The events of a container between two moments, with their times in nanoseconds since 1970; 0 if unknown.
fn changes(old: Option<&ContainerStatus>, new: Option<&ContainerStatus>) -> Vec<(ContainerEventType, i64)> {
    use ContainerEventType::{
        ContainerCreatedEvent, ContainerDeletedEvent, ContainerStartedEvent, ContainerStoppedEvent,
    };
    let step = |status: Option<&ContainerStatus>| match status.map(ContainerStatus::state) {
        None => 0,
        Some(ContainerState::ContainerRunning) => 2,
        Some(ContainerState::ContainerExited) => 3,
        Some(_) => 1,
    };
    let (from, to) = (step(old), if new.is_none() { 4 } else { step(new) });
    let now = new.or(old).cloned().unwrap_or_default();
    let ran = now.started_at > 0;
    let all = [
        (1, ContainerCreatedEvent, now.created_at, true),
        (2, ContainerStartedEvent, now.started_at, ran),
        // a container that was removed while it ran was stopped first
        (3, ContainerStoppedEvent, now.finished_at, ran),
        (4, ContainerDeletedEvent, 0, true),
    ];
    let passed = all.into_iter().filter(|(number, _, _, happened)| from < *number && *number <= to && *happened);
    passed.map(|(_, kind, at, _)| (kind, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: ContainerState, [created_at, started_at, finished_at]: [i64; 3]) -> ContainerStatus {
        ContainerStatus { state: state.into(), created_at, started_at, finished_at, ..Default::default() }
    }

    fn picture(containers: &[(&str, ContainerStatus)], state: i32) -> Picture {
        let containers = containers.iter().map(|(id, status)| ((*id).to_owned(), status.clone())).collect();
        let pod = Pod { status: PodSandboxStatus { state, created_at: 1, ..Default::default() }, containers };
        Picture([("p".to_owned(), pod)].into())
    }

    fn told(new: &Picture, old: &Picture) -> Vec<(String, i32, i64)> {
        let all = new.since(old, 99).into_iter();
        all.map(|event| (event.container_id, event.container_event_type, event.created_at)).collect()
    }

    #[test]
    fn every_step_is_told_in_order() {
        let created = picture(&[("c", status(ContainerState::ContainerCreated, [5, 0, 0]))], 0);
        let running = picture(&[("c", status(ContainerState::ContainerRunning, [5, 6, 0]))], 0);
        let ended = picture(&[("c", status(ContainerState::ContainerExited, [5, 6, 7]))], 0);
        let stopped = picture(&[("c", status(ContainerState::ContainerExited, [5, 6, 7]))], 1);
        let event = |id: &str, kind, at| (id.to_owned(), kind, at);
        let none = Picture::default();
        assert_eq!(told(&created, &none), [event("p", 0, 1), event("p", 1, 99), event("c", 0, 5)]);
        assert_eq!(told(&running, &created), [event("c", 1, 6)]);
        assert_eq!(told(&ended, &created), [event("c", 1, 6), event("c", 2, 7)], "what was too short to be seen");
        assert_eq!(told(&stopped, &ended), [event("p", 2, 99)]);
        assert_eq!(told(&none, &stopped), [event("c", 3, 99), event("p", 3, 99)]);
        assert!(told(&ended, &ended).is_empty());
        // one that never ran is not stopped
        assert_eq!(told(&picture(&[], 0), &created), [event("c", 3, 99)]);
    }
}
