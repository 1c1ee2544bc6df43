//! The panel behind a proxy with TLS, as the reference deployment has it: real nginx, a certificate of a private authority,
//! and the well-known trap of an nginx that looks a name up once.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::common::{Bench, DONE, GOING_BACK, LIMIT, ROLLED_BACK, ROTATE, STUCK, Stranger, docker};
use keyroll_testkit::{Running, StackOptions, containers_wanted, descendants};
use rustix::process::{Pid, Signal, kill_process};

/// Only api uses these, so api alone is recreated.
const TOKEN_KEYS: [&str; 4] = ["rotate", "JWT_SECRET", "JWT_REFRESH_SECRET", "--yes"];

/// The identity of a service's container, and since when it runs.
async fn running_since(bench: &Bench, service: &str) -> (String, String) {
    let container = bench.stack.container(service).await.unwrap();
    (container.id, container.started_at)
}

async fn address(bench: &Bench, service: &str) -> IpAddr {
    let container = bench.stack.container(service).await.unwrap();
    container.address.expect("it runs")
}

/// Starts a container on the stack's network, and says which address it got.
fn squat(bench: &Bench, n: u8) -> (Stranger, Option<IpAddr>) {
    let project = bench.stack.project();
    let network = format!("{project}_default");
    let squatter = Stranger(format!("{project}-squatter-{n}"));
    let run = ["run", "-d", "--init", "--network", &network, "--name"];
    let what = [&squatter.0, "keyroll-sandbox-base", "sleep", "infinity"];
    docker(&[&run[..], &what].concat());
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let address = docker(&["inspect", "-f", format, &squatter.0]);
    (squatter, address.trim().parse().ok())
}

/// A stack whose api does not end when it is asked to, so that the moment between the old and the new one is long enough to
/// do something in it on a busy machine too.
async fn bench_with_a_slow_api(options: StackOptions) -> Bench {
    let command = "    command: [\"panel\", \"api\"]\n";
    let check = "/api/health\"]\n      interval: 1s\n      timeout: 2s\n      retries: 5\n";
    let options = options
        .replace_in_compose(command, &format!("{command}    stop_signal: SIGCONT\n"))
        .replace_in_compose(
            &format!("{check}    stop_grace_period: 2s\n"),
            &format!("{check}    stop_grace_period: 6s\n"),
        );
    Bench::start(options).await
}

/// Starts a rotation, and has somebody else take api's address in the moment in which nobody has it. As long as the returned
/// containers are there, api is somewhere else.
async fn while_the_address_is_taken(bench: &Bench, command: &[&str]) -> (Running, Vec<Stranger>) {
    let api = bench.stack.container("api").await.unwrap();
    let project = format!("label=com.docker.compose.project={}", bench.stack.project());
    let running = bench.spawn(command);
    let keyroll = running.pid().unwrap();
    // Once compose has made the new container, it has to end the old one. There it is held.
    let compose = tokio::task::spawn_blocking(move || {
        let service = "label=com.docker.compose.service=api";
        let list = ["ps", "-aq", "--filter", &project, "--filter", service];
        let end = Instant::now() + LIMIT;
        while docker(&list).lines().count() < 2 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut compose = descendants(keyroll);
        compose.retain(|p| p.arguments.iter().any(|a| a == "up"));
        let pids = compose
            .iter()
            .filter_map(|p| Pid::from_raw(i32::try_from(p.pid).ok()?));
        let pids: Vec<Pid> = pids.collect();
        send(&pids, Signal::STOP);
        pids
    })
    .await
    .unwrap();
    assert!(!compose.is_empty(), "compose was never seen");
    docker(&["stop", "-t", "0", &api.id]);
    // The engine gives the lowest address that is free, which may be another one that the recreation has freed.
    let mut squatters = vec![];
    let mut taken = None;
    while taken != api.address && squatters.len() < 3 {
        let (squatter, address) = squat(bench, u8::try_from(squatters.len()).unwrap());
        squatters.push(squatter);
        taken = address;
    }
    send(&compose, Signal::CONT);
    assert_eq!(
        taken, api.address,
        "the test could not take the address that api had"
    );
    (running, squatters)
}

fn send(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ = kill_process(*pid, signal);
    }
}

/// What keyroll says when the proxy asks an address where api is no longer.
fn tells_of_the_proxy(text: &str, then: Option<IpAddr>) {
    let then = format!("api was at {} before and is at ", then.unwrap());
    for words in [
        "/api/health answers 50",
        " at https://panel.example.com:",
        "although api is well by itself",
        &then,
        "nginx -s reload",
        "resolver 127.0.0.11",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[tokio::test]
async fn a_rotation_through_a_proxy_with_tls_completes_and_leaves_the_proxy_alone() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().behind_tls_proxy()).await;
    assert!(bench.stack.base_url().starts_with("https://"));
    let before = bench.before().await;
    let proxy = running_since(&bench, "proxy").await;

    let outcome = bench.rotate().await;

    assert_eq!(outcome["ending"], "completed", "{outcome}");
    assert_eq!(running_since(&bench, "proxy").await, proxy);
    // All of it through the proxy.
    bench.runs_new_values(&before).await;
    assert_eq!(bench.login(before.value("ADMIN_PASSWORD")).await, 401);
    let tokens = before.tokens.as_ref().unwrap();
    assert_eq!(bench.access(&tokens.access).await, 401);
    assert_eq!(bench.refresh(&tokens.refresh).await, 401);
    let live = bench.tokens().await;
    assert_eq!(bench.access(&live.access).await, 200);
    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, DONE, "{verify:?}");

    let log = bench.stack.logs("proxy").await.unwrap();
    let by_keyroll = |what: &str| {
        log.lines()
            .any(|l| l.contains(what) && l.contains("keyroll/"))
    };
    for what in [
        "GET /api/health",
        "POST /api/auth/login",
        "POST /api/auth/refresh",
    ] {
        assert!(by_keyroll(what), "{what} did not come through the proxy");
    }
    for value in before.values.iter().chain(&bench.in_force()) {
        assert!(!log.contains(value.expose()), "a value is in its log");
    }
}

#[tokio::test]
async fn a_proxy_whose_certificate_is_not_trusted_is_refused_before_anything_changes() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().behind_tls_proxy()).await;
    let before = bench.before_without_login().await;

    let system = "http.ca_file=/etc/ssl/certs/ca-certificates.crt";
    let says = [
        "the TLS handshake with panel.example.com failed",
        "not signed by an authority that is trusted here",
        "http.ca_file",
    ];
    let stranger = [&ROTATE[..], &["--set", system]].concat();
    bench
        .refuses_since(&before, &stranger, "panel", &says)
        .await;

    let url = bench.stack.base_url().replace("panel.", "other.");
    let says = [
        "the TLS handshake with other.example.com failed",
        "panel.example.com",
    ];
    let other_name = [&ROTATE[..], &["--base-url", &url]].concat();
    bench
        .refuses_since(&before, &other_name, "panel", &says)
        .await;
}

#[tokio::test]
async fn a_proxy_that_looks_again_finds_an_api_that_came_back_at_another_address() {
    if !containers_wanted() {
        return;
    }
    let bench = bench_with_a_slow_api(StackOptions::new().behind_tls_proxy()).await;
    let before = bench.before().await;
    let old = address(&bench, "api").await;
    let proxy = running_since(&bench, "proxy").await;

    let (running, _squatters) = while_the_address_is_taken(&bench, &ROTATE).await;
    let run = running.wait(LIMIT * 3).await.unwrap();

    assert_eq!(run.code, DONE, "{run:?}");
    assert_ne!(address(&bench, "api").await, old);
    assert_eq!(running_since(&bench, "proxy").await, proxy);
    let tokens = before.tokens.unwrap();
    assert_eq!(bench.access(&tokens.access).await, 401);
    assert_eq!(bench.refresh(&tokens.refresh).await, 401);
}

#[tokio::test]
async fn api_and_worker_keep_their_addresses_so_a_proxy_that_looked_once_goes_on() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().behind_tls_proxy_that_looks_once()).await;
    let was = (
        address(&bench, "api").await,
        address(&bench, "worker").await,
    );
    // By chance alone each of them would get its own in half of the rotations.
    for _ in 0..3 {
        let outcome = bench.rotate().await;
        assert_eq!(outcome["ending"], "completed", "{outcome}");
        let is = (
            address(&bench, "api").await,
            address(&bench, "worker").await,
        );
        assert_eq!(is, was);
    }
}

#[tokio::test]
async fn a_proxy_that_looked_once_is_told_from_a_sick_service_and_the_old_set_comes_back() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().behind_tls_proxy_that_looks_once();
    let bench = bench_with_a_slow_api(options).await;
    let before = bench.before().await;
    let old = address(&bench, "api").await;

    let (running, squatters) = while_the_address_is_taken(&bench, &TOKEN_KEYS).await;
    running.says(GOING_BACK).await.unwrap();
    // Held, so that it is the old address that api gets on the way back.
    running.suspend().unwrap();
    let itself = bench.stack.panel_itself().unwrap().health().await.unwrap();
    let through = bench.panel.health().await.unwrap();
    drop(squatters);
    running.proceed().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();

    assert_eq!((itself, through), (200, 502), "the trap");
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    tells_of_the_proxy(&run.stderr, Some(old));
    assert_eq!(address(&bench, "api").await, old);
    bench.old_set_is_back(&before).await;
    let words = ["recreate", "although api is well by itself"];
    bench.trail_says("compensated", &words).await;
}

#[tokio::test]
async fn where_the_old_address_is_gone_a_rotation_waits_for_the_proxy_to_look_again_and_then_ends_on_the_old_set()
 {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().behind_tls_proxy_that_looks_once();
    let bench = bench_with_a_slow_api(options).await;
    let before = bench.before().await;
    let old = address(&bench, "api").await;

    let (running, _squatters) = while_the_address_is_taken(&bench, &TOKEN_KEYS).await;
    let run = running.wait(LIMIT * 3).await.unwrap();

    // Everything is back, and nobody comes to it: that is no ending that could be called well.
    assert_eq!(run.code, STUCK, "{run:?}");
    tells_of_the_proxy(&run.stdout, Some(old));
    assert!(run.stdout.contains("keyroll show"), "{run:?}");
    let status = bench.run(&["status"]).await;
    tells_of_the_proxy(&(status.stdout + &status.stderr), Some(old));

    docker(&[
        "exec",
        &bench.stack.container_name("proxy"),
        "nginx",
        "-s",
        "reload",
    ]);
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, ROLLED_BACK, "{resumed:?}");
    bench.old_set_is_back(&before).await;
}
