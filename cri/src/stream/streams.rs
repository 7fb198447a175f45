//! The streams of a command over SPDY: the client opens a SPDY stream for each, and names its kind in the headers.

use std::collections::HashMap;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::session::{Ended, Inner, OPENING, Outer, Size, Wanted, ends};
use super::spdy::{self, Gone, Opened, Writer};

/// The protocols, the newest first. From v4 on the end is a `Status`, from v3 on there is a stream for the terminal's
/// size.
pub const PROTOCOLS: [&str; 5] =
    ["v5.channel.k8s.io", "v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// The longest message with a terminal's size that the server accepts, in bytes.
const LONGEST_SIZE: usize = 4096;

/// Connects `work` to the client's streams, and sends the client its result.
pub async fn serve<S, F>(io: S, protocol: &str, wanted: Wanted, work: impl FnOnce(Inner) -> F)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    F: Future<Output = Ended> + Send + 'static,
{
    let (sender, mut opened) = mpsc::channel(8);
    let (writer, speaking) = spdy::speak(io, sender).await;
    let expected = expected(protocol, wanted);
    match timeout(OPENING, collect(&mut opened, &expected)).await {
        Ok(Some(streams)) => {
            let (inner, outer) = ends();
            let ended = tokio::spawn(work(inner));
            // `opened` stays in use: further streams are ignored, and the end of the connection is noticed
            if carry(streams, outer, opened, &writer, ended, protocol).await.is_err() {
                log::debug!("a client has gone before it was told the end");
            }
        }
        Ok(None) => log::debug!("a client has gone before it had opened its streams"),
        Err(_) => log::debug!("a client has not opened its streams in time"),
    }
    drop(writer);
    let _ = speaking.await;
}

/// The kinds of streams that the client must open before the work begins.
fn expected(protocol: &str, wanted: Wanted) -> Vec<&'static str> {
    let has_sizes = !matches!(protocol, "v2.channel.k8s.io" | "channel.k8s.io");
    let all = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr && !wanted.tty),
        ("resize", wanted.tty && has_sizes),
    ];
    all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect()
}

/// Waits until the client has opened all of them; `None` if it disconnects. Ignores other streams.
async fn collect(opened: &mut mpsc::Receiver<Opened>, expected: &[&'static str]) -> Option<HashMap<String, Opened>> {
    let mut found = HashMap::new();
    while !expected.iter().all(|name| found.contains_key(*name)) {
        let stream = opened.recv().await?;
        let kind = spdy::value(&stream.headers, "streamtype").unwrap_or_default().to_owned();
        if expected.contains(&kind.as_str()) {
            found.entry(kind).or_insert(stream);
        }
    }
    Some(found)
}

async fn carry(
    mut streams: HashMap<String, Opened>,
    outer: Outer,
    mut opened: mpsc::Receiver<Opened>,
    writer: &Writer,
    mut working: tokio::task::JoinHandle<Ended>,
    protocol: &str,
) -> Result<(), Gone> {
    let Outer { stdin, size, here, outputs: [stdout, stderr] } = outer;
    let id = |name: &str| streams.get(name).map(|stream| stream.id);
    let ids = [id("stdout"), id("stderr")];
    let (error, input) = (id("error"), id("stdin"));
    let typing = streams.remove("stdin").map(|mut stream| {
        tokio::spawn(async move {
            while let Some(bytes) = stream.data.recv().await {
                if let Some(stdin) = &stdin {
                    let _ = stdin.send(bytes).await;
                }
            }
        })
    });
    let sizes = streams.remove("resize").map(|mut stream| {
        tokio::spawn(async move {
            let mut text = Vec::new();
            while let Some(bytes) = stream.data.recv().await {
                text.extend(bytes);
                let mut values = serde_json::Deserializer::from_slice(&text).into_iter::<Size>();
                let last = values.by_ref().map_while(Result::ok).last();
                let read = values.byte_offset();
                text.drain(..read);
                if let Some(last) = last {
                    size.send_replace(Some(last));
                }
                if text.len() > LONGEST_SIZE {
                    return;
                }
            }
        })
    });
    let outputs = async {
        let [out, err] = [(ids[0], stdout), (ids[1], stderr)].map(|(id, from)| pass(writer, id, from));
        let (out, err) = tokio::join!(out, err);
        out.and(err)
    };
    let leaving = async { while opened.recv().await.is_some() {} };
    let mut here = Some(here);
    let result = {
        tokio::pin!(outputs, leaving);
        let (mut copied, mut ended) = (None, None);
        while copied.is_none() || ended.is_none() {
            tokio::select! {
                result = &mut outputs, if copied.is_none() => copied = Some(result),
                result = &mut working, if ended.is_none() => ended = Some(result),
                () = &mut leaving, if here.is_some() => here = None,
            }
        }
        (copied.unwrap_or(Ok(())), ended)
    };
    for task in [typing, sizes].into_iter().flatten() {
        task.abort();
    }
    result.0?;
    let ended = match result.1 {
        Some(Ok(ended)) => ended,
        Some(Err(error)) => Ended::Failed(error.to_string()),
        None => Ended::Code(0),
    };
    let has_status = matches!(protocol, "v5.channel.k8s.io" | "v4.channel.k8s.io");
    let last = if has_status { ended.status() } else { ended.words() };
    if let Some(error) = error {
        if !last.is_empty() {
            writer.data(error, &last).await?;
        }
        writer.end(error).await?;
    }
    for stream in [input, id_of(&ids, 0), id_of(&ids, 1)].into_iter().flatten() {
        writer.end(stream).await?;
    }
    Ok(())
}

fn id_of(ids: &[Option<u32>; 2], number: usize) -> Option<u32> {
    ids[number]
}

/// Passes the output on to a stream until it ends.
async fn pass(writer: &Writer, stream: Option<u32>, mut from: mpsc::Receiver<Vec<u8>>) -> Result<(), Gone> {
    let mut result = Ok(());
    while let Some(bytes) = from.recv().await {
        if let (Some(stream), Ok(())) = (stream, result) {
            result = writer.data(stream, &bytes).await;
        }
    }
    result
}
