//! A connection with the streams that the client opens over it

use std::collections::HashMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::broken::{Broken, Result};
use super::frame::{self, Frame, Reader};
use super::headers::{Deflater, Headers};

/// The most streams of a connection at a time.
const MOST: usize = 256;
/// The most pieces of a stream that are buffered for its reader; then the connection waits.
const HELD: usize = 16;
/// The time between pings: writing one fails if the peer has gone.
const PING: Duration = Duration::from_secs(30);
/// The id of our pings; a server's ids are even.
const OUR_PING: u32 = 2;
/// Timeout for the peer to close the connection after we have sent all.
const LINGER: Duration = Duration::from_secs(5);

/// A stream that the peer has opened.
#[derive(Debug)]
pub struct Opened {
    /// The stream's id.
    pub id: u32,
    /// The headers that the peer opened it with.
    pub headers: Headers,
    /// Receives the peer's data until the peer ends its side.
    pub data: mpsc::Receiver<Vec<u8>>,
}

/// Writes to the streams of a connection.
#[derive(Clone, Debug)]
pub struct Writer(mpsc::Sender<Vec<u8>>);

/// The error that the peer has disconnected.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl Writer {
    /// Writes to a stream.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn data(&self, stream: u32, bytes: &[u8]) -> std::result::Result<(), Gone> {
        self.0.send(frame::data(stream, bytes, false)).await.map_err(|_| Gone)
    }

    /// Ends our side of a stream.
    ///
    /// # Errors
    /// The peer is gone.
    pub async fn end(&self, stream: u32) -> std::result::Result<(), Gone> {
        self.0.send(frame::data(stream, &[], true)).await.map_err(|_| Gone)
    }
}

/// Serves a connection until the peer disconnects or the receiver of `streams` is dropped; sends the streams that the
/// peer opens to `streams`.
///
/// When the last [`Writer`] is dropped, the peer has some time to close the connection.
pub async fn speak(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    streams: mpsc::Sender<Opened>,
) -> (Writer, tokio::task::JoinHandle<()>) {
    let (reading, mut writing) = tokio::io::split(io);
    let (frames, mut written) = mpsc::channel::<Vec<u8>>(HELD);
    let (answers, mut answered) = mpsc::channel::<Vec<u8>>(HELD);
    let listening = tokio::spawn(async move {
        if let Err(Broken(what)) = listen(Reader::new(reading), &streams, &answers).await {
            log::debug!("a client's stream: it has sent {what}");
        }
    });
    let talking = tokio::spawn(async move {
        let mut listening = listening;
        let mut ticks = tokio::time::interval(PING);
        ticks.tick().await;
        loop {
            let bytes = tokio::select! {
                biased;
                Some(bytes) = answered.recv() => bytes,
                bytes = written.recv() => match bytes {
                    Some(bytes) => bytes,
                    None => break,
                },
                _ = ticks.tick() => frame::ping(OUR_PING),
                _ = &mut listening => return,
            };
            if writing.write_all(&bytes).await.is_err() {
                listening.abort();
                return;
            }
        }
        // the peer should close first, so that it has read all
        if writing.flush().await.is_err() || tokio::time::timeout(LINGER, &mut listening).await.is_err() {
            listening.abort();
        }
    });
    (Writer(frames), talking)
}

/// Handles the peer's frames.
async fn listen(
    mut reader: Reader<impl AsyncRead + Unpin>,
    streams: &mpsc::Sender<Opened>,
    answers: &mpsc::Sender<Vec<u8>>,
) -> Result<()> {
    let mut deflater = Deflater::default();
    let mut open: HashMap<u32, mpsc::Sender<Vec<u8>>> = HashMap::new();
    while let Some(frame) = reader.next().await? {
        let answer = match frame {
            Frame::Open { stream, headers, ended } => {
                if stream.is_multiple_of(2) || open.contains_key(&stream) {
                    return Err(Broken("a stream whose number is not a new one of its"));
                }
                open.retain(|_, data| !data.is_closed());
                if open.len() >= MOST {
                    Some(frame::refuse(stream))
                } else {
                    let (sender, data) = mpsc::channel(HELD);
                    if !ended {
                        open.insert(stream, sender);
                    }
                    // the reply must precede data of the stream
                    if answers.send(frame::reply(stream, &deflater.none())).await.is_err()
                        || streams.send(Opened { id: stream, headers, data }).await.is_err()
                    {
                        return Ok(());
                    }
                    None
                }
            }
            Frame::Data { stream, bytes, ended } => {
                if let Some(data) = open.get(&stream)
                    && !bytes.is_empty()
                {
                    // a reader that has gone loses the rest
                    let _ = data.send(bytes).await;
                }
                if ended {
                    open.remove(&stream);
                }
                None
            }
            Frame::Reset { stream } => {
                open.remove(&stream);
                None
            }
            Frame::Ping { id } => (id % 2 == 1).then(|| frame::ping(id)),
            Frame::GoAway | Frame::Other => None,
        };
        if let Some(answer) = answer
            && answers.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::headers::value;
    use super::*;
    use tokio::io::AsyncReadExt;

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// A real client's first frames: it opens three streams, writes to one and ends it, and sends a ping.
    #[test]
    fn a_client_opens_streams_and_is_answered() {
        let client = "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff\
             800300010000001700000003000000000000c22e555c92929907000000ffff\
             800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff\
             000000030000000568656c6c6f0000000301000000800300060000000400000001";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut here, there) = tokio::io::duplex(64 << 10);
            let (sender, mut streams) = mpsc::channel(8);
            let (writer, talking) = speak(there, sender).await;
            here.write_all(&bytes(client)).await.unwrap();
            let mut opened = Vec::new();
            for kind in ["error", "stdin", "stdout"] {
                let stream = streams.recv().await.unwrap();
                assert_eq!(value(&stream.headers, "streamtype"), Some(kind));
                opened.push(stream);
            }
            assert_eq!(opened[1].data.recv().await, Some(b"hello".to_vec()));
            assert_eq!(opened[1].data.recv().await, None, "its side has ended");
            writer.data(5, b"out").await.unwrap();
            writer.end(5).await.unwrap();
            drop(writer);
            let said = [frame::data(5, b"out", false), frame::data(5, b"", true)].concat();
            let mut answer = Vec::new();
            let has = |answer: &[u8], part: &[u8]| answer.windows(part.len()).any(|window| window == part);
            while !has(&answer, &said) || !has(&answer, &frame::ping(1)) {
                assert!(here.read_buf(&mut answer).await.unwrap() > 0, "{answer:x?}");
            }
            assert!(answer.starts_with(&frame::reply(1, &Deflater::default().none())), "{answer:x?}");
            drop(here);
            talking.await.unwrap();
            assert!(streams.recv().await.is_none(), "it is gone");
        });
    }

    #[test]
    fn a_stream_has_a_number_of_its_own() {
        let twice = "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff\
             800300010000001700000001000000000000c22e555c92929907000000ffff";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (mut here, there) = tokio::io::duplex(64 << 10);
            let (sender, mut streams) = mpsc::channel(8);
            let (_writer, _) = speak(there, sender).await;
            here.write_all(&bytes(twice)).await.unwrap();
            assert!(streams.recv().await.is_some());
            assert!(streams.recv().await.is_none());
        });
    }
}
