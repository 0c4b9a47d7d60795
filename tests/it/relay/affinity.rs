//! What is bound to one process of a server finds it again: legacy sessions, `requestState` and `taskId`.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::{Call, Caller, Era, Gateway, Issuer, Reply, Upstream};

/// Asks for input first, and says on the retry what came back; makes a task out of the tool `task`.
fn stateful(name: &'static str) -> impl Fn(&Call) -> Option<Reply> + Send + Sync + 'static {
    move |call| {
        let params = call.message()["params"].clone();
        let text = |text: String| json!([{ "type": "text", "text": text }]);
        let result = match (call.method().as_str(), params["requestState"].as_str()) {
            ("tools/call", _) if params["name"] == "task" => {
                json!({ "resultType": "task", "taskId": format!("task-of-{name}"), "status": "working" })
            }
            ("tools/call", None) => json!({
                "resultType": "input_required", "requestState": format!("state-of-{name} \"é\"\n"),
                "inputRequests": {},
            }),
            ("tools/call", Some(state)) => {
                json!({ "resultType": "complete", "content": text(format!("{name} got {state}")) })
            }
            ("tasks/get", _) => {
                let id = params["taskId"].as_str().unwrap_or_default();
                json!({ "resultType": "complete", "taskId": id, "status": "completed", "by": name })
            }
            _ => return None,
        };
        Some(Reply::result(call, &result))
    }
}

async fn two_modern() -> [Upstream; 2] {
    [
        Upstream::start("one", Era::Modern, None, stateful("one")).await,
        Upstream::start("two", Era::Modern, None, stateful("two")).await,
    ]
}

fn retry(caller: &Caller, tool: &str, state: &str) -> crate::support::Request {
    let params = json!({ "name": tool, "arguments": {}, "requestState": state, "inputResponses": {} });
    caller.modern("tools/call", params)
}

async fn result(caller: &Caller, request: &crate::support::Request) -> Value {
    let response = caller.ask(request).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    response.json()["result"].clone()
}

#[tokio::test]
async fn a_legacy_session_stays_with_its_target() {
    let ups = [Upstream::named("one", Era::Legacy).await, Upstream::named("two", Era::Legacy).await];
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: legacy, balance: round_robin").start().await;
    let mut homes = HashSet::new();
    for _ in 0..6 {
        let session = gateway.caller().initialize().await;
        let mut seen = HashSet::new();
        for _ in 0..4 {
            let response = session.ask(&session.tool("get_time")).await;
            assert_eq!(response.status(), 200, "{}", response.text());
            seen.insert(response.json()["result"]["content"][0]["text"].to_string());
        }
        assert_eq!(seen.len(), 1, "one session, one process");
        homes.extend(seen);
    }
    assert_eq!(homes.len(), 2, "sessions spread over both");
}

#[tokio::test]
async fn a_request_state_returns_to_its_target_byte_for_byte() {
    let ups = two_modern().await;
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: modern, balance: round_robin").start().await;
    let caller = gateway.caller();
    let mut homes = HashSet::new();
    for _ in 0..8 {
        let asked = result(&caller, &caller.tool("ask")).await;
        let state = asked["requestState"].as_str().expect("a state");
        assert!(!state.contains("state-of"), "sealed: {state}");
        let answered = result(&caller, &retry(&caller, "ask", state)).await;
        let text = answered["content"][0]["text"].as_str().unwrap().to_owned();
        let (home, got) = text.split_once(" got ").unwrap();
        assert_eq!(got, format!("state-of-{home} \"é\"\n"));
        homes.insert(home.to_owned());
    }
    assert_eq!(homes.len(), 2, "the first calls spread over both");
}

#[tokio::test]
async fn a_request_state_is_good_only_as_it_is_for_whom_it_is_and_for_the_call_it_is() {
    let ups = two_modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&ups[0], &ups[1]])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let alice = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    let mallory = gateway.caller().bearer(&issuer.token("mallory", &gateway.url()));
    let state = result(&alice, &alice.tool("ask")).await["requestState"].as_str().unwrap().to_owned();
    let calls = ups.iter().map(|u| u.calls().len()).sum::<usize>();
    let altered = format!("{}{}", &state[..state.len() - 1], if state.ends_with('A') { "B" } else { "A" });
    let refused = [
        ("another caller", &mallory, retry(&mallory, "ask", &state)),
        ("another tool", &alice, retry(&alice, "other", &state)),
        ("altered", &alice, retry(&alice, "ask", &altered)),
        ("never issued", &alice, retry(&alice, "ask", "state-of-one")),
    ];
    for (why, caller, request) in refused {
        let response = caller.ask(&request).await;
        // Not 404, which would make the client fall back to the legacy era.
        assert_eq!((response.status(), response.code()), (400, -32602), "{why}: {}", response.text());
    }
    assert_eq!(ups.iter().map(|u| u.calls().len()).sum::<usize>(), calls, "no server has seen any of them");
    result(&alice, &retry(&alice, "ask", &state)).await;
}

#[tokio::test]
async fn a_task_is_asked_about_where_it_runs() {
    let ups = two_modern().await;
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: modern, balance: round_robin").start().await;
    let caller = gateway.caller();
    let mut homes = HashSet::new();
    for _ in 0..6 {
        let task = result(&caller, &caller.tool("task")).await["taskId"].as_str().unwrap().to_owned();
        assert!(!task.contains("task-of"), "sealed: {task}");
        for _ in 0..3 {
            let status = result(&caller, &caller.modern("tasks/get", json!({ "taskId": task }))).await;
            assert_eq!(status["taskId"], task.as_str(), "the client knows it by one name");
            homes.insert(status["by"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(homes.len(), 2);
    for (up, name) in ups.iter().zip(["one", "two"]) {
        for call in up.calls().iter().filter(|c| c.method() == "tasks/get") {
            let id = call.message()["params"]["taskId"].as_str().unwrap().to_owned();
            assert_eq!(id, format!("task-of-{name}"), "its own task, by its own name");
            assert_eq!(call.header("mcp-name"), Some(id.as_str()), "in the header, too");
        }
    }
}

#[tokio::test]
async fn a_task_of_somebody_else_is_not_reached_by_its_name() {
    let ups = two_modern().await;
    let gateway = Gateway::relay(&[&ups[0]]).server("era: modern").start().await;
    let caller = gateway.caller();
    caller.ask(&caller.modern("tasks/get", json!({ "taskId": "task-of-one" }))).await;
    for call in ups[0].calls() {
        assert_ne!(call.message()["params"]["taskId"], "task-of-one", "the bare name must not get there");
        assert_ne!(call.header("mcp-name"), Some("task-of-one"));
    }
}

#[tokio::test]
async fn a_task_is_good_only_for_whom_it_is() {
    let up = Upstream::start("one", Era::Modern, None, stateful("one")).await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let of = |name: &str| gateway.caller().bearer(&issuer.token(name, &gateway.url()));
    let (alice, mallory) = (of("alice"), of("mallory"));
    let task = result(&alice, &alice.tool("task")).await["taskId"].as_str().unwrap().to_owned();
    let status = result(&mallory, &mallory.modern("tasks/get", json!({ "taskId": task }))).await;
    assert_eq!(status["taskId"], task.as_str(), "it is answered by the name that was asked for");
    let asked = |call: &Call| call.message()["params"]["taskId"].as_str().unwrap_or_default().to_owned();
    let seen: Vec<String> =
        up.calls().iter().filter(|c| c.method() == "tasks/get").map(|c| asked(c)).collect();
    assert!(!seen.contains(&"task-of-one".to_owned()), "the server was asked about {seen:?}");
    result(&alice, &alice.modern("tasks/get", json!({ "taskId": task }))).await;
    assert_eq!(asked(&up.calls().into_iter().next_back().unwrap()), "task-of-one");
}

#[tokio::test]
async fn a_state_whose_target_is_dead_is_refused_as_invalid() {
    let ups = two_modern().await;
    let gateway =
        Gateway::relay(&[&ups[0], &ups[1]]).server("era: modern, balance: round_robin").start().await;
    let caller = gateway.caller();
    let state = result(&caller, &caller.tool("ask")).await["requestState"].as_str().unwrap().to_owned();
    let home = ups.iter().find(|up| up.count("tools/call") == 1).unwrap();
    home.kill().await;
    let response = caller.ask(&retry(&caller, "ask", &state)).await;
    assert_eq!((response.status(), response.code()), (400, -32602), "{}", response.text());
}

#[tokio::test]
async fn the_same_caller_reaches_the_same_target_by_hash() {
    let names = ["one", "two", "three"];
    let mut ups = Vec::new();
    for name in names {
        ups.push(Upstream::named(name, Era::Modern).await);
    }
    let gateway = Gateway::relay(&ups.iter().collect::<Vec<_>>())
        .server("era: modern, balance: hash, hash: { header: x-customer }")
        .start()
        .await;
    let mut homes = HashSet::new();
    for customer in 0..12 {
        let caller = gateway.caller().with("X-Customer", &format!("customer-{customer}"));
        let mut seen = HashSet::new();
        for _ in 0..3 {
            seen.insert(result(&caller, &caller.tool("get_time")).await["content"][0]["text"].to_string());
        }
        assert_eq!(seen.len(), 1, "customer {customer}");
        homes.extend(seen);
    }
    assert!(homes.len() > 1, "customers spread: {homes:?}");
}

#[tokio::test]
async fn a_request_state_ends_after_a_day() {
    let up = Upstream::start("one", Era::Modern, None, stateful("one")).await;
    let clock = tollgate::base::Clock::manual(1_800_000_000);
    let gateway = Gateway::relay(&[&up]).server("era: modern").clock(&clock).start().await;
    let caller = gateway.caller();
    let state = result(&caller, &caller.tool("ask")).await["requestState"].as_str().unwrap().to_owned();
    clock.advance(std::time::Duration::from_secs(23 * 3600));
    result(&caller, &retry(&caller, "ask", &state)).await;
    clock.advance(std::time::Duration::from_secs(2 * 3600));
    let response = caller.ask(&retry(&caller, "ask", &state)).await;
    assert_eq!((response.status(), response.code()), (400, -32602), "{}", response.text());
}
