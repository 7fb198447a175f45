//! The node: the state that every call works with

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

use stage0::cdi::DIRECTORIES;
use stage0::entrypoint::bundled_image;
use stage0::image::store::Image;
use stage0::store::Store;

use crate::fault::{Fault, Result};
use crate::rates::Rates;

/// The store and the settings of the server. All lasting state is in the store.
#[derive(Debug)]
pub struct Node {
    /// The data directory, with images and pods.
    pub store: Store,
    /// The directory whose `net.d` has network configurations, in addition to CNI's own directory.
    pub local_config: PathBuf,
    /// The directories with files of CDI.
    pub cdi_directories: Vec<PathBuf>,
    /// Whether the entrypoints log debug messages.
    pub debug: bool,
    /// The address of the server's own metrics; `None` if it serves none.
    pub metrics: Option<SocketAddr>,
    /// The latest readings of processor time.
    pub rates: Rates,
    /// The processes of pods that this process has started and must reap.
    children: Mutex<Vec<Child>>,
    /// The sandboxes and containers that calls are making, by name.
    making: Mutex<BTreeSet<String>>,
}

impl Node {
    /// A node with this store, and the usual directories of CDI.
    pub fn new(store: Store, local_config: PathBuf, debug: bool) -> Self {
        Self {
            store,
            local_config,
            cdi_directories: DIRECTORIES.map(PathBuf::from).to_vec(),
            debug,
            metrics: None,
            rates: Rates::default(),
            children: Mutex::default(),
            making: Mutex::default(),
        }
    }

    /// The stage1 image for new pods: the built-in one, which is imported if the store lacks it.
    ///
    /// # Errors
    /// No image is built in, or it can't be imported.
    pub fn stage1(&self) -> Result<Image> {
        // one call at a time: two at once would both import it
        let _one = guard(&self.making);
        Ok(bundled_image::get(&self.store, None)?)
    }

    /// Keeps the child process of a pod for [`Self::reap`].
    pub fn keep(&self, child: Child) {
        guard(&self.children).push(child);
    }

    /// Reaps the child processes that have ended.
    pub fn reap(&self) {
        guard(&self.children).retain_mut(|child| match child.try_wait() {
            Ok(ended) => ended.is_none(),
            Err(error) => {
                log::warn!("wait for process {}: {error}", child.id());
                false
            }
        });
    }

    /// Marks a sandbox or container as being made until the mark is dropped.
    ///
    /// # Errors
    /// Another call is making it.
    pub fn begin(&self, what: String) -> Result<Mark<'_>> {
        if !guard(&self.making).insert(what.clone()) {
            return Err(Fault::not_now(format!("another call is making {what}")));
        }
        Ok(Mark { node: self, what })
    }
}

/// Marks a sandbox or container as being made: [`Node::begin`].
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
