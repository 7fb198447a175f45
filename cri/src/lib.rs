//! The Kubernetes runtime: CRI v1 over pods, apps and images of the host manager.
//!
//! A sandbox is a mutable pod, a container is an app in it. The server stores nothing else: the manifests have what
//! Kubernetes says of them, and each call reads the rest from the pods' directories. So the server may be killed at any
//! moment, and the next one answers the same.

// From the bottom up: each uses those above it in this list, never those below.
pub mod api;

pub mod fault;

pub mod id;

pub mod limits;

pub mod record;

pub mod rates;

pub mod node;

pub mod sandbox;

pub mod container;

pub mod stop_sandbox;

pub mod image;

pub mod disk;

pub mod usage;

pub mod pressure;

pub mod stats;

pub mod metrics;

pub mod pods;

pub mod events;

pub mod status;

pub mod stream;

pub mod serve;
