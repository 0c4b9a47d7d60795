//! A document that changes while clients work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{Era, Gateway, Upstream, eventually};

#[tokio::test]
async fn a_changed_file_applies_by_itself() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern").watched();
    let gateway = builder.clone().start().await;
    let mut caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    let revision = gateway.metric("tollgate_config_revision", &[]).await;
    gateway.reload(&builder.clone().route("path: /moved").text(), "applied").await;
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 404);
    caller.path = "/moved".to_owned();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert!(gateway.metric("tollgate_config_revision", &[]).await > revision);
    assert_eq!(gateway.metric("tollgate_config_reload_success", &[]).await, 1.0);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_says_so() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern").watched();
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    let revision = gateway.metric("tollgate_config_revision", &[]).await;
    let bad = [
        ("not YAML", "version: [1\n".to_owned(), "tollgate.yaml"),
        ("an unknown key", builder.clone().more("limitz: []").text(), "limits"),
        ("a dangling name", builder.clone().route("policy: nobody").text(), "nobody"),
        (
            "an expression that is none",
            builder
                .clone()
                .route("policy: p")
                .more("policies:\n  - { name: p, rules: [ { allow: {}, when: 'arguments.' } ] }")
                .text(),
            "policies",
        ),
        (
            "a file that is missing",
            builder.clone().http("tls: { ca: /nonexistent/ca.pem }").text(),
            "/nonexistent/ca.pem",
        ),
        ("nothing", String::new(), "version"),
    ];
    for (why, text, word) in bad {
        gateway.reload(&text, "rejected").await;
        assert_eq!(
            caller.ask(&caller.tool("get_time")).await.status(),
            200,
            "{why}: the old document serves"
        );
        assert_eq!(gateway.metric("tollgate_config_revision", &[]).await, revision, "{why}");
        assert_eq!(gateway.metric("tollgate_config_reload_success", &[]).await, 0.0, "{why}");
        let (status, ready) = gateway.readyz().await;
        assert_eq!(status, 200, "{why}: that is no reason to send no traffic");
        assert_eq!(ready["last_reload"]["outcome"], "rejected", "{why}");
        let error = ready["last_reload"]["error"].as_str().unwrap_or_default();
        assert!(error.contains(word), "{why}: {error}");
    }
    gateway.reload(&builder.clone().route("path: /healed").text(), "applied").await;
    assert_eq!(gateway.metric("tollgate_config_reload_success", &[]).await, 1.0);
    let (_, ready) = gateway.readyz().await;
    assert_eq!(ready["last_reload"]["outcome"], "applied");
    assert_eq!(ready["last_reload"]["error"], json!(null));
}

#[tokio::test]
async fn sessions_and_streams_outlive_a_reload() {
    let up = Upstream::legacy().await;
    let builder = Gateway::relay(&[&up]).server("era: legacy").watched();
    let gateway = builder.clone().start().await;
    let session = gateway.caller().initialize().await;
    let (mut stream, _) = session.caller.stream(&session.get()).await;
    let changed = builder.clone().server("timeouts: { first_byte: 30s }").route("methods: [\"*\"]");
    gateway.reload(&changed.text(), "applied").await;
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    assert_eq!(up.count("initialize"), 1);
    up.call("GET").await.event(&json!({ "jsonrpc": "2.0", "method": "after" }));
    assert_eq!(stream.message().await["method"], "after");
}

#[tokio::test]
async fn an_empty_bucket_stays_empty_over_a_reload() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up])
        .server("era: modern")
        .route("limits: [one]")
        .more("limits:\n  - { name: one, key: principal, rate: 1/h }")
        .watched();
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 429);
    gateway.reload(&builder.clone().server("timeouts: { first_byte: 30s }").text(), "applied").await;
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 429);
}

#[tokio::test]
async fn an_open_breaker_stays_open_over_a_reload() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up])
        .server("era: modern, retry: { attempts: 1 }, breaker: { failures: 2, open_for: 1m }")
        .watched();
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    up.kill().await;
    for _ in 0..2 {
        assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 502);
    }
    up.revive().await;
    gateway.reload(&builder.clone().route("methods: [\"*\"]").text(), "applied").await;
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 503, "nobody is asked");
}

#[tokio::test]
async fn no_call_fails_while_the_document_changes() {
    let ups = [Upstream::named("one", Era::Dual).await, Upstream::named("two", Era::Dual).await];
    let both = Gateway::relay(&[&ups[0], &ups[1]]).watched();
    let one = Gateway::relay(&[&ups[0]]);
    let gateway = both.clone().start().await;
    gateway.settled().await;
    // A session on the target that stays.
    let session = loop {
        let session = gateway.caller().initialize().await;
        if session.ask(&session.tool("get_time")).await.text().contains("one") {
            break session;
        }
    };
    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for n in 0..4 {
        let (over, calls) = (over.clone(), calls.clone());
        let (caller, session) = (gateway.caller(), session.clone());
        callers.push(tokio::spawn(async move {
            let mut client = crate::support::Client::connect(caller.address).await;
            while !over.load(Ordering::Relaxed) {
                let request = if n % 2 == 0 { session.tool("get_time") } else { caller.tool("get_time") };
                let response = client.ask(&request).await;
                assert_eq!(response.status(), 200, "{}", response.text());
                calls.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for n in 0..3 {
        gateway.reload(&one.clone().route(&format!("methods: [\"*\", x{n}]")).text(), "applied").await;
        gateway.reload(&both.clone().text(), "applied").await;
    }
    for _ in 0..40 {
        gateway.process().reload();
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    assert!(calls.load(Ordering::Relaxed) > 50, "{calls:?}");
}

#[tokio::test]
async fn what_needs_a_restart_is_left_as_it_is() {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern").watched();
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    gateway.reload(&builder.clone().listener("limits: { max_body: 1KiB }").text(), "applied").await;
    let request = caller.tool("get_time");
    let padded = format!("{}{}", String::from_utf8_lossy(&request.body), " ".repeat(2000));
    assert_eq!(caller.ask(&request.body(padded)).await.status(), 200);
}

#[tokio::test]
async fn readiness_shows_the_catalogue_and_the_listeners() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    let (status, ready) = gateway.readyz().await;
    assert_eq!((status, &ready["status"]), (200, &json!("ready")), "{ready}");
    assert_eq!(ready["catalogues"][0]["server"], "s");
    assert_eq!(ready["catalogues"][0]["stale"], false);
    let addresses = ready["listeners"].to_string();
    assert!(addresses.contains(&gateway.mcp.to_string()), "{addresses}");
    assert_eq!(gateway.admin("/healthz").await.status(), 200);
    let status = gateway.admin("/api/v1/status").await.json();
    assert_eq!(status["servers"][0]["era"], "modern", "{status}");
}

#[tokio::test]
async fn a_server_that_turns_modern_is_found_out_by_asking_again() {
    let era = Arc::new(AtomicBool::new(false));
    let modern = era.clone();
    let up = Upstream::scripted(Era::Dual, move |call| {
        let is_modern = call.header("mcp-protocol-version") == Some("2026-07-28");
        (is_modern && !modern.load(Ordering::SeqCst))
            .then(|| crate::support::Reply::error(400, call, -32600, "not yet"))
    })
    .await;
    let gateway = Gateway::relay(&[&up]).start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    let discover = caller.modern("server/discover", json!({}));
    assert_eq!(caller.ask(&discover).await.code(), -32022, "a legacy server");
    era.store(true, Ordering::SeqCst);
    // A lost session has the era asked about again; so does a look every ten minutes.
    up.forget_sessions();
    gateway.process().reloader().state().upstreams.servers()[0].wake();
    eventually("the modern era", async || (caller.ask(&discover).await.status() == 200).then_some(())).await;
}

#[tokio::test]
async fn a_secret_that_is_renewed_in_its_file_is_used() {
    let folder = crate::support::Folder::new();
    let secret = folder.write("token", "first");
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up])
        .server(&format!("era: modern, credential: {{ bearer: \"${{file:{}}}\" }}", secret.display()))
        .start()
        .await;
    let caller = gateway.caller();
    let used = async || {
        caller.ask(&caller.tool("get_time")).await;
        up.calls().last().unwrap().header("authorization").unwrap().to_owned()
    };
    assert_eq!(used().await, "Bearer first");
    folder.write("token", "second");
    eventually("the new secret", async || (used().await == "Bearer second").then_some(())).await;
}
