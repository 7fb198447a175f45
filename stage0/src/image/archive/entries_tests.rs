use std::process::Command;

use proptest::prelude::*;

use super::*;

#[test]
fn values_of_pax_records_may_have_line_breaks() {
    let found = records(b"12 a=b\nc=\nd\n10 ccc=d\xff\n").unwrap();
    assert_eq!(found, [(b"a".to_vec(), b"b\nc=\nd".to_vec()), (b"ccc".to_vec(), b"d\xff".to_vec())]);
    for bad in [&b"x"[..], b"5 a=b\n", b"99999999999999999999 a=b\n", b"3 a\n", b"0 a=b\n", b"2 a=b\n", b"-1 a=b\n"] {
        assert!(records(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn times_have_fractions_and_may_be_before_1970() {
    assert_eq!(decimal(b"12.5"), Some((12, 500_000_000)));
    assert_eq!(decimal(b"-1.25"), Some((-2, 750_000_000)));
    assert_eq!(decimal(b"7"), Some((7, 0)));
    for bad in ["", ".", "1.-5", "x", "1.5e3", "99999999999999999999"] {
        assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
    }
}

/// A file with holes and data in turn, as GNU tar writes it in each of its sparse formats.
#[test]
fn sparse_files_in_all_forms_of_gnu_tar() {
    let base = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(base.path().join("holes")).unwrap();
    file.set_len(40 << 20).unwrap();
    for n in 0..40u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[n as u8 + 1; 4096], n << 20).unwrap();
    }
    let forms = [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for form in forms {
        let made = Command::new("tar").args(form).arg("-ScC").arg(base.path()).arg("holes").output().unwrap();
        assert!(made.status.success() && made.stdout.len() < 1 << 20, "{form:?}");
        let mut entries = Entries::new(&made.stdout[..]);
        let entry = entries.next_entry().unwrap().unwrap();
        assert_eq!((entry.path.as_slice(), entry.size), (&b"holes"[..], 40 << 20), "{form:?}");
        let mut content = entries.content();
        let mut seen = 0;
        for (offset, length) in entry.segments.iter().filter(|(_, length)| *length > 0) {
            let mut data = vec![0; *length as usize];
            content.read_exact(&mut data).unwrap();
            assert!(data[..4096].iter().all(|byte| u64::from(*byte) == (offset >> 20) + 1), "{form:?} {offset}");
            seen += 1;
        }
        assert_eq!(seen, 40, "{form:?}");
        drop(content);
        assert!(entries.next_entry().unwrap().is_none(), "{form:?}");
    }
}

#[test]
fn descriptions_without_end_are_refused_before_they_are_read() {
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(1 << 40);
        header.set_cksum();
        let mut entries = Entries::new(header.as_bytes().chain(io::repeat(b'x')));
        let error = entries.next_entry().unwrap_err().one_line();
        assert!(error.contains("more than 1048576 bytes"), "{error}");
    }
}

proptest! {
    /// Reading ends for any bytes, with a result or with an error.
    #[test]
    fn any_damage_is_survived(at in 0usize..4096, with: [u8; 8], cut in 0usize..4096) {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([("SCHILY.xattr.user.a", &b"b\nc"[..])]).unwrap();
        let mut header = Header::new_gnu();
        header.set_size(700);
        builder.append_data(&mut header, "x".repeat(150), &[7; 700][..]).unwrap();
        let mut bytes = builder.into_inner().unwrap();
        let at = at.min(bytes.len() - with.len());
        bytes[at..at + with.len()].copy_from_slice(&with);
        // correct the checksum, so that the damaged header is parsed
        for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
            let sum: u32 = block[..148].iter().chain(&block[156..]).map(|b| u32::from(*b)).sum::<u32>() + 256;
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let mut entries = Entries::new(&bytes[..]);
        while let Ok(Some(_)) = entries.next_entry() {}
    }
}
