//! A pod as a file: Kubernetes' `Pod` and what goes with it, turned into the options that the command line has, compared
//! with the pod that runs, and applied.
//!
//! There is no state besides the pod itself: an app is unchanged when the manifest lists it as the file asks for it.
//!
//! [`read`] knows YAML; [`pod`], [`container`], [`mod@env`], [`security`] and [`volumes`] translate, without looking at
//! anything but the file; [`apply`] does the work, and [`generate`] goes the other way.

pub mod apply;
mod change;
mod container;
mod env;
pub mod generate;
pub mod keep;
pub mod plan;
mod pod;
mod probes;
pub mod read;
mod security;
mod sources;
pub mod unit;
mod unused;
mod volumes;
