//! From a validated document to a snapshot: the only way there is.
//!
//! Two steps. First everything is built and checked that can fail: certificates are read, policies and limits compiled,
//! keys parsed. Only when all of it holds are the registries touched (servers, keys, revocations), which cannot fail any
//! more. So a document that does not compile changes nothing.

mod identity;
mod rules;
mod server;

pub use rules::policy_findings;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::HeaderName;

use crate::auth::{AuthState, JwksStore, KeyStore, Revocations, challenge};
use crate::base::glob::Glob;
use crate::base::{Clock, RouteId, ServerId, TenantId};
use crate::config::Validated;
use crate::config::model;
use crate::route::{HostPattern, Table};
use crate::snapshot::{HashOn, Route, Snapshot};
use crate::telemetry::Metrics;
use crate::upstream::{ServerSpec, Upstreams};

/// Longest file that a document may name: certificates, keys, revocations.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;

/// What outlives snapshots and is linked into them.
#[derive(Clone)]
pub struct State {
    /// Servers by id, with their statistics.
    pub upstreams: Arc<Upstreams>,
    /// Counters by label.
    pub metrics: Arc<Metrics>,
    /// Key sets of issuers.
    pub jwks: Arc<JwksStore>,
    /// API keys.
    pub api_keys: Arc<KeyStore>,
    /// Revoked credentials.
    pub revocations: Arc<Revocations>,
    /// Verified tokens, failed attempts.
    pub auth: AuthState,
    /// Time.
    pub clock: Clock,
}

/// What is wrong with a document that passed validation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct CompileError {
    /// Where in the document, as `servers.weather.http.tls.ca`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl CompileError {
    fn new(path: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self { path: path.into(), message: message.to_string() }
    }
}

/// The outcome of a compilation.
#[derive(Debug)]
pub struct Compiled {
    /// What to publish.
    pub snapshot: Snapshot,
    /// Files that went into it besides the document, for watching.
    pub files: Vec<PathBuf>,
}

/// Reads the files a document names, and remembers which.
struct Files<'a> {
    read: &'a dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
    seen: Vec<PathBuf>,
}

impl Files<'_> {
    fn read(&mut self, path: &Path, at: &str) -> Result<Vec<u8>, CompileError> {
        self.seen.push(path.to_owned());
        (self.read)(path).map_err(|e| CompileError::new(at, format!("cannot read {}: {e}", path.display())))
    }

    fn text(&mut self, path: &Path, at: &str) -> Result<String, CompileError> {
        let bytes = self.read(path, at)?;
        String::from_utf8(bytes)
            .map_err(|_| CompileError::new(at, format!("{} is not UTF-8", path.display())))
    }
}

/// Compiles a document. `origin` is scheme, host and port that clients dial, without a trailing slash; `read` reads a
/// file, at most [`MAX_FILE`] bytes.
///
/// # Errors
/// Everything that was found wrong; nothing has changed then.
pub fn compile(
    document: &Validated,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<Compiled, Vec<CompileError>> {
    static GENERATION: AtomicU64 = AtomicU64::new(0);
    let tenant = TenantId::default();
    let mut errors = Vec::new();
    let mut files = Files { read, seen: Vec::new() };
    let model = document.document();
    let specs: Vec<Option<ServerSpec>> = model
        .servers
        .iter()
        .map(|s| keep(server::spec(&tenant, s, &mut files).map_err(|e| vec![e]), &mut errors))
        .collect();
    let plaintext_jwks = model.insecure_options.plaintext_jwks;
    let identity =
        keep(identity::compile(&tenant, &model.identity, plaintext_jwks, state, &mut files), &mut errors);
    let rules = keep(rules::compile(&tenant, document), &mut errors);
    let table = keep(route_table(document), &mut errors);
    let (Some(identity), Some(rules), Some(_), true) = (identity, rules, table, errors.is_empty()) else {
        return Err(errors);
    };

    // From here on nothing fails.
    identity.commit(state);
    let mut servers = Vec::new();
    for spec in specs.into_iter().flatten() {
        let id = spec.id.clone();
        let server =
            state.upstreams.apply(spec).map_err(|e| vec![CompileError::new(format!("servers.{id}"), e)])?;
        servers.push((id, server));
    }
    let live: HashSet<&ServerId> = servers.iter().map(|(id, _)| id).collect();
    state.upstreams.retain(|_, id| live.contains(id));

    let mut table = Table::default();
    let mut routes = Vec::new();
    for resolved in document.routes() {
        let id = RouteId::new(resolved.route.name.as_str());
        let server_id = ServerId::new(resolved.server.name.as_str());
        let Some((_, server)) = servers.iter().find(|(id, _)| *id == server_id) else { continue };
        let url = route_url(origin, resolved.path);
        let scopes: Vec<&str> = resolved.route.scopes.iter().map(String::as_str).collect();
        let issuers: Vec<&str> = identity.authenticator.authorization_servers().collect();
        let metadata = (!issuers.is_empty()).then(|| {
            Bytes::from(challenge::protected_resource_metadata(&url, issuers.iter().copied(), &scopes))
        });
        let audiences =
            std::iter::once(url.as_str()).chain(resolved.route.audiences.iter().map(String::as_str));
        let route = Arc::new(Route {
            path: resolved.path.into(),
            audiences: audiences.map(Into::into).collect(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            metadata_url: challenge::metadata_url(&url).unwrap_or_default().into(),
            metadata,
            url: url.into(),
            authenticator: identity.authenticator.clone(),
            limits: resolved.limits().filter_map(|l| rules.limit(l.name.as_str())).collect(),
            policy: resolved.policy.and_then(|p| rules.policy(p.name.as_str())),
            methods: resolved.route.methods.iter().filter_map(|m| Glob::new(m).ok()).collect(),
            server: server.clone(),
            attempts: resolved.server.retry.attempts as usize,
            hash_on: hash_on(resolved.server),
            metrics: Arc::new(state.metrics.route(&tenant, &id, std::slice::from_ref(&server_id))),
            server_metrics: state.metrics.server(&tenant, &server_id),
            tenant_metrics: state.metrics.tenant(&tenant),
            tenant: tenant.clone(),
            id,
            server_id,
        });
        // `route_table` has seen that nothing collides.
        let _ = table.insert(&hosts(resolved.route), resolved.path, route.clone());
        routes.push(route);
    }
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
    let snapshot = Snapshot { generation, revision: document.revision().as_str().into(), table, routes };
    files.seen.sort();
    files.seen.dedup();
    Ok(Compiled { snapshot, files: files.seen })
}

fn keep<T>(result: Result<T, Vec<CompileError>>, errors: &mut Vec<CompileError>) -> Option<T> {
    result.map_err(|found| errors.extend(found)).ok()
}

/// The URL of a route, as clients dial it and tokens name it: no trailing slash.
pub(crate) fn route_url(origin: &str, path: &str) -> String {
    format!("{origin}{}", path.trim_end_matches('/'))
}

fn hosts(route: &model::Route) -> Vec<HostPattern> {
    route.hosts.iter().map(|h| HostPattern::parse(h.host())).collect()
}

fn route_table(document: &Validated) -> Result<(), Vec<CompileError>> {
    let mut table = Table::default();
    let mut errors = Vec::new();
    for resolved in document.routes() {
        let at = format!("routes.{}", resolved.route.name);
        if let Err(conflict) = table.insert(&hosts(resolved.route), resolved.path, ()) {
            errors.push(CompileError::new(&at, conflict));
        }
        for method in &resolved.route.methods {
            if let Err(e) = Glob::new(method) {
                errors.push(CompileError::new(format!("{at}.methods"), e));
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn hash_on(server: &model::Server) -> Option<HashOn> {
    if server.balance != model::Balance::Hash {
        return None;
    }
    Some(match &server.hash {
        model::HashKey::Header(name) => {
            HashOn::Header(HeaderName::from_bytes(name.as_str().as_bytes()).ok()?)
        }
        model::HashKey::Principal => HashOn::Principal,
        model::HashKey::Session => HashOn::Session,
    })
}
