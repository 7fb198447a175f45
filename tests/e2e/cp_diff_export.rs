//! Files of apps from outside: copied in and out, compared with the image, exported as an archive or a new image.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Stdio;

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};

tests::cases! {
    both files_go_both_ways 120;
    native changes_are_told_and_kept 120;
}

/// The root file system of an app, on the host.
fn rootfs(pod: &Pod<'_>, app: &str) -> std::path::PathBuf {
    pod.dir().join("stage1/rootfs/opt/stage2").join(app).join("rootfs")
}

fn files_go_both_ways(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let source = t.dir.join("source");
    fs::create_dir_all(source.join("d"))?;
    fs::write(source.join("a"), "a\n")?;
    fs::set_permissions(source.join("a"), fs::Permissions::from_mode(0o4750))?;
    fs::write(source.join("d/b"), "b\n")?;
    symlink("/etc/shadow", source.join("link"))?;
    let from = source.display().to_string();
    for options in [&[][..], &["--private-users"]] {
        let pod = podctl.pod(&[&["--name=box"], options].concat());
        pod.add("one", &["--user=7", "--group=8"], &["sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        let first = podctl.json(&["inspect", "box"])["private_users"]
            .as_str()
            .and_then(|range| range.split(':').next()?.parse::<u32>().ok())
            .unwrap_or(0);

        podctl.ok(&["cp", &from, "box/one:/tmp"]);
        let copied = rootfs(&pod, "one").join("tmp/source");
        let stat = fs::metadata(copied.join("a")).expect("the copy");
        assert_eq!((stat.uid() - first, stat.gid() - first, stat.mode() & 0o7777), (7, 8, 0o750));
        assert_eq!(pod.enter("one", &["/probe", "cat", "/tmp/source/d/b"]).ok(), "b");
        assert_eq!(fs::read_link(copied.join("link")).expect("the link"), Path::new("/etc/shadow"));
        // the entries of a directory, into a volume
        podctl.ok(&["cp", &format!("{from}/."), "box:/out"]);
        assert_eq!(fs::read_to_string(podctl.out().join("d/b")).expect("in the volume"), "b\n");

        // links of the image do not lead out of it
        podctl.ok(&["cp", &format!("{from}/a"), "box/one:/escape/planted"]);
        assert!(!Path::new("/etc/planted").exists() && rootfs(&pod, "one").join("etc/planted").exists());
        podctl.fails(&["cp", "box/one:/tmp/source/link/.", &t.dir.join("no").display().to_string()]);

        let back = t.dir.join("back");
        podctl.ok(&["cp", "box/one:/tmp/source", &back.display().to_string()]);
        let stat = fs::metadata(back.join("a")).expect("back");
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (0, 0, 0o750));
        assert_eq!(fs::read_link(back.join("link")).expect("the link back"), Path::new("/etc/shadow"));
        fs::remove_dir_all(&back)?;

        // as a tar archive, in both directions
        let archive = t.dir.join("archive");
        let status = podctl.command(&["cp", "box/one:/tmp/source/.", "-"]).stdout(File::create(&archive)?).status()?;
        assert!(status.success());
        podctl.ok(&["cp", "box/one:/data", "box/one:/tmp/new"]);
        let status = podctl.command(&["cp", "-", "box:/shared"]).stdin(File::open(&archive)?).status()?;
        assert!(status.success());
        assert_eq!(pod.enter("one", &["/probe", "cat", "/shared/d/b"]).ok(), "b");
        assert_eq!(pod.enter("one", &["/probe", "cat", "/tmp/new/kept"]).ok(), "from the image");

        refusals(&podctl, &from);
        let work = podctl.data.join("tmp");
        assert_eq!(fs::read_dir(&work)?.count(), 0, "{}", work.display());
        fs::remove_dir_all(podctl.out())?;
        pod.end();
    }
    Ok(())
}

fn refusals(podctl: &Podctl, from: &str) {
    for (words, expected) in [
        (["/etc", "/tmp"], "neither path is an app's"),
        (["box:etc", "x"], "the path of an app begins with /"),
        (["box/one:/none", "x"], "app one: there is no /none"),
        (["box/one:/data", "/nowhere/at/all"], "No such file"),
        (["box/two:/data", "x"], "two"),
        ([from, "box/one:/tmp/source/a"], "a file does not replace a directory"),
        (["/dev/null", "box/one:/tmp/source/d"], ""),
    ] {
        let line = match expected {
            "" => podctl.run(&["cp", words[0], words[1]]).stderr,
            _ => podctl.fails(&["cp", words[0], words[1]]),
        };
        let expected = if expected.is_empty() { "is left out" } else { expected };
        assert!(line.contains(expected), "{words:?}: {line}");
    }
}

fn changes_are_told_and_kept(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for options in [&[][..], &["--private-users"]] {
        let pod = podctl.pod(&[&["--name=box"], options].concat());
        let changes = ["write", "/new", "text", "+", "rm", "/data/kept", "+", "append", "/data/owned", "more"];
        pod.add("one", &[], &[&changes[..], &["+", "write", "/out/done", "", "+", "sleep", "inf"]].concat());
        pod.app("start", "one", &[]).ok();
        tests::process::wait_for("the app", 20, || podctl.out().join("done").exists().then_some(()));
        let told = podctl.ok(&["diff", "box", "one"]);
        let told: Vec<&str> = told.lines().collect();
        for line in ["C /data", "D /data/kept", "C /data/owned", "A /new"] {
            assert!(told.contains(&line), "{line}: {told:?}");
        }
        assert!(!told.iter().any(|line| line.contains("/home") || line.contains("/probe")), "{told:?}");

        // volumes are left out, and owners are those that the pod sees
        let archive = t.dir.join("archive");
        podctl.ok(&["export", "box", "-o", &archive.display().to_string()]);
        let listed = std::process::Command::new("tar")
            .args(["--numeric-owner", "-tvf"])
            .arg(&archive)
            .stdout(Stdio::piped())
            .output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let has = |name: &str| listed.lines().find(|line| line.ends_with(&format!(" {name}")));
        assert!(has("new").is_some_and(|line| line.contains(" 0/0 ")), "{listed}");
        assert!(has("data/owned").is_some_and(|line| line.contains(" 1234/2345 ")), "{listed}");
        assert!(has("data/kept").is_none() && has("out/done").is_none(), "{listed}");
        podctl.fails(&["export", "box", "-o", &archive.display().to_string()]);
        fs::remove_file(&archive)?;

        let hole = holes_fill_no_disk(t, &podctl, &pod);

        podctl.ok(&["commit", "box", "--tag", "snapshot:1"]);
        assert_eq!(
            fs::metadata(stored_image(&podctl, "snapshot:1").join("archive"))?.len() >> 28,
            0,
            "the hole is stored"
        );
        fs::remove_file(hole)?;
        pod.try_add(
            "snapshot:1",
            "two",
            &[],
            &["cat", "/new", "+", "stat", "/data/owned", "+", "open", "r", "/data/kept"],
        )
        .ok();
        let kept = fs::metadata(rootfs(&pod, "two").join("hole"))?;
        assert!(kept.len() == 1 << 28 && kept.blocks() < 1000, "{} bytes, {} blocks", kept.len(), kept.blocks());
        pod.app("start", "two", &[]).ok();
        assert_eq!(pod.exit_code("two"), 0);
        let said = podctl.ok(&["logs", "box", "two"]);
        assert!(said.contains("text") && said.contains("1234") && said.contains("ENOENT"), "{said}");

        // after the end of the pod its files can be read
        podctl.ok(&["stop", "box"]);
        assert_eq!(podctl.ok(&["diff", "box", "one"]).lines().filter(|line| *line == "A /new").count(), 1);
        let back = t.dir.join("back");
        podctl.ok(&["cp", "box/one:/new", &back.display().to_string()]);
        assert_eq!(fs::read_to_string(&back)?, "text");
        fs::remove_file(&back)?;
        let line = podctl.fails(&["cp", "/etc/hostname", "box/one:/tmp"]);
        assert!(line.contains("can only be read"), "{line}");
        let work = podctl.data.join("tmp");
        assert_eq!(fs::read_dir(&work)?.count(), 0, "{}", work.display());
        fs::remove_dir_all(podctl.out())?;
        pod.end();
    }
    Ok(())
}

/// A file of 1 TiB that takes no room goes through every verb that reads an app's files, and takes none elsewhere.
/// Returns a smaller one that was put in its place.
fn holes_fill_no_disk(t: &Context, podctl: &Podctl, pod: &Pod<'_>) -> std::path::PathBuf {
    let hole = rootfs(pod, "one").join("hole");
    File::create(&hole).and_then(|file| file.set_len(1 << 40)).expect("a hole");
    let with_data = File::create(hole.with_file_name("hole-with-data")).expect("a file");
    with_data.set_len(2 << 20).and_then(|()| with_data.write_all_at(&[7; 5000], 1 << 20)).expect("data and holes");
    let (archive, stream, back) = (t.dir.join("archive"), t.dir.join("stream"), t.dir.join("back"));
    // a file that were written out would fill the disk: here it fails at once
    let limited = |words: &[&str]| {
        let mut command = std::process::Command::new("prlimit");
        let podctl = podctl.command(words);
        command.arg("--fsize=1000000000").arg(podctl.get_program()).args(podctl.get_args());
        command.envs(podctl.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command
    };
    let shown = |path: &Path| path.display().to_string();
    for words in [
        &["export", "box", "-o", &shown(&archive)][..],
        &["cp", "box/one:/hole", &shown(&back)],
        &["diff", "box", "one"],
    ] {
        // the file that is made has the size, which the limit counts as well
        let mut command = if words[0] == "cp" { podctl.command(words) } else { limited(words) };
        assert!(command.stdout(Stdio::null()).status().expect("podctl").success(), "{words:?}");
    }
    let written = File::create(&stream).expect("a file");
    let status = limited(&["cp", "box/one:/hole", "-"]).stdout(written).status().expect("podctl");
    assert!(status.success());
    let blocks = |path: &Path| fs::metadata(path).expect("written").blocks();
    assert!(blocks(&archive) < 1 << 21 && blocks(&stream) < 1000 && blocks(&back) < 1000);
    assert_eq!(fs::metadata(&back).expect("the copy").len(), 1 << 40);
    fs::remove_file(&back).expect("rm");

    // GNU tar and podctl read what was written
    let listed = std::process::Command::new("tar").arg("-tvf").arg(&archive).output().expect("tar").stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.lines().any(|line| line.contains(" 1099511627776 ") && line.ends_with(" hole")), "{listed}");
    let to = shown(&back);
    fs::create_dir(&back).expect("mkdir");
    let extracted = std::process::Command::new("tar").args(["-C", &to, "-xf"]).arg(&archive).output().expect("tar");
    assert!(extracted.status.success(), "{}", String::from_utf8_lossy(&extracted.stderr));
    let same =
        |name: &str| fs::read(back.join(name)).expect(name) == fs::read(rootfs(pod, "one").join(name)).expect(name);
    assert!(same("hole-with-data") && same("new") && back.join("probe").exists());
    assert_eq!(fs::metadata(back.join("hole")).expect("the hole").len(), 1 << 40);
    fs::remove_dir_all(&back).expect("rm");
    let again = podctl.command(&["cp", "-", "box/one:/tmp"]).stdin(File::open(&stream).expect("it")).status();
    assert!(again.expect("podctl").success());
    let copied = rootfs(pod, "one").join("tmp/hole");
    assert!(fs::metadata(&copied).expect("the copy").len() == 1 << 40 && blocks(&copied) < 1000);
    [&copied, &archive, &stream].into_iter().for_each(|path| fs::remove_file(path).expect("rm"));

    // every byte of an image is hashed, those of holes as well: there is a bound
    let line =
        String::from_utf8_lossy(&limited(&["commit", "box", "--tag", "snapshot:0"]).output().expect("podctl").stderr)
            .into_owned();
    assert!(line.contains("rootfs/hole") && line.contains("larger than allowed"), "{line}");
    assert_eq!(line.trim_end().lines().count(), 1, "{line}");
    File::create(&hole).and_then(|file| file.set_len(1 << 28)).expect("a smaller hole");
    hole
}

/// The directory of an image in the store.
fn stored_image(podctl: &Podctl, name: &str) -> std::path::PathBuf {
    let id = podctl.ok(&["image", "list", "--no-trunc", "-q", "--filter", &format!("reference={name}")]);
    podctl.data.join("images").join(id.trim().replace(':', "-"))
}
