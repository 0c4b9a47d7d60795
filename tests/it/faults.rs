//! Several targets, some of which fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::json;

use crate::support::{Caller, Client, Era, Gateway, Reply, Upstream, eventually};

async fn who(caller: &Caller) -> String {
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

async fn pair() -> [Upstream; 2] {
    [Upstream::named("one", Era::Modern).await, Upstream::named("two", Era::Modern).await]
}

/// Puts off the tool `later`.
async fn patient(name: &str) -> Upstream {
    let later =
        |call: &crate::support::Call| (call.message()["params"]["name"] == "later").then(Reply::later);
    Upstream::start(name, Era::Modern, None, later).await
}

#[tokio::test]
async fn calls_that_found_nobody_are_made_elsewhere() {
    let ups = pair().await;
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server("era: modern, balance: round_robin, retry: { min_per_second: 1000 }")
        .start()
        .await;
    let caller = gateway.caller();
    assert_ne!(who(&caller).await, who(&caller).await, "both take turns");
    ups[0].kill().await;
    for _ in 0..20 {
        assert_eq!(who(&caller).await, "two");
    }
    assert!(gateway.metric("tollgate_retries_total", &[]).await >= 1.0);
}

#[tokio::test]
async fn calls_in_flight_to_a_killed_target_end_with_an_error_for_their_id_and_no_others() {
    let ups = [patient("one").await, patient("two").await];
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: modern, balance: round_robin").start().await;
    let caller = gateway.caller();
    let mut pending: Vec<(serde_json::Value, Client)> = Vec::new();
    for _ in 0..8 {
        let request = caller.tool("later");
        let id = serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["id"].clone();
        pending.push((id, caller.open(&request).await));
    }
    eventually("all calls are under way", async || {
        (ups.iter().map(|up| up.count("tools/call")).sum::<usize>() == 8).then_some(())
    })
    .await;
    let lost: Vec<_> = ups[0].calls().iter().map(|c| c.message()["id"].clone()).collect();
    assert_eq!(lost.len(), 4);
    ups[0].kill().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    for call in ups[1].calls() {
        call.answer(Reply::result(&call, &json!({ "content": [] })));
    }
    for (id, mut client) in pending {
        let response = client.response().await;
        assert_eq!(response.json()["id"], id);
        if lost.contains(&id) {
            assert_eq!(response.status(), 502, "{}", response.text());
            assert!(response.code() > 0, "{}", response.text());
        } else {
            assert_eq!(response.status(), 200, "{}", response.text());
        }
    }
}

#[tokio::test]
async fn a_call_that_may_have_run_is_not_made_again() {
    let cut = |call: &crate::support::Call| (call.method() == "tools/call").then(Reply::reset);
    let ups = [Upstream::scripted(Era::Modern, cut).await, Upstream::scripted(Era::Modern, cut).await];
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server("era: modern, retry: { attempts: 5, min_per_second: 1000 }")
        .start()
        .await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("transfer_money")).await;
    assert_eq!(response.status(), 502);
    assert_eq!(ups.iter().map(|up| up.count("tools/call")).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_connection_that_went_stale_in_the_pool_costs_only_what_may_not_be_repeated() {
    // Whoever asks a second time on a connection finds it dead, as if the server had closed it at that moment.
    let seen = Arc::new(Mutex::new(HashMap::<usize, usize>::new()));
    let up = Upstream::scripted(Era::Modern, move |call| {
        if call.method() == "server/discover" {
            return None;
        }
        let mut seen = seen.lock();
        let count = seen.entry(call.connection).or_default();
        *count += 1;
        (*count > 1).then(Reply::reset)
    })
    .await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let caller = gateway.caller();
    let list = caller.modern("tools/list", json!({}));
    // A connection is back in its pool a moment after the answer.
    let back = Duration::from_millis(100);
    assert_eq!(caller.ask(&list).await.status(), 200);
    tokio::time::sleep(back).await;
    assert_eq!(caller.ask(&list).await.status(), 200, "a list is asked for again on a new connection");
    assert_eq!(up.count("tools/list"), 3, "the second one twice");
    tokio::time::sleep(back).await;
    assert_eq!(caller.ask(&caller.tool("transfer_money")).await.status(), 502, "a call is not");
    assert_eq!(up.count("tools/call"), 1);
}

#[tokio::test]
async fn weights_are_shares() {
    let ups = pair().await;
    let targets = [
        format!("{{ url: \"{}\", weight: 3 }}", ups[0].url()),
        format!("{{ url: \"{}\", weight: 1 }}", ups[1].url()),
    ];
    let gateway = Gateway::targets(targets).server("era: modern, balance: round_robin").start().await;
    let caller = gateway.caller();
    let mut client = gateway.connect().await;
    for _ in 0..40 {
        assert_eq!(client.ask(&caller.tool("get_time")).await.status(), 200);
    }
    assert_eq!((ups[0].count("tools/call"), ups[1].count("tools/call")), (30, 10));
}

#[tokio::test]
async fn a_breaker_fails_fast_and_tries_again_when_it_said() {
    let up = Upstream::named("one", Era::Modern).await;
    let gateway = Gateway::relay(&[&up])
        .server(
            "era: modern, retry: { attempts: 1 }, outlier: { consecutive_failures: 0, error_ratio: 0% }, breaker: { \
             failures: 3, open_for: 1s, half_open_requests: 1 }",
        )
        .start()
        .await;
    let caller = gateway.caller();
    who(&caller).await;
    // What came of a call is noted when its answer is out, and a success ends the row of failures.
    tokio::time::sleep(Duration::from_millis(50)).await;
    up.kill().await;
    for n in 0..3 {
        assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 502, "failure {n}");
    }
    up.revive().await;
    let before = up.count("tools/call");
    let opened = Instant::now();
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 503, "open: nobody is asked");
    assert!(response.header("retry-after").is_some());
    assert_eq!(up.count("tools/call"), before);
    eventually("the trial", async || {
        (caller.ask(&caller.tool("get_time")).await.status() == 200).then_some(())
    })
    .await;
    assert!(opened.elapsed() > Duration::from_millis(700), "after {:?}", opened.elapsed());
    who(&caller).await;
}

#[tokio::test]
async fn a_target_that_only_fails_gets_no_more_calls_for_a_while() {
    let broken = |call: &crate::support::Call| (call.method() == "tools/call").then(|| Reply::status(503));
    let ups =
        [Upstream::start("one", Era::Modern, None, broken).await, Upstream::named("two", Era::Modern).await];
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server("era: modern, balance: round_robin, outlier: { consecutive_failures: 3, base_ejection: 1m }")
        .start()
        .await;
    let caller = gateway.caller();
    let mut failed = 0;
    for _ in 0..30 {
        failed += usize::from(caller.ask(&caller.tool("get_time")).await.status() != 200);
    }
    assert_eq!(failed, 3, "then it was out");
    assert_eq!(gateway.metric("tollgate_target_healthy", &[&ups[0].address.to_string()]).await, 0.0);
    assert_eq!(gateway.metric("tollgate_target_ejections_total", &[&ups[0].address.to_string()]).await, 1.0);
}

#[tokio::test]
async fn probes_take_a_dead_target_out_and_bring_it_back() {
    let ups = pair().await;
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server(
            "era: modern, balance: round_robin, retry: { attempts: 1 }, health: { interval: 200ms, timeout: 200ms, \
             unhealthy_after: 1, healthy_after: 1, probe: tcp }",
        )
        .start()
        .await;
    let caller = gateway.caller();
    let health =
        async |up: &Upstream| gateway.metric("tollgate_target_healthy", &[&up.address.to_string()]).await;
    eventually("both healthy", async || (health(&ups[0]).await + health(&ups[1]).await == 2.0).then_some(()))
        .await;
    ups[0].kill().await;
    eventually("one out", async || (health(&ups[0]).await == 0.0).then_some(())).await;
    for _ in 0..10 {
        assert_eq!(who(&caller).await, "two", "without a single failure");
    }
    ups[0].revive().await;
    eventually("and back", async || (health(&ups[0]).await == 1.0).then_some(())).await;
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.push(who(&caller).await);
    }
    assert!(seen.contains(&"one".to_owned()), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_504_and_is_let_go() {
    let up = patient("one").await;
    let gateway = Gateway::relay(&[&up]).server("era: modern, timeouts: { first_byte: 300ms }").start().await;
    let caller = gateway.caller();
    let began = Instant::now();
    let request = caller.tool("later");
    let response = caller.ask(&request).await;
    let took = began.elapsed();
    assert_eq!(response.status(), 504, "{}", response.text());
    assert_eq!(
        response.json()["id"],
        serde_json::from_slice::<serde_json::Value>(&request.body).unwrap()["id"]
    );
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(3), "{took:?}");
    up.call("tools/call").await.gone().await;
    assert_eq!(gateway.metric("tollgate_upstream_errors_total", &["kind=\"timeout\""]).await, 1.0);
}

#[tokio::test]
async fn an_answer_that_does_not_become_whole_in_time_is_504() {
    // The header comes and half of the body.
    let up = Upstream::scripted(Era::Modern, |call| {
        (call.method() == "tools/call").then(|| Reply::stream().kind("application/json"))
    })
    .await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern, timeouts: { connect: 200ms, first_byte: 400ms, request: 400ms }")
        .start()
        .await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("half")).await;
    assert_eq!(response.status(), 504, "{}", response.text());
    up.call("tools/call").await.gone().await;
}

#[tokio::test]
async fn a_full_target_refuses_and_counts_down_when_calls_end() {
    let up = patient("one").await;
    let gateway = Gateway::relay(&[&up]).server("era: modern, max_in_flight: 2").start().await;
    let caller = gateway.caller();
    let first = caller.open(&caller.tool("later")).await;
    let _second = caller.open(&caller.tool("later")).await;
    up.nth("tools/call", 1).await;
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 503, "{}", response.text());
    drop(first);
    eventually("a place", async || {
        (caller.ask(&caller.tool("get_time")).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn retries_are_bounded_by_their_budget() {
    let ups = pair().await;
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server(
            "era: modern, balance: round_robin, retry: { budget: 0%, min_per_second: 0 }, outlier: { \
             consecutive_failures: 0, error_ratio: 0% }, breaker: { failures: 0 }",
        )
        .start()
        .await;
    let caller = gateway.caller();
    ups[0].kill().await;
    let mut failed = 0;
    for _ in 0..10 {
        failed += usize::from(caller.ask(&caller.tool("get_time")).await.status() == 502);
    }
    assert_eq!(failed, 5, "every other call, and none is retried");
    assert_eq!(gateway.metric("tollgate_retries_total", &[]).await, 0.0);
}

#[tokio::test]
async fn a_drained_target_keeps_its_sessions_and_gets_no_new_ones() {
    let ups = [Upstream::named("one", Era::Legacy).await, Upstream::named("two", Era::Legacy).await];
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: legacy, balance: round_robin").start().await;
    let (a, b) = (gateway.caller().initialize().await, gateway.caller().initialize().await);
    let servers = gateway.process().reloader().state().upstreams.servers();
    let target = servers[0].status().targets[0].target.clone();
    assert!(servers[0].drain(&target.as_str().into(), true), "{target}");
    for session in [&a, &b] {
        assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    }
    let before: Vec<_> = ups.iter().map(|up| up.count("initialize")).collect();
    for _ in 0..6 {
        gateway.caller().initialize().await;
    }
    let after: Vec<_> = ups.iter().zip(&before).map(|(up, n)| up.count("initialize") - n).collect();
    assert!(after.contains(&0) && after.contains(&6), "{after:?}");
}

#[tokio::test]
async fn sessions_begin_elsewhere_while_a_target_is_down() {
    let ups = [Upstream::named("one", Era::Legacy).await, Upstream::named("two", Era::Legacy).await];
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server("era: legacy, balance: round_robin, retry: { min_per_second: 1000 }")
        .start()
        .await;
    let pinned = [gateway.caller().initialize().await, gateway.caller().initialize().await];
    ups[0].kill().await;
    let mut lost = 0;
    for session in &pinned {
        let response = session.ask(&session.tool("get_time")).await;
        lost += usize::from(response.status() == 404);
        assert!(matches!(response.status(), 200 | 404), "{}", response.text());
    }
    assert_eq!(lost, 1, "one session lived there");
    for _ in 0..6 {
        let session = gateway.caller().initialize().await;
        assert_eq!(session.ask(&session.tool("get_time")).await.status(), 200);
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_given_up() {
    // A socket whose queue is full: the kernel drops what else wants to connect.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    for _ in 0..8 {
        let connect = tokio::net::TcpStream::connect(address);
        if let Ok(stream) = tokio::time::timeout(Duration::from_millis(100), connect).await {
            waiting.push(stream);
        }
    }
    let gateway = Gateway::targets([format!("\"http://{address}/mcp\"")])
        .server("era: modern, retry: { attempts: 1 }, timeouts: { connect: 300ms }")
        .start()
        .await;
    let caller = gateway.caller();
    let began = Instant::now();
    let response = caller.ask(&caller.tool("get_time")).await;
    let took = began.elapsed();
    assert_eq!(response.status(), 502, "{}", response.text());
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn an_answer_that_stops_in_the_middle_is_an_error_or_has_no_proper_end() {
    for era in [Era::Legacy, Era::Modern] {
        let up = Upstream::scripted(era, |call| {
            (call.method() == "tools/call").then(|| Reply::stream().kind("application/json"))
        })
        .await;
        let gateway = Gateway::relay(&[&up]).server("timeouts: { idle: 300ms }").start().await;
        gateway.settled().await;
        let caller = gateway.caller();
        let request = match era {
            Era::Legacy => caller.initialize().await.tool("half"),
            _ => caller.tool("half"),
        };
        let mut client = caller.open(&request).await;
        let call = up.call("tools/call").await;
        call.send("{\"jsonrpc\":\"2.0\",");
        let head = client.head().await;
        if era == Era::Modern {
            // It is looked into first, so nothing had been passed on.
            assert_eq!(head.status, 502);
        } else {
            assert_eq!(head.status, 200);
            assert!(!client.rest_of_body().await.1, "it must not look whole");
        }
        call.gone().await;
    }
}
