//! The runtime itself: its version, conditions, features and configuration.

use serde_json::json;

use crate::api::{
    CgroupDriver, LinuxRuntimeConfiguration, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures, RuntimeHandler,
    RuntimeHandlerFeatures, RuntimeStatus, StatusRequest, StatusResponse, VersionResponse,
};
use crate::fault::Result;
use crate::node::Node;
use crate::sandbox;

/// The runtime's name.
const NAME: &str = "podctl";
/// The version of the CRI that it implements.
const API: &str = "v1";

/// `Version`: the runtime's name and versions.
pub fn version() -> VersionResponse {
    VersionResponse {
        // the version of the kubelet's runtime API, which has never changed
        version: "0.1.0".into(),
        runtime_name: NAME.into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: API.into(),
    }
}

/// `Status`: whether pods can be run, as conditions.
///
/// # Errors
/// Never: every failure is a condition.
pub fn status(node: &Node, request: &StatusRequest) -> Result<StatusResponse> {
    let condition = |kind: &str, why: Option<(&str, String)>| {
        let (reason, message) = why.map(|(reason, message)| (reason.to_owned(), message)).unwrap_or_default();
        RuntimeCondition { r#type: kind.into(), status: reason.is_empty(), reason, message }
    };
    let stage1 = node.stage1().err().map(|fault| ("NoStage1Image", fault.message));
    let network = match sandbox::state::network(node) {
        Ok(Some(_)) => None,
        Ok(None) => Some(("NoNetworkConfiguration", "there is no CNI configuration in /etc/cni/net.d".to_owned())),
        Err(fault) => Some(("BadNetworkConfiguration", fault.message)),
    };
    let info = json!({ "dataDirectory": node.store.dir(), "network": sandbox::state::network(node).ok().flatten(), "metrics": node.metrics });
    Ok(StatusResponse {
        status: Some(RuntimeStatus {
            conditions: vec![condition("RuntimeReady", stage1), condition("NetworkReady", network)],
        }),
        info: request.verbose.then(|| ("config".to_owned(), info.to_string())).into_iter().collect(),
        runtime_handlers: vec![RuntimeHandler {
            name: String::new(),
            features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true }),
        }],
        features: Some(RuntimeFeatures {
            supplemental_groups_policy: true,
            user_namespaces_host_network: false,
            mount_options: false,
        }),
    })
}

/// `RuntimeConfig`: the cgroup driver.
pub fn runtime_config() -> RuntimeConfigResponse {
    // pods' cgroups are named as the host's PID 1 names its own
    let is_systemd = std::path::Path::new("/run/systemd/system").is_dir();
    let driver = if is_systemd { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
    RuntimeConfigResponse { linux: Some(LinuxRuntimeConfiguration { cgroup_driver: driver.into() }) }
}
