//! The end of a process, and the beginning of its successor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Builder, Client, Era, Folder, Gateway, Reply, Upstream, eventually};

/// Puts off the tool `later`.
async fn patient(era: Era) -> Upstream {
    Upstream::scripted(era, |call| (call.message()["params"]["name"] == "later").then(Reply::later)).await
}

fn relay(up: &Upstream) -> Builder {
    Gateway::relay(&[up])
}

#[tokio::test]
async fn calls_in_flight_complete_and_nothing_new_is_accepted() {
    let up = patient(Era::Modern).await;
    let gateway = relay(&up).server("era: modern").start().await;
    let (caller, address) = (gateway.caller(), gateway.mcp);
    let mut client = caller.open(&caller.tool("later")).await;
    let call = up.call("tools/call").await;
    let ending = tokio::spawn(gateway.shutdown());
    eventually("no new connections", async || TcpStream::connect(address).await.is_err().then_some(())).await;
    assert!(call.gone_at().is_none(), "the call goes on");
    call.answer(Reply::result(&call, &json!({ "content": [] })));
    let response = client.response().await;
    assert_eq!((response.status(), response.whole), (200, true), "{}", response.text());
    assert!(ending.await.unwrap(), "nothing was cut");
}

#[tokio::test]
async fn readiness_goes_before_the_door_closes() {
    let up = Upstream::modern().await;
    let gateway = relay(&up)
        .server("era: modern")
        .more("shutdown: { announce: 1s, drain: 2s, streams: 1s }")
        .start()
        .await;
    gateway.settled().await;
    let (caller, admin) = (gateway.caller(), gateway.admin);
    let ending = tokio::spawn(gateway.shutdown());
    let request = crate::support::Request::new("GET", "/readyz")
        .with("Host", &admin.to_string())
        .with("Connection", "close");
    eventually("not ready", async || {
        let response = Client::connect(admin).await.ask(&request).await;
        (response.status() == 503).then(|| assert_eq!(response.json()["problems"], json!(["draining"])))
    })
    .await;
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200, "calls are still accepted");
    assert!(ending.await.unwrap());
}

#[tokio::test]
async fn long_streams_end_politely() {
    let up = Upstream::scripted(Era::Dual, |_| None).await;
    let gateway = relay(&up).start().await;
    gateway.settled().await;
    let caller = gateway.caller();
    let session = caller.initialize().await;
    let (mut own, _) = session.caller.stream(&session.get()).await;
    let mut body = crate::support::modern_body("subscriptions/listen", json!({ "notifications": {} }));
    body["id"] = json!("listen-1");
    let request = caller.modern("subscriptions/listen", json!({})).body(body.to_string());
    let (mut listener, _) = caller.stream(&request).await;
    let began = Instant::now();
    let ending = tokio::spawn(gateway.shutdown());
    let last = listener.message().await;
    assert_eq!(last["id"], "listen-1");
    assert_eq!(last["result"]["resultType"], "complete", "it may ask again elsewhere: {last}");
    assert_eq!(listener.rest_of_body().await, (Vec::new(), true), "with its proper end");
    assert_eq!(own.rest_of_body().await, (Vec::new(), true), "with its proper end");
    assert!(ending.await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(4), "at once, not at the deadline: {:?}", began.elapsed());
}

#[tokio::test]
async fn idle_connections_do_not_hold_the_end_up() {
    let up = Upstream::modern().await;
    let gateway = relay(&up).server("era: modern").start().await;
    let caller = gateway.caller();
    let mut kept = gateway.connect().await;
    assert_eq!(kept.ask(&caller.tool("get_time")).await.status(), 200);
    let began = Instant::now();
    assert!(gateway.shutdown().await);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(kept.until_closed().await, b"");
}

#[tokio::test]
async fn what_does_not_end_by_the_deadline_is_cut() {
    let up = patient(Era::Modern).await;
    let gateway = relay(&up)
        .server("era: modern")
        .more("shutdown: { announce: 0s, drain: 500ms, streams: 200ms }")
        .start()
        .await;
    let caller = gateway.caller();
    let mut client = caller.open(&caller.tool("later")).await;
    let call = up.call("tools/call").await;
    let began = Instant::now();
    assert!(!gateway.shutdown().await, "something was cut");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    call.gone().await;
    let rest = client.until_closed().await;
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_successor_takes_over_without_a_failed_call_and_sessions_go_on() {
    let up = patient(Era::Dual).await;
    let builder = relay(&up);
    let gateway = builder.clone().start().await;
    gateway.settled().await;
    let session = gateway.caller().initialize().await;
    let address = gateway.mcp;

    let (over, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = Vec::new();
    for n in 0..6 {
        let (over, calls) = (over.clone(), calls.clone());
        let (caller, session) = (gateway.caller(), session.clone());
        callers.push(tokio::spawn(async move {
            let mut kept = None;
            while !over.load(Ordering::Relaxed) {
                let request = if n % 2 == 0 { session.tool("get_time") } else { caller.tool("get_time") };
                // Some keep their connection until they are told that it closes; for the others, each call has its
                // own, because most of what can go wrong lies between accept and the first byte.
                let request = if n < 2 { request } else { request.with("Connection", "close") };
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => Client::connect(caller.address).await,
                };
                let response = client.ask(&request).await;
                assert_eq!(response.status(), 200, "{}", response.text());
                calls.fetch_add(1, Ordering::Relaxed);
                if response.header("connection") != Some("close") {
                    kept = Some(client);
                }
            }
        }));
    }
    let caller = gateway.caller();
    let mut slow = caller.open(&caller.tool("later")).await;
    let call = eventually("the slow call", async || {
        up.calls().into_iter().find(|c| c.message()["params"]["name"] == "later")
    })
    .await;
    let successor = gateway.succeed(&builder).await;
    assert_eq!(successor.gateway.mcp, address, "the same socket");
    let successor = successor.serving();
    let ending = tokio::spawn(gateway.yield_to_successor());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(call.gone_at().is_none(), "the old process finishes what it has");
    call.answer(Reply::result(&call, &json!({ "content": [] })));
    assert_eq!(slow.response().await.status(), 200);
    assert!(ending.await.unwrap(), "nothing was cut");
    let before = calls.load(Ordering::Relaxed);
    eventually("calls to the successor", async || {
        (calls.load(Ordering::Relaxed) > before + 20).then_some(())
    })
    .await;
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call failed");
    }
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    assert_eq!(
        up.calls().iter().filter(|c| c.method() == "initialize").count(),
        1,
        "nobody had to begin again"
    );
    drop(successor);
}

#[tokio::test]
async fn a_successor_that_dies_before_it_serves_changes_nothing() {
    let up = Upstream::modern().await;
    let builder = relay(&up).server("era: modern");
    let gateway = builder.clone().start().await;
    let caller = gateway.caller();
    let failed = gateway.succeed(&builder).await;
    drop(failed);
    for _ in 0..20 {
        assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    }
    // And the next one finds the door open.
    let successor = gateway.succeed(&builder).await.serving();
    assert!(gateway.yield_to_successor().await);
    assert_eq!(successor.caller().ask(&caller.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let up = Upstream::legacy().await;
    let builder = relay(&up).server("era: legacy");
    let gateway = builder.clone().start().await;
    let mut session = gateway.caller().initialize().await;
    let gateway = gateway.restart(&builder).await;
    session.caller.address = gateway.mcp;
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    assert_eq!(up.count("initialize"), 1, "the id carries all that is needed");
}

#[tokio::test]
async fn ids_of_another_installation_do_not_open() {
    let up = Upstream::legacy().await;
    let (one, two) =
        (relay(&up).server("era: legacy").start().await, relay(&up).server("era: legacy").start().await);
    let mut session = one.caller().initialize().await;
    session.caller.address = two.mcp;
    assert_eq!(session.ask(&session.tool("get_time")).await.status(), 404, "it has other keys");
}

/// The socket for a successor cannot be made: that costs upgrades, and nothing else.
#[tokio::test]
async fn signals_are_heard_where_nobody_can_take_over() {
    let folder = Folder::new();
    let data = folder.path().join("data");
    std::fs::create_dir_all(data.join("upgrade.sock")).unwrap();
    let log = folder.path().join("log");
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .stdout(std::fs::File::create(&log).unwrap())
        .stderr(std::fs::File::options().append(true).open(&log).unwrap())
        .spawn()
        .unwrap();
    let said = |word: &str| std::fs::read_to_string(&log).unwrap().contains(word);
    eventually("it says that nobody can", async || said("upgrade_unavailable").then_some(())).await;
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    eventually("it serves", async || said("\"started\"").then_some(())).await;
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let ended = eventually("it ends", async || child.try_wait().unwrap()).await;
    assert!(ended.success() && said("draining"), "{}", std::fs::read_to_string(&log).unwrap());
}
