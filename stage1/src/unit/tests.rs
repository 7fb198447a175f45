//! The expected units are in `golden/`; `BLESS=1 cargo test -p stage1 unit::` writes them.

use super::*;
use crate::appc::Isolators;
use crate::cgroup::devices::DeviceKind;
use proptest::prelude::*;
use std::path::Path;

fn name(text: &str) -> AcName {
    text.parse().unwrap()
}

fn golden(file: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/unit/golden").join(file);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{file}");
}

fn all_limits() -> CgroupLimits {
    CgroupLimits {
        memory_max: Some(33_554_432),
        memory_high: Some(25_165_824),
        memory_swap_max: Some(0),
        cpu_quota: Some(1505),
        cpu_shares: Some(512),
        tasks_max: Some(33),
        io_weight: Some(50),
        oom_score_adj: Some(-77),
    }
}

#[test]
fn plain_app() {
    golden("app-shutdown.service", &AppUnit::new(&name("shutdown"), true).text().unwrap());
}

#[test]
fn app_with_everything_declared() {
    let app = name("db-1");
    let devices = [
        DeviceRule { kind: DeviceKind::Block, major: 254, minor: Some(0), write: false, make: false },
        DeviceRule { kind: DeviceKind::Character, major: 189, minor: None, write: true, make: false },
    ];
    let ports = [
        SocketPorts { protocol: Protocol::Tcp, port: 80, count: 1 },
        SocketPorts { protocol: Protocol::Udp, port: 65533, count: 3 },
    ];
    let mut unit = AppUnit {
        limits: all_limits(),
        notify: true,
        pre_start: true,
        post_stop: true,
        stop_timeout: Duration::from_millis(2500),
        stop_signal: 37,
        restart: Restart::OnFailure,
        devices: &devices,
        sockets: &ports,
        ..AppUnit::new(&app, false)
    };
    golden("app-db-1.v1.service", &unit.text().unwrap());
    unit.unified = true;
    golden("app-db-1.v2.service", &unit.text().unwrap());
    golden("app-db-1.socket", &socket_text(&app, &ports).unwrap());
}

#[test]
fn accounting_is_asked_for_by_name() {
    let app = name("web");
    let text = |accounting| AppUnit { accounting, ..AppUnit::new(&app, false) }.text().unwrap();
    let more = "CPUAccounting=yes\nMemoryAccounting=yes\nTasksAccounting=yes\nIOAccounting=yes\n";
    assert!(!text(false).contains("Accounting"));
    assert_eq!(text(true), text(false) + more);
    let few = CgroupLimits { tasks_max: Some(9), ..CgroupLimits::default() };
    assert!(installed_limits::replaced(&text(true), &app, &few, false).contains(more), "other limits leave it");
}

#[test]
fn restarts_take_longer_and_longer() {
    let seconds = [0, 1, 2, 3, 9, 10, 33, u32::MAX].map(|nth| restart_delay(nth).as_secs());
    assert_eq!(seconds, [1, 1, 2, 4, 256, 300, 300, 300]);
}

#[test]
fn a_unit_with_other_limits_is_as_if_it_had_been_written_with_them() {
    let app = name("web");
    let all = CgroupLimits {
        memory_max: Some(1 << 25),
        cpu_quota: Some(1500),
        tasks_max: Some(7),
        cpu_shares: Some(512),
        oom_score_adj: Some(5),
        ..CgroupLimits::default()
    };
    let few = CgroupLimits { tasks_max: Some(9), ..CgroupLimits::default() };
    for unified in [false, true] {
        let text = |limits| AppUnit { limits, ..AppUnit::new(&app, unified) }.text().unwrap();
        assert_eq!(installed_limits::replaced(&text(few), &app, &all, unified), text(all));
        assert_eq!(installed_limits::replaced(&text(all), &app, &few, unified), text(few));
        assert_eq!(installed_limits::replaced(&text(all), &app, &all, unified), text(all));
    }
}

#[test]
fn health_checks() {
    let app = name("db-1");
    let health = HealthUnits { interval: Duration::from_millis(1500), timeout: Duration::from_secs(9), restarts: true };
    let unit = AppUnit { waits: true, health: Some(health), ..AppUnit::new(&app, true) };
    golden("app-db-1.checked.service", &unit.text().unwrap());
    golden("health-db-1.timer", &health.timer(&app));
    golden("health-db-1.service", &health.service(&app));
}

#[test]
fn ports_that_do_not_exist() {
    for (port, count) in [(0, 1), (65535, 2), (1, u16::MAX)] {
        let ports = [SocketPorts { protocol: Protocol::Tcp, port, count }];
        assert_eq!(socket_text(&name("a"), &ports).is_ok(), (port, count) == (1, u16::MAX), "{port} {count}");
    }
}

#[test]
fn a_stop_timeout_of_zero_is_a_kill_and_a_short_one_leaves_the_reaper_time() {
    let app = name("a");
    let text = |stop_timeout| AppUnit { stop_timeout, ..AppUnit::new(&app, true) }.text().unwrap();
    let zero = text(Duration::ZERO);
    assert!(zero.contains("\nKillSignal=9\nTimeoutStopSec=10000ms\n"), "{zero}");
    let short = text(Duration::from_millis(3));
    assert!(short.contains("\nKillSignal=15\nTimeoutStopSec=1000ms\n"), "{short}");
    assert!(text(Duration::MAX).contains("\nTimeoutStopSec=31536000000ms\n"));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let app = name("a");
    let good = CgroupLimits::default();
    for limits in [
        CgroupLimits { memory_max: Some(0), ..good },
        CgroupLimits { memory_max: Some(u64::MAX), ..good },
        CgroupLimits { cpu_quota: Some(0), ..good },
        CgroupLimits { cpu_shares: Some(1), ..good },
        CgroupLimits { tasks_max: Some(0), ..good },
        CgroupLimits { io_weight: Some(10_001), ..good },
        CgroupLimits { oom_score_adj: Some(1001), ..good },
    ] {
        let error = AppUnit { limits, ..AppUnit::new(&app, true) }.text().unwrap_err();
        assert!(error.one_line().starts_with("unit of app a: "), "{error:?}");
    }
    for stop_signal in [0, 65] {
        assert!(AppUnit { stop_signal, ..AppUnit::new(&app, true) }.text().is_err());
    }
}

#[test]
fn limits_of_isolators() {
    let mut isolators = Isolators::default();
    assert_eq!(CgroupLimits::from(&isolators), CgroupLimits::default());
    isolators.cpu.request = Some(500);
    isolators.cpu.limit = Some(1500);
    isolators.memory.limit = Some(64 << 20);
    let limits = CgroupLimits::from(&isolators);
    assert_eq!((limits.cpu_shares, limits.cpu_quota, limits.memory_max), (Some(512), Some(1500), Some(64 << 20)));
    isolators.cpu.request = Some(u64::MAX);
    assert_eq!(CgroupLimits::from(&isolators).cpu_shares, Some(262_144));
    isolators.cpu_shares = Some(2);
    assert_eq!(CgroupLimits::from(&isolators).cpu_shares, Some(2));
}

#[test]
fn limits_without_effect_are_named() {
    assert_eq!(all_limits().without_effect(false, |_| true), ["memory-high", "memory-swap"]);
    assert!(all_limits().without_effect(true, |_| true).is_empty());
    assert!(CgroupLimits::default().without_effect(false, |_| false).is_empty());
    let without_io = all_limits().without_effect(true, |file| !file.starts_with("io."));
    assert_eq!(without_io, ["io-weight"]);
    assert_eq!(all_limits().without_effect(false, |file| file != "blkio.weight"), ["memory-high", "memory-swap"]);
    assert_eq!(all_limits().without_effect(true, |_| false).len(), 7);
}

/// Whether a line of a unit has only our words, numbers and the app's name.
fn is_ours(line: &str, app: &str) -> bool {
    let Some((directive, value)) = line.split_once('=') else {
        return ["", "[Unit]", "[Service]", "[Socket]", "[Timer]"].contains(&line);
    };
    let words = [
        "App",
        "no",
        "yes",
        "mixed",
        "notify",
        "all",
        "main",
        "both",
        "Sockets",
        "of",
        "app",
        "null",
        "tty",
        "journal+console",
        "continue",
        "strict",
        "on-failure",
        "always",
        "inactive-or-failed",
        "shutdown.target",
        "r",
        "rw",
        "rwm",
        "/opt/stage1/bin/app-exec",
        "-/opt/stage1/bin/app-exec",
        "--event=pre-start",
        "--event=post-stop",
        "--notify",
        "--restart=on-failure",
        "--restart=always",
        "--limit",
        "--back-off",
        "--await",
        "--checked",
        "--health",
        "oneshot",
        "Health",
        "check",
        "checks",
        "Timer",
        "health",
        "exec",
        "--sockets",
        "/opt/stage1/bin/reaper",
        "--wait",
    ];
    let number = |word: &str| {
        let word = ["/dev/char/", "/dev/block/", "char-", "block-"]
            .iter()
            .find_map(|prefix| word.strip_prefix(prefix))
            .unwrap_or(word);
        let digits = word.trim_end_matches("ms").trim_end_matches(['s', '%']).trim_start_matches('-');
        !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b':')
    };
    let ends = ["app-{}.socket", "app-{}.service", "app-ended@{}.service", "health-{}.timer"];
    let ends = ends.map(|unit| unit.replace("{}", app));
    directive.bytes().all(|b| b.is_ascii_alphanumeric())
        && value
            .split(' ')
            .all(|word| words.contains(&word) || word == app || ends.iter().any(|end| end == word) || number(word))
}

proptest! {
    #[test]
    fn a_unit_holds_our_words_numbers_and_the_name(
        app in "[a-z0-9]{1,9}(-[a-z0-9]{1,9}){0,3}",
        unified: bool, notify: bool, handlers: (bool, bool), restart in 0..3usize,
        port in proptest::option::of((1..=u16::MAX, 0..9u16, any::<bool>())),
        numbers in prop::array::uniform8(proptest::option::of(any::<u64>())),
        oom in proptest::option::of(any::<i32>()),
        stop_signal: u8, milliseconds: u64, tells_health: bool,
        device in proptest::option::of((any::<u32>(), proptest::option::of(any::<u32>()), any::<bool>())),
    ) {
        let app = name(&app);
        let [memory_max, memory_high, memory_swap_max, cpu_quota, cpu_shares, tasks_max, io_weight, _] = numbers;
        let devices: Vec<_> = device
            .map(|(major, minor, write)| DeviceRule { kind: DeviceKind::Block, major, minor, write, make: false })
            .into_iter()
            .collect();
        let limits = CgroupLimits {
            memory_max, memory_high, memory_swap_max, tasks_max,
            cpu_quota: cpu_quota.map(|n| n % 1_000_001),
            cpu_shares: cpu_shares.map(|n| n % 262_145),
            io_weight: io_weight.map(|n| n % 10_001),
            oom_score_adj: oom.map(|n| n % 1001),
        };
        let time = Duration::from_millis(milliseconds);
        let health = HealthUnits { interval: time, timeout: time, restarts: unified };
        let sockets: Vec<_> = port
            .map(|(port, count, tcp)| SocketPorts { protocol: if tcp { Protocol::Tcp } else { Protocol::Udp }, port, count })
            .into_iter()
            .collect();
        let unit = AppUnit {
            limits, notify, devices: &devices, sockets: &sockets,
            pre_start: handlers.0,
            post_stop: handlers.1,
            restart: [Restart::No, Restart::OnFailure, Restart::Always][restart],
            restart_limit: numbers[7].map(|n| n as u32),
            waits: notify,
            health: tells_health.then_some(health),
            stop_signal: stop_signal % 66,
            stop_timeout: Duration::from_millis(milliseconds),
            ..AppUnit::new(&app, unified)
        };
        for text in [unit.text(), socket_text(&app, &sockets), Ok(health.timer(&app)), Ok(health.service(&app))].into_iter().flatten() {
            for line in text.lines() {
                prop_assert!(is_ours(line, app.as_ref()), "{line:?}");
            }
            prop_assert!(text.ends_with('\n') && text.is_ascii());
        }
    }
}
