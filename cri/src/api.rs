//! The messages and services of the Container Runtime Interface, generated from `proto/api.proto` at build time.
//!
//! The file is an unchanged copy of `runtime.v1` of Kubernetes' cri-api (Apache License 2.0).

#![allow(missing_docs, clippy::all, rustdoc::all)]

tonic::include_proto!("runtime.v1");
