//! Running out of file descriptors, in podctl or in a pod's monitor: the error says so, no tree is reported as damaged,
//! and no process spins.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Pod;
use tests::process::{Process, wait_for};

tests::cases! {
    native a_monitor_without_descriptors 120;
    native few_descriptors_are_no_damage 120;
}

/// A caller with a low limit of descriptors that it can't raise.
fn with_few(descriptors: u32) -> String {
    format!("ulimit -n {descriptors}; set -- setpriv --bounding-set=-sys_resource \"$@\"")
}

/// The CPU time of a process.
fn computed(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|e| panic!("{pid}: {e}"));
    let fields: Vec<&str> =
        stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = [11, 12].iter().map(|field| fields[*field].parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

fn caller(at: &str) -> OwnedFd {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).expect("socket");
    connect(socket.as_raw_fd(), &UnixAddr::new(at).expect("an address")).unwrap_or_else(|e| panic!("{at}: {e}"));
    socket
}

fn a_monitor_without_descriptors(t: &Context) -> Verdict {
    let plain = t.podctl();
    let few = plain.called_after(&with_few(56));
    let pod = Pod { podctl: &plain, uuid: few.pod(&[]).uuid };
    pod.add("first", &[], &["wait", "/out/go", "+", "print", "last words", "+", "exit", "7"]);
    pod.app("start", "first", &[]).ok();
    let mut started = 0;
    let refused = loop {
        let name = format!("more-{started}");
        pod.add(&name, &[], &["sleep", "inf"]);
        let out = pod.app("start", &name, &[]);
        if out.code != Some(0) {
            let line = out.complaint();
            assert!(line.contains("no descriptor left of 56") && line.contains("ulimit -n"), "{line}");
            assert_eq!(pod.status(&name)["state"], "exited");
            break name;
        }
        started += 1;
        assert!(started < 40, "all of them have found a descriptor");
    };
    assert!(started >= 2, "{started}");

    let monitor = Process::parent_of(pod.pid());
    let directory = File::open(pod.dir())?;
    let in_pod = |path: &str| format!("/proc/self/fd/{}/{path}", directory.as_raw_fd());
    let is_calm = |when: &str| {
        let (before, since) = (computed(monitor), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let (spent, time) = (computed(monitor) - before, since.elapsed());
        assert!(spent < time / 5, "{when}: {spent:?} of {time:?}");
    };
    let clients: Vec<UnixStream> = (0..40)
        .map(|_| UnixStream::connect(in_pod("stage1/rootfs/rkt/iottymux/first/sock-stdout")))
        .collect::<Result<_, _>>()?;
    is_calm("clients");
    let callers: Vec<OwnedFd> = (0..40).map(|_| caller(&in_pod("monitor"))).collect();
    is_calm("callers");
    let line = plain.fails(&["attach", &pod.uuid, "--app=first", "--list"]);
    assert!(line.contains("no descriptor left of 56"), "{line}");
    drop((clients, callers));

    // The running apps are not affected.
    fs::write(plain.out().join("go"), "")?;
    assert_eq!(pod.exit_code("first"), 7);
    assert!(plain.ok(&["logs", &pod.uuid, "--app=first"]).contains("last words"));
    for n in 0..started {
        assert_eq!(pod.state(&format!("more-{n}")), "running");
    }
    // The remedy in the message works.
    pod.app("rm", "first", &[]).ok();
    pod.app("rm", "more-0", &[]).ok();
    pod.app("start", &refused, &[]).ok();
    wait_for("the app", 10, || (pod.state(&refused) == "running").then_some(()));
    pod.end();
    Ok(())
}

fn few_descriptors_are_no_damage(t: &Context) -> Verdict {
    let plain = t.podctl();
    let root = t.dir.join("root");
    fs::create_dir_all(root.join(vec!["deep"; 60].join("/")))?;
    fs::write(root.join("file"), "x")?;
    plain.ok(&["image", "import", &root.display().to_string(), "--name=deep", "--exec=/file"]);
    plain.ok(&["prepare", "--net=none", "deep", "--name=a"]);
    let trees = || -> Vec<u64> {
        let trees = fs::read_dir(plain.data.join("trees")).expect("trees");
        trees.map(|tree| tree.and_then(|tree| tree.metadata()).expect("a tree").ino()).collect()
    };
    let before = trees();
    let mut failed = 0;
    for descriptors in (8..72).step_by(4) {
        let few = plain.called_after(&with_few(descriptors));
        for words in [&["image", "verify", "deep"][..], &["prepare", "--net=none", "deep", "--name=a"]] {
            let out = few.run(words);
            assert!(!out.stderr.contains("damaged") && !out.stdout.contains("damaged"), "{descriptors}: {out}");
            if out.code != Some(0) {
                failed += 1;
                let line = out.complaint();
                assert!(line.contains("os error 24"), "{descriptors}: {line}");
            }
        }
    }
    assert!(failed > 0, "podctl needs no descriptors");
    assert_eq!(trees(), before, "a tree was rendered again");
    plain.ok(&["image", "verify", "deep"]);
    plain.ok(&["gc", "--expire-prepared=0s"]);
    Ok(())
}
