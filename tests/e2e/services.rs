//! Debian's services as stock images run them: logs that are links to /dev/stdout and /dev/stderr, which a root master
//! and its workers under another user open again.

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::wait_for;

tests::cases! {
    native the_shop_of_the_examples 180;
    native nginx_opens_its_links_anew;
    native apache_redis_and_postgres_log_as_their_images_do 120;
}

const NGINX: &str = "mkdir -p /var/log/nginx /var/lib/nginx; \
    ln -s /dev/stdout /var/log/nginx/access.log; ln -s /dev/stderr /var/log/nginx/error.log; echo hello >/srv/hello; \
    printf '%s' 'user www-data; worker_processes 2; daemon off; pid /tmp/pid; error_log /var/log/nginx/error.log notice; \
    events {} http { access_log /var/log/nginx/access.log; server { listen 127.0.0.1:8081; root /srv; } }' >/tmp/conf; \
    exec /usr/sbin/nginx -c /tmp/conf";

const APACHE: &str = "mkdir -p /var/log/apache2; \
    ln -s /dev/stdout /var/log/apache2/access.log; ln -s /proc/self/fd/2 /var/log/apache2/error.log; \
    printf '%s\n' 'ServerName x' 'Listen 127.0.0.1:8082' 'User www-data' 'Group www-data' 'PidFile /tmp/apache' \
    'LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so' \
    'LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so' 'DocumentRoot /srv' \
    'ErrorLog /var/log/apache2/error.log' 'LogFormat \"%r %>s\" short' 'CustomLog /var/log/apache2/access.log short' \
    >/tmp/apache.conf; exec /usr/sbin/apache2 -D FOREGROUND -f /tmp/apache.conf";

const REDIS: &str = "exec su redis -s /bin/sh -c \
    'exec /usr/bin/redis-server --bind 127.0.0.1 --port 8083 --save \"\" --dir /tmp --logfile /dev/stdout'";

const POSTGRES: &str = "exec su postgres -s /bin/sh -c 'cd /tmp; export PATH=/usr/lib/postgresql/15/bin:$PATH; \
    initdb -N -D /tmp/data >/dev/null && exec postgres -D /tmp/data -k /tmp -p 8084 -c listen_addresses= \
    -c log_statement=all 2>/dev/stderr'";

/// A pod, with an image of all of them.
fn pod(podctl: &Podctl) -> Pod<'_> {
    import(podctl);
    podctl.sandbox(&["--net=none"])
}

/// The image with all of them.
fn import(podctl: &Podctl) {
    let tree = tests::source().join("target/services/tree");
    assert!(tree.join("usr/sbin/nginx").exists(), "there are no services: scripts/services makes them");
    podctl.ok(&["image", "import", &tree.display().to_string(), "--name", "services"]);
}

#[track_caller]
fn start(pod: &Pod, app: &str, script: &str) {
    pod.podctl.ok(&["app", "add", &pod.uuid, "services", "--name", app, "--exec=/bin/sh", "--", "-c", script]);
    pod.app("start", app, &[]).ok();
}

/// The answer of the web shop, as soon as it gives one.
#[track_caller]
fn shop(podctl: &Podctl) -> (String, u64, u64) {
    let get = ["exec", "shop", "web", "--", "/bin/wget", "-q", "-O", "-", "http://127.0.0.1:8091/"];
    let answer = wait_for("the shop", 90, || {
        let answer = podctl.run(&get);
        (answer.code == Some(0)).then_some(answer.stdout)
    });
    let words: Vec<&str> = answer.split_whitespace().collect();
    let number = |word: Option<&&str>| word.and_then(|word| word.split_once('=')?.1.parse().ok());
    let numbers = (number(words.get(1)), number(words.get(2)));
    match (words.first(), numbers) {
        (Some(greeting), (Some(rows), Some(hits))) => ((*greeting).to_owned(), rows, hits),
        _ => panic!("the shop says {answer:?}"),
    }
}

fn the_shop_of_the_examples(t: &Context) -> Verdict {
    let podctl = t.podctl();
    import(&podctl);
    let file = tests::source().join("docs/examples/shop.yaml");
    let up = |file: &std::path::Path| podctl.ok(&["up", "--strict", "-f", &file.display().to_string()]);
    up(&file);
    let (greeting, rows, hits) = shop(&podctl);
    assert_eq!((greeting.as_str(), rows, hits), ("hello", 1, 1));

    // one app is replaced: the others are unaffected
    let pid = |app: &str| podctl.json(&["inspect", "shop", app])["pid"].as_i64().expect("pid");
    let pids = || ["db", "cache", "web"].map(pid);
    let before = pids();
    let changed = t.dir.join("shop.yaml");
    std::fs::write(&changed, std::fs::read_to_string(&file)?.replace("GREETING: hello", "GREETING: welcome"))?;
    assert_eq!(up(&changed), "app app: replaced");
    assert_eq!(pids(), before);
    let (greeting, rows, hits) = shop(&podctl);
    assert_eq!((greeting.as_str(), rows, hits), ("welcome", 2, 2), "the database and the cache went on");

    // the machine crashes: data written to the volume is there
    let monitor = podctl.json(&["inspect", "shop"])["pid"].as_i64().expect("pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(monitor)?), nix::sys::signal::Signal::SIGKILL)?;
    podctl.ok(&["wait", "shop"]);
    up(&changed);
    let (greeting, rows, hits) = shop(&podctl);
    assert_eq!((greeting.as_str(), rows, hits), ("welcome", 3, 1), "a new cache, and the old database");
    assert!(
        podctl.ok(&["down", "-f", &changed.display().to_string(), "--volumes"]).contains("volume shop-db: removed")
    );
    Ok(())
}

/// Waits until an app has written this to one of its outputs.
#[track_caller]
fn says(pod: &Pod, app: &str, stream: &str, words: &str) {
    wait_for(&format!("{words:?} on {stream} of {app}"), 60, || {
        let shown = pod.podctl.ok(&["logs", &pod.uuid, "--app", app, "--format=json"]);
        let mut lines = shown.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["stream"] == stream && line["message"].as_str().is_some_and(|text| text.contains(words)))
    });
}

/// Requests a page from a server, as soon as it answers.
#[track_caller]
fn asks(pod: &Pod, app: &str, port: u16, page: &str) {
    let url = format!("http://127.0.0.1:{port}/{page}");
    wait_for("an answer", 60, || {
        let answer = pod.enter(app, &["/bin/wget", "-q", "-O", "-", &url]);
        (answer.code == Some(0) || answer.stderr.contains("HTTP/1")).then_some(())
    });
}

fn nginx_opens_its_links_anew(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    start(&pod, "web", NGINX);
    asks(&pod, "web", 8081, "hello");
    says(&pod, "web", "stdout", "GET /hello HTTP/1.1\" 200");
    asks(&pod, "web", 8081, "missing");
    // The line of the worker, which runs as www-data.
    says(&pod, "web", "stderr", "open() \"/srv/missing\" failed");
    // The master and its workers open the logs again.
    pod.enter("web", &["/usr/sbin/nginx", "-c", "/tmp/conf", "-s", "reopen"]).ok();
    says(&pod, "web", "stderr", "reopening logs");
    asks(&pod, "web", 8081, "hello?again");
    says(&pod, "web", "stdout", "GET /hello?again");
    asks(&pod, "web", 8081, "gone");
    says(&pod, "web", "stderr", "open() \"/srv/gone\" failed");
    pod.app("stop", "web", &[]).ok();
    says(&pod, "web", "stderr", "exit");
    pod.end();
    Ok(())
}

fn apache_redis_and_postgres_log_as_their_images_do(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = pod(&podctl);
    for (app, script) in [("apache", APACHE), ("redis", REDIS), ("postgres", POSTGRES)] {
        start(&pod, app, script);
    }
    asks(&pod, "apache", 8082, "missing");
    says(&pod, "apache", "stdout", "GET /missing HTTP/1.1 404");
    says(&pod, "apache", "stderr", "resuming normal operations");
    says(&pod, "redis", "stdout", "Ready to accept connections");
    pod.app("stop", "redis", &[]).ok();
    says(&pod, "redis", "stdout", "bye bye");
    says(&pod, "postgres", "stderr", "database system is ready to accept connections");
    let psql = "/usr/lib/postgresql/15/bin/psql";
    pod.enter("postgres", &[psql, "-h", "/tmp", "-p", "8084", "-U", "postgres", "-c", "select 'asked'"]).ok();
    says(&pod, "postgres", "stderr", "select 'asked'");
    podctl.ok(&["stop", &pod.uuid]);
    says(&pod, "postgres", "stderr", "database system is shut down");
    says(&pod, "apache", "stderr", "caught SIGTERM");
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}
