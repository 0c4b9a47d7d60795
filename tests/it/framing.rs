//! Exact bytes: what HTTP/1.1 clients can do wrong, and what they get for it (RFC 9112).

use std::time::{Duration, Instant};

use crate::support::{Caller, Client, Era, Gateway, Reply, Upstream, eventually};

async fn relay(limits: &str) -> (Upstream, Gateway, Caller) {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .listener(&format!("limits: {{ {limits} }}"))
        .start()
        .await;
    let caller = gateway.caller();
    (up, gateway, caller)
}

/// Reads what comes and expects the connection to end after it.
async fn last_words(client: &mut Client) -> String {
    String::from_utf8_lossy(&client.until_closed().await).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_body_that_declares_too_much_is_413_before_it_is_read() {
    let (up, gateway, caller) = relay("max_body: 1KiB").await;
    let request = caller.tool("get_time");
    let mut client = gateway.connect().await;
    client.send(request.clone().with("Content-Length", "1025").head()).await;
    let head = client.head().await;
    assert_eq!(head.status, 413);
    assert_eq!(head.header("connection"), Some("close"));
    let (body, _) = client.rest_of_body().await;
    assert!(String::from_utf8_lossy(&body).contains("\"code\":41300"), "{body:?}");
    let padded =
        format!("{}{}", String::from_utf8_lossy(&request.body), " ".repeat(1024 - request.body.len()));
    assert_eq!(caller.ask(&request.body(padded)).await.status(), 200, "exactly the limit");
    assert_eq!(up.calls().len(), 1);
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_413_and_the_answer_arrives() {
    let (up, gateway, caller) = relay("max_body: 64KiB").await;
    let mut client = gateway.connect().await;
    client.send(caller.tool("get_time").with("Transfer-Encoding", "chunked").head()).await;
    let chunk = format!("4000\r\n{}\r\n", " ".repeat(0x4000));
    for _ in 0..64 {
        if client.try_send(&chunk).await.is_err() {
            break;
        }
    }
    let answer = last_words(&mut client).await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_header_that_drips_is_408_when_its_time_is_up() {
    let (_up, gateway, caller) = relay("header_timeout: 600ms").await;
    let mut client = gateway.connect().await;
    let bytes = caller.tool("get_time").bytes();
    let began = Instant::now();
    for byte in bytes.chunks(1).take(40) {
        if client.try_send(byte).await.is_err() || began.elapsed() > Duration::from_secs(4) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let answer = last_words(&mut client).await;
    assert_eq!(status(&answer), 408, "{answer}");
    // Each byte came well within a time per read; the whole did not.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_body_that_drips_is_408_when_its_time_is_up() {
    let (up, gateway, caller) = relay("body_timeout: 600ms").await;
    let request = caller.tool("get_time");
    let mut client = gateway.connect().await;
    client.send(request.clone().with("Content-Length", &request.body.len().to_string()).head()).await;
    let began = Instant::now();
    for byte in request.body.chunks(1).take(40) {
        if client.try_send(byte).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    let answer = last_words(&mut client).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let (_up, gateway, caller) = relay("keepalive_timeout: 300ms, header_timeout: 300ms").await;
    let mut client = gateway.connect().await;
    assert_eq!(client.ask(&caller.tool("get_time")).await.status(), 200);
    let began = Instant::now();
    assert_eq!(last_words(&mut client).await, "");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn requests_whose_end_is_ambiguous_are_400_and_the_connection_ends() {
    let (up, gateway, caller) = relay("header_timeout: 1s, keepalive_timeout: 1s").await;
    let request = caller.tool("get_time");
    let length = request.body.len().to_string();
    let chunked =
        format!("{:x}\r\n{}\r\n0\r\n\r\n", request.body.len(), String::from_utf8_lossy(&request.body));
    let head = |fields: &[(&str, &str)]| {
        let request = fields.iter().fold(request.clone(), |r, (name, value)| r.with(name, value));
        request.head()
    };
    let plain = request.body.clone();
    let cases: Vec<(&str, Vec<u8>, Vec<u8>)> = vec![
        (
            "length and chunked",
            head(&[("Content-Length", &length), ("Transfer-Encoding", "chunked")]),
            chunked.clone().into(),
        ),
        (
            "chunked and length",
            head(&[("Transfer-Encoding", "chunked"), ("Content-Length", "4")]),
            chunked.clone().into(),
        ),
        ("two lengths", head(&[("Content-Length", &length), ("Content-Length", "4")]), plain.clone()),
        ("two lengths in one field", head(&[("Content-Length", &format!("{length}, 4"))]), plain.clone()),
        ("a signed length", head(&[("Content-Length", &format!("+{length}"))]), plain.clone()),
        ("a negative length", head(&[("Content-Length", "-1")]), plain.clone()),
        ("a hexadecimal length", head(&[("Content-Length", "0x10")]), plain.clone()),
        ("a length that is no number", head(&[("Content-Length", "many")]), plain.clone()),
        ("an empty length", head(&[("Content-Length", "")]), plain.clone()),
        ("an unknown coding", head(&[("Transfer-Encoding", "xchunked")]), chunked.clone().into()),
        ("chunked first", head(&[("Transfer-Encoding", "chunked, gzip")]), chunked.clone().into()),
        (
            "chunked twice",
            head(&[("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")]),
            chunked.clone().into(),
        ),
        ("identity", head(&[("Transfer-Encoding", "identity"), ("Content-Length", &length)]), plain.clone()),
        (
            "a tab before chunked",
            head(&[("Transfer-Encoding", "\tchunked"), ("Content-Length", "4")]),
            chunked.clone().into(),
        ),
        (
            "a space before the colon",
            head(&[("Transfer-Encoding ", "chunked"), ("Content-Length", "4")]),
            chunked.clone().into(),
        ),
        (
            "a folded field",
            head(&[("X-A", "b\r\n Transfer-Encoding: chunked"), ("Content-Length", &length)]),
            plain.clone(),
        ),
        (
            "a bare CR in a field",
            head(&[("X-A", "b\rTransfer-Encoding: chunked"), ("Content-Length", &length)]),
            plain.clone(),
        ),
        ("a NUL in a field", head(&[("X-A", "b\0c"), ("Content-Length", &length)]), plain.clone()),
        (
            "a chunk size that is no number",
            head(&[("Transfer-Encoding", "chunked")]),
            b"zz\r\n{}\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "a chunk size that overflows",
            head(&[("Transfer-Encoding", "chunked")]),
            b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n".to_vec(),
        ),
        (
            "a chunk without its end",
            head(&[("Transfer-Encoding", "chunked")]),
            b"2\r\n{}XX0\r\n\r\n".to_vec(),
        ),
    ];
    let mut wrong = Vec::new();
    for (why, head, body) in cases {
        let mut client = gateway.connect().await;
        let mut bytes = head;
        bytes.extend_from_slice(&body);
        // What a smuggler wants to have taken for a request of its own.
        bytes.extend_from_slice(&caller.tool("smuggled").bytes());
        let _ = client.try_send(&bytes).await;
        let answer = last_words(&mut client).await;
        let refused = answer.is_empty() || (400..500).contains(&status(&answer));
        if !refused || answer.matches("HTTP/1.1 ").count() > 1 {
            wrong.push(format!("{why}: {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert_eq!(up.calls().len(), 0, "no server has seen any of it");
}

#[tokio::test]
async fn length_and_chunked_together_are_400_in_so_many_words() {
    let (_up, gateway, caller) = relay("max_body: 1MiB").await;
    let mut client = gateway.connect().await;
    let request = caller.tool("get_time").with("Content-Length", "4").with("Transfer-Encoding", "chunked");
    client.send(request.head()).await;
    client.send(b"0\r\n\r\n").await;
    let answer = last_words(&mut client).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert!(answer.contains("-32600") && answer.contains("ambiguous"), "{answer}");
}

#[tokio::test]
async fn headers_over_their_bounds_are_431() {
    let (up, gateway, caller) = relay("max_headers: 20, max_header_size: 4KiB").await;
    let many = (0..20).fold(caller.tool("get_time"), |r, n| r.with(&format!("X-{n}"), "y"));
    let large = caller.tool("get_time").with("X-Large", &"y".repeat(5000));
    for (why, request) in [("many", many), ("large", large)] {
        let mut client = gateway.connect().await;
        client.send(request.bytes()).await;
        let answer = last_words(&mut client).await;
        assert_eq!(status(&answer), 431, "{why}: {answer}");
    }
    let huge = caller.tool("get_time").with("X-Huge", &"y".repeat(1 << 20));
    let mut client = gateway.connect().await;
    let _ = client.try_send(huge.bytes()).await;
    let answer = last_words(&mut client).await;
    assert!(answer.is_empty() || matches!(status(&answer), 400 | 431), "{answer}");
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn what_is_not_json_by_its_own_word_is_415() {
    let (up, _gateway, caller) = relay("max_body: 1MiB").await;
    let tool = || caller.tool("get_time");
    let refused = [
        tool().set("Content-Type", "text/plain"),
        tool().set("Content-Type", "application/x-www-form-urlencoded"),
        tool().set("Content-Type", "multipart/form-data; boundary=x"),
        tool().set("Content-Type", "application/jsonl"),
        tool().with("Content-Encoding", "gzip"),
        tool().with("Content-Encoding", "br, gzip"),
    ];
    for request in refused {
        let response = caller.ask(&request).await;
        assert_eq!(response.status(), 415, "{:?}: {}", request.headers, response.text());
    }
    assert_eq!(up.calls().len(), 0);
    for kind in ["application/json; charset=utf-8", "APPLICATION/JSON"] {
        assert_eq!(caller.ask(&tool().set("Content-Type", kind)).await.status(), 200, "{kind}");
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let (up, gateway, caller) = relay("max_body: 1MiB").await;
    let mut client = gateway.connect().await;
    for n in 0..20 {
        let response = client.ask(&caller.tool(&format!("tool-{n}"))).await;
        assert_eq!(response.status(), 200, "{}", response.text());
    }
    let tools: Vec<_> = up.calls().iter().map(|c| c.header("mcp-name").unwrap().to_owned()).collect();
    assert_eq!(tools, (0..20).map(|n| format!("tool-{n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_follows_a_request_is_another_request_or_the_end() {
    let (up, gateway, caller) = relay("max_body: 1MiB").await;
    // Garbage after a whole request.
    let mut client = gateway.connect().await;
    let mut bytes = caller.modern("tools/list", serde_json::json!({})).bytes();
    bytes.extend_from_slice(b"GARBAGE garbage\r\n\r\n");
    client.send(&bytes).await;
    let answer = last_words(&mut client).await;
    assert!(answer.matches("HTTP/1.1 200").count() <= 1, "{answer}");
    let after = answer.rsplit("HTTP/1.1 ").next().unwrap_or_default();
    assert!(!after.contains("GARBAGE"), "{answer}");
    assert!(up.calls().iter().all(|c| c.method() == "tools/list"), "garbage reaches no server");
}

#[tokio::test]
async fn two_requests_sent_at_once_are_never_mixed_up() {
    let (up, gateway, caller) = relay("max_body: 1MiB").await;
    let mut client = gateway.connect().await;
    let mut bytes = caller.tool("first").bytes();
    bytes.extend_from_slice(&caller.tool("second").bytes());
    client.send(&bytes).await;
    let mut answers = 0;
    while let Some(head) = client.try_head().await {
        let (body, whole) = client.rest_of_body().await;
        assert_eq!((head.status, whole), (200, true), "{}", String::from_utf8_lossy(&body));
        answers += 1;
        if answers == 2 {
            break;
        }
    }
    // Whoever pipelines gets both answers, or one and the end of the connection: never a wrong one.
    let names: Vec<_> = up.calls().iter().map(|c| c.header("mcp-name").unwrap().to_owned()).collect();
    assert_eq!(names, ["first", "second"][..answers], "as many as were answered");
    assert!(answers >= 1);
}

#[tokio::test]
async fn chunked_requests_are_read_however_they_are_cut() {
    let (up, gateway, caller) = relay("max_body: 1MiB").await;
    let request = caller.tool("get_time");
    let mut bytes = request.clone().with("Transfer-Encoding", "chunked").head();
    for byte in &request.body {
        bytes.extend_from_slice(b"1;x=y\r\n");
        bytes.push(*byte);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    let mut client = gateway.connect().await;
    for piece in bytes.chunks(97) {
        client.send(piece).await;
    }
    assert_eq!(client.response().await.status(), 200);
    let call = up.call("tools/call").await;
    assert_eq!(call.body, request.body);
    assert_eq!(call.header("content-length"), Some(request.body.len().to_string().as_str()), "framed anew");
    assert_eq!(client.ask(&request).await.status(), 200, "and the connection goes on");
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on() {
    let (_up, gateway, caller) = relay("max_body: 1KiB").await;
    let request = caller.tool("get_time").with("Expect", "100-continue");
    let length = request.body.len().to_string();
    let mut client = gateway.connect().await;
    client.send(request.clone().with("Content-Length", &length).head()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    client.send(&request.body).await;
    assert_eq!(client.response().await.status(), 200);
    let mut client = gateway.connect().await;
    client.send(request.with("Content-Length", "5000").head()).await;
    assert_eq!(client.head().await.status, 413, "and not, if it would be too much");
}

#[tokio::test]
async fn what_is_not_http_1_1_is_refused() {
    let (up, gateway, caller) = relay("header_timeout: 1s, keepalive_timeout: 1s").await;
    let body = String::from_utf8(caller.tool("get_time").bytes()).unwrap();
    let host = format!("Host: {}", gateway.mcp);
    let cases = [
        ("no host", body.replace(&host, "X-Nothing: 1")),
        ("two hosts", body.replace(&host, &format!("{host}\r\nHost: evil.example"))),
        ("a foreign authority in the target", body.replace("POST /mcp/s", "POST http://evil.example/mcp/s")),
        ("not a request line", format!("\u{1}\u{2}\u{3}\r\n{body}")),
        ("no version", body.replace(" HTTP/1.1", "")),
        ("a version that is none", body.replace("HTTP/1.1", "HTTP/9.9")),
        ("a space in the target", body.replace("/mcp/s", "/mcp /s")),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}\u{3}\u{3}\r\n\r\n".to_owned()),
    ];
    for (why, text) in cases {
        let mut client = gateway.connect().await;
        let _ = client.try_send(&text).await;
        let answer = last_words(&mut client).await;
        assert!(answer.is_empty() || (400..600).contains(&status(&answer)), "{why}: {answer}");
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn connections_are_capped_by_address() {
    let (_up, gateway, caller) = relay("max_connections_per_address: 2").await;
    let mut first = gateway.connect().await;
    let mut second = gateway.connect().await;
    assert_eq!(first.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(second.ask(&caller.tool("get_time")).await.status(), 200);
    let mut third = gateway.connect().await;
    assert_eq!(last_words(&mut third).await, "", "the third is closed");
    drop(first);
    eventually("a place", async || {
        let mut client = gateway.connect().await;
        client.try_send(caller.tool("get_time").bytes()).await.ok()?;
        (client.try_head().await?.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_connection_ends_after_its_share_of_requests() {
    let (_up, gateway, caller) = relay("keepalive_requests: 3").await;
    let mut client = gateway.connect().await;
    let mut served = 0;
    loop {
        client.send(caller.tool("get_time").bytes()).await;
        let response = client.response().await;
        assert_eq!(response.status(), 200);
        served += 1;
        if response.header("connection") == Some("close") {
            break;
        }
        assert!(served < 10, "it never ends");
    }
    assert_eq!(served, 3);
    assert_eq!(last_words(&mut client).await, "");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_let_go() {
    let up =
        Upstream::scripted(Era::Modern, |call| (call.method() == "tools/call").then(Reply::stream)).await;
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .listener("limits: { write_timeout: 500ms }")
        .start()
        .await;
    let caller = gateway.caller();
    let _deaf = caller.open(&caller.tool("stream")).await;
    let call = up.call("tools/call").await;
    let event = format!("data: \"{}\"\n\n", "x".repeat(64 * 1024));
    for _ in 0..400 {
        call.send(&event);
    }
    call.gone().await;
}

#[tokio::test]
async fn an_accepted_notification_is_these_bytes() {
    let (_up, gateway, caller) = relay("max_body: 1MiB").await;
    let mut body =
        crate::support::modern_body("notifications/cancelled", serde_json::json!({ "requestId": 1 }));
    body.as_object_mut().unwrap().remove("id");
    let request = caller
        .modern("notifications/cancelled", serde_json::json!({}))
        .body(body.to_string())
        .with("Connection", "close");
    let mut client = gateway.connect().await;
    client.send(request.bytes()).await;
    let answer = last_words(&mut client).await;
    let (head, rest) = answer.split_once("\r\n\r\n").expect("an empty line");
    assert!(head.starts_with("HTTP/1.1 202 Accepted\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-length: 0"), "{head}");
    assert_eq!(rest, "");
}
