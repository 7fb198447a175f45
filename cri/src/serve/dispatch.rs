//! Dispatches a request to a service by its path

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::Service;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service as _;

use super::images::Images;
use super::runtime::Runtime;
use crate::api::image_service_server::ImageServiceServer;
use crate::api::runtime_service_server::RuntimeServiceServer;
use crate::node::Node;
use crate::stream::Streams;

/// Both services.
#[derive(Clone)]
pub(super) struct Services {
    runtime: RuntimeServiceServer<Runtime>,
    images: ImageServiceServer<Images>,
}

impl Services {
    pub(super) fn new(node: Arc<Node>, streams: Arc<Streams>) -> Self {
        Self {
            runtime: RuntimeServiceServer::new(Runtime { node: Arc::clone(&node), streams }),
            images: ImageServiceServer::new(Images(node)),
        }
    }
}

impl Service<Request<Incoming>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
        match service {
            RuntimeServiceServer::<Runtime>::NAME => self.runtime.clone().call(request),
            ImageServiceServer::<Images>::NAME => self.images.clone().call(request),
            other => {
                let status = tonic::Status::unimplemented(format!("there is no service {other:?}"));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}
