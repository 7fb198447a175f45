//! The server: a socket, HTTP/2, and the two services.

mod blocking;
mod counts;
mod dispatch;
mod images;
mod listening;
mod runtime;

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::{TokioExecutor, TokioIo};
use stage0::cli::CriService;
use stage1::error::{Context, Error, Result};
use tokio::net::{TcpListener, UnixListener, UnixStream};

use self::dispatch::Services;
use crate::node::Node;
use crate::sandbox;
use crate::stream::{self, Streams};

/// The most calls that run at once; others wait.
const BLOCKING: usize = 256;
/// How often child processes of pods are reaped.
const REAP: Duration = Duration::from_secs(1);
/// How often unfinished pods are removed.
const SWEEP: Duration = Duration::from_secs(60);
/// How long the children of a killed server may have its socket, and the time between two looks at it.
const INHERITED: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// The wait after a connection could not be accepted: for lack of descriptors, which others give back.
const REST: Duration = Duration::from_millis(100);

/// Serves until the process ends.
///
/// # Errors
/// A socket can't be made, or the pods can't be listed.
pub fn serve(service: CriService) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(BLOCKING)
        .build()
        .context(|| "start the runtime of tasks")?;
    let CriService { store, listen, stream, metrics, local_config, cdi_directories, debug } = service;
    let mut node = Node::new(store, local_config, debug);
    node.cdi_directories = cdi_directories;
    runtime.block_on(async {
        let listener = bind(&listen)?;
        let (streaming, address) = listen_at(stream).await?;
        let (measuring, metrics) = listen_at(metrics).await?;
        node.metrics = metrics;
        let node = Arc::new(node);
        // before the first call is answered
        sandbox::sweep::sweep(&node, true).map_err(|fault| Error::new(fault.message))?;
        tokio::spawn(reap(Arc::clone(&node)));
        tokio::spawn(sweep(Arc::clone(&node)));
        let streams = Arc::new(Streams::new(address));
        if let Some(listener) = streaming {
            tokio::spawn(stream::serve(listener, Arc::clone(&node), Arc::clone(&streams)));
        }
        if let Some(listener) = measuring {
            tokio::spawn(counts::serve(listener, Arc::clone(&node)));
        }
        let services = Services::new(node, streams);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, services.clone()))),
                Err(error) => {
                    log::warn!("accept a connection: {error}");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    })
}

/// Listens at the address, if given; returns also the actual address, with the port that the kernel chose for 0.
async fn listen_at(address: Option<SocketAddr>) -> Result<(Option<TcpListener>, Option<SocketAddr>)> {
    let Some(address) = address else { return Ok((None, None)) };
    let shown = || format!("listen at {address}");
    let listener = TcpListener::bind(address).await.context(shown)?;
    let real = listener.local_addr().context(shown)?;
    Ok((Some(listener), Some(real)))
}

/// Makes the socket, accessible for root only. Replaces a socket that no process listens at.
///
/// A child that a killed server has just forked has the server's socket until it executes its program, so a socket that
/// is in use is looked at again for [`INHERITED`].
fn bind(path: &Path) -> Result<UnixListener> {
    let shown = || format!("listen at {path:?}");
    if path.symlink_metadata().is_ok_and(|stat| stat.file_type().is_socket()) {
        let end = Instant::now() + INHERITED;
        while std::os::unix::net::UnixStream::connect(path).is_ok() {
            if Instant::now() > end {
                return Err(Error::new(format!("{}: another process does", shown())));
            }
            std::thread::sleep(LOOK);
        }
        std::fs::remove_file(path).context(shown)?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(shown)?;
    }
    let listener = UnixListener::bind(path).context(shown)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).context(shown)?;
    Ok(listener)
}

/// Serves one connection.
async fn converse(stream: UnixStream, services: Services) {
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    if let Err(error) = server.serve_connection(TokioIo::new(stream), services).await {
        log::debug!("a connection: {error}");
    }
}

async fn sweep(node: Arc<Node>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let node = Arc::clone(&node);
        let swept = tokio::task::spawn_blocking(move || sandbox::sweep::sweep(&node, false)).await;
        if let Ok(Err(fault)) = swept {
            log::warn!("remove unfinished pods: {}", fault.message);
        }
    }
}

async fn reap(node: Arc<Node>) {
    loop {
        tokio::time::sleep(REAP).await;
        node.reap();
    }
}
