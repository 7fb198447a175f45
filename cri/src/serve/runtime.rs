//! The runtime service: runs the function of each call in a thread for blocking work

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::blocking::{absent, blocking};
use super::listening::{Answers, events, pieces};
use crate::api::runtime_service_server::RuntimeService;
use crate::api::*;
use crate::node::Node;
use crate::stream::{self, Streams};
use crate::{container, metrics, pods, sandbox, stats, status, stop_sandbox};

/// The runtime service of a node.
#[derive(Clone, Debug)]
pub(super) struct Runtime {
    pub(super) node: Arc<Node>,
    pub(super) streams: Arc<Streams>,
}

#[async_trait]
impl RuntimeService for Runtime {
    async fn version(&self, request: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
        blocking(&self.node, request, |_, _| Ok(status::version())).await
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        blocking(&self.node, request, |node, request| status::status(node, &request)).await
    }

    async fn runtime_config(
        &self,
        request: Request<RuntimeConfigRequest>,
    ) -> Result<Response<RuntimeConfigResponse>, Status> {
        blocking(&self.node, request, |_, _| Ok(status::runtime_config())).await
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Result<Response<UpdateRuntimeConfigResponse>, Status> {
        blocking(&self.node, request, |_, _| Ok(UpdateRuntimeConfigResponse {})).await
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<RunPodSandboxRequest>,
    ) -> Result<Response<RunPodSandboxResponse>, Status> {
        blocking(&self.node, request, sandbox::run::run).await
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<StopPodSandboxRequest>,
    ) -> Result<Response<StopPodSandboxResponse>, Status> {
        blocking(&self.node, request, |node, request| stop_sandbox::stop(node, &request)).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<RemovePodSandboxRequest>,
    ) -> Result<Response<RemovePodSandboxResponse>, Status> {
        blocking(&self.node, request, |node, request| stop_sandbox::remove(node, &request)).await
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<PodSandboxStatusRequest>,
    ) -> Result<Response<PodSandboxStatusResponse>, Status> {
        blocking(&self.node, request, pods::status).await
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<ListPodSandboxRequest>,
    ) -> Result<Response<ListPodSandboxResponse>, Status> {
        blocking(&self.node, request, sandbox::state::list).await
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        blocking(&self.node, request, container::create::create).await
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<StartContainerResponse>, Status> {
        blocking(&self.node, request, |node, request| container::life::start(node, &request)).await
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<StopContainerResponse>, Status> {
        blocking(&self.node, request, |node, request| container::life::stop(node, &request)).await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        blocking(&self.node, request, |node, request| container::life::remove(node, &request)).await
    }

    async fn list_containers(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        blocking(&self.node, request, container::state::list).await
    }

    async fn container_status(
        &self,
        request: Request<ContainerStatusRequest>,
    ) -> Result<Response<ContainerStatusResponse>, Status> {
        blocking(&self.node, request, |node, request| container::state::status(node, &request)).await
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Result<Response<UpdateContainerResourcesResponse>, Status> {
        blocking(&self.node, request, |node, request| container::resources::change(node, &request)).await
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Result<Response<ReopenContainerLogResponse>, Status> {
        blocking(&self.node, request, |node, request| container::life::reopen_log(node, &request)).await
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Result<Response<ExecSyncResponse>, Status> {
        blocking(&self.node, request, |node, request| container::exec::sync(node, &request)).await
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Result<Response<ExecResponse>, Status> {
        let streams = Arc::clone(&self.streams);
        blocking(&self.node, request, move |node, request| stream::exec(node, &streams, &request)).await
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<AttachResponse>, Status> {
        let streams = Arc::clone(&self.streams);
        blocking(&self.node, request, move |node, request| stream::attach(node, &streams, &request)).await
    }

    async fn port_forward(
        &self,
        request: Request<PortForwardRequest>,
    ) -> Result<Response<PortForwardResponse>, Status> {
        let streams = Arc::clone(&self.streams);
        blocking(&self.node, request, move |node, request| stream::port_forward(node, &streams, &request)).await
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Result<Response<ContainerStatsResponse>, Status> {
        blocking(&self.node, request, |node, request| stats::container(node, &request)).await
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Result<Response<ListContainerStatsResponse>, Status> {
        blocking(&self.node, request, stats::containers).await
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<PodSandboxStatsRequest>,
    ) -> Result<Response<PodSandboxStatsResponse>, Status> {
        blocking(&self.node, request, |node, request| pods::stats(node, &request)).await
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Result<Response<ListPodSandboxStatsResponse>, Status> {
        blocking(&self.node, request, pods::all_stats).await
    }

    async fn checkpoint_container(
        &self,
        _: Request<CheckpointContainerRequest>,
    ) -> Result<Response<CheckpointContainerResponse>, Status> {
        absent("CheckpointContainer")
    }

    async fn checkpoint_pod(
        &self,
        _: Request<CheckpointPodRequest>,
    ) -> Result<Response<CheckpointPodResponse>, Status> {
        absent("CheckpointPod")
    }

    async fn restore_pod(&self, _: Request<RestorePodRequest>) -> Result<Response<RestorePodResponse>, Status> {
        absent("RestorePod")
    }

    async fn list_metric_descriptors(
        &self,
        request: Request<ListMetricDescriptorsRequest>,
    ) -> Result<Response<ListMetricDescriptorsResponse>, Status> {
        blocking(&self.node, request, |_, _| Ok(metrics::descriptors())).await
    }

    async fn list_pod_sandbox_metrics(
        &self,
        request: Request<ListPodSandboxMetricsRequest>,
    ) -> Result<Response<ListPodSandboxMetricsResponse>, Status> {
        blocking(&self.node, request, |node, _| metrics::list(node)).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<UpdatePodSandboxResourcesResponse>, Status> {
        blocking(&self.node, request, sandbox::resources::change).await
    }

    type StreamPodSandboxesStream = Answers<StreamPodSandboxesResponse>;

    async fn stream_pod_sandboxes(
        &self,
        request: Request<StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        let work = |node: &Node, request: StreamPodSandboxesRequest| {
            Ok(sandbox::state::list(node, ListPodSandboxRequest { filter: request.filter })?.items)
        };
        pieces(&self.node, request, work, |pod_sandboxes| StreamPodSandboxesResponse { pod_sandboxes }).await
    }

    type StreamContainersStream = Answers<StreamContainersResponse>;

    async fn stream_containers(
        &self,
        request: Request<StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        let work = |node: &Node, request: StreamContainersRequest| {
            Ok(container::state::list(node, ListContainersRequest { filter: request.filter })?.containers)
        };
        pieces(&self.node, request, work, |containers| StreamContainersResponse { containers }).await
    }

    type StreamContainerStatsStream = Answers<StreamContainerStatsResponse>;

    async fn stream_container_stats(
        &self,
        request: Request<StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        let work = |node: &Node, request: StreamContainerStatsRequest| {
            Ok(stats::containers(node, ListContainerStatsRequest { filter: request.filter })?.stats)
        };
        pieces(&self.node, request, work, |container_stats| StreamContainerStatsResponse { container_stats }).await
    }

    type StreamPodSandboxStatsStream = Answers<StreamPodSandboxStatsResponse>;

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        let work = |node: &Node, request: StreamPodSandboxStatsRequest| {
            Ok(pods::all_stats(node, ListPodSandboxStatsRequest { filter: request.filter })?.stats)
        };
        pieces(&self.node, request, work, |pod_sandbox_stats| StreamPodSandboxStatsResponse { pod_sandbox_stats }).await
    }

    type StreamPodSandboxMetricsStream = Answers<StreamPodSandboxMetricsResponse>;

    async fn stream_pod_sandbox_metrics(
        &self,
        request: Request<StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        let work = |node: &Node, _: StreamPodSandboxMetricsRequest| Ok(metrics::list(node)?.pod_metrics);
        pieces(&self.node, request, work, |pod_sandbox_metrics| StreamPodSandboxMetricsResponse { pod_sandbox_metrics })
            .await
    }

    type GetContainerEventsStream = Answers<ContainerEventResponse>;

    async fn get_container_events(
        &self,
        request: Request<GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        events(&self.node, request).await
    }
}
