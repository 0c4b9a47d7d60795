//! TLS towards clients and towards servers.

use std::sync::Arc;

use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::tls::ALPN;
use pingora::upstreams::peer::HttpPeer;
use rustls::ClientConfig;

use crate::support::{
    AT_ONCE, Authority, Builder, Client, Era, Gateway, Reply, Request, Response, Upstream, dial_tls, within,
};

fn listener(builder: Builder, authority: &Authority, more: &str) -> Builder {
    let (cert, key) = authority.write("server", &authority.issue("localhost"));
    builder.listener(&format!("tls: {{ cert: \"{}\", key: \"{}\"{more} }}", cert.display(), key.display()))
}

async fn secured(authority: &Authority, more: &str) -> (Upstream, Gateway) {
    let up = Upstream::modern().await;
    let builder = Gateway::relay(&[&up]).server("era: modern");
    let gateway = listener(builder, authority, more).start().await;
    (up, gateway)
}

async fn ask(gateway: &Gateway, config: Arc<ClientConfig>, request: &Request) -> std::io::Result<Response> {
    let stream = dial_tls(gateway.mcp, "localhost", config).await?;
    let mut client = Client::over(stream);
    client.try_send(request.bytes()).await?;
    let head = client.try_head().await.ok_or_else(|| std::io::Error::other("no answer"))?;
    let (body, whole) = client.rest_of_body().await;
    Ok(Response { head, body, whole })
}

#[tokio::test]
async fn clients_speak_tls_and_are_told_https_urls() {
    let authority = Authority::new();
    let (up, gateway) = secured(&authority, "").await;
    assert_eq!(gateway.origin(), format!("https://{}", gateway.mcp));
    let caller = gateway.caller();
    let response =
        ask(&gateway, authority.client(&["http/1.1"], None), &caller.tool("get_time")).await.unwrap();
    assert_eq!(response.status(), 200, "{}", response.text());
    assert_eq!(up.call("tools/call").await.header("x-forwarded-proto"), Some("https"));
    let stranger = Authority::new();
    assert!(
        dial_tls(gateway.mcp, "localhost", stranger.client(&[], None)).await.is_err(),
        "the certificate is ours"
    );
    let mut plain = gateway.connect().await;
    plain.send(caller.tool("get_time").bytes()).await;
    let answer = plain.until_closed().await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn http_2_is_negotiated_where_it_is_offered() {
    let authority = Authority::new();
    let (_up, gateway) = secured(&authority, "").await;
    let agreed = async |gateway: &Gateway, alpn: &[&str]| {
        let stream = dial_tls(gateway.mcp, "localhost", authority.client(alpn, None)).await.unwrap();
        stream.get_ref().1.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned())
    };
    assert_eq!(agreed(&gateway, &["h2", "http/1.1"]).await.as_deref(), Some("h2"));
    assert_eq!(agreed(&gateway, &["http/1.1"]).await.as_deref(), Some("http/1.1"));
    assert_eq!(agreed(&gateway, &[]).await, None);
    let up = Upstream::modern().await;
    let without = listener(Gateway::relay(&[&up]).listener("h2: false"), &authority, "").start().await;
    assert_ne!(agreed(&without, &["h2", "http/1.1"]).await.as_deref(), Some("h2"));
}

/// A request of a test on HTTP/2, up to its response header.
async fn h2(connector: &Connector, gateway: &Gateway, request: &Request) -> HttpSession {
    let mut peer = HttpPeer::new(gateway.mcp, true, "localhost".to_owned());
    peer.options.alpn = ALPN::H2;
    peer.options.max_h2_streams = 8;
    peer.options.verify_cert = false;
    let (mut session, _) = connector.get_http_session(&peer).await.unwrap();
    assert!(session.as_http2().is_some(), "HTTP/2");
    let uri = format!("https://localhost:{}{}", gateway.mcp.port(), request.target);
    let mut header = RequestHeader::build(request.method.as_str(), request.target.as_bytes(), None).unwrap();
    header.set_uri(uri.parse().unwrap());
    for (name, value) in request.headers.iter().filter(|(n, _)| !n.eq_ignore_ascii_case("host")) {
        header.append_header(name.to_ascii_lowercase(), value).unwrap();
    }
    session.write_request_header(Box::new(header)).await.unwrap();
    session.write_request_body(request.body.clone().into(), true).await.unwrap();
    session.finish_request_body().await.unwrap();
    session
}

async fn h2_response(mut session: HttpSession) -> (u16, Vec<u8>) {
    within("a response header", session.read_response_header()).await.unwrap();
    let status = session.response_header().unwrap().status.as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = within("a body", session.read_response_body()).await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    (status, body)
}

#[tokio::test]
async fn calls_over_http_2_pass_side_by_side() {
    let authority = Authority::new();
    let up = Upstream::scripted(Era::Modern, |call| {
        (call.message()["params"]["name"] == "later").then(Reply::later)
    })
    .await;
    let gateway = listener(Gateway::relay(&[&up]).server("era: modern"), &authority, "").start().await;
    let caller = gateway.caller();
    let connector = Connector::new(None);
    let slow = h2(&connector, &gateway, &caller.tool("later")).await;
    let call = up.call("tools/call").await;
    let (status, body) = h2_response(h2(&connector, &gateway, &caller.tool("get_time")).await).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    call.answer(Reply::result(&call, &serde_json::json!({ "content": [] })));
    assert_eq!(h2_response(slow).await.0, 200);
}

#[tokio::test]
async fn a_reset_of_an_http_2_stream_cancels_a_modern_call() {
    let authority = Authority::new();
    let up = Upstream::scripted(Era::Modern, |call| (call.method() == "tools/call").then(Reply::later)).await;
    let gateway = listener(Gateway::relay(&[&up]).server("era: modern"), &authority, "").start().await;
    let connector = Connector::new(None);
    let mut session = h2(&connector, &gateway, &gateway.caller().tool("later")).await;
    let call = up.call("tools/call").await;
    let left = std::time::Instant::now();
    session.shutdown().await;
    drop(session);
    let took = call.gone().await.saturating_duration_since(left);
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_without_a_restart() {
    let authority = Authority::new();
    let (_up, gateway) = secured(&authority, "").await;
    let shown = async || {
        let stream = dial_tls(gateway.mcp, "localhost", authority.client(&["http/1.1"], None)).await.unwrap();
        let chain = stream.get_ref().1.peer_certificates().unwrap().to_vec();
        (stream, chain[0].clone())
    };
    let (stream, before) = shown().await;
    let mut old = Client::over(stream);
    let caller = gateway.caller();
    assert_eq!(old.ask(&caller.tool("get_time")).await.status(), 200);
    let renewed = authority.issue("localhost");
    authority.write("server", &renewed);
    crate::support::eventually("the new certificate", async || {
        (shown().await.1 == *renewed.der()).then_some(())
    })
    .await;
    assert_ne!(before, *renewed.der());
    assert_eq!(old.ask(&caller.tool("get_time")).await.status(), 200, "connections go on");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_replaces_nothing() {
    let authority = Authority::new();
    let (_up, gateway) = secured(&authority, "").await;
    let (cert, _) = authority.write("other", &authority.issue("localhost"));
    let before = gateway.metric("tollgate_config_reloads_total", &["rejected"]).await;
    // A certificate without its key.
    authority.replace("server.pem", &std::fs::read(cert).unwrap());
    crate::support::eventually("the refusal", async || {
        (gateway.metric("tollgate_config_reloads_total", &["rejected"]).await > before).then_some(())
    })
    .await;
    let request = gateway.caller().tool("get_time");
    let response = ask(&gateway, authority.client(&["http/1.1"], None), &request).await.unwrap();
    assert_eq!(response.status(), 200);
    let (status, ready) = gateway.readyz().await;
    assert_eq!(status, 200);
    assert!(ready["last_reload"]["error"].as_str().unwrap().contains("listeners.mcp.tls"), "{ready}");
}

#[tokio::test]
async fn a_client_certificate_is_required_where_it_is_said_to_be() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let required = format!(", client_ca: \"{}\"", clients.file().display());
    let (up, gateway) = secured(&authority, &required).await;
    let request = gateway.caller().tool("get_time");
    assert!(ask(&gateway, authority.client(&["http/1.1"], None), &request).await.is_err(), "none");
    let foreign = strangers.issue("mallory");
    assert!(
        ask(&gateway, authority.client(&["http/1.1"], Some(&foreign)), &request).await.is_err(),
        "a foreign one"
    );
    let own = clients.issue("alice");
    let response = ask(&gateway, authority.client(&["http/1.1"], Some(&own)), &request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(up.calls().len(), 1);

    let (_up, requested) = secured(&authority, &format!("{required}, client_auth: request")).await;
    let request = requested.caller().tool("get_time");
    let response = ask(&requested, authority.client(&["http/1.1"], None), &request).await.unwrap();
    assert_eq!(response.status(), 200, "asked for, not required");
    assert!(ask(&requested, authority.client(&["http/1.1"], Some(&foreign)), &request).await.is_err());
}

#[tokio::test]
async fn a_server_behind_a_private_authority_must_be_who_it_is_said_to_be() {
    let authority = Authority::new();
    let up = Upstream::start("private", Era::Modern, Some(authority.server("mcp.internal")), |_| None).await;
    let ca = authority.file();
    let trust = |ca: &std::path::Path, sni: &str| format!("tls: {{ ca: \"{}\", sni: {sni} }}", ca.display());
    let stranger = Authority::new();
    let cases = [
        ("the right authority and name", trust(&ca, "mcp.internal"), 200),
        ("another name", trust(&ca, "other.internal"), 502),
        ("another authority", trust(&stranger.file(), "mcp.internal"), 502),
        ("the system's authorities", "tls: { sni: mcp.internal }".to_owned(), 502),
    ];
    for (why, http, expected) in cases {
        let gateway =
            Gateway::relay(&[&up]).server("era: modern, retry: { attempts: 1 }").http(&http).start().await;
        let caller = gateway.caller();
        let before = up.count("tools/call");
        let response = caller.ask(&caller.tool("get_time")).await;
        assert_eq!(response.status(), expected, "{why}: {}", response.text());
        assert_eq!(up.count("tools/call") - before, usize::from(expected == 200), "{why}");
    }
}

#[tokio::test]
async fn streams_and_cancellation_work_towards_a_server_with_tls() {
    let authority = Authority::new();
    let stream = |call: &crate::support::Call| (call.method() == "tools/call").then(Reply::stream);
    let up = Upstream::start("private", Era::Modern, Some(authority.server("mcp.internal")), stream).await;
    let http = format!("tls: {{ ca: \"{}\", sni: mcp.internal }}", authority.file().display());
    let gateway = Gateway::relay(&[&up]).server("era: modern").http(&http).start().await;
    let caller = gateway.caller();
    let (mut client, head) = caller.stream(&caller.tool("stream")).await;
    assert_eq!(head.status, 200);
    let call = up.call("tools/call").await;
    call.event(&serde_json::json!({ "jsonrpc": "2.0", "method": "n" }));
    assert_eq!(client.message().await["method"], "n");
    let left = std::time::Instant::now();
    drop(client);
    assert!(call.gone().await.saturating_duration_since(left) < AT_ONCE);
}

#[tokio::test]
async fn a_server_that_speaks_http_2_is_relayed_over_it() {
    // The server is another gateway: it offers HTTP/2, and says how it was called.
    let authority = Authority::new();
    let stream =
        |call: &crate::support::Call| (call.message()["params"]["name"] == "stream").then(Reply::stream);
    let up = Upstream::scripted(Era::Modern, stream).await;
    let inner =
        listener(Gateway::relay(&[&up]).server("era: modern").identity("anonymous: {}"), &authority, "");
    let inner = inner.start().await;
    let target = format!("\"{}/mcp/s\"", inner.origin());
    let http = format!("h2: true, tls: {{ ca: \"{}\", sni: localhost }}", authority.file().display());
    let outer = Gateway::targets([target]).server("era: modern").http(&http).start().await;
    let caller = outer.caller();
    for _ in 0..3 {
        let response = caller.ask(&caller.tool("get_time")).await;
        assert_eq!(response.status(), 200, "{}", response.text());
    }
    let (mut client, head) = caller.stream(&caller.tool("stream")).await;
    assert_eq!(head.status, 200);
    let call = crate::support::eventually("the stream", async || {
        up.calls().into_iter().find(|c| c.message()["params"]["name"] == "stream")
    })
    .await;
    call.event(&serde_json::json!({ "jsonrpc": "2.0", "method": "n" }));
    assert_eq!(client.message().await["method"], "n");
    // One connection carries all of it: HTTP/1.1 would have needed a second one beside the open stream.
    let beside = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(beside.status(), 200);
    assert_eq!(inner.metric("tollgate_connections", &[]).await, 1.0);
    let left = std::time::Instant::now();
    drop(client);
    assert!(call.gone().await.saturating_duration_since(left) < AT_ONCE, "a reset travels through both");
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_is_good_only_with_it() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let issuer = crate::support::Issuer::new("corp");
    let up = Upstream::modern().await;
    let builder =
        Gateway::relay(&[&up]).server("era: modern").identity(&format!("issuers: [{}]", issuer.yaml()));
    let more = format!(", client_ca: \"{}\", client_auth: request", clients.file().display());
    let gateway = listener(builder, &authority, &more).start().await;
    let (own, other) = (clients.issue("alice"), clients.issue("mallory"));
    let mut claims = issuer.claims("alice", &gateway.url());
    let digest = <sha2::Sha256 as sha2::Digest>::digest(own.der());
    let thumbprint = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, digest);
    claims["cnf"] = serde_json::json!({ "x5t#S256": thumbprint });
    let request = gateway.caller().bearer(&issuer.sign(&claims)).tool("get_time");
    for (identity, expected) in [(Some(&own), 200), (Some(&other), 401), (None, 401)] {
        let response = ask(&gateway, authority.client(&["http/1.1"], identity), &request).await.unwrap();
        assert_eq!(response.status(), expected, "{}", response.text());
    }
}

#[test]
fn a_check_says_which_file_of_a_listener_cannot_be_used() {
    let authority = Authority::new();
    let (cert, key) = authority.write("replica", &authority.issue("127.0.0.1"));
    let (_, other) = authority.write("other", &authority.issue("127.0.0.1"));
    let found = |listener: &str, [cert, key, ca]: [&std::path::Path; 3], third: &str| {
        let files = format!(
            "tls: {{ cert: \"{}\", key: \"{}\", {third}: \"{}\" }}",
            cert.display(),
            key.display(),
            ca.display()
        );
        let text = format!("version: 1\nlisteners: {{ {listener}: {{ address: 127.0.0.1:0, {files} }} }}\n");
        let checked = tollgate::app::check(&tollgate::app::Options::new(tollgate::app::Document::Text(text)));
        assert!(!checked.diagnostics.has_errors(), "{}", checked.diagnostics);
        assert_eq!(checked.summary.is_some(), checked.errors.is_empty());
        checked.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (ca, away) = (authority.file(), authority.file().with_file_name("away.pem"));
    for (listener, third) in [("internal", "ca"), ("mcp", "client_ca"), ("admin", "client_ca")] {
        assert_eq!(found(listener, [&cert, &key, &ca], third), Vec::<String>::new(), "{listener}");
        for files in [[&away, &key, &ca], [&cert, &away, &ca], [&cert, &key, &away]] {
            let errors = found(listener, files.map(|f| f.as_path()), third);
            assert_eq!(errors.len(), 1, "{listener}: {errors:?}");
            assert!(errors[0].contains(&format!("listeners.{listener}.tls")), "{errors:?}");
            assert!(errors[0].contains("cannot read") && errors[0].contains("away.pem"), "{errors:?}");
        }
        // All there, but no pair.
        let errors = found(listener, [&cert, &other, &ca], third);
        assert!(errors.len() == 1 && errors[0].contains(&format!("listeners.{listener}.tls")), "{errors:?}");
    }
}
