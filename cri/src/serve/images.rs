//! The image service: runs the function of each call in a thread for blocking work

use std::sync::Arc;

use tonic::{Request, Response, Status, async_trait};

use super::blocking::blocking;
use super::listening::{Answers, pieces};
use crate::api::image_service_server::ImageService;
use crate::api::*;
use crate::node::Node;
use crate::{disk, image};

/// The image service of a node.
#[derive(Clone, Debug)]
pub(super) struct Images(pub(super) Arc<Node>);

#[async_trait]
impl ImageService for Images {
    async fn list_images(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        blocking(&self.0, request, |node, request| image::list(node, &request)).await
    }

    async fn image_status(
        &self,
        request: Request<ImageStatusRequest>,
    ) -> Result<Response<ImageStatusResponse>, Status> {
        blocking(&self.0, request, |node, request| image::status(node, &request)).await
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        blocking(&self.0, request, image::pull).await
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        blocking(&self.0, request, |node, request| image::remove(node, &request)).await
    }

    async fn image_fs_info(
        &self,
        request: Request<ImageFsInfoRequest>,
    ) -> Result<Response<ImageFsInfoResponse>, Status> {
        blocking(&self.0, request, |node, _| disk::info(node)).await
    }

    type StreamImagesStream = Answers<StreamImagesResponse>;

    async fn stream_images(
        &self,
        request: Request<StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        let work = |node: &Node, request: StreamImagesRequest| {
            Ok(image::list(node, &ListImagesRequest { filter: request.filter })?.images)
        };
        pieces(&self.0, request, work, |images| StreamImagesResponse { images }).await
    }
}
