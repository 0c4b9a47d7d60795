//! Background work against real sockets.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::fake::{DISCOVERED, Fake, Mood, header};
use super::spec;
use crate::base::Clock;
use crate::upstream::*;

const TICK: Duration = Duration::from_millis(50);

struct Running {
    upstreams: Arc<Upstreams>,
    server: Arc<Server>,
    _stop: watch::Sender<bool>,
}

fn fast(fakes: &[&Fake]) -> ServerSpec {
    let urls: Vec<String> = fakes.iter().map(|f| f.url()).collect();
    let mut s = spec(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    s.discover_refresh = TICK;
    s
}

fn checked(fakes: &[&Fake], probe: ProbeKind) -> ServerSpec {
    let mut s = fast(fakes);
    s.health = Some(HealthSpec {
        interval: TICK,
        timeout: Duration::from_millis(300),
        unhealthy_after: 2,
        healthy_after: 1,
        ..HealthSpec::new(probe)
    });
    s
}

impl Running {
    fn start(spec: ServerSpec) -> Self {
        Self::start_with(spec, Arc::new(SystemResolver))
    }

    fn start_with(spec: ServerSpec, resolver: Arc<dyn Resolve>) -> Self {
        let upstreams = Arc::new(Upstreams::with_resolver(Clock::default(), resolver));
        let (stop, stopped) = watch::channel(false);
        upstreams.spawn(&Handle::current(), stopped);
        let server = upstreams.apply(spec).unwrap();
        Self { upstreams, server, _stop: stop }
    }

    fn healthy(&self, target: usize) -> bool {
        self.server.status().targets[target].healthy
    }

    fn eras(&self) -> (Option<bool>, Option<bool>) {
        let eras = self.server.eras();
        (eras.modern, eras.legacy)
    }
}

/// Waits until something holds; fails with its name after five seconds.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within five seconds: {what}");
}

#[tokio::test]
async fn a_modern_server_is_asked_for_its_catalogue_entry() {
    let fake = Fake::start(Mood::Modern).await;
    let mut s = fast(&[&fake]);
    s.credentials = vec![(http::header::AUTHORIZATION, "Bearer upstream".parse().unwrap())];
    let r = Running::start(s);
    eventually("modern", || r.eras() == (Some(true), Some(false))).await;
    assert_eq!(r.server.discover().unwrap().result, DISCOVERED.as_bytes(), "byte for byte");
    assert_eq!(*r.server.eras().versions, [Arc::<str>::from("2026-07-28")]);
    eventually("asked again", || fake.seen.lock().discovers >= 2).await;
    let (head, body) = fake.seen.lock().last.clone();
    assert!(head.starts_with("POST /mcp HTTP/1.1"), "{head}");
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "server/discover"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", "Bearer upstream"),
        ("user-agent", concat!("tollgate/", env!("CARGO_PKG_VERSION"))),
        ("host", &fake.addr.to_string()),
    ] {
        assert_eq!(header(&head, name).as_deref(), Some(value), "{name}");
    }
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
}

#[tokio::test]
async fn a_legacy_server_holds_one_probe_session_until_it_is_removed() {
    let fake = Fake::start_with(Mood::Legacy, true).await;
    let r = Running::start(checked(&[&fake], ProbeKind::Mcp));
    eventually("pings", || fake.seen.lock().pings >= 5).await;
    assert_eq!(r.eras(), (Some(false), Some(true)));
    assert_eq!(*r.server.eras().versions, [Arc::<str>::from("2025-11-25")]);
    assert_eq!(fake.sessions(), (1, 0, 1));
    assert!(r.server.discover().is_none());
    r.upstreams.retain(|_, _| false);
    eventually("session closed", || fake.live_sessions() == 0).await;
    assert_eq!(fake.seen.lock().opened, 1);
}

#[tokio::test]
async fn a_session_the_server_forgot_is_opened_again_once() {
    let fake = Fake::start(Mood::Legacy).await;
    let r = Running::start(checked(&[&fake], ProbeKind::Mcp));
    eventually("pings", || fake.seen.lock().pings >= 2).await;
    fake.forget_sessions();
    let pings = fake.seen.lock().pings;
    eventually("pings again", || fake.seen.lock().pings >= pings + 4).await;
    assert_eq!(fake.sessions(), (2, 0, 1));
    assert!(r.healthy(0));
    assert!(r.upstreams.shutdown(Duration::from_secs(5)).await);
    assert_eq!(fake.live_sessions(), 0, "closed at shutdown");
}

#[tokio::test]
async fn a_server_of_both_eras_is_asked_initialize_once() {
    let fake = Fake::start(Mood::Dual).await;
    let r = Running::start(fast(&[&fake]));
    eventually("both", || r.eras() == (Some(true), Some(true))).await;
    eventually("asked again", || fake.seen.lock().discovers >= 5).await;
    assert_eq!(fake.sessions(), (1, 1, 0));
    assert_eq!(*r.server.eras().versions, [Arc::<str>::from("2026-07-28"), Arc::from("2025-11-25")]);
}

#[tokio::test]
async fn an_initialize_that_never_ends_is_not_repeated() {
    let fake = Fake::start(Mood::Silent).await;
    let mut s = checked(&[&fake], ProbeKind::Mcp);
    s.era = EraHint::Legacy;
    let r = Running::start(s);
    eventually("unhealthy", || !r.healthy(0)).await;
    tokio::time::sleep(6 * TICK).await;
    assert_eq!(fake.seen.lock().opened, 1, "checks give up waiting, the attempt does not end");
}

#[tokio::test]
async fn sessions_that_may_have_been_opened_do_not_pile_up() {
    let fake = Fake::start(Mood::Cut).await;
    let r = Running::start(checked(&[&fake], ProbeKind::Mcp));
    eventually("many rounds", || fake.seen.lock().discovers >= 8).await;
    let opened = fake.seen.lock().opened;
    assert!(opened <= 2, "{opened} attempts; one may be repeated on a fresh connection");
    assert!(r.healthy(0), "it answers everything else");
    assert_eq!(r.eras(), (None, None));
}

#[tokio::test]
async fn a_rolling_upgrade_shows_only_what_all_replicas_speak() {
    let (old, new) = (Fake::start(Mood::Legacy).await, Fake::start(Mood::Dual).await);
    let r = Running::start(checked(&[&old, &new], ProbeKind::Mcp));
    eventually("both examined", || r.server.status().targets.iter().all(|t| t.modern.is_some())).await;
    eventually("intersection", || r.eras() == (Some(false), Some(true))).await;
    assert_eq!(*r.server.eras().versions, [Arc::<str>::from("2025-11-25")]);
    // The replica restarts with the new version: its sessions are gone.
    old.forget_sessions();
    old.set(Mood::Dual);
    eventually("upgraded", || r.eras() == (Some(true), Some(true))).await;
}

#[tokio::test]
async fn trouble_changes_neither_era_nor_catalogue() {
    let fake = Fake::start(Mood::Modern).await;
    let r = Running::start(checked(&[&fake], ProbeKind::Mcp));
    eventually("modern", || r.eras() == (Some(true), Some(false))).await;
    for status in [503, 404, 429, 401] {
        fake.set(Mood::Html(status));
        eventually("unhealthy", || !r.healthy(0)).await;
        assert_eq!(r.eras(), (Some(true), Some(false)), "{status}");
        assert_eq!(r.server.discover().unwrap().result, DISCOVERED.as_bytes(), "{status}");
        fake.set(Mood::Modern);
        eventually("healthy again", || r.healthy(0)).await;
    }
    fake.set(Mood::Html(401));
    eventually("error shown", || {
        let error = r.server.status().targets[0].last_probe_error.clone();
        error.is_some_and(|e| e.contains("credential"))
    })
    .await;
}

#[tokio::test]
async fn http_and_tcp_probes_judge_by_status_and_connection() {
    let fake = Fake::start(Mood::Legacy).await;
    let http = |expect| ProbeKind::Http { path: "/healthz".parse().unwrap(), expect };
    let mut s = checked(&[&fake], http((200, 299)));
    s.era = EraHint::Foreign;
    let r = Running::start(s.clone());
    eventually("probed", || r.server.status().targets[0].last_probe_at.is_some()).await;
    assert!(r.healthy(0) && fake.seen.lock().requests.iter().all(|(verb, _)| verb == "GET"));
    s.health.as_mut().unwrap().probe = http((200, 200));
    r.upstreams.apply(s.clone()).unwrap();
    eventually("204 is not 200", || !r.healthy(0)).await;
    s.health.as_mut().unwrap().probe = ProbeKind::Tcp;
    r.upstreams.apply(s.clone()).unwrap();
    eventually("it accepts", || r.healthy(0)).await;
    s.health.as_mut().unwrap().probe = http((200, 200));
    r.upstreams.apply(s.clone()).unwrap();
    eventually("unhealthy", || !r.healthy(0)).await;
    s.health = None;
    r.upstreams.apply(s).unwrap();
    eventually("without checks everyone is healthy", || r.healthy(0)).await;
    assert_eq!(fake.seen.lock().opened, 0, "a foreign server is never spoken MCP to");
}

#[tokio::test]
async fn a_dead_target_is_found_and_keeps_its_verdict_over_a_weight_edit() {
    let (alive, dead) = (Fake::start(Mood::Modern).await, free_port().await);
    let mut s = checked(&[&alive], ProbeKind::Tcp);
    s.targets.push(TargetSpec::parse(&format!("http://{dead}/mcp"), 1).unwrap());
    s.era = EraHint::Foreign;
    let r = Running::start(s.clone());
    eventually("dead found", || !r.healthy(1)).await;
    s.targets[1].weight = 7;
    s.health.as_mut().unwrap().interval = Duration::from_secs(3600);
    r.upstreams.apply(s).unwrap();
    assert!(!r.healthy(1) && r.healthy(0), "another backend to pingora, the same process to us");
    let error = r.server.status().targets[1].last_probe_error.clone().unwrap();
    assert!(error.starts_with("cannot connect"), "{error}");
}

async fn free_port() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn waking_a_server_asks_at_once() {
    let fake = Fake::start(Mood::Modern).await;
    let mut s = fast(&[&fake]);
    s.discover_refresh = Duration::from_secs(3600);
    let r = Running::start(s);
    eventually("asked", || r.server.discover().is_some()).await;
    let before = fake.seen.lock().discovers;
    tokio::time::sleep(2 * TICK).await;
    assert_eq!(fake.seen.lock().discovers, before);
    r.server.wake();
    eventually("asked again", || fake.seen.lock().discovers > before).await;
}

/// Answers what it is told to.
struct Scripted(Mutex<io::Result<Vec<IpAddr>>>);

#[async_trait]
impl Resolve for Scripted {
    async fn lookup(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        match &*self.0.lock() {
            Ok(ips) => Ok(ips.clone()),
            Err(e) => Err(io::Error::other(e.to_string())),
        }
    }
}

#[tokio::test]
async fn names_are_resolved_in_the_background_and_kept_when_dns_fails() {
    let fake = Fake::start(Mood::Modern).await;
    let resolver = Arc::new(Scripted(Mutex::new(Ok(vec![fake.addr.ip()]))));
    let mut s = spec(&[&format!("http://mcp.internal:{}/mcp", fake.addr.port())]);
    (s.dns_refresh, s.discover_refresh) = (TICK, TICK);
    let r = Running::start_with(s, Arc::clone(&resolver) as Arc<dyn Resolve>);
    assert!(r.upstreams.settled(Duration::from_secs(5)).await);
    let lease = r.server.pick(Pick::default()).unwrap();
    assert_eq!(lease.authority(), &format!("mcp.internal:{}", fake.addr.port()));
    eventually("probed under its name", || r.eras().0 == Some(true)).await;
    *resolver.0.lock() = Err(io::Error::other("SERVFAIL"));
    eventually("error shown", || r.server.status().names[0].error.is_some()).await;
    assert!(r.server.pick(Pick::default()).is_ok(), "stale if error");
    *resolver.0.lock() = Ok(vec![[127, 0, 0, 9].into()]);
    eventually("moved", || {
        r.server.pick(Pick::default()).is_ok_and(|l| l.target_ref().as_str().ends_with("~127.0.0.9"))
    })
    .await;
    assert!(r.server.pinned(lease.target_ref()).is_ok(), "its sessions are still served");
}

/// DNS rebinding: a name that was good is bound to another address later. Neither probes nor picks go there.
#[tokio::test]
async fn a_name_that_is_bound_to_a_refused_address_is_not_dialled_there() {
    let fake = Fake::start(Mood::Modern).await;
    let port = fake.addr.port();
    let victim = tokio::net::TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let resolver = Arc::new(Scripted(Mutex::new(Ok(vec!["127.0.0.2".parse().unwrap()]))));
    let mut s = checked(&[], ProbeKind::Tcp);
    s.targets = vec![TargetSpec::parse(&format!("http://mcp.internal:{port}/mcp"), 1).unwrap()];
    s.dns_refresh = TICK;
    s.guard = AddressGuard::PublicOnly { except: vec!["127.0.0.1/32".parse().unwrap()] };
    let r = Running::start_with(s, Arc::clone(&resolver) as Arc<dyn Resolve>);
    assert!(r.upstreams.settled(Duration::from_secs(5)).await);
    assert_eq!(r.server.pick(Pick::default()).unwrap_err(), NoTarget::Unresolved, "refused at first");
    *resolver.0.lock() = Ok(vec!["127.0.0.2".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
    eventually("the good address of an answer is taken", || r.server.pick(Pick::default()).is_ok()).await;
    *resolver.0.lock() = Ok(vec!["127.0.0.2".parse().unwrap()]);
    tokio::time::sleep(TICK * 6).await;
    let addresses: Vec<IpAddr> = r.server.status().targets.iter().map(|t| t.address.ip()).collect();
    assert_eq!(addresses, [IpAddr::from([127, 0, 0, 1])]);
    let dialled = tokio::time::timeout(TICK, victim.accept()).await;
    assert!(dialled.is_err(), "nobody came to the refused address");
}
