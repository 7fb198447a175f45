//! Running `podctl cri`, and calling it as a kubelet does.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::task::{Context, Poll};

use ::cri::api::image_service_client::ImageServiceClient;
use ::cri::api::runtime_service_client::RuntimeServiceClient;
use ::cri::api::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatus, ContainerStatusRequest,
    CreateContainerRequest, ExecSyncRequest, ExecSyncResponse, ImageSpec, LinuxPodSandboxConfig,
    LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RunPodSandboxRequest, StartContainerRequest, VersionRequest, VersionResponse,
};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tonic::body::Body;
use tonic::{Response, Status};
use tower_service::Service;

pub use ::cri::api;

use crate::podctl::Podctl;
use crate::process::wait_for;

/// The origin of calls in HTTP/2, which the server ignores.
const ORIGIN: &str = "http://cri";

/// The server, killed when this is dropped.
#[derive(Debug)]
pub struct Server<'a> {
    podctl: &'a Podctl,
    options: Vec<String>,
    socket: PathBuf,
    process: Mutex<Child>,
}

impl<'a> Server<'a> {
    /// Starts the server and waits until it accepts connections.
    #[track_caller]
    pub fn start(podctl: &'a Podctl, options: &[&str]) -> Self {
        let socket = podctl.data.with_file_name("cri.sock");
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(podctl, &options, &socket);
        Self { podctl, options, socket, process: Mutex::new(process) }
    }

    /// Kills the server and reaps it.
    pub fn kill(&self) {
        let mut process = self.process.lock().expect("the server");
        process.kill().expect("kill the server");
        process.wait().expect("wait for the server");
    }

    /// Kills the server while other threads use this value; it is reaped later.
    pub fn signal_kill(&self) {
        let pid = nix::unistd::Pid::from_raw(self.process.lock().expect("the server").id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("kill the server");
    }

    /// Kills it and starts another one.
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        *self.process.lock().expect("the server") = spawn(self.podctl, &self.options, &self.socket);
    }

    /// Calls the runtime service.
    ///
    /// # Errors
    /// What the server answers.
    pub fn runtime<A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        call: impl FnOnce(RuntimeServiceClient<Channel>) -> F,
    ) -> Result<A, Status> {
        self::call(&self.socket, |channel| {
            call(RuntimeServiceClient::with_origin(channel, http::Uri::from_static(ORIGIN)))
        })
    }

    /// Calls the image service.
    ///
    /// # Errors
    /// What the server answers.
    pub fn images<A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        call: impl FnOnce(ImageServiceClient<Channel>) -> F,
    ) -> Result<A, Status> {
        self::call(&self.socket, |channel| {
            call(ImageServiceClient::with_origin(channel, http::Uri::from_static(ORIGIN)))
        })
    }

    /// Calls the runtime service in a thread of its own, until that ends.
    pub fn listen<F>(&self, call: impl FnOnce(RuntimeServiceClient<Channel>) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), Status>>,
    {
        let socket = self.socket.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("tokio");
            runtime.block_on(async {
                let stream = tokio::net::UnixStream::connect(&socket).await.expect("connect");
                let conversation = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
                let (sender, connection) = conversation.await.expect("a connection");
                tokio::spawn(connection);
                let client = RuntimeServiceClient::with_origin(Channel(sender), http::Uri::from_static(ORIGIN));
                // it ends with the server, or with who listens
                if let Err(status) = call(client).await {
                    println!("a stream has ended: {status}");
                }
            });
        });
    }

    /// Runs a sandbox; its id.
    #[track_caller]
    pub fn sandbox(&self, config: &PodSandboxConfig) -> String {
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.runtime(|mut client| async move { client.run_pod_sandbox(request).await })
            .expect("a sandbox")
            .pod_sandbox_id
    }

    /// Creates a container of the probe image; its id.
    #[track_caller]
    pub fn container(&self, sandbox: &str, config: ContainerConfig) -> String {
        self.try_container(sandbox, config).expect("a container")
    }

    /// Creates a container; this may fail.
    ///
    /// # Errors
    /// What the server answers.
    pub fn try_container(&self, sandbox: &str, config: ContainerConfig) -> Result<String, Status> {
        let request =
            CreateContainerRequest { pod_sandbox_id: sandbox.to_owned(), config: Some(config), sandbox_config: None };
        let made = self.runtime(|mut client| async move { client.create_container(request).await })?;
        Ok(made.container_id)
    }

    /// Starts a container.
    #[track_caller]
    pub fn start_container(&self, container: &str) {
        let request = StartContainerRequest { container_id: container.to_owned() };
        self.runtime(|mut client| async move { client.start_container(request).await }).expect("a start");
    }

    /// The status of a container.
    ///
    /// # Errors
    /// What the server answers.
    pub fn status(&self, container: &str) -> Result<ContainerStatus, Status> {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
        let answer = self.runtime(|mut client| async move { client.container_status(request).await })?;
        Ok(answer.status.expect("a status"))
    }

    /// Waits until a container has ended; returns its status.
    #[track_caller]
    pub fn end_of(&self, container: &str) -> ContainerStatus {
        wait_for("the container's end", 20, || {
            let status = self.status(container).expect("a status");
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
    }

    /// Creates and starts a container, and waits for its end.
    #[track_caller]
    pub fn run(&self, sandbox: &str, config: ContainerConfig) -> ContainerStatus {
        let container = self.container(sandbox, config);
        self.start_container(&container);
        self.end_of(&container)
    }

    /// Runs a command in a container.
    ///
    /// # Errors
    /// What the server answers.
    pub fn exec(&self, container: &str, words: &[&str], timeout: i64) -> Result<ExecSyncResponse, Status> {
        let cmd = words.iter().map(|&word| word.to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.to_owned(), cmd, timeout };
        self.runtime(|mut client| async move { client.exec_sync(request).await })
    }
}

#[track_caller]
fn spawn(podctl: &Podctl, options: &[String], socket: &Path) -> Child {
    let listen = format!("--listen=unix://{}", socket.display());
    let mut words = vec!["cri", listen.as_str()];
    words.extend(options.iter().map(String::as_str));
    let process = podctl.command(&words).stdin(Stdio::null()).spawn().expect("start podctl cri");
    // A child that the last server had just forked may still hold its socket: a connection proves nothing, an answer does.
    wait_for("the server", 30, || call(socket, version).ok());
    process
}

/// Makes one call over a new connection.
fn call<A, F: Future<Output = Result<Response<A>, Status>>>(
    socket: &Path,
    call: impl FnOnce(Channel) -> F,
) -> Result<A, Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("tokio");
    runtime.block_on(async {
        // A test may have killed the server.
        let gone = |error: &dyn std::error::Error| Status::unavailable(error.to_string());
        let stream = tokio::net::UnixStream::connect(socket).await.map_err(|error| gone(&error))?;
        let conversation = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = conversation.map_err(|error| gone(&error))?;
        tokio::spawn(connection);
        call(Channel(sender)).await.map(Response::into_inner)
    })
}

async fn version(channel: Channel) -> Result<Response<VersionResponse>, Status> {
    let mut client = RuntimeServiceClient::with_origin(channel, http::Uri::from_static(ORIGIN));
    client.version(VersionRequest::default()).await
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        // Fails if the test has killed the server already.
        if let Ok(process) = self.process.get_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Channel(SendRequest<Body>);

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A sandbox on the host's network, with this name.
pub fn sandbox(name: &str) -> PodSandboxConfig {
    let namespaces = NamespaceOption { network: NamespaceMode::Node.into(), ..NamespaceOption::default() };
    let context = LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: format!("{name}-host"),
        linux: Some(LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() }),
        ..Default::default()
    }
}

/// A container of the probe image that does these actions.
pub fn probe(name: &str, actions: &[&str]) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: "probe".to_owned(), ..Default::default() }),
        args: actions.iter().map(|&action| action.to_owned()).collect(),
        ..Default::default()
    }
}
