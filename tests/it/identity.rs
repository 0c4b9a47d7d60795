//! Who is let in, and as whom. Roles are made visible by a policy that gives each role a tool of its own.

use std::time::Duration;

use serde_json::json;
use tollgate::auth::{KeyHash, generate_api_key};

use crate::support::{Builder, Caller, Folder, Gateway, Issuer, Response, Upstream, eventually};

/// One tool for each role.
const BY_ROLE: &str = "policies:
  - name: by_role
    rules:
      - allow: { roles: [anonymous], tools: [anonymous] }
      - allow: { roles: [viewer], tools: [viewer] }
      - allow: { roles: [developer], tools: [developer] }
      - allow: { roles: [admin], tools: [admin] }";

fn guarded(up: &Upstream, identity: &str) -> Builder {
    Gateway::relay(&[up]).server("era: modern").identity(identity).route("policy: by_role").more(BY_ROLE)
}

/// The role by which a caller is known, found out by trying.
async fn role(caller: &Caller) -> &'static str {
    let mut found = Vec::new();
    for role in ["anonymous", "viewer", "developer", "admin"] {
        let response = caller.ask(&caller.tool(role)).await;
        assert_eq!(response.status(), 200, "{}", response.text());
        if response.json()["error"].is_null() {
            found.push(role);
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found[0]
}

/// A key and its line in the file.
fn key(record: serde_json::Value) -> (String, String) {
    let key = generate_api_key(&mut rand::rng());
    let text = key.text.expose().clone();
    let mut record = record;
    record["id"] = json!(key.id);
    record["hash"] = json!(KeyHash::of(text.as_bytes(), None).to_string());
    (text, format!("{record}\n"))
}

fn assert_refused(response: &Response, why: &str) {
    assert_eq!(response.status(), 401, "{why}: {}", response.text());
    let challenge = response.header("www-authenticate").unwrap_or_else(|| panic!("{why}: no challenge"));
    assert!(challenge.starts_with("Bearer "), "{why}: {challenge}");
}

#[tokio::test]
async fn a_good_token_gives_the_role_its_claims_map_to() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = guarded(&up, &format!("issuers: [{}]", issuer.yaml())).start().await;
    let mut claims = issuer.claims("alice", &gateway.url());
    assert_eq!(role(&gateway.caller().bearer(&issuer.sign(&claims))).await, "viewer");
    claims["role"] = json!("developer");
    assert_eq!(role(&gateway.caller().bearer(&issuer.sign(&claims))).await, "developer");
    claims["role"] = json!(["nothing", "admin"]);
    claims["aud"] = json!(["https://other.example", gateway.url()]);
    assert_eq!(role(&gateway.caller().bearer(&issuer.sign(&claims))).await, "admin");
}

#[tokio::test]
async fn tokens_that_are_not_good_are_401_and_reach_no_server() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let stranger = Issuer::new("stranger");
    let folder = Folder::new();
    let revoked = folder.write("revoked.jsonl", "{\"jti\": \"stolen\"}\n{\"sub\": \"fired\"}\n");
    let identity = format!(
        "issuers: [{}], revocations: {{ file: \"{}\" }}, failed_attempts: {{ rate: 1000/s, burst: 1000 }}",
        issuer.yaml(),
        revoked.display()
    );
    let gateway = Gateway::relay(&[&up]).server("era: modern").identity(&identity).start().await;
    let good = issuer.claims("alice", &gateway.url());
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let now = good["iat"].as_u64().unwrap();
    let token = issuer.sign(&good);
    let parts: Vec<&str> = token.split('.').collect();
    let other = issuer.sign(&with("sub", json!("admin")));
    let swapped = format!("{}.{}.{}", parts[0], other.split('.').nth(1).unwrap(), parts[2]);
    // The key that verifies, taken as a shared secret.
    let confused = jsonwebtoken::encode(
        &jsonwebtoken::Header { kid: Some("corp".to_owned()), ..Default::default() },
        &good,
        &jsonwebtoken::EncodingKey::from_secret(&std::fs::read(issuer.jwks()).unwrap()),
    )
    .unwrap();
    let cases = [
        ("no signature", issuer.unsigned(&good)),
        ("no signature, but some bytes", format!("{}AAAA", issuer.unsigned(&good))),
        ("another key", issuer.forger().sign(&good)),
        ("claims of another token", swapped),
        ("HMAC with the public key", confused),
        ("expired", issuer.sign(&with("exp", json!(now - 120)))),
        ("not valid yet", issuer.sign(&with("nbf", json!(now + 3600)))),
        ("without an end", issuer.sign(&with("exp", serde_json::Value::Null))),
        ("for another resource", issuer.sign(&with("aud", json!("https://other.example/mcp")))),
        ("for a longer path", issuer.sign(&with("aud", json!(format!("{}/more", gateway.url()))))),
        ("for nobody", issuer.sign(&with("aud", json!([])))),
        ("of an unknown issuer", stranger.sign(&stranger.claims("alice", &gateway.url()))),
        ("in the name of another issuer", stranger.sign(&good)),
        ("revoked by its id", issuer.sign(&with("jti", json!("stolen")))),
        ("of a revoked subject", issuer.sign(&with("sub", json!("fired")))),
        ("cut", token[..token.len() - 2].to_owned()),
        ("no token at all", "hello".to_owned()),
        ("an API key, and there are none", format!("tg_{}_{}", "a".repeat(12), "b".repeat(49))),
    ];
    for (why, token) in cases {
        let caller = gateway.caller().bearer(&token);
        let response = caller.ask(&caller.tool("get_time")).await;
        assert_refused(&response, why);
        assert!(response.header("www-authenticate").unwrap().contains("error=\"invalid_token\""), "{why}");
        assert!(!response.text().contains(&token), "{why}: nothing that was presented is said back");
    }
    assert_eq!(up.calls().len(), 0);
    let caller = gateway.caller().bearer(&token);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200, "and a good one passes");
}

#[tokio::test]
async fn a_bad_credential_never_becomes_the_anonymous_or_the_local_caller() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let folder = Folder::new();
    let keys = folder.write("keys.jsonl", "");
    let identity = format!(
        "issuers: [{}], api_keys: {{ file: \"{}\" }}, anonymous: {{}}, loopback: {{ role: developer }}",
        issuer.yaml(),
        keys.display()
    );
    let gateway = guarded(&up, &identity).start().await;
    assert_eq!(role(&gateway.caller()).await, "developer", "nothing presented, from this machine");
    let bad = [
        ("Authorization", "Bearer x.y.z".to_owned(), 401),
        ("Authorization", "Bearer tg_aaaaaaaaaaaa_b".to_owned(), 401),
        ("Authorization", "Basic YTpi".to_owned(), 401),
        ("Authorization", "Bearer ".to_owned(), 400),
        ("Authorization", "Bearer".to_owned(), 400),
        ("Authorization", String::new(), 400),
        ("X-Api-Key", "guess".to_owned(), 401),
        ("X-Api-Key", String::new(), 400),
    ];
    for (name, value, status) in bad {
        let caller = gateway.caller().with(name, &value);
        let response = caller.ask(&caller.tool("developer")).await;
        assert_eq!(response.status(), status, "{name}: {value:?}: {}", response.text());
    }
    let token = issuer.token("alice", &gateway.url());
    let twice = gateway.caller().bearer(&token).bearer(&token);
    assert_eq!(twice.ask(&twice.tool("viewer")).await.status(), 400, "two credentials");
    let both = gateway.caller().bearer(&token).with("X-Api-Key", "x");
    assert_eq!(both.ask(&both.tool("viewer")).await.status(), 400, "a token and a key");
}

#[tokio::test]
async fn the_local_caller_is_not_who_comes_through_a_proxy() {
    let up = Upstream::modern().await;
    let gateway = guarded(&up, "anonymous: {}, loopback: { role: developer }").start().await;
    assert_eq!(role(&gateway.caller()).await, "developer");
    for (name, value) in
        [("X-Forwarded-For", "192.0.2.1"), ("Forwarded", "for=192.0.2.1"), ("X-Real-IP", "192.0.2.1")]
    {
        assert_eq!(role(&gateway.caller().with(name, value)).await, "anonymous", "{name}");
    }
}

#[tokio::test]
async fn without_identity_everybody_is_refused() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let caller = gateway.caller();
    for request in [caller.tool("get_time"), caller.request("GET"), caller.request("DELETE")] {
        let response = caller.ask(&request).await;
        assert_refused(&response, "no credential");
        assert!(
            !response.header("www-authenticate").unwrap().contains("error="),
            "nothing was wrong with it"
        );
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn an_api_key_is_taken_from_both_headers_and_gives_its_role() {
    let up = Upstream::modern().await;
    let folder = Folder::new();
    let (text, line) = key(json!({ "roles": ["developer"] }));
    let keys = folder.write("keys.jsonl", line);
    let gateway = guarded(&up, &format!("api_keys: {{ file: \"{}\" }}", keys.display())).start().await;
    assert_eq!(role(&gateway.caller().bearer(&text)).await, "developer");
    assert_eq!(role(&gateway.caller().with("X-Api-Key", &text)).await, "developer");
    for call in up.everything() {
        assert!(call.headers.iter().all(|(_, value)| !value.contains(&text)), "the key stays here");
    }
}

#[tokio::test]
async fn an_api_key_that_is_unknown_disabled_expired_or_elsewhere_is_401() {
    let up = Upstream::modern().await;
    let folder = Folder::new();
    let cases = [
        ("disabled", key(json!({ "roles": ["admin"], "disabled": true }))),
        ("expired", key(json!({ "roles": ["admin"], "expires": "2020-01-01T00:00:00Z" }))),
        ("for another network", key(json!({ "roles": ["admin"], "cidr": ["192.0.2.0/24"] }))),
    ];
    let lines: String = cases.iter().map(|(_, (_, line))| line.as_str()).collect();
    let keys = folder.write("keys.jsonl", lines);
    let gateway = guarded(&up, &format!("api_keys: {{ file: \"{}\" }}", keys.display())).start().await;
    let unknown = key(json!({})).0;
    for (why, text) in cases.iter().map(|(why, (text, _))| (*why, text)).chain([("unknown", &unknown)]) {
        let caller = gateway.caller().bearer(text);
        assert_refused(&caller.ask(&caller.tool("admin")).await, why);
    }
    assert_eq!(up.calls().len(), 0);
}

#[tokio::test]
async fn a_restricted_api_key_reaches_nothing_else_and_sees_nothing_else() {
    let up = Upstream::modern().await;
    let folder = Folder::new();
    let (tools, a) = key(json!({ "roles": ["admin"], "scopes": { "tools": ["get_*"] } }));
    let (elsewhere, b) = key(json!({ "roles": ["admin"], "scopes": { "routes": ["other"] } }));
    let (methods, c) = key(json!({ "roles": ["admin"], "scopes": { "methods": ["tools/list"] } }));
    let keys = folder.write("keys.jsonl", a + &b + &c);
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("api_keys: {{ file: \"{}\" }}", keys.display()))
        .start()
        .await;
    let caller = gateway.caller().bearer(&tools);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("delete_all")).await.code(), -32602);
    let list = caller.ask(&caller.modern("tools/list", json!({}))).await.json();
    assert_eq!(list["result"]["tools"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list["result"]["cacheScope"], "private");

    let caller = gateway.caller().bearer(&elsewhere);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 403);
    let caller = gateway.caller().bearer(&methods);
    assert_eq!(caller.ask(&caller.modern("tools/list", json!({}))).await.status(), 200);
    assert_eq!(caller.ask(&caller.tool("get_time")).await.code(), -32601);
    assert_eq!(up.count("tools/call"), 1);
}

#[tokio::test]
async fn a_revocation_holds_for_credentials_that_were_good_before() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let folder = Folder::new();
    let (text, line) = key(json!({ "roles": ["developer"], "principal": "robots|one" }));
    let keys = folder.write("keys.jsonl", line);
    let revoked = folder.write("revoked.jsonl", "");
    let identity = format!(
        "issuers: [{}], api_keys: {{ file: \"{}\" }}, revocations: {{ file: \"{}\" }}",
        issuer.yaml(),
        keys.display(),
        revoked.display()
    );
    let gateway = Gateway::relay(&[&up]).server("era: modern").identity(&identity).start().await;
    let alice = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    let bob = gateway.caller().bearer(&issuer.token("bob", &gateway.url()));
    let robot = gateway.caller().bearer(&text);
    for caller in [&alice, &bob, &robot] {
        assert_eq!(caller.ask(&caller.tool("get_time")).await.status(), 200);
    }
    folder.write("revoked.jsonl", "{\"principal\": \"corp|alice\"}\n{\"principal\": \"robots|one\"}\n");
    eventually("the revocation is in force", async || {
        (alice.ask(&alice.tool("get_time")).await.status() == 401).then_some(())
    })
    .await;
    assert_refused(&robot.ask(&robot.tool("get_time")).await, "the key");
    assert_eq!(bob.ask(&bob.tool("get_time")).await.status(), 200);
}

#[tokio::test]
async fn a_key_that_leaves_the_file_is_refused() {
    let up = Upstream::modern().await;
    let folder = Folder::new();
    let (first, a) = key(json!({ "roles": ["viewer"] }));
    let (second, b) = key(json!({ "roles": ["viewer"] }));
    let keys = folder.write("keys.jsonl", a);
    let gateway = guarded(&up, &format!("api_keys: {{ file: \"{}\" }}", keys.display())).start().await;
    let (first, second) = (gateway.caller().bearer(&first), gateway.caller().bearer(&second));
    assert_eq!(first.ask(&first.tool("viewer")).await.status(), 200);
    assert_eq!(second.ask(&second.tool("viewer")).await.status(), 401);
    folder.write("keys.jsonl", b);
    eventually("the other key", async || {
        (second.ask(&second.tool("viewer")).await.status() == 200).then_some(())
    })
    .await;
    assert_eq!(first.ask(&first.tool("viewer")).await.status(), 401);
}

#[tokio::test]
async fn a_guesser_is_not_listened_to_while_known_callers_go_on() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let identity = format!("issuers: [{}], failed_attempts: {{ rate: 1/h, burst: 3 }}", issuer.yaml());
    let gateway = Gateway::relay(&[&up]).server("era: modern").identity(&identity).start().await;
    let known = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    assert_eq!(known.ask(&known.tool("get_time")).await.status(), 200);
    let guess = gateway.caller().bearer(&issuer.forger().token("alice", &gateway.url()));
    for _ in 0..6 {
        // Not 429: that would make a client fall back to the legacy era.
        assert_refused(&guess.ask(&guess.tool("get_time")).await, "a guess");
    }
    let fresh = gateway.caller().bearer(&issuer.token("bob", &gateway.url()));
    let response = fresh.ask(&fresh.tool("get_time")).await;
    assert_refused(&response, "a token nobody has seen, from where the guesses came");
    assert_eq!(known.ask(&known.tool("get_time")).await.status(), 200, "what was verified before passes");
    assert!(gateway.metric("tollgate_auth_failures_total", &["reason=\"throttled\""]).await >= 1.0);
}

#[tokio::test]
async fn a_key_that_an_issuer_rotates_in_is_found_without_a_reload() {
    let up = Upstream::modern().await;
    let mut issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let old = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    assert_eq!(old.ask(&old.tool("get_time")).await.status(), 200);
    issuer.rotate("corp-2");
    let new = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    assert_eq!(new.ask(&new.tool("get_time")).await.status(), 200, "the unknown key id has it looked up");
    eventually("the old key is gone", async || {
        (old.ask(&old.tool("get_time")).await.status() == 401).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_not_the_callers_fault() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let identity = format!(
        "issuers: [{{ name: corp, issuer: \"{}\", jwks: {{ url: \"http://127.0.0.1:1/keys\" }} }}]",
        issuer.url()
    );
    let gateway = Gateway::relay(&[&up]).server("era: modern").identity(&identity).start().await;
    let caller = gateway.caller().bearer(&issuer.token("alice", &gateway.url()));
    let response = caller.ask(&caller.tool("get_time")).await;
    assert_eq!(response.status(), 503, "{}", response.text());
    assert!(response.header("retry-after").is_some());
    assert_eq!(response.header("www-authenticate"), None, "a new token would not help");
}

#[tokio::test]
async fn a_long_stream_ends_with_the_token_it_was_opened_by() {
    let up = Upstream::modern().await;
    let issuer = Issuer::new("corp");
    let gateway = Gateway::relay(&[&up])
        .server("era: modern")
        .identity(&format!("issuers: [{}]", issuer.yaml()))
        .start()
        .await;
    let mut claims = issuer.claims("alice", &gateway.url());
    claims["exp"] = json!(claims["iat"].as_u64().unwrap() + 2);
    let caller = gateway.caller().bearer(&issuer.sign(&claims));
    let request = caller.modern("subscriptions/listen", json!({ "notifications": {} }));
    let (mut client, head) = caller.stream(&request).await;
    assert_eq!(head.status, 200);
    let last = tokio::time::timeout(Duration::from_secs(6), client.message()).await.expect("an end in time");
    assert_eq!(last["result"]["resultType"], "complete", "a polite one: {last}");
    assert_eq!(client.event().await, None);
}
