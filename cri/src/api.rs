//! The API's messages and services, made from `proto/api.proto` when this crate is built.
//!
//! The description is that of Kubernetes' cri-api (Apache License 2.0), as it is.

#![allow(missing_docs, clippy::all, rustdoc::all)]

tonic::include_proto!("runtime.v1");
