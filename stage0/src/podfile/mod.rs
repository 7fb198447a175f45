//! Pod files: Kubernetes' `Pod`, with ConfigMaps, Secrets and claims, translated to the options of the command line,
//! compared with the running pod, and applied.
//!
//! The pod is the only state: an app is unchanged if the pod's manifest lists it as the file describes it.
//!
//! [`yaml`] reads YAML, [`read`] its objects, [`names`] only the names that `down` needs; [`pod`], [`container`],
//! [`mod@env`], [`security`] and [`volumes`] translate from the file alone. [`made_outside`] makes what is outside of a
//! pod, [`apply`] makes or changes the pod, under [`up_lock`], and [`generate`] writes a file from a pod; [`left_out`]
//! tells what that file can't say.

pub mod apply;
mod change;
mod container;
mod env;
pub mod generate;
mod hooks;
mod left_out;
mod made_outside;
pub mod names;
mod origin;
pub mod plan;
mod pod;
mod probes;
mod quantities;
pub mod read;
mod security;
pub mod service;
mod sources;
pub mod unit;
mod unused;
mod up_lock;
mod volumes;
mod yaml;
