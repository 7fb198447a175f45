//! Journal files made here, whole and damaged in every way.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// Writes journal files, as far as a reader looks at them.
struct Writer {
    bytes: Vec<u8>,
    compact: bool,
    entries: Vec<u64>,
    seqnum: u64,
}

impl Writer {
    fn new(compact: bool) -> Self {
        let mut bytes = vec![0; 272];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[12] = if compact { 0x1f } else { 0xf };
        bytes[72..88].copy_from_slice(&[7; 16]);
        bytes[88] = 0x10;
        bytes[89] = 1;
        Self { bytes, compact, entries: Vec::new(), seqnum: 1 }
    }

    fn put(&mut self, at: usize, number: u64) {
        self.bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }

    fn object(&mut self, kind: u8, flags: u8, content: &[u8]) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let at = self.bytes.len() as u64;
        self.bytes.extend([kind, flags, 0, 0, 0, 0, 0, 0]);
        self.bytes.extend((content.len() as u64 + 16).to_le_bytes());
        self.bytes.extend(content);
        at
    }

    /// Has a field know of its first entries: those at these places.
    fn link(&mut self, field: u64, entries: &[u64]) {
        self.put(field as usize + 40, entries[0]);
        self.put(field as usize + 56, entries.len() as u64);
        let mut link = field as usize + 48;
        for some in entries[1..].chunks(2) {
            let mut content = vec![0; 8];
            for entry in some {
                match self.compact {
                    true => content.extend((*entry as u32).to_le_bytes()),
                    false => content.extend(entry.to_le_bytes()),
                }
            }
            let at = self.object(6, 0, &content);
            self.put(link, at);
            link = at as usize + 16;
        }
    }

    fn data(&mut self, flags: u8, field: &[u8]) -> u64 {
        let mut content = vec![0; if self.compact { 56 } else { 48 }];
        content.extend(field);
        self.object(1, flags, &content)
    }

    fn entry(&mut self, realtime: u64, fields: &[u64]) {
        let mut content = Vec::new();
        for number in [self.seqnum, realtime, 5] {
            content.extend(number.to_le_bytes());
        }
        content.extend([9; 16]);
        let size = |field: usize| u64::from_le_bytes(*self.bytes[field + 8..].first_chunk().unwrap()) as usize;
        let sum =
            |field: usize| self.bytes[field + 64..field + size(field)].iter().map(|byte| u64::from(*byte)).sum::<u64>();
        let hash = fields.iter().fold(0, |hash, field| hash ^ sum(*field as usize));
        content.extend(hash.to_le_bytes());
        for field in fields {
            match self.compact {
                true => content.extend((*field as u32).to_le_bytes()),
                false => {
                    content.extend(field.to_le_bytes());
                    content.extend([3; 8]);
                }
            }
        }
        self.seqnum += 1;
        let at = self.object(3, 0, &content);
        self.entries.push(at);
    }

    fn line(&mut self, realtime: u64, unit: &str, message: &str) {
        let fields = [format!("MESSAGE={message}"), format!("_SYSTEMD_UNIT={unit}"), "PRIORITY=6".into()];
        let fields: Vec<u64> = fields.iter().map(|field| self.data(0, field.as_bytes())).collect();
        self.entry(realtime, &fields);
    }

    /// The file, its index in arrays of four.
    fn finish(mut self) -> Vec<u8> {
        let mut link = 176;
        for some in self.entries.clone().chunks(4) {
            let mut content = vec![0; 8];
            for entry in some {
                match self.compact {
                    true => content.extend((*entry as u32).to_le_bytes()),
                    false => content.extend(entry.to_le_bytes()),
                }
            }
            let at = self.object(6, 0, &content);
            self.put(link, at);
            link = at as usize + 16;
        }
        self.put(152, self.entries.len() as u64);
        self.put(192, u64::MAX);
        self.bytes
    }
}

fn sample(compact: bool) -> Vec<u8> {
    let mut writer = Writer::new(compact);
    let zstd = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x0b, 0x59, 0, 0].into_iter().chain(*b"MESSAGE=zst").collect::<Vec<_>>();
    let packed = [writer.data(4, &zstd), writer.data(0, b"_PID=77"), writer.data(0, b"PRIORITY=x")];
    writer.entry(1000, &packed);
    for number in 0..21 {
        writer.line(2000 + number, "app-a.service", &format!("line {number}"));
    }
    writer.finish()
}

/// A pod's directory with these journal files.
struct PodDir(tempfile::TempDir);

impl PodDir {
    const MACHINE: &str = "0123456789abcdef0123456789abcdef";

    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        std::fs::create_dir_all(dir.journal()).unwrap();
        dir
    }

    fn journal(&self) -> PathBuf {
        self.0.path().join("stage1/rootfs/var/log/journal").join(Self::MACHINE)
    }

    fn with(self, name: &str, bytes: &[u8]) -> Self {
        std::fs::write(self.journal().join(name), bytes).unwrap();
        self
    }

    fn open(&self) -> Journal {
        Journal::open(self.0.path(), 0).unwrap()
    }
}

fn messages(journal: &mut Journal) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(found) = journal.next_entry() {
        let message = journal.message(&found).unwrap_or_default();
        all.push(String::from_utf8_lossy(&message).into_owned());
    }
    all
}

#[test]
fn both_forms_are_read_in_order() {
    for compact in [false, true] {
        let pod = PodDir::new().with("system.journal", &sample(compact));
        let mut journal = pod.open();
        let first = journal.next_entry().unwrap();
        assert_eq!((first.entry.seqnum, first.entry.realtime), (1, 1000));
        assert_eq!((first.entry.pid, first.entry.priority), (Some(77), None));
        assert_eq!(journal.message(&first).unwrap(), b"zst");
        let second = journal.next_entry().unwrap().entry;
        assert_eq!((second.unit.as_deref(), second.priority), (Some("app-a.service"), Some(6)));
        let rest: Vec<String> = (1..21).map(|number| format!("line {number}")).collect();
        assert_eq!(messages(&mut journal), rest, "compact: {compact}");
        assert!(journal.complaints.is_empty(), "{:?}", journal.complaints);
    }
}

#[test]
fn files_are_merged_and_read_on_across_a_rotation() {
    let mut first = Writer::new(true);
    for (realtime, message) in [(10, "1"), (5, "2")] {
        first.line(realtime, "u", message);
    }
    let mut second = Writer::new(true);
    second.seqnum = first.seqnum;
    for (realtime, message) in [(5, "3"), (7, "4")] {
        second.line(realtime, "u", message);
    }
    let pod = PodDir::new().with("system.journal", &second.finish()).with("system@1.journal", &first.finish());
    let mut journal = pod.open();
    assert_eq!(messages(&mut journal), ["1", "2", "3", "4"]);

    let rotated = pod.journal().join("system@2.journal");
    std::fs::rename(pod.journal().join("system.journal"), rotated).unwrap();
    std::fs::remove_file(pod.journal().join("system@1.journal")).unwrap();
    let mut third = Writer::new(false);
    third.line(8, "u", "5");
    let pod = pod.with("system.journal", &third.finish());
    journal.refresh().unwrap();
    assert_eq!(messages(&mut journal), ["5"]);
    journal.refresh().unwrap();
    assert_eq!(messages(&mut journal), [""; 0]);
    assert!(journal.complaints.is_empty(), "{:?}", journal.complaints);
    drop(pod);
}

#[test]
fn what_is_written_again_is_shown_once() {
    for (compact, finished) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut full = Writer::new(compact);
        let field = full.data(0, b"MESSAGE=same");
        for realtime in [1, 1, 2, 2, 2] {
            full.entry(realtime, &[field]);
        }
        let known = full.entries[..if finished { 5 } else { 4 }].to_owned();
        full.link(field, &known);
        let mut next = Writer::new(compact);
        next.seqnum = full.seqnum;
        let field = next.data(0, b"MESSAGE=same");
        (0..2).for_each(|_| next.entry(2, &[field]));
        let pod = PodDir::new().with("system@1.journal", &full.finish()).with("system.journal", &next.finish());
        let mut journal = pod.open();
        let expected = if finished { 7 } else { 6 };
        assert_eq!(messages(&mut journal), vec!["same"; expected], "compact: {compact}");
        assert!(journal.complaints.is_empty(), "{:?}", journal.complaints);
    }
}

#[test]
fn what_is_not_a_journal_file_is_named_once() {
    let sample = sample(true);
    let put = |at: usize, byte: u8| {
        let mut bytes = sample.clone();
        bytes[at] = byte;
        bytes
    };
    let good = PodDir::new().with("good.journal", &sample);
    let dir = good.journal();
    File::create(dir.join("huge.journal")).unwrap().set_len(1 << 42).unwrap();
    File::create(dir.join("sparse.journal")).unwrap().set_len(1 << 31).unwrap();
    symlink("/etc/passwd", dir.join("link.journal")).unwrap();
    std::fs::create_dir(dir.join("dir.journal")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.join("fifo.journal"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let good = good
        .with("text.journal", &b"not a journal at all ".repeat(30))
        .with("newer.journal", &put(12, 0x3f))
        .with("short.journal", &sample[..200])
        .with("looping.journal", &put(152, 0xff))
        .with("other.txt", b"x");
    let mut journal = good.open();
    let mut seen = messages(&mut journal);
    seen.dedup();
    assert!(seen.len() > 20, "{seen:?}");
    for _ in 0..3 {
        journal.refresh().unwrap();
        assert_eq!(messages(&mut journal), [""; 0]);
    }
    let mut complaints: Vec<_> = journal.complaints.iter().map(String::as_str).collect();
    complaints.sort_unstable();
    let expected = ["dir", "fifo", "huge", "link", "looping", "newer", "text"].map(|name| format!("{name}.journal"));
    assert_eq!(complaints, expected);
}

#[test]
fn a_journal_that_leads_elsewhere_is_not_followed() {
    let elsewhere = PodDir::new().with("system.journal", &sample(false));
    let pod = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(pod.path().join("stage1/rootfs/var")).unwrap();
    assert!(Journal::open(pod.path(), 0).unwrap().next_entry().is_none());
    symlink(elsewhere.0.path().join("stage1/rootfs/var/log"), pod.path().join("stage1/rootfs/var/log")).unwrap();
    let error = Journal::open(pod.path(), 0).unwrap_err().one_line();
    assert!(error.contains("var/log/journal"), "{error}");
}

#[test]
fn a_damaged_entry_hides_no_other() {
    let mut bytes = sample(false);
    let at = bytes.windows(11).position(|window| window == b"MESSAGE=lin").unwrap() - 64;
    bytes[at] = 6;
    let pod = PodDir::new().with("system.journal", &bytes);
    let mut journal = pod.open();
    assert_eq!(messages(&mut journal).len(), 21);
    assert_eq!(journal.complaints.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever is done to a file: reading it ends, and gives no more than there was.
    #[test]
    fn damage_never_breaks_the_reader(
        compact in any::<bool>(),
        cut in 0usize..6000,
        hits in proptest::collection::vec((0usize..6000, any::<u8>()), 0..40),
        numbers in proptest::collection::vec((0usize..700, any::<u64>()), 0..6),
    ) {
        let mut bytes = sample(compact);
        for (at, byte) in hits {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        for (at, number) in numbers {
            let at = at * 8 % (bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        bytes.truncate(bytes.len().saturating_sub(cut % 4096));
        let pod = PodDir::new().with("system.journal", &bytes);
        let mut journal = pod.open();
        prop_assert!(messages(&mut journal).len() <= 22);
        journal.refresh().unwrap();
        prop_assert!(messages(&mut journal).len() <= 22);
        prop_assert!(journal.complaints.len() <= 1);
    }

    #[test]
    fn nothing_in_a_file_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut file = b"LPKSHHRH\0\0\0\0\x1f\0\0\0".to_vec();
        file.extend(bytes);
        let pod = PodDir::new().with("system.journal", &file);
        prop_assert!(messages(&mut pod.open()).len() < 100);
    }
}
