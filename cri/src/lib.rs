//! The Kubernetes runtime: CRI v1 over pods, apps and images of the host manager.
//!
//! A sandbox is a mutable pod, a container is an app in it. There is no state but theirs: what Kubernetes calls them is in
//! the manifests, everything else is read from the pods' directories for each call. So the server may be killed at any
//! moment, and the next one answers the same.

// From the bottom up: each uses those above it in this list, never those below.
pub mod api;

pub mod fault;

pub mod id;

pub mod record;

pub mod node;

pub mod sandbox;

pub mod container;

pub mod ending;

pub mod image;

pub mod disk;

pub mod stats;

pub mod status;

pub mod serve;
