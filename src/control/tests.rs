use std::net::SocketAddr;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::base::Clock;
use crate::telemetry::{Caps, Metrics};

struct Fake {
    metrics: Arc<Metrics>,
    readiness: Mutex<Readiness>,
}

impl ControlState for Fake {
    fn metrics(&self) -> String {
        self.metrics.render()
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().clone()
    }

    fn status(&self) -> Status {
        let target = TargetStatus {
            id: "127.0.0.1:9001".to_owned(),
            healthy: Some(true),
            in_flight: 2,
            latency_us: Some(800),
            ejected_until: None,
            last_error: None,
        };
        let server = ServerStatus {
            tenant: "default".to_owned(),
            name: "weather".to_owned(),
            transport: "http".to_owned(),
            era: "modern".to_owned(),
            available: Some(true),
            tools: Some(3),
            targets: vec![target],
        };
        Status { version: "1".to_owned(), sessions: 4, servers: vec![server], ..Status::default() }
    }

    fn revisions(&self) -> Vec<Revision> {
        vec![Revision {
            tenant: "default".to_owned(),
            revision: 7,
            source: "file",
            since: 1,
            last_reload: None,
        }]
    }
}

struct Control {
    address: SocketAddr,
    state: Arc<Fake>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn ready() -> Readiness {
    Readiness { snapshot: Some(SnapshotState { revision: 7, since: 1 }), ..Readiness::default() }
}

async fn start(config: ControlConfig) -> Control {
    start_with(config, Router::new()).await
}

async fn start_with(config: ControlConfig, more: Router) -> Control {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let metrics = Metrics::new(Caps::default(), Clock::manual(0), "1");
    let state = Arc::new(Fake { metrics, readiness: Mutex::new(ready()) });
    let (stop, stopped) = oneshot::channel();
    let limits = config.limits;
    let task = tokio::spawn(server::serve(listener, router(config, state.clone(), more), limits, async {
        let _ = stopped.await;
    }));
    Control { address, state, stop: Some(stop), task }
}

async fn loopback() -> Control {
    start(ControlConfig::new(Exposure::Loopback)).await
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| {
            let (key, value) = l.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn read_answer(socket: &mut TcpStream) -> Answer {
    let mut text = String::new();
    socket.read_to_string(&mut text).await.expect("reads");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{text:?}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

impl Control {
    async fn raw(&self, request: &str) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.expect("connects");
        socket.write_all(request.as_bytes()).await.expect("writes");
        read_answer(&mut socket).await
    }

    async fn send(&self, line: &str, headers: &str) -> Answer {
        let request =
            format!("{line} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address);
        self.raw(&request).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "").await
    }

    async fn stop(mut self) {
        let _ = self.stop.take().expect("stopped once").send(());
        self.task.await.expect("ends");
    }
}

#[tokio::test]
async fn healthz_says_the_process_lives() {
    let control = loopback().await;
    *control.state.readiness.lock() = Readiness::default();
    let answer = control.get("/healthz").await;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (200, Some("ok")));
}

#[tokio::test]
async fn readyz_is_200_when_everything_is_there() {
    let control = loopback().await;
    let answer = control.get("/readyz").await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["status"], "ready");
    assert_eq!(json["snapshot"]["revision"], 7);
    assert_eq!(json["problems"], serde_json::json!([]));
}

#[tokio::test]
async fn readyz_names_every_reason() {
    let listener = ListenerState { name: "mcp".into(), address: "0.0.0.0:80".into(), bound: false };
    let stale = CatalogueState { tenant: "default".into(), server: "a".into(), age_ms: None, stale: true };
    let fresh = CatalogueState { server: "b".into(), age_ms: Some(5), stale: false, ..stale.clone() };
    let control = loopback().await;
    for (readiness, want) in [
        (Readiness::default(), "no configuration has compiled"),
        (Readiness { draining: true, ..ready() }, "draining"),
        (Readiness { listeners: vec![listener], ..ready() }, "listener `mcp` is not bound to 0.0.0.0:80"),
        (Readiness { catalogues: vec![stale.clone()], ..ready() }, "every server's catalogue is stale"),
        (
            Readiness { audit_spool_full: Some("refused"), ..ready() },
            "the audit spool is full, and requests are refused",
        ),
    ] {
        *control.state.readiness.lock() = readiness;
        let answer = control.get("/readyz").await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["status"], "not_ready");
        assert_eq!(answer.json()["problems"], serde_json::json!([want]));
    }
    *control.state.readiness.lock() = Readiness { catalogues: vec![stale, fresh], ..ready() };
    let answer = control.get("/readyz").await;
    assert_eq!(answer.status, 200, "one dead server does not take the gateway down");
    assert_eq!(answer.json()["catalogues"][0]["stale"], true);
    *control.state.readiness.lock() = Readiness { audit_spool_full: Some("not_recorded"), ..ready() };
    let answer = control.get("/readyz").await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &serde_json::json!("degraded")));
}

#[tokio::test]
async fn readyz_shows_a_failed_reload_and_stays_ready() {
    let error = "tollgate.yaml:3:5: unknown key `servrs`".to_owned();
    let control = loopback().await;
    *control.state.readiness.lock() = Readiness {
        last_reload: Some(ReloadState { at: 5, outcome: "rejected", error: Some(error.clone()) }),
        ..ready()
    };
    let answer = control.get("/readyz").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["last_reload"]["error"], error);
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_text() {
    let control = loopback().await;
    let answer = control.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(answer.body.contains("tollgate_build_info{version=\"1\"} 1"));
}

#[tokio::test]
async fn metrics_ask_for_the_token_if_there_is_one() {
    let token = Some(Secret::new("s3cret".to_owned()));
    let control =
        start(ControlConfig { metrics_token: token, ..ControlConfig::new(Exposure::Network) }).await;
    let refused = control.get("/metrics").await;
    assert_eq!(refused.status, 401);
    assert!(refused.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer")));
    assert_eq!(control.send("GET /metrics", "authorization: Bearer s3cret\r\n").await.status, 200);
    assert_eq!(control.get("/healthz").await.status, 200, "probes carry no token");
}

#[tokio::test]
async fn the_api_shows_status_and_revisions() {
    let control = loopback().await;
    let status = control.get("/api/v1/status").await.json();
    assert_eq!(status["sessions"], 4);
    assert_eq!(status["servers"][0]["targets"][0]["in_flight"], 2);
    let revision = control.get("/api/v1/config/revision").await.json();
    assert_eq!(revision["tenants"][0]["revision"], 7);
}

#[tokio::test]
async fn the_api_refuses_foreign_hosts_on_loopback() {
    let config = ControlConfig {
        allowed_hosts: vec!["gateway.example".to_owned()],
        ..ControlConfig::new(Exposure::Loopback)
    };
    let control = start(config).await;
    let ask = |host: &'static str, path: &'static str| {
        control.raw_owned(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
    };
    assert_eq!(ask("evil.example", "/api/v1/status").await.status, 421);
    assert_eq!(ask("gateway.example:80", "/api/v1/status").await.status, 200);
    assert_eq!(ask("localhost", "/api/v1/status").await.status, 200);
    assert_eq!(ask("evil.example", "http://localhost/api/v1/status").await.status, 421);
    assert_eq!(ask("localhost", "http://evil.example/api/v1/status").await.status, 421);
    for path in ["/metrics", "/readyz"] {
        assert_eq!(ask("evil.example", path).await.status, 421, "{path} tells names of servers and tools");
        assert_eq!(ask("localhost", path).await.status, 200);
    }
    assert_eq!(ask("10.2.3.4", "/healthz").await.status, 200, "says nothing");
    let none = control.raw("GET /api/v1/status HTTP/1.0\r\n\r\n").await;
    assert_eq!(none.status, 421);
}

impl Control {
    async fn raw_owned(&self, request: String) -> Answer {
        self.raw(&request).await
    }
}

#[tokio::test]
async fn the_api_is_closed_off_loopback_without_a_token() {
    let control = start(ControlConfig::new(Exposure::Network)).await;
    assert_eq!(control.get("/api/v1/status").await.status, 403);
    let api_token = Some(Secret::new("t0ken".to_owned()));
    let control = start(ControlConfig { api_token, ..ControlConfig::new(Exposure::Network) }).await;
    assert_eq!(control.get("/api/v1/status").await.status, 401);
    assert_eq!(control.send("GET /api/v1/status", "authorization: Bearer t0ken\r\n").await.status, 200);
}

#[tokio::test]
async fn errors_are_problem_details_with_the_request_id() {
    let control = loopback().await;
    let answer = control.get("/nothing").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let json = answer.json();
    assert_eq!(json["status"], 404);
    assert_eq!(json["title"], "Not Found");
    assert_eq!(json["type"], "urn:tollgate:problem:not_found");
    let id = answer.header("x-tollgate-request-id").expect("an id");
    assert_eq!(json["instance"], format!("urn:uuid:{id}"));

    let answer = control.send("POST /readyz", "content-length: 0\r\n").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (405, Some("method_not_allowed")));
    assert!(answer.header("allow").is_some_and(|v| v.contains("GET")), "{}", answer.head);
}

#[tokio::test]
async fn responses_carry_security_headers() {
    let control = loopback().await;
    for path in ["/healthz", "/metrics", "/nothing"] {
        let answer = control.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("x-frame-options"), Some("DENY"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("content-security-policy").is_some_and(|v| v.contains("default-src 'none'")));
    }
}

#[tokio::test]
async fn internal_causes_stay_inside() {
    let more = Router::new().route("/broken", get(async || Problem::internal("password=hunter2")));
    let control = start_with(ControlConfig::new(Exposure::Loopback), more).await;
    let answer = control.get("/broken").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (500, Some("internal")));
    assert!(!answer.body.contains("hunter2") && !answer.head.contains("hunter2"));
    assert!(answer.json()["instance"].is_string());
    assert_eq!(answer.header("x-frame-options"), Some("DENY"), "added routes are covered");
    let length: usize = answer.header("content-length").and_then(|v| v.parse().ok()).expect("a length");
    assert_eq!(length, answer.body.len());
}

#[tokio::test]
async fn too_large_heads_and_bodies_are_refused() {
    let control = loopback().await;
    let answer = control.send("GET /healthz", "content-length: 9999999\r\n").await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("too_large")));
    let many: String = (0..100).map(|i| format!("x-{i}: y\r\n")).collect();
    assert_eq!(control.send("GET /healthz", &many).await.status, 431);
}

#[tokio::test]
async fn a_slow_head_loses_its_connection() {
    let limits = Limits { header_timeout: Duration::from_millis(100), connections: 1, ..Limits::default() };
    let control = start(ControlConfig { limits, ..ControlConfig::new(Exposure::Loopback) }).await;
    let mut slow = TcpStream::connect(control.address).await.expect("connects");
    slow.write_all(b"GET /healthz HTTP/1.1\r\n").await.expect("writes");
    let answer = control.get("/healthz").await;
    assert_eq!(answer.status, 200, "the only connection was freed");
    let mut rest = Vec::new();
    // Closed or reset, either is the end.
    let _ = slow.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let config = Arc::new(ControlConfig {
        request_timeout: Duration::from_millis(20),
        ..ControlConfig::new(Exposure::Loopback)
    });
    let router = Router::new()
        .route("/", get(std::future::pending::<()>))
        .layer(from_fn_with_state(config, guard::bound))
        .layer(from_fn(guard::mark));
    let request = axum::extract::Request::new(axum::body::Body::empty());
    let response = tower::ServiceExt::oneshot(router, request).await.expect("infallible");
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("x-tollgate-request-id"));
}

#[tokio::test]
async fn shutdown_lets_open_requests_finish_and_closes_idle_connections() {
    let limits = Limits { drain: Duration::from_secs(10), ..Limits::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let (entered, was_entered) = oneshot::channel::<()>();
    let entered = Arc::new(Mutex::new(Some(entered)));
    let slow = get(move || async move {
        if let Some(entered) = entered.lock().take() {
            let _ = entered.send(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        "done"
    });
    let task = tokio::spawn(server::serve(listener, Router::new().route("/", slow), limits, async {
        let _ = stopped.await;
    }));
    let _idle = TcpStream::connect(address).await.expect("connects");
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    was_entered.await.expect("the handler runs");
    let _ = stop.send(());
    let answer = read_answer(&mut socket).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("in time").expect("ends");
    assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn shutdown_cuts_off_what_does_not_end() {
    let limits = Limits { drain: Duration::from_millis(50), ..Limits::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = oneshot::channel::<()>();
    let router = Router::new().route("/", get(std::future::pending::<()>));
    let task = tokio::spawn(server::serve(listener, router, limits, async {
        let _ = stopped.await;
    }));
    let mut socket = TcpStream::connect(address).await.expect("connects");
    socket.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("writes");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let _ = stop.send(());
    tokio::time::timeout(Duration::from_secs(5), task).await.expect("in time").expect("ends");
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut rest)).await;
    assert!(end.is_ok() && rest.is_empty(), "the connection is gone");
}

#[tokio::test]
async fn serve_is_the_router_on_a_listener() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let metrics = Metrics::new(Caps::default(), Clock::manual(0), "1");
    let state = Arc::new(Fake { metrics, readiness: Mutex::new(ready()) });
    let (stop, stopped) = oneshot::channel();
    let config = ControlConfig::new(Exposure::of(&address));
    let task = tokio::spawn(serve(listener, config, state.clone(), async {
        let _ = stopped.await;
    }));
    let control = Control { address, state, stop: Some(stop), task };
    assert_eq!(control.get("/readyz").await.status, 200);
    control.stop().await;
}

#[test]
fn exposure_follows_the_address() {
    for (address, want) in [
        ("127.0.0.1:1", Exposure::Loopback),
        ("[::1]:1", Exposure::Loopback),
        ("[::ffff:127.0.0.1]:1", Exposure::Loopback),
        ("0.0.0.0:1", Exposure::Network),
        ("10.0.0.1:1", Exposure::Network),
    ] {
        assert_eq!(Exposure::of(&address.parse().expect("an address")), want, "{address}");
    }
}
