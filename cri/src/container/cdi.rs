//! Devices of CDI that a container is to have

use stage0::cdi::{self, Additions};

use crate::api::ContainerConfig;
use crate::fault::{Fault, Result};
use crate::node::Node;

/// The start of the names of annotations that name devices, as plugins of kubelets before Kubernetes 1.28 write them.
const PREFIX: &str = "cdi.k8s.io/";

/// What the devices of a request add to the container.
///
/// # Errors
/// As [`cdi::resolve`].
pub(super) fn additions(node: &Node, config: &ContainerConfig) -> Result<Additions> {
    cdi::resolve(&node.cdi_directories, &names(config)).map_err(|error| Fault::invalid(error.one_line()))
}

/// The names of the devices, each once: those of the field, then those of the annotations.
fn names(config: &ContainerConfig) -> Vec<String> {
    let fields = config.cdi_devices.iter().map(|device| device.name.clone());
    let mut annotations: Vec<_> = config.annotations.iter().filter(|(key, _)| key.starts_with(PREFIX)).collect();
    annotations.sort();
    let annotated = annotations.into_iter().flat_map(|(_, names)| names.split(',').map(str::to_owned));
    let mut found = Vec::new();
    for name in fields.chain(annotated) {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CdiDevice;

    #[test]
    fn devices_are_named_by_the_field_and_by_annotations() {
        let config = ContainerConfig {
            cdi_devices: vec![CdiDevice { name: "a/b=2".into() }, CdiDevice { name: "a/b=1".into() }],
            annotations: [("cdi.k8s.io/z", "a/b=0"), ("cdi.k8s.io/a", "a/b=3,a/b=1"), ("other", "a/b=9")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            ..ContainerConfig::default()
        };
        assert_eq!(names(&config), ["a/b=2", "a/b=1", "a/b=3", "a/b=0"]);
        assert!(names(&ContainerConfig::default()).is_empty());
    }
}
