//! Frames of SPDY/3.1, as far as streams need them. Frames of the peer have a limited length.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::broken::{Broken, Result};
use super::headers::{Headers, Inflater};

/// The longest control frame that we accept, in bytes.
const LONGEST_CONTROL: usize = 64 << 10;
/// The most bytes of a data frame that are read at once.
const PIECE: usize = 16 << 10;
/// The first two bytes of a control frame: the control bit and the version.
const VERSION_3: u16 = 0x8003;
/// The flag of a stream's last frame.
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// A frame of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// SYN_STREAM: the peer opens a stream; with `ended`, it sends no data.
    Open { stream: u32, headers: Headers, ended: bool },
    /// Data of a stream, or a part of a long frame; with `ended`, the peer's last data.
    Data { stream: u32, bytes: Vec<u8>, ended: bool },
    /// RST_STREAM: the peer aborts a stream.
    Reset { stream: u32 },
    /// PING: a ping of the peer, to be sent back, or the answer to ours.
    Ping { id: u32 },
    /// GOAWAY: the peer opens no more streams.
    GoAway,
    /// A frame that needs no action, such as SETTINGS or WINDOW_UPDATE.
    Other,
}

/// Reads frames.
pub(super) struct Reader<R> {
    from: R,
    inflater: Inflater,
    /// Of a data frame that was read in part: the stream, whether the frame is its last one, and the bytes left.
    within: Option<(u32, bool, usize)>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, inflater: Inflater::new(), within: None }
    }

    /// Reads the next frame; `None` at the end of the connection.
    ///
    /// # Errors
    /// The frame is malformed or too long, or the connection broke within it.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>> {
        if let Some((stream, last, rest)) = self.within.take() {
            return self.piece(stream, last, rest).await.map(Some);
        }
        let mut head = [0; 8];
        // the peer may disconnect between two frames
        if self.from.read(&mut head[..1]).await.unwrap_or(0) == 0 {
            return Ok(None);
        }
        self.exactly(&mut head[1..]).await?;
        let [a, b, c, d, flags, lengths @ ..] = head;
        let length = u32::from_be_bytes([0, lengths[0], lengths[1], lengths[2]]) as usize;
        if a & 0x80 == 0 {
            let stream = u32::from_be_bytes([a, b, c, d]);
            return self.piece(stream, flags & FIN != 0, length).await.map(Some);
        }
        if u16::from_be_bytes([a, b]) != VERSION_3 {
            return Err(Broken("another version of SPDY than 3"));
        }
        if length > LONGEST_CONTROL {
            return Err(Broken("a control frame that is too long"));
        }
        let mut body = vec![0; length];
        self.exactly(&mut body).await?;
        self.control(u16::from_be_bytes([c, d]), flags, &body).map(Some)
    }

    async fn exactly(&mut self, into: &mut [u8]) -> Result<()> {
        self.from.read_exact(into).await.map(drop).map_err(|_| Broken("a connection that ends within a frame"))
    }

    async fn piece(&mut self, stream: u32, last: bool, length: usize) -> Result<Frame> {
        let mut bytes = vec![0; length.min(PIECE)];
        self.exactly(&mut bytes).await?;
        let rest = length - bytes.len();
        if rest > 0 {
            self.within = Some((stream, last, rest));
        }
        Ok(Frame::Data { stream, bytes, ended: last && rest == 0 })
    }

    fn control(&mut self, kind: u16, flags: u8, body: &[u8]) -> Result<Frame> {
        let number = || {
            let first = body.first_chunk::<4>().ok_or(Broken("a control frame that is too short"))?;
            Ok(u32::from_be_bytes(*first) & 0x7fff_ffff)
        };
        Ok(match kind {
            SYN_STREAM => {
                let stream = number()?;
                // skip the associated stream, the priority and the slot
                let block = body.get(10..).ok_or(Broken("a control frame that is too short"))?;
                // also for a stream that will be refused: later blocks refer to this one
                let headers = self.inflater.headers(block)?;
                Frame::Open { stream, headers, ended: flags & FIN != 0 }
            }
            RST_STREAM => Frame::Reset { stream: number()? },
            PING => {
                let first = body.first_chunk::<4>().ok_or(Broken("a control frame that is too short"))?;
                Frame::Ping { id: u32::from_be_bytes(*first) }
            }
            GOAWAY => Frame::GoAway,
            // later blocks may refer to the headers of this one
            8 | SYN_REPLY => {
                let block = body.get(4..).ok_or(Broken("a control frame that is too short"))?;
                self.inflater.headers(block)?;
                Frame::Other
            }
            _ => Frame::Other,
        })
    }
}

/// Makes a control frame.
fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut out = [VERSION_3.to_be_bytes(), kind.to_be_bytes()].concat();
    out.extend(u32::try_from(body.len()).unwrap_or_default().to_be_bytes());
    out.extend(body);
    out
}

/// Makes a SYN_REPLY with this block of headers.
pub(super) fn reply(stream: u32, headers: &[u8]) -> Vec<u8> {
    control(SYN_REPLY, &[&stream.to_be_bytes(), headers].concat())
}

/// Makes a RST_STREAM with REFUSED_STREAM.
pub(super) fn refuse(stream: u32) -> Vec<u8> {
    control(RST_STREAM, &[stream.to_be_bytes(), 3u32.to_be_bytes()].concat())
}

/// Makes a PING, or the answer to one.
pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, &id.to_be_bytes())
}

/// Makes a data frame; with `end`, the stream's last one. `bytes` must be shorter than 16 MiB.
pub(super) fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
    let mut out = stream.to_be_bytes().to_vec();
    let length = u32::try_from(bytes.len()).unwrap_or_default() & 0x00ff_ffff;
    out.extend((length | u32::from(end) << 24).to_be_bytes());
    out.extend(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All frames, and the error after them.
    fn read(bytes: &[u8]) -> (Vec<Frame>, Option<Broken>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut reader = Reader::new(bytes);
            let mut found = Vec::new();
            loop {
                match reader.next().await {
                    Ok(Some(frame)) => found.push(frame),
                    Ok(None) => return (found, None),
                    Err(broken) => return (found, Some(broken)),
                }
            }
        })
    }

    fn bytes(text: &str) -> Vec<u8> {
        (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap()).collect()
    }

    /// Frames written by moby/spdystream, the library of Kubernetes' clients.
    const OF_GO: &str = "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff\
         800300010000001700000003000000000000c22e555c92929907000000ffff\
         800300010000001900000005000000000000c22ac5565c92925f5a02000000ffff\
         000000030000000568656c6c6f0000000301000000800300060000000400000001";

    #[test]
    fn frames_of_a_real_peer_are_read() {
        let (frames, broken) = read(&bytes(OF_GO));
        let open = |stream, kind: &str| Frame::Open {
            stream,
            headers: vec![("streamtype".to_owned(), kind.to_owned())],
            ended: false,
        };
        let data = |text: &str, ended| Frame::Data { stream: 3, bytes: text.into(), ended };
        let expected = vec![
            open(1, "error"),
            open(3, "stdin"),
            open(5, "stdout"),
            data("hello", false),
            data("", true),
            Frame::Ping { id: 1 },
        ];
        assert_eq!((frames, broken), (expected, None));
        // wherever the bytes are cut, the frames before the cut are read, and no others
        let whole = bytes(OF_GO);
        for length in 0..whole.len() {
            let (frames, broken) = read(&whole[..length]);
            assert!(frames.len() < 6 && (broken.is_some() || read(&whole).0.starts_with(&frames)), "{length}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long = vec![7; 3 * PIECE + 5];
        let (frames, broken) = read(&[data(9, &long, true), ping(4), refuse(9)].concat());
        assert_eq!(broken, None);
        let mut got = Vec::new();
        for frame in &frames[..4] {
            let Frame::Data { stream: 9, bytes, ended } = frame else { panic!("{frame:?}") };
            got.extend_from_slice(bytes);
            assert_eq!(*ended, got.len() == long.len());
        }
        assert_eq!((got, &frames[4..]), (long, &[Frame::Ping { id: 4 }, Frame::Reset { stream: 9 }][..]));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, why) in [
            ("80020001000000290000000100000000", "another version of SPDY than 3"),
            ("80030001000100010000000100000000", "a control frame that is too long"),
            ("800300010000000400000001", "a control frame that is too short"),
            ("8003000600000000", "a control frame that is too short"),
            ("0000000100ffffff00", "a connection that ends within a frame"),
        ] {
            assert_eq!(read(&bytes(text)), (Vec::new(), Some(Broken(why))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn noise_ends(noise in proptest::collection::vec(any::<u8>(), 0..500)) {
            let _ = read(&noise);
            // also in control frames
            for kind in 0..10u16 {
                let _ = read(&[control(kind, &noise), control(kind, &noise)].concat());
            }
        }
    }
}
