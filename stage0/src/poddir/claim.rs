//! Giving a name to a new pod. No two pods of a data directory have the same name.

use std::fs::File;
use std::path::Path;

use stage1::error::{Error, Result};

use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::name::PodName;
use crate::store::Store;

/// Fails if a pod has this name. Without the lock of names this is only an early check; [`give`] checks again.
///
/// # Errors
/// A pod has the name, or the pods can't be read.
pub fn must_be_free(store: &Store, wanted: &PodName) -> Result<()> {
    let Some(pod) = pods::named(store, wanted.as_str())?.filter(Pod::keeps_its_name) else {
        return Ok(());
    };
    let (short, state) = (pod.digits(), pod.state().word());
    let remedy = match pod.state() {
        State::Running => format!("\"podctl stop {wanted}\", then \"podctl rm {wanted}\" free it"),
        State::Embryo | State::Preparing => "another podctl makes that pod at this moment".to_owned(),
        State::Deleting => "try again when that pod is gone".to_owned(),
        _ => format!("\"podctl rm {wanted}\" frees it"),
    };
    Err(Error::new(format!("the name {wanted} is that of pod {short}, which is {state}; {remedy}")))
}

/// Gives a pod its name by writing it to the pod's directory `pod`. This process must hold the pod, in phase `prepare`.
///
/// # Errors
/// Another pod has the name, the lock of names can't be taken, or the name can't be written.
pub fn give(store: &Store, pod: &Path, wanted: &PodName) -> Result<()> {
    // held until the name is written, where others see it
    let _lock: File = store.lock_pod_names()?;
    must_be_free(store, wanted)?;
    wanted.note(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poddir::name;
    use crate::poddir::phase::{HeldPod, Phase};

    #[test]
    fn a_name_is_given_once_and_freed_with_its_pod() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let web: PodName = "web".parse().unwrap();
        let mut first = HeldPod::create(&store).unwrap();
        give(&store, first.dir(), &web).unwrap();
        let second = HeldPod::create(&store).unwrap();
        let error = give(&store, second.dir(), &web).unwrap_err().one_line();
        assert!(error.contains("web") && error.contains(&first.uuid().to_string()[..8]), "{error}");
        assert!(error.contains("another podctl makes that pod") && !error.contains("rm"), "{error}");
        assert_eq!(name::of(second.dir()).unwrap(), None);
        assert_eq!(pods::find(&store, "web").unwrap().uuid(), first.uuid());

        // a pod thrown away without having run leaves its name
        let uuid = first.uuid();
        first.move_to(&store, Phase::Prepared).unwrap();
        must_be_free(&store, &web).unwrap_err();
        first.move_to(&store, Phase::Garbage).unwrap();
        drop(first);
        give(&store, second.dir(), &web).unwrap();
        assert_eq!(pods::find(&store, "web").unwrap().uuid(), second.uuid());
        assert_eq!(pods::find(&store, &uuid.to_string()).unwrap().uuid(), uuid);
    }

    #[test]
    fn a_name_means_its_pod_before_another_pods_uuid() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::open(base.path()).unwrap();
        let (first, second) = (HeldPod::create(&store).unwrap(), HeldPod::create(&store).unwrap());
        let prefix = first.uuid().to_string()[..4].to_owned();
        assert_eq!(pods::find(&store, &prefix).unwrap().uuid(), first.uuid());
        give(&store, second.dir(), &prefix.parse().unwrap()).unwrap();
        assert_eq!(pods::find(&store, &prefix).unwrap().uuid(), second.uuid());
        assert_eq!(pods::find(&store, &first.uuid().to_string()).unwrap().uuid(), first.uuid());
    }
}
