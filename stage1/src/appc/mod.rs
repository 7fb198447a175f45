//! Names, manifests and isolators of appc 0.8.11. Pure data: nothing here reads files.

mod health;
mod isolator;
mod manifest;
mod name;
mod pod_manifest;
pub mod quantity;
mod validate;

pub use health::*;
pub use isolator::{CapabilitySet, Isolators, PidNamespace, Resource, SeccompProgram, SeccompSet, SetMode};
pub use manifest::*;
pub use name::{AcIdentifier, AcName};
pub use pod_manifest::*;
