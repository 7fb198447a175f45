//! Debian's services as stock images run them: logs that are links to /dev/stdout and /dev/stderr, opened anew by a root
//! master and by whom it becomes.

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::wait_for;

tests::cases! {
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

/// A pod, with an image that has all of them.
fn pod(podctl: &Podctl) -> Pod<'_> {
    let tree = tests::source().join("target/services/tree");
    assert!(tree.join("usr/sbin/nginx").exists(), "there are no services: scripts/services makes them");
    podctl.ok(&["image", "import", &tree.display().to_string(), "--name", "services"]);
    podctl.sandbox(&["--net=none"])
}

#[track_caller]
fn start(pod: &Pod, app: &str, script: &str) {
    pod.podctl.ok(&["app", "add", &pod.uuid, "services", "--name", app, "--exec=/bin/sh", "--", "-c", script]);
    pod.app("start", app, &[]).ok();
}

/// Waits until an app has said that by one of its outputs.
#[track_caller]
fn says(pod: &Pod, app: &str, stream: &str, words: &str) {
    wait_for(&format!("{words:?} on {stream} of {app}"), 60, || {
        let shown = pod.podctl.ok(&["logs", &pod.uuid, "--app", app, "--format=json"]);
        let mut lines = shown.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.find(|line| line["stream"] == stream && line["message"].as_str().is_some_and(|text| text.contains(words)))
    });
}

/// Asks a server for a page, as soon as it is there.
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
    // The worker's word, which is www-data's.
    says(&pod, "web", "stderr", "open() \"/srv/missing\" failed");
    // The logs are opened anew, by the master and by its workers.
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
