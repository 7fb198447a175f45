//! The client against recorded bytes of systemd 252 (`golden/`), and against peers that misbehave.

use super::socket::{CLOSED, HANDSHAKE, handshake_length};
use super::*;
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use std::time::Duration;

const HANDSHAKE_ANSWER: &[u8] = include_bytes!("golden/handshake-answer");
const START_CALL: &[u8] = include_bytes!("golden/start-call");
const START_ANSWERS: &[u8] = include_bytes!("golden/start-answers");
const NO_SUCH_UNIT: &[u8] = include_bytes!("golden/start-no-such-unit-answers");
const PROPERTIES_ANSWERS: &[u8] = include_bytes!("golden/unit-properties-answers");
const SYSTEMCTL_CALL: &[u8] = include_bytes!("golden/restart-call-of-systemctl");

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn in_milliseconds(count: u64) -> Instant {
    Instant::now() + Duration::from_millis(count)
}

fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let length = wire::message_length(bytes).unwrap().unwrap();
        frames.push(&bytes[..length]);
        bytes = &bytes[length..];
    }
    frames
}

/// The reply, the end of the job, and all other signals of a real StartUnit.
fn start_frames() -> (&'static [u8], &'static [u8], Vec<&'static [u8]>) {
    let all = frames(START_ANSWERS);
    let position = |wanted: &dyn Fn(&Message<'_>) -> bool| {
        all.iter().position(|frame| wanted(&Message::parse(frame).unwrap())).unwrap()
    };
    let reply = position(&|m| m.kind == MessageKind::MethodReturn);
    let removed = position(&|m| m.member == Some("JobRemoved"));
    let others = (0..all.len()).filter(|at| ![reply, removed].contains(at)).map(|at| all[at]).collect();
    (all[reply], all[removed], others)
}

struct Peer {
    path: PathBuf,
    thread: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// A peer that takes one connection.
fn peer(play: impl FnOnce(&mut UnixStream) + Send + 'static) -> Peer {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || play(&mut listener.accept().unwrap().0));
    Peer { path, thread, _directory: directory }
}

fn shake_hands(stream: &mut UnixStream) {
    let mut handshake = vec![0; HANDSHAKE.len()];
    stream.read_exact(&mut handshake).unwrap();
    assert_eq!(handshake, HANDSHAKE);
    stream.write_all(HANDSHAKE_ANSWER).unwrap();
}

fn wait_for_end(stream: &mut UnixStream) {
    drop(stream.shutdown(std::net::Shutdown::Write));
    drop(stream.read_to_end(&mut Vec::new()));
}

/// A peer that answers the handshake, reads the call `START_CALL`, writes `chunks`, and waits until the client closes.
fn starting_peer(chunks: Vec<Vec<u8>>) -> Peer {
    peer(move |stream| {
        shake_hands(stream);
        let mut call = vec![0; START_CALL.len()];
        stream.read_exact(&mut call).unwrap();
        assert_eq!(call, START_CALL);
        // The client may close the connection before it has read all chunks.
        if chunks.iter().all(|chunk| stream.write_all(chunk).is_ok()) {
            wait_for_end(stream);
        }
    })
}

fn start(peer: Peer) -> Result<JobResult> {
    let mut client = Client::connect(&peer.path, soon())?;
    let result = client.start_unit("empty.service", soon());
    drop(client);
    peer.thread.join().unwrap();
    result
}

#[test]
fn starts_a_unit_as_a_real_systemd_answered() {
    assert_eq!(start(starting_peer(vec![START_ANSWERS.to_vec()])).unwrap(), JobResult::Done);
}

#[test]
fn the_end_of_the_job_may_come_before_the_reply_or_after_or_amid_others() {
    let (reply, removed, others) = start_frames();
    assert!(others.len() > 3, "{}", others.len());
    for order in [vec![reply, removed], vec![removed, reply]] {
        for noise in 0..=order.len() {
            let mut all = order.clone();
            all.splice(noise..noise, others.iter().copied());
            assert_eq!(start(starting_peer(vec![all.concat()])).unwrap(), JobResult::Done);
            let bytewise = all.concat().into_iter().map(|byte| vec![byte]).collect();
            assert_eq!(start(starting_peer(bytewise)).unwrap(), JobResult::Done);
        }
    }
}

#[test]
fn the_end_of_another_job_is_not_taken_for_ours() {
    let (reply, removed, _) = start_frames();
    let body = object_path(&Message::parse(reply).unwrap()).unwrap();
    let at = removed.windows(body.len()).position(|w| w == body.as_bytes()).unwrap();
    let mut other = removed.to_vec();
    other[at + body.len() - 1] ^= 1;
    let error = start(starting_peer(vec![[reply, &other].concat()])).unwrap_err().one_line();
    assert!(error.contains("wait for the job of empty.service: systemd has closed the connection"), "{error}");
    assert_eq!(start(starting_peer(vec![[&other, reply, removed].concat()])).unwrap(), JobResult::Done);
}

#[test]
fn every_end_in_the_middle_is_an_error() {
    let (reply, removed, _) = start_frames();
    let all = [reply, removed].concat();
    for end in 0..all.len() {
        let error = start(starting_peer(vec![all[..end].to_vec()])).unwrap_err();
        assert!(error.one_line().contains(CLOSED), "{end}: {error:?}");
        assert_eq!(error.errno(), Some(libc::ENOTCONN));
    }
}

#[test]
fn words_of_results() {
    let (reply, removed, _) = start_frames();
    for (word, result) in [
        ("done", JobResult::Done),
        ("fail", JobResult::Other("fail".into())),
        ("once", JobResult::Other("once".into())),
    ] {
        let at = removed.windows(5).rposition(|w| w == b"done\0").unwrap();
        let mut removed = removed.to_vec();
        removed[at..at + 4].copy_from_slice(word.as_bytes());
        assert_eq!(start(starting_peer(vec![[reply, &removed].concat()])).unwrap(), result);
    }
    for word in ["done", "canceled", "timeout", "failed", "dependency", "skipped", "assert"] {
        assert_eq!(JobResult::from_word(word).to_string(), word);
    }
}

#[test]
fn a_refusal_is_typed_and_leaves_the_connection_usable() {
    let peer = peer(|stream| {
        shake_hands(stream);
        let mut call = vec![0; START_CALL.len()];
        stream.read_exact(&mut call).unwrap();
        stream.write_all(NO_SUCH_UNIT).unwrap();
        stream.read_exact(&mut call).unwrap();
        let (reply, removed, _) = start_frames();
        // The second call has the serial 2: so must its reply.
        let mut reply = reply.to_vec();
        let at = reply.windows(8).position(|w| w == b"\x05\x01u\0\x01\0\0\0").unwrap();
        reply[at + 4] = 2;
        stream.write_all(&[&reply, removed].concat()).unwrap();
    });
    let mut client = Client::connect(&peer.path, soon()).unwrap();
    let error = client.start_unit("empty.service", soon()).unwrap_err();
    assert!(is_no_such_unit(&error));
    assert_eq!(Refused::in_chain(&error).unwrap().message, "Unit nofile.service not found.");
    assert_eq!(
        error.one_line(),
        "StartUnit(empty.service): refused: Unit nofile.service not found. (org.freedesktop.systemd1.NoSuchUnit)"
    );
    assert_eq!(client.start_unit("empty.service", soon()).unwrap(), JobResult::Done);
    peer.thread.join().unwrap();
}

#[test]
fn a_wait_ends_at_its_deadline_and_can_be_taken_up_again() {
    let (go, wait) = std::sync::mpsc::channel();
    let peer = peer(move |stream| {
        shake_hands(stream);
        let mut call = vec![0; START_CALL.len()];
        stream.read_exact(&mut call).unwrap();
        let (reply, removed, _) = start_frames();
        stream.write_all(reply).unwrap();
        stream.write_all(&removed[..20]).unwrap();
        wait.recv().unwrap();
        stream.write_all(&removed[20..]).unwrap();
    });
    let mut client = Client::connect(&peer.path, soon()).unwrap();
    let job = client.queue(Verb::Start, "empty.service", soon()).unwrap();
    let begin = Instant::now();
    let error = client.wait(&job, in_milliseconds(50)).unwrap_err();
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error:?}");
    go.send(()).unwrap();
    assert_eq!(client.wait(&job, soon()).unwrap(), JobResult::Done);
    peer.thread.join().unwrap();
}

#[test]
fn a_peer_that_never_answers_the_handshake_ends_at_the_deadline() {
    let peer = peer(|stream| {
        assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), HANDSHAKE.len());
    });
    let error = Client::connect(&peer.path, in_milliseconds(50)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error:?}");
    peer.thread.join().unwrap();
}

#[test]
fn a_peer_that_never_stops_sending_ends_at_the_deadline() {
    let peer = peer(|stream| {
        shake_hands(stream);
        let (_, _, others) = start_frames();
        let noise = others.concat();
        while stream.write_all(&noise).is_ok() {}
    });
    let mut client = Client::connect(&peer.path, soon()).unwrap();
    let error = client.start_unit("empty.service", in_milliseconds(100)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error:?}");
    drop(client);
    peer.thread.join().unwrap();
}

#[test]
fn a_peer_that_reads_nothing_ends_at_the_deadline() {
    let (go, wait) = std::sync::mpsc::channel();
    let peer = peer(move |stream| {
        shake_hands(stream);
        wait.recv().unwrap();
    });
    let mut client = Client::connect(&peer.path, soon()).unwrap();
    let long = "x".repeat(wire::MESSAGE_MAX - 1000);
    let error = client.start_unit(&long, in_milliseconds(50)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT));
    // A part of a call was sent: the connection must not be used for another one.
    let error = client.start_unit("empty.service", soon()).unwrap_err().one_line();
    assert!(error.contains("broke in an earlier call"), "{error}");
    go.send(()).unwrap();
    peer.thread.join().unwrap();
}

#[test]
fn a_full_queue_of_connections_ends_at_the_deadline() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("private");
    let address = SocketAddrUnix::new(&path).unwrap();
    let listener = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let error = Client::connect(&path, in_milliseconds(50)).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ETIMEDOUT), "{error:?}");
}

#[test]
fn nobody_there_says_so() {
    let error = Client::connect(Path::new("/nonexistent/private"), soon()).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    assert!(error.one_line().starts_with("connect to systemd at /nonexistent/private: connect: "), "{error:?}");
}

#[test]
fn a_handshake_that_fails_is_an_error() {
    for (answer, word) in [
        (&b"REJECTED EXTERNAL\r\n"[..], "rejected"),
        (b"", "namespaces"),
        (b"DATA\r\nOK 1234\r\n", "namespaces"),
        (b"OK 1234\r\nHELLO\r\n", "unexpected"),
        (b"AGREE_UNIX_FD\r\n", "unexpected"),
        (b"OKAY\r\n", "unexpected"),
        (&[b'x'; 5000], "too long"),
    ] {
        let peer = peer(move |stream| {
            stream.read_exact(&mut vec![0; HANDSHAKE.len()]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let error = Client::connect(&peer.path, soon()).unwrap_err().one_line();
        assert!(error.contains(word), "{answer:?}: {error}");
        peer.thread.join().unwrap();
    }
}

#[test]
fn handshake_answers_may_be_followed_by_signals_and_lack_descriptors() {
    assert_eq!(handshake_length(HANDSHAKE_ANSWER).unwrap(), Some(HANDSHAKE_ANSWER.len()));
    let length = HANDSHAKE_ANSWER.len();
    let followed = [HANDSHAKE_ANSWER, b"l\x04\x01\x01\r\n"].concat();
    assert_eq!(handshake_length(&followed).unwrap(), Some(length));
    for end in 0..length {
        assert_eq!(handshake_length(&HANDSHAKE_ANSWER[..end]).unwrap(), None, "{end}");
    }
    assert_eq!(handshake_length(b"DATA\r\nOK 12\r\nERROR no\r\n").unwrap(), Some(23));
}

#[test]
fn properties_as_a_real_systemd_answered() {
    let peer = peer(|stream| {
        shake_hands(stream);
        stream.write_all(PROPERTIES_ANSWERS).unwrap();
        wait_for_end(stream);
    });
    let mut client = Client::connect(&peer.path, soon()).unwrap();
    let unit = client.properties("empty.service", Interface::Unit, soon()).unwrap();
    assert_eq!(unit.text("ActiveState"), Some("active"));
    assert_eq!(unit.text("Id"), Some("empty.service"));
    assert_eq!(unit.number("NeedDaemonReload"), Some(0));
    let service = client.properties("empty.service", Interface::Service, soon()).unwrap();
    assert_eq!(service.text("Result"), Some("success"));
    assert_eq!(service.number("TasksMax"), Some(77));
    assert_eq!(service.number("CPUQuotaPerSecUSec"), Some(250_000));
    assert_eq!(service.number("BlockIOWeight"), Some(u64::MAX.into()));
    assert_eq!(service.number("OOMScoreAdjust"), Some(0));
    assert!(service.number("MainPID").unwrap() > 1);
    assert_eq!(service.get("Environment"), Some(&Value::Texts(vec![])));
    assert_eq!(service.get("ExecStart"), Some(&Value::Other("a(sasbttttuii)".into())));
    drop(client);
    peer.thread.join().unwrap();
}

#[test]
fn calls_are_as_a_real_systemd_took_them() {
    let body = Body::default().text("empty.service").unwrap().text("replace").unwrap();
    let call = wire::method_call(1, MANAGER_PATH, MANAGER, "StartUnit", &body).unwrap();
    assert_eq!(call, START_CALL);
    let ours = Message::parse(&call).unwrap();
    let theirs = Message::parse(SYSTEMCTL_CALL).unwrap();
    assert_eq!((ours.kind, ours.path, ours.interface), (theirs.kind, theirs.path, theirs.interface));
    assert_eq!(theirs.member, Some("RestartUnit"));
    let mut bodies = [ours, theirs].map(|message| message.body("ss").unwrap());
    for body in &mut bodies {
        assert_eq!((body.text().unwrap(), body.text().unwrap()), ("empty.service", "replace"));
        body.finished().unwrap();
    }
}

#[test]
fn properties_are_written_as_they_are_read() {
    let all = [
        ("A", Value::Bool(true)),
        ("B", Value::I32(-5)),
        ("C", Value::U32(7)),
        ("D", Value::I64(i64::MIN)),
        ("E", Value::U64(u64::MAX)),
        ("F", Value::Text("é".into())),
        ("G", Value::Texts(vec!["x".into(), String::new()])),
    ];
    let body = Body::default().i32(1).properties(&all).unwrap();
    let bytes = wire::method_call(3, MANAGER_PATH, MANAGER, "Test", &body).unwrap();
    assert_eq!(wire::message_length(&bytes).unwrap(), Some(bytes.len()));
    // `a(sv)` and `a{sv}` are the same bytes.
    let at = bytes.windows(6).position(|w| w == b"ia(sv)").unwrap();
    let mut bytes = bytes;
    bytes[at..at + 6].copy_from_slice(b"ia{sv}");
    let mut reader = Message::parse(&bytes).unwrap().body("ia{sv}").unwrap();
    assert_eq!(reader.u32().unwrap(), 1);
    let read = reader.dictionary().unwrap();
    reader.finished().unwrap();
    assert_eq!(read, all.map(|(name, value)| (name.to_owned(), value)));
    assert!(Body::default().properties(&[("A", Value::Other("d".into()))]).is_err());
    // Types that are sent only.
    let body = Body::default()
        .properties(&[("A", Value::Pairs(vec![("x".into(), "y".into())])), ("B", Value::Numbers(vec![7]))]);
    let bytes = wire::method_call(3, MANAGER_PATH, MANAGER, "Test", &body.unwrap().no_units().unwrap()).unwrap();
    assert!(bytes.windows(6).any(|w| w == b"\x05a(ss)") && bytes.windows(3).any(|w| w == b"\x02au"));
    assert!(Body::default().text("a\0b").is_err());
}

#[test]
fn big_endian_is_read() {
    let mut bytes = b"B\x03\0\x01\0\0\0\x07\0\0\0\x09\0\0\0\x1f".to_vec();
    bytes.extend_from_slice(b"\x05\x01u\0\0\0\x01\x02\x04\x01s\0\0\0\0\x05a.b.c\0\0\0");
    bytes.extend_from_slice(b"\x08\x01g\0\x01s\0\0");
    bytes.extend_from_slice(b"\0\0\0\x02no\0");
    assert_eq!(wire::message_length(&bytes).unwrap(), Some(bytes.len()));
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.kind, MessageKind::Error);
    assert_eq!(message.reply_serial, Some(0x102));
    assert_eq!(message.error_name, Some("a.b.c"));
    assert_eq!(message.leading_text(), Some("no"));
}

#[test]
fn lengths_are_capped_before_they_are_believed() {
    for bytes in [
        *b"l\x04\x01\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0",
        *b"l\x04\x01\x01\0\0\0\0\x01\0\0\0\xff\xff\xff\xff",
        *b"l\x04\x01\x01\xf8\xff\x0f\0\x01\0\0\0\0\0\0\0",
        *b"x\x04\x01\x01\0\0\0\0\x01\0\0\0\0\0\0\0",
    ] {
        assert!(wire::message_length(&bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(wire::message_length(b"l\x04\x01\x01\0\0\0\0\x01\0\0\0\0\0\0").unwrap(), None);
}

#[test]
fn hostile_types_end_soon() {
    let deep = "a".repeat(200) + "y";
    let open = "(".repeat(200);
    let nested = "(".repeat(100) + "y" + &")".repeat(100);
    for signature in [deep.as_str(), &open, &nested, "a", "()", "a()", "(", "a{", "yy", "", "z", "a{sv"] {
        // A header with one unknown field of that type, and many zeroes for it.
        let mut fields = vec![99, u8::try_from(signature.len()).unwrap()];
        fields.extend_from_slice(signature.as_bytes());
        fields.resize(100_000, 0);
        let mut bytes = b"l\x04\x01\x01\0\0\0\0\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&u32::try_from(fields.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&fields);
        let begin = Instant::now();
        assert!(Message::parse(&bytes).is_err(), "{signature}");
        assert!(begin.elapsed() < Duration::from_secs(5), "{signature}");
    }
}

#[test]
fn objects_of_units() {
    assert_eq!(unit_path("empty.service"), "/org/freedesktop/systemd1/unit/empty_2eservice");
    assert_eq!(unit_path("app-a1.service"), "/org/freedesktop/systemd1/unit/app_2da1_2eservice");
    assert_eq!(unit_path("1a"), "/org/freedesktop/systemd1/unit/_31a");
}

#[test]
fn states() {
    for word in ["inactive", "failed"] {
        assert!(ActiveState::from_word(word).is_at_rest(), "{word}");
    }
    for word in ["active", "reloading", "activating", "deactivating", "maintenance"] {
        assert!(!ActiveState::from_word(word).is_at_rest(), "{word}");
    }
}

fn read_all(bytes: &[u8]) {
    if let (Ok(_), Ok(message)) = (wire::message_length(bytes), Message::parse(bytes)) {
        let _ = (job_removed(&message).is_ok(), object_path(&message).is_ok(), message.leading_text());
        for signature in ["v", "a{sv}"] {
            if let Ok(mut reader) = message.body(signature) {
                let _ = (reader.variant().is_ok(), reader.dictionary().is_ok(), reader.finished().is_ok());
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), big: bool, handshake in any::<Vec<u8>>()) {
        let mut message = vec![if big { b'B' } else { b'l' }, 2, 0, 1];
        message.extend_from_slice(&bytes);
        read_all(&message);
        read_all(&bytes);
        drop(handshake_length(&handshake));
    }

    #[test]
    fn damaged_messages_never_panic(
        which: prop::sample::Index,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let all: Vec<_> = [START_ANSWERS, NO_SUCH_UNIT, PROPERTIES_ANSWERS].iter().flat_map(|b| frames(b)).collect();
        let mut bytes = which.get(&all).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_all(&bytes);
    }

    #[test]
    fn damaged_answers_end_in_a_result_or_an_error(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let (reply, removed, _) = start_frames();
        let mut bytes = [reply, removed].concat();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let begin = Instant::now();
        drop(start(starting_peer(vec![bytes])));
        prop_assert!(begin.elapsed() < Duration::from_secs(10));
    }
}
