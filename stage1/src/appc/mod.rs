//! appc's names, manifests and isolators (appc 0.8.11): pure data.

mod health;
mod isolator;
mod manifest;
mod name;
mod pod_manifest;
pub mod quantity;
mod validate;

pub use health::*;
pub use isolator::{CapabilitySet, Isolators, Resource, SeccompSet, SetMode};
pub use manifest::*;
pub use name::{AcIdentifier, AcName};
pub use pod_manifest::*;
