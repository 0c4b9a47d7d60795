//! Tenants in one process: each with a place, callers and revisions of its own.

use crate::support::{Caller, Folder, Gateway, Issuer, Upstream};

const REVISION: &str = "x-tollgate-revision";

fn tenant(name: &str, more: &str, up: &Upstream, identity: &str) -> String {
    format!(
        "  - {{ name: {name}{more}, grants: {{ private_targets: [127.0.0.0/8], file: true, anonymous: true }}, document: {{ \
         servers: [{{ name: s, era: modern, http: {{ targets: [\"{}\"] }}, health: {{ interval: 0s }} }}], \
         routes: [{{ name: s, servers: [s], limits: [] }}], identity: {{ {identity} }} }} }}\n",
        up.url()
    )
}

fn at(gateway: &Gateway, path: &str) -> Caller {
    Caller::new(gateway.mcp, path)
}

#[tokio::test]
async fn each_tenant_is_found_at_its_place_and_answers_name_its_revision() {
    let (own, acme, globex) = (Upstream::modern().await, Upstream::modern().await, Upstream::modern().await);
    let tenants = tenant("acme", "", &acme, "anonymous: {}")
        + &tenant("globex", ", hosts: [globex.example, \"*.globex.example\"]", &globex, "anonymous: {}");
    let gateway =
        Gateway::relay(&[&own]).server("era: modern").more(&format!("tenants:\n{tenants}")).start().await;

    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("t")).await;
    assert_eq!(response.status(), 200);
    assert!(response.header(REVISION).unwrap().starts_with("default@"), "{:?}", response.header(REVISION));

    let caller = at(&gateway, "/t/acme/mcp/s");
    let response = caller.ask(&caller.tool("t")).await;
    assert_eq!(response.status(), 200, "{}", response.text());
    assert!(response.header(REVISION).unwrap().starts_with("acme@"));
    assert_eq!((own.calls().len(), acme.calls().len()), (1, 1));
    let missing = caller.ask(&caller.request("PUT")).await;
    assert_eq!(missing.status(), 405);
    assert!(missing.header(REVISION).unwrap().starts_with("acme@"), "errors of a route as well");

    let caller = gateway.caller();
    for host in ["globex.example", "eu.GLOBEX.example:8080"] {
        let response = caller.ask(&caller.tool("t").set("Host", host)).await;
        assert_eq!(response.status(), 200, "{host}: {}", response.text());
        assert!(response.header(REVISION).unwrap().starts_with("globex@"));
    }
    assert_eq!((own.calls().len(), globex.calls().len()), (1, 2));
    // A tenant's host is the tenant's altogether, and a tenant's prefix holds no route of anybody else.
    let there = at(&gateway, "/t/acme/mcp/s");
    let response = there.ask(&there.tool("t").set("Host", "globex.example")).await;
    assert_eq!(response.status(), 404);
    for path in ["/t/acme/mcp/other", "/t/globex/mcp/s", "/t/acme", "/t/acmex/mcp/s"] {
        let nowhere = at(&gateway, path);
        assert_eq!(nowhere.ask(&nowhere.tool("t")).await.status(), 404, "{path}");
    }
    let stranger = caller.ask(&caller.tool("t").set("Host", "stranger.example")).await;
    assert_eq!(stranger.status(), 403, "hosts of nobody are still refused");
}

#[tokio::test]
async fn metadata_and_audiences_are_those_of_the_tenants_place() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let identity = format!("issuers: [{}]", issuer.yaml());
    let tenants =
        tenant("acme", "", &up, &identity) + &tenant("globex", ", hosts: [globex.example]", &up, &identity);
    let gateway =
        Gateway::relay(&[&up]).server("era: modern").more(&format!("tenants:\n{tenants}")).start().await;
    let port = gateway.mcp.port();

    let url = format!("{}/t/acme/mcp/s", gateway.origin());
    let caller = at(&gateway, "/.well-known/oauth-protected-resource/t/acme/mcp/s");
    let metadata = caller.ask(&caller.request("GET").without("Content-Type")).await;
    assert_eq!(metadata.json()["resource"], url);
    let caller = at(&gateway, "/t/acme/mcp/s");
    let refused = caller.ask(&caller.tool("t")).await;
    assert_eq!(refused.status(), 401);
    let challenge = refused.header("www-authenticate").unwrap().to_owned();
    assert!(challenge.contains("/.well-known/oauth-protected-resource/t/acme/mcp/s"), "{challenge}");
    let caller = caller.bearer(&issuer.token("alice", &url));
    assert_eq!(caller.ask(&caller.tool("t")).await.status(), 200);

    let url = format!("http://globex.example:{port}/mcp/s");
    let caller = at(&gateway, "/.well-known/oauth-protected-resource/mcp/s");
    let request = caller.request("GET").set("Host", "globex.example");
    assert_eq!(caller.ask(&request).await.json()["resource"], url);
    let caller = gateway.caller().bearer(&issuer.token("alice", &url));
    assert_eq!(caller.ask(&caller.tool("t").set("Host", "globex.example")).await.status(), 200);
    let acme = at(&gateway, "/t/acme/mcp/s").bearer(&issuer.token("alice", &url));
    assert_eq!(acme.ask(&acme.tool("t")).await.status(), 401, "a token for another tenant's place");
}

#[tokio::test]
async fn a_token_verified_for_one_tenant_says_nothing_to_another() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let shared = issuer.yaml().trim_end().trim_end_matches('}').to_owned() + ", audiences: [shared] }";
    let strict = issuer.yaml().trim_end().trim_end_matches('}').to_owned()
        + ", audiences: [shared], required: [{ claim: customer, equals: acme }] }";
    let tenants = tenant("lax", "", &up, &format!("issuers: [{shared}]"))
        + &tenant("strict", "", &up, &format!("issuers: [{strict}]"))
        + &tenant("keys", "", &up, "api_keys: true");
    let gateway =
        Gateway::relay(&[&up]).server("era: modern").more(&format!("tenants:\n{tenants}")).start().await;
    let token = issuer.token("alice", "shared");
    let ask = async |tenant: &str| {
        let caller = at(&gateway, &format!("/t/{tenant}/mcp/s")).bearer(&token);
        caller.ask(&caller.tool("t")).await.status()
    };
    assert_eq!(ask("lax").await, 200);
    assert_ne!(ask("strict").await, 200, "what the one has verified is not taken over by the other");
    assert_eq!(ask("keys").await, 401);
    assert_eq!(ask("lax").await, 200);
}

#[tokio::test]
async fn a_tenant_that_does_not_compile_keeps_what_it_had_and_the_others_go_on() {
    let (up, acme) = (Upstream::modern().await, Upstream::modern().await);
    let folder = Folder::new();
    let keys = folder.write("keys.jsonl", "");
    let file = |keys: &str, route: &str| {
        let other = tenant("other", "", &up, "anonymous: {}")
            .replace("name: s, servers", &format!("name: {route}, servers"));
        let acme = tenant("acme", "", &acme, &format!("anonymous: {{}}, api_keys: {{ file: \"{keys}\" }}"));
        let builder = Gateway::relay(&[&up]).server("era: modern").more(&format!("tenants:\n{acme}{other}"));
        builder.watched()
    };
    let builder = file(&keys.display().to_string(), "s");
    let gateway = builder.clone().start().await;
    let revision = async |path: &str| {
        let caller = at(&gateway, path);
        let response = caller.ask(&caller.tool("t")).await;
        (response.status(), response.header(REVISION).unwrap_or_default().to_owned())
    };
    let before = revision("/t/acme/mcp/s").await;
    assert_eq!(before.0, 200);
    gateway.reload(&file("/nowhere/keys.jsonl", "new").text(), "rejected").await;
    assert_eq!(revision("/t/acme/mcp/s").await, before, "the last good one");
    let (status, named) = revision("/t/other/mcp/new").await;
    assert_eq!(status, 200, "the others go on");
    assert_ne!(named.trim_start_matches("other@"), before.1.trim_start_matches("acme@"));
    // But not beyond what it is given in the same file.
    let less = file("/nowhere/keys.jsonl", "newer").text().replacen(
        "name: acme",
        "name: acme, path_prefix: /elsewhere",
        1,
    );
    gateway.reload(&less, "rejected").await;
    assert_eq!(revision("/t/acme/mcp/s").await.0, 404, "its place was taken back");
    assert_eq!(revision("/t/other/mcp/newer").await.0, 200);
}

#[tokio::test]
async fn a_tenant_without_identity_lets_nobody_in() {
    let up = Upstream::modern().await;
    let tenants = tenant("acme", "", &up, "issuers: []");
    let gateway =
        Gateway::relay(&[&up]).server("era: modern").more(&format!("tenants:\n{tenants}")).start().await;
    let caller = at(&gateway, "/t/acme/mcp/s");
    assert_eq!(caller.ask(&caller.tool("t")).await.status(), 401);
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_redirect_of_a_server_is_never_followed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let victim = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bad = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (there, here) = (victim.local_addr().unwrap(), bad.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = bad.accept().await {
            tokio::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                let _ = socket.read(&mut request).await;
                let answer = format!(
                    "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{there}/mcp\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    let gateway = Gateway::targets([format!("\"http://{here}/mcp\"")]).server("era: modern").start().await;
    let caller = gateway.caller();
    let response = caller.ask(&caller.tool("t")).await;
    assert_ne!(response.status(), 200);
    assert!(response.header("location").is_none(), "nor is it handed on");
    let dialled = tokio::time::timeout(std::time::Duration::from_millis(300), victim.accept()).await;
    assert!(dialled.is_err(), "nobody came to where the server pointed");
}
