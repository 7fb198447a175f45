//! What every call works with: the data directory, and how pods are made here.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stage0::entrypoint::bundled_image;
use stage0::image::store::Image;
use stage0::store::Store;

use crate::fault::{Fault, Result};

/// What every call works with. Nothing in it is more than this process's own: the truth is in the store.
#[derive(Debug)]
pub struct Node {
    /// Images and pods.
    pub store: Store,
    /// The directory that has configurations of networks in `net.d`, besides CNI's own.
    pub local_config: PathBuf,
    /// Entrypoints say more.
    pub debug: bool,
    /// Pods' processes that this process has started, and has to reap.
    children: Mutex<Vec<Child>>,
    /// What is just being made, by what Kubernetes calls it.
    making: Mutex<BTreeSet<String>>,
}

impl Node {
    /// Over this store.
    pub fn new(store: Store, local_config: PathBuf, debug: bool) -> Self {
        Self { store, local_config, debug, children: Mutex::default(), making: Mutex::default() }
    }

    /// The stage1 image that pods are made with.
    ///
    /// # Errors
    /// None is built in, or it can't be taken into the store.
    pub fn stage1(&self) -> Result<Image> {
        // one at a time: two that import it at once would do so twice
        let _one = guard(&self.making);
        Ok(bundled_image::get(&self.store, None)?)
    }

    /// Keeps a pod's process, until it has ended.
    pub fn keep(&self, child: Child) {
        guard(&self.children).push(child);
    }

    /// Reaps the processes that have ended.
    pub fn reap(&self) {
        guard(&self.children).retain_mut(|child| match child.try_wait() {
            Ok(ended) => ended.is_none(),
            Err(error) => {
                log::warn!("wait for process {}: {error}", child.id());
                false
            }
        });
    }

    /// Says that something is being made, until the mark is dropped.
    ///
    /// # Errors
    /// Another call is at it.
    pub fn begin(&self, what: String) -> Result<Mark<'_>> {
        if !guard(&self.making).insert(what.clone()) {
            return Err(Fault::not_now(format!("another call is just making {what}")));
        }
        Ok(Mark { node: self, what })
    }
}

/// Something is being made.
#[derive(Debug)]
pub struct Mark<'a> {
    node: &'a Node,
    what: String,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        guard(&self.node.making).remove(&self.what);
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_at_a_time_makes_a_thing() {
        let base = std::env::temp_dir();
        let node = Node::new(Store::open(&base.join("no-such-store")).unwrap(), base, false);
        let first = node.begin("sandbox a".into()).unwrap();
        assert_eq!(node.begin("sandbox a".into()).unwrap_err().code, tonic::Code::FailedPrecondition);
        node.begin("sandbox b".into()).unwrap();
        drop(first);
        node.begin("sandbox a".into()).unwrap();
    }
}
