//! A control plane on a store of its own, without a data plane: documents are checked as they are everywhere, keys are
//! made up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tollgate::base::{Clock, Role, RoleSet, Scope, TenantId};
use tollgate::config::{FixedSources, Terms, canonical, diff, load_platform, load_tenant, model};
use tollgate::control::actor::{Actor, Proof};
use tollgate::control::authn::{Authenticator, Keys};
use tollgate::control::fleet::{Fleet, Home};
use tollgate::control::internal::{
    Health, InternalState, Listing, SessionView, StreamView, TombstoneView, TrafficView,
};
use tollgate::control::keys::StoreKeys;
use tollgate::control::trail::{Action, Ledger};
use tollgate::control::{
    self, ControlConfig, ControlState, Exposure, Problem, Readiness, Revision, ServerStatus, Status,
};
use tollgate::limit::Rate;
use tollgate::snapshot::Snapshot;
use tollgate::source::canary::{Beside, Canaries};
use tollgate::source::{Publisher, Refusal, SecretValues, Serve, Stored};
use tollgate::store::{SigningKey, Store, StoreSettings};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::support::Folder;

/// What the process would tell.
struct Quiet;

impl ControlState for Quiet {
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

/// The process in which [`AtHome`] is.
pub const BOOT: Uuid = Uuid::from_u128(7);
/// The serial of a session that every tenant has.
pub const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// Every tenant has a session and a stream, with the number 1, until they are closed.
#[derive(Default)]
pub struct AtHome(Mutex<Vec<String>>);

impl AtHome {
    fn close(&self, tenant: &str, what: &str) -> bool {
        let name = format!("{what} of {tenant}");
        let mut closed = self.0.lock();
        let open = !closed.contains(&name);
        if open {
            closed.push(name);
        }
        open
    }
}

impl InternalState for AtHome {
    fn health(&self) -> Health {
        Health { boot: BOOT.to_string(), version: "0".to_owned(), sessions: 1, streams: 1 }
    }

    fn servers(&self, _: Option<&str>) -> Vec<ServerStatus> {
        Vec::new()
    }

    fn traffic(&self) -> Vec<TrafficView> {
        Vec::new()
    }

    fn sessions(&self, query: &Listing) -> Vec<SessionView> {
        let tenant = query.tenant.clone().expect("operators ask for one tenant");
        let open = query.after.is_none() && !self.0.lock().contains(&format!("session of {tenant}"));
        let session = SessionView {
            serial: SESSION.to_owned(),
            principal: format!("s3cret of {tenant}"),
            tenant,
            route: "r".to_owned(),
            version: "2025-06-18".to_owned(),
            created: 1,
            last_seen: 2,
            streams: 1,
        };
        if open { vec![session] } else { Vec::new() }
    }

    fn streams(&self, query: &Listing) -> Vec<StreamView> {
        let tenant = query.tenant.clone().expect("operators ask for one tenant");
        let stream = StreamView {
            id: 1,
            principal: format!("s3cret of {tenant}"),
            tenant,
            route: "r".to_owned(),
            session: None,
            since: 1,
        };
        if query.after.is_none() { vec![stream] } else { Vec::new() }
    }

    fn close_session(&self, tenant: &str, serial: &str) -> Option<TombstoneView> {
        (serial == SESSION && self.close(tenant, "session")).then(|| TombstoneView {
            tenant: tenant.to_owned(),
            serial: serial.to_owned(),
            issued_at: 1,
        })
    }

    fn close_stream(&self, tenant: &str, id: u64) -> bool {
        id == 1 && self.close(tenant, "stream")
    }

    fn bury(&self, _: &[TombstoneView]) {}
}

/// `tg_<tenant>_<role>` and `tg_<tenant>_auditor` are keys, and those that the store has.
struct MadeUp(StoreKeys);

#[async_trait]
impl Keys for MadeUp {
    async fn actor(&self, key: &str, address: IpAddr) -> Result<Option<Actor>, Problem> {
        let mut parts = key.splitn(3, '_').skip(1);
        let (Some(tenant), Some(role)) = (parts.next(), parts.next()) else { return Ok(None) };
        let roles = match role {
            "auditor" => RoleSet::default(),
            role => match role.parse::<Role>() {
                Ok(role) => RoleSet::one(role),
                Err(_) => return self.0.actor(key, address).await,
            },
        };
        Ok(Some(Actor {
            id: format!("key|{tenant}-{role}").into(),
            tenant: TenantId::new(tenant),
            roles,
            auditor: role == "auditor",
            custom: Default::default(),
            proof: Proof::Key,
            credential: key.into(),
            expires: None,
        }))
    }
}

/// Checks documents by the rules, and puts nothing in force.
struct Rules;

impl Rules {
    fn load(scope: &Scope, content: &[u8]) -> Result<Option<tollgate::config::Validated>, Refusal> {
        let (settings, sources) = (model::Document::default(), FixedSources::default());
        match scope {
            Scope::Platform => {
                let loaded = load_platform(content, "platform", &settings, &sources, tollgate::app::hooks());
                match loaded.tenants {
                    Some(_) => Ok(None),
                    None => Err(Refusal::Document(Box::new(loaded.diagnostics))),
                }
            }
            Scope::Tenant(_) => load_tenant(
                content,
                "document",
                &Terms::operator(),
                &settings,
                &sources,
                tollgate::app::hooks(),
            )
            .into_result()
            .map(Some)
            .map_err(|found| Refusal::Document(Box::new(found))),
        }
    }
}

/// What happened to the API.
#[derive(Default)]
pub struct Kept(pub Mutex<Vec<Action>>);

impl Ledger for Kept {
    fn ready(&self) -> bool {
        true
    }

    fn record(&self, action: &Action) {
        self.0.lock().push(action.clone());
    }
}

/// A control plane.
pub struct Plane {
    router: Router,
    pub store: Store,
    pub ledger: Arc<Kept>,
    at_home: Arc<AtHome>,
    folder: Folder,
}

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    pub fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

impl Plane {
    pub async fn start() -> Self {
        let folder = Folder::new();
        Self::on(StoreSettings::embedded(folder.path()), folder).await
    }

    /// With a database of its own, and its data folder.
    pub async fn on(settings: StoreSettings, folder: Folder) -> Self {
        let store = Store::open(settings, Clock::default(), Arc::new(|_| None)).unwrap();
        store.prepare().await.unwrap();
        for tenant in ["a", "b"] {
            store.platform().put_tenant(&TenantId::new(tenant), tenant).await.unwrap();
        }
        let ledger = Arc::new(Kept::default());
        let at_home = Arc::new(AtHome::default());
        let publisher = Publisher::new(store.clone(), Arc::new(Rules));
        let config = ControlConfig {
            authenticator: Arc::new(Authenticator::new(
                Some(Arc::new(MadeUp(StoreKeys::new(store.clone(), Clock::default(), true)))),
                Clock::default(),
            )),
            store: Some(store.clone()),
            publisher: Some(publisher.clone()),
            canaries: Some(Canaries::new(store.clone(), publisher, Arc::new(|_| {}), Duration::from_secs(2))),
            ledger: Some(ledger.clone()),
            audit_key: Some(Arc::new(SigningKey::given(tollgate::audit::AuditKey::ephemeral()))),
            fleet: Some(Fleet::new(
                at_home.clone(),
                Home::new(BOOT, BOOT.to_string()),
                true,
                Some(store.clone()),
                None,
            )),
            rate: Rate::new(1_000_000, Duration::from_secs(1), 1_000_000).unwrap(),
            ..ControlConfig::new(Exposure::Network)
        };
        let router = control::router(config, Arc::new(Quiet), Router::new());
        Self { router, store, ledger, at_home, folder }
    }

    /// Its data folder.
    pub fn data_dir(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Sends a request with a key and JSON, if there is any.
    pub async fn ask(&self, key: &str, line: &str, headers: &[(&str, &str)], body: Option<Value>) -> Answer {
        let text = body.map(|b| b.to_string());
        self.raw(key, line, headers, text.as_deref().map(str::as_bytes), "application/json").await
    }

    pub async fn raw(
        &self,
        key: &str,
        line: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        kind: &str,
    ) -> Answer {
        let (parts, body) = self.begin(key, line, headers, body, kind).await.into_parts();
        // A stream of events has no end to wait for.
        let stream = parts.headers.get("content-type").is_some_and(|v| v == "text/event-stream");
        #[allow(clippy::disallowed_methods, reason = "bounded")]
        let body = if stream { Vec::new() } else { to_bytes(body, 16 << 20).await.unwrap().to_vec() };
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// The same, with a body that nobody has read yet.
    pub async fn begin(
        &self,
        key: &str,
        line: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
        kind: &str,
    ) -> axum::response::Response {
        let (method, path) = line.split_once(' ').expect("method and path");
        let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
        request = request.header("authorization", format!("Bearer {key}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() {
            request = request.header("content-type", kind);
        }
        let mut request = request.body(Body::from(body.unwrap_or_default().to_vec())).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::from(([127, 0, 0, 1], 1))));
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// Everything that the store has of a tenant's configuration, to compare.
    /// Which of its sessions and streams were closed.
    pub fn closed_of(&self, tenant: &str) -> Vec<String> {
        let own = format!(" of {tenant}");
        self.at_home.0.lock().iter().filter(|closed| closed.ends_with(&own)).cloned().collect()
    }

    /// What it has.
    pub async fn everything_of(&self, tenant: &str) -> Value {
        let id = TenantId::new(tenant);
        let scope = self.store.tenant(&id);
        let head = scope.head().await.unwrap().map(|h| (h.revision, h.hash));
        let secrets = scope.secrets(None, tollgate::store::Page::of(1000)).await.unwrap();
        let rows = tollgate::store::Page::of(1000);
        let users: Vec<String> =
            scope.users(None, rows).await.unwrap().iter().map(|u| format!("{u:?}")).collect();
        let keys: Vec<String> =
            scope.api_keys(None, rows).await.unwrap().iter().map(|k| format!("{k:?}")).collect();
        let roles = scope.role_bindings(None, rows).await.unwrap();
        let roles: Vec<String> = roles.iter().map(|r| format!("{r:?}")).collect();
        let revoked = scope.revocations(None, rows).await.unwrap();
        let revoked: Vec<String> = revoked.iter().map(|r| format!("{r:?}")).collect();
        let platform = self.store.platform().read().await.unwrap().head(&Scope::Platform).await.unwrap();
        json!({
            "head": head, "secrets": secrets, "platform": platform.map(|h| h.revision),
            "closed": self.closed_of(tenant), "users": users, "keys": keys, "roles": roles, "revoked": revoked,
        })
    }
}

impl Serve for Rules {
    fn serve(&self, document: &Stored, secrets: &SecretValues) -> Result<Vec<TenantId>, Refusal> {
        self.check(&document.scope, &document.content, secrets).map(|_| Vec::new())
    }

    fn check(&self, scope: &Scope, content: &[u8], _: &SecretValues) -> Result<Vec<String>, Refusal> {
        Self::load(scope, content).map(|_| Vec::new())
    }

    fn serve_beside(&self, beside: &Beside, secrets: &SecretValues) -> Result<(), Refusal> {
        self.check(&beside.document.scope, &beside.document.content, secrets).map(drop)
    }

    fn end_beside(&self, _: &TenantId, _: Uuid) {}

    fn trial(&self, tenant: &TenantId, content: &[u8], _: &SecretValues) -> Result<Snapshot, Refusal> {
        Self::load(&Scope::Tenant(tenant.clone()), content).map(|_| Snapshot::new([]))
    }

    fn diff(&self, scope: &Scope, old: &[u8], new: &[u8], _: &SecretValues) -> Vec<String> {
        match (Self::load(scope, old), Self::load(scope, new)) {
            (Ok(Some(old)), Ok(Some(new))) => diff(&old, &new).iter().map(ToString::to_string).collect(),
            _ if canonical(old) == canonical(new) => Vec::new(),
            _ => vec!["changed".to_owned()],
        }
    }
}

/// A server that is good in itself.
pub fn server(port: u16) -> Value {
    json!({ "http": { "targets": [format!("http://127.0.0.1:{port}/mcp")] } })
}
