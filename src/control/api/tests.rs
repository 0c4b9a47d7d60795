use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;

use crate::base::{Clock, Secret};
use crate::control::authn::Authenticator;
use crate::control::permission::{OPERATIONS, Operation};
use crate::control::trail::{Action, Ledger};
use crate::control::{ControlConfig, ControlState, Exposure, Readiness, Revision, Status, openapi, router};
use crate::limit::Rate;

/// A process of which there is nothing to say.
pub(in crate::control) struct Nothing;

impl ControlState for Nothing {
    fn metrics(&self) -> String {
        String::new()
    }

    fn readiness(&self) -> Readiness {
        Readiness::default()
    }

    fn status(&self) -> Status {
        Status::default()
    }

    fn revisions(&self) -> Vec<Revision> {
        Vec::new()
    }
}

/// Keeps what is recorded.
#[derive(Default)]
struct Kept {
    actions: Mutex<Vec<Action>>,
    full: std::sync::atomic::AtomicBool,
}

impl Ledger for Kept {
    fn ready(&self) -> bool {
        !self.full.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn record(&self, action: &Action) {
        self.actions.lock().push(action.clone());
    }
}

fn config() -> ControlConfig {
    ControlConfig {
        api_token: Some(Secret::new("t0ken".to_owned())),
        authenticator: Arc::new(Authenticator::new(None, Clock::manual(0))),
        clock: Clock::manual(0),
        ..ControlConfig::new(Exposure::Network)
    }
}

fn with(config: ControlConfig) -> Router {
    router(config, Arc::new(Nothing), Router::new())
}

fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 5))));
    request
}

const TOKEN: (&str, &str) = ("authorization", "Bearer t0ken");

async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response<Body> {
    router.clone().oneshot(request(method, path, headers)).await.unwrap()
}

/// What was answered, all of it.
async fn whole(response: Response<Body>) -> Vec<u8> {
    #[allow(clippy::disallowed_methods, reason = "bounded")]
    to_bytes(response.into_body(), 8 << 20).await.unwrap().to_vec()
}

async fn json(response: Response<Body>) -> Value {
    let bytes = whole(response).await;
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{e}: {bytes:?}"))
}

/// A path with something in place of each parameter.
fn concrete(path: &str) -> String {
    let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
    parts.collect::<Vec<_>>().join("/").replace("{name}", "x")
}

#[test]
fn every_route_has_an_operation_and_every_operation_a_route() {
    let mut described: Vec<_> = openapi::operations(&openapi::described()).into_iter().map(|o| o.2).collect();
    let mut table: Vec<_> = OPERATIONS.iter().map(|o| o.id.to_owned()).collect();
    described.sort_unstable();
    table.sort_unstable();
    assert_eq!(described, table);
}

#[test]
fn operations_on_a_tenant_name_it_in_their_path() {
    for (_, path, id) in openapi::operations(&openapi::described()) {
        let operation = Operation::find(&id).unwrap();
        let named = path.contains("{tenant}");
        match operation.target {
            crate::control::permission::Target::Tenant => assert!(named, "{id}: {path}"),
            crate::control::permission::Target::Own => assert!(!named, "{id}: {path}"),
            // The tenant as a thing of the platform.
            crate::control::permission::Target::Platform => {}
        }
        assert!(path.starts_with("/api/v1/"), "{path}");
    }
}

#[tokio::test]
async fn every_operation_is_refused_without_a_credential() {
    let router = with(config());
    for (method, path, id) in openapi::operations(&openapi::described()) {
        for headers in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Basic dDBrZW4=")]]
        {
            let response = ask(&router, method, &concrete(&path), headers).await;
            let status = response.status();
            // Guessing is counted, so after a while the refusal is another one.
            assert!(
                matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS),
                "{id}: {method} {path}: {status}"
            );
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{id}");
        }
    }
    assert_eq!(ask(&router, "GET", "/api/v1/me", &[]).await.status(), 401);
}

#[tokio::test]
async fn the_caller_learns_who_they_are() {
    let me = json(ask(&with(config()), "GET", "/api/v1/me", &[TOKEN]).await).await;
    assert_eq!((me["id"].as_str(), me["platform"].as_bool()), (Some("operator|listener_token"), Some(true)));
    let permissions: Vec<_> =
        me["permissions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(permissions.contains(&"platform:write") && !permissions.contains(&"audit:bodies"));
}

#[tokio::test]
async fn lists_are_paged_filtered_and_sorted() {
    let router = with(config());
    let path = "/api/v1/roles?limit=2&sort=-rank&filter=rank%3E=1";
    let first = json(ask(&router, "GET", path, &[TOKEN]).await).await;
    assert_eq!(first["items"][0]["name"], "super_admin");
    let cursor = first["next_cursor"].as_str().unwrap();
    let next = json(ask(&router, "GET", &format!("{path}&cursor={cursor}"), &[TOKEN]).await).await;
    assert_eq!(next["items"][0]["name"], "server_owner");
    for bad in [
        "limit=0",
        "limit=501",
        "limit=x",
        "sort=nothing",
        "filter=x",
        "cursor=zzz",
        "limitt=5",
        "filter=a%00",
    ] {
        let problem = ask(&router, "GET", &format!("/api/v1/roles?{bad}"), &[TOKEN]).await;
        assert_eq!(problem.status(), 400, "{bad}");
    }
    let other = ask(&router, "GET", &format!("/api/v1/permissions?cursor={cursor}"), &[TOKEN]).await;
    assert_eq!(json(other).await["errors"][0]["pointer"], "?cursor");
}

#[tokio::test]
async fn callers_are_throttled_one_by_one() {
    let rate = Rate::new(60, std::time::Duration::from_secs(60), 3).unwrap();
    let router = with(ControlConfig { rate, ..config() });
    for _ in 0..3 {
        assert_eq!(ask(&router, "GET", "/api/v1/me", &[TOKEN]).await.status(), 200);
    }
    let refused = ask(&router, "GET", "/api/v1/me", &[TOKEN]).await;
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (429, &"1".parse().unwrap()));
}

#[tokio::test]
async fn refusals_are_recorded_with_who_and_why() {
    let kept = Arc::new(Kept::default());
    let router = with(ControlConfig { ledger: Some(kept.clone()), ..config() });
    ask(&router, "GET", "/api/v1/me", &[("x-tollgate-reason", "curious")]).await;
    let actions = kept.actions.lock();
    assert_eq!((actions.len(), actions[0].operation.id, actions[0].status), (1, "show_self", 401));
    assert!(actions[0].actor.is_none() && actions[0].refused());
}

/// The body never ends, so the handler never does.
#[tokio::test]
async fn a_change_that_is_given_up_is_recorded_all_the_same() {
    let kept = Arc::new(Kept::default());
    let router = with(ControlConfig { ledger: Some(kept.clone()), ..config() });
    let endless = || Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    for (line, headers, recorded) in [
        ("PUT", &[TOKEN, ("content-type", "application/json")][..], 1),
        ("POST", &[("authorization", "Bearer wrong"), ("content-type", "application/json")], 0),
    ] {
        let path = match line {
            "PUT" => "/api/v1/tenants/default/servers/weather",
            _ => "/api/v1/tenants/default/api-keys",
        };
        let mut asked = request(line, path, headers);
        *asked.body_mut() = endless();
        let given = tokio::time::timeout(std::time::Duration::from_millis(50), router.clone().oneshot(asked));
        assert_eq!(given.await.is_err(), recorded == 1);
        let given_up = kept.actions.lock().iter().filter(|a| a.status == 499).count();
        assert_eq!(given_up, recorded.max(1), "once for the one whose caller was known");
    }
    let actions = kept.actions.lock();
    assert_eq!(
        (actions[0].operation.id, actions[0].path.as_str()),
        ("put_server", "/api/v1/tenants/default/servers/weather")
    );
    assert!(actions[0].actor.is_some() && !actions[0].succeeded() && !actions[0].refused());
}

/// Good from one address only.
struct Near;

#[async_trait::async_trait]
impl crate::control::authn::Keys for Near {
    async fn actor(
        &self,
        _: &str,
        address: std::net::IpAddr,
    ) -> Result<Option<crate::control::actor::Actor>, crate::control::Problem> {
        use crate::control::actor::{Actor, Proof};
        let here = address == std::net::IpAddr::from([10, 0, 0, 1]);
        Ok(here.then(|| Actor { credential: "near".into(), ..Actor::operator(Proof::Key) }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_a_key_for_one_network_goes_on_in_that_network() {
    use futures::StreamExt as _;
    let authenticator = Arc::new(Authenticator::new(Some(Arc::new(Near)), Clock::manual(0)));
    let config = ControlConfig { authenticator, ..config() };
    let hub = config.events.clone();
    let router = with(config);
    let mut asked = request("GET", "/api/v1/events?topics=config", &[("authorization", "Bearer tg_x")]);
    let elsewhere = request("GET", "/api/v1/events", &[("authorization", "Bearer tg_x")]);
    assert_eq!(router.clone().oneshot(elsewhere).await.unwrap().status(), 401);
    asked.extensions_mut().insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 5))));
    let mut frames = router.clone().oneshot(asked).await.unwrap().into_body().into_data_stream();
    for n in 0..3 {
        // Longer than it takes to look again whether the credential is good.
        let silence = tokio::time::timeout(std::time::Duration::from_secs(12), frames.next()).await;
        assert!(!matches!(silence, Ok(None)), "it has ended");
        hub.publish(crate::control::events::Topic::Config, None, serde_json::json!({ "n": n }));
        let text = loop {
            let frame = frames.next().await.expect("it goes on").unwrap();
            let text = String::from_utf8(frame.to_vec()).unwrap();
            if !text.starts_with(':') {
                break text;
            }
        };
        assert!(text.contains(&format!("\"n\":{n}")), "{text}");
    }
}

#[tokio::test]
async fn origins_are_let_in_only_if_listed() {
    let origin = ("origin", "https://console.example");
    let preflight = [origin, ("access-control-request-method", "PUT")];
    let closed = with(config());
    let answer = ask(&closed, "GET", "/api/v1/me", &[TOKEN, origin]).await;
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    assert_eq!(ask(&closed, "OPTIONS", "/api/v1/me", &preflight).await.status(), 405);
    let open = with(ControlConfig { cors_origins: vec![origin.1.to_owned()], ..config() });
    let answer = ask(&open, "OPTIONS", "/api/v1/me", &preflight).await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["access-control-allow-origin"]),
        (204, &origin.1.parse().unwrap())
    );
    assert!(!answer.headers().contains_key("access-control-allow-credentials"));
    let answer = ask(&open, "GET", "/api/v1/me", &[TOKEN, origin]).await;
    assert_eq!(answer.headers()["access-control-allow-origin"], origin.1);
    let other =
        ask(&open, "OPTIONS", "/api/v1/me", &[("origin", "https://evil.example"), preflight[1]]).await;
    assert!(!other.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_page_works_without_a_network() {
    let router = with(config());
    let page = ask(&router, "GET", "/api/docs/", &[]).await;
    assert_eq!(page.status(), 200);
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'") && policy.contains("connect-src 'self'"), "{policy}");
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let text = String::from_utf8(whole(page).await).unwrap();
    assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
    let names = text.split(['"', '\'']).filter(|t| t.ends_with(".js") || t.ends_with(".css"));
    let names: Vec<_> = names.map(|n| n.trim_start_matches("./").to_owned()).collect();
    assert!(names.len() >= 3, "{names:?}");
    for name in names {
        assert_eq!(ask(&router, "GET", &format!("/api/docs/{name}"), &[]).await.status(), 200, "{name}");
    }
    let description = json(ask(&router, "GET", "/api/docs/openapi.json", &[]).await).await;
    assert_eq!(description["openapi"].as_str().map(|v| &v[..3]), Some("3.1"));
    assert_eq!(ask(&router, "GET", "/api/docs/nothing.js", &[]).await.status(), 404);
}

#[tokio::test]
async fn descriptions_name_the_problem_of_every_refusal() {
    let description: Value = serde_json::from_slice(openapi::text()).unwrap();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let refused =
                &operation["responses"]["401"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(refused, "#/components/schemas/Problem", "{method} {path}");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
    assert!(description["components"]["schemas"]["Problem"].is_object());
}
