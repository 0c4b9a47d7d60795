//! From a validated document to a snapshot: the only way there is.
//!
//! Each tenant by itself, in two steps. First everything is built and checked that can fail: certificates are read, policies and limits compiled,
//! keys parsed. Only when all of it holds are the registries touched (servers, keys, revocations), which cannot fail any
//! more. So a document that does not compile changes nothing.

mod identity;
mod rules;
mod server;

pub use rules::policy_findings;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::auth::{AuthState, Authenticator, JwksStore, challenge};
use crate::base::glob::Glob;
use crate::base::{Clock, RouteId, ServerId};
use crate::config::model;
use crate::config::{Terms, Validated};
use crate::route::{HostPattern, Table};
use crate::snapshot::{HashOn, Identities, Route, Snapshot, TenantSnapshot};
use crate::telemetry::Metrics;
use crate::upstream::{Server, ServerSpec, SpecError, Upstreams};

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
    /// API keys and revoked credentials, by tenant.
    pub identities: Arc<Identities>,
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

/// The outcome of compiling one tenant's document.
#[derive(Debug)]
pub struct CompiledTenant {
    /// What to publish.
    pub snapshot: Arc<TenantSnapshot>,
    /// Files that went into it besides the document, for watching.
    pub files: Vec<PathBuf>,
}

/// Compiles a file: the operator's own document and those of all its tenants, whose revisions are then counted by this
/// process. `origin` is scheme, host and port that clients dial, without a trailing slash; `read` reads a file, at most
/// [`MAX_FILE`] bytes.
///
/// # Errors
/// Everything that was found wrong; nothing has changed then.
pub fn compile(
    document: &Validated,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<Compiled, Vec<CompileError>> {
    let (compiled, errors) = file(None, document, origin, state, read);
    match compiled {
        Some(compiled) if errors.is_empty() => Ok(compiled),
        _ => Err(errors),
    }
}

/// The same when there is a snapshot already: a tenant whose document does not compile keeps what it has there, as far as that
/// is within what it is given now, and the others go on. The errors are those of the tenants that kept what they had.
///
/// # Errors
/// What is wrong with the operator's own document; nothing has changed then.
pub fn recompile(
    previous: &Snapshot,
    document: &Validated,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<(Compiled, Vec<CompileError>), Vec<CompileError>> {
    let (compiled, errors) = file(Some(previous), document, origin, state, read);
    compiled.map(|compiled| (compiled, errors.clone())).ok_or(errors)
}

fn file(
    previous: Option<&Snapshot>,
    document: &Validated,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> (Option<Compiled>, Vec<CompileError>) {
    static REVISION: AtomicU64 = AtomicU64::new(0);
    let mut files = Files { read, seen: Vec::new() };
    let mut errors = Vec::new();
    let mut ready = Vec::new();
    let documents = std::iter::once(document).chain(document.tenants().iter().map(|tenant| &**tenant));
    for document in documents {
        let prefix = match document.terms().is_operator() {
            true => String::new(),
            false => format!("tenants.{}.", document.tenant()),
        };
        match Prepared::new(document, state, &mut files) {
            Ok(prepared) => ready.push(prepared),
            Err(found) => errors
                .extend(found.into_iter().map(|e| CompileError { path: format!("{prefix}{}", e.path), ..e })),
        }
    }
    let operators = ready.first().is_some_and(|first| first.document.terms().is_operator());
    if !operators || (previous.is_none() && !errors.is_empty()) {
        return (None, errors);
    }
    let revision = REVISION.fetch_add(1, Ordering::Relaxed) + 1;
    let mut tenants = Vec::new();
    for prepared in ready {
        match prepared.commit(revision, origin, state) {
            Ok(tenant) => tenants.push(tenant),
            Err(found) => errors.extend(found),
        }
    }
    if let Some(previous) = previous {
        let done = |document: &Validated| tenants.iter().any(|done| done.tenant == *document.tenant());
        let failed = document.tenants().iter().filter(|document| !done(document));
        let kept: Vec<_> = failed.filter_map(|document| kept(previous, document, revision)).collect();
        tenants.extend(kept);
    }
    let snapshot = Snapshot::new(tenants);
    state.retain(&snapshot);
    files.seen.sort();
    files.seen.dedup();
    (Some(Compiled { snapshot, files: files.seen }), errors)
}

/// What a tenant goes on with whose document does not compile: what it had, unless that goes beyond what it is given now. Its
/// place is then empty, and nobody else's either.
fn kept(previous: &Snapshot, document: &Validated, revision: u64) -> Option<Arc<TenantSnapshot>> {
    let had = previous.tenant(document.tenant())?;
    if document.terms().cover(&had.terms) {
        return Some(had.clone());
    }
    Some(Arc::new(TenantSnapshot {
        tenant: document.tenant().clone(),
        revision,
        hash: document.revision().as_str().into(),
        terms: document.terms().clone(),
        table: Table::default(),
        routes: Vec::new(),
        unusable: false,
    }))
}

/// Compiles the document of one tenant and touches nothing of any other. `revision` is the number that answers name.
///
/// # Errors
/// Everything that was found wrong; nothing has changed then.
pub fn compile_tenant(
    document: &Validated,
    revision: u64,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<CompiledTenant, Vec<CompileError>> {
    let mut files = Files { read, seen: Vec::new() };
    let snapshot = Prepared::new(document, state, &mut files)?.commit(revision, origin, state)?;
    files.seen.sort();
    files.seen.dedup();
    Ok(CompiledTenant { snapshot, files: files.seen })
}

/// Compiles a revision that is served beside the one in force, `base`. Identity stays that of `base`: who a caller is is
/// known before it is known which of the two they are served. Registries of the tenant are left as they are; only
/// servers that differ come beside those in force.
///
/// # Errors
/// Everything that was found wrong; nothing has changed then.
pub fn compile_beside(
    base: &TenantSnapshot,
    document: &Validated,
    revision: u64,
    origin: &str,
    state: &State,
    read: &dyn Fn(&Path) -> std::io::Result<Vec<u8>>,
) -> Result<Arc<TenantSnapshot>, Vec<CompileError>> {
    let mut files = Files { read, seen: Vec::new() };
    Prepared::new(document, state, &mut files)?.commit_beside(base, revision, origin, state)
}

impl State {
    /// Forgets what belongs to tenants that a snapshot has no more.
    pub fn retain(&self, snapshot: &Snapshot) {
        self.upstreams.retain(|tenant, _| snapshot.tenant(tenant).is_some());
        self.upstreams.retain_beside(|tenant, _| snapshot.canary(tenant).is_some());
        self.identities.retain(|tenant| snapshot.tenant(tenant).is_some());
    }
}

/// A document with everything built that can fail.
struct Prepared<'a> {
    document: &'a Validated,
    specs: Vec<ServerSpec>,
    identity: identity::Identity,
    rules: rules::Rules,
}

impl<'a> Prepared<'a> {
    fn new(document: &'a Validated, state: &State, files: &mut Files<'_>) -> Result<Self, Vec<CompileError>> {
        let tenant = document.tenant();
        let mut errors = Vec::new();
        let specs: Vec<Option<ServerSpec>> = document
            .document()
            .servers
            .iter()
            .map(|s| keep(server::spec(document.terms(), s, files).map_err(|e| vec![e]), &mut errors))
            .collect();
        let identity = keep(identity::compile(document, state, files), &mut errors);
        let rules = keep(rules::compile(tenant, document), &mut errors);
        let table = keep(route_table(document), &mut errors);
        let (Some(identity), Some(rules), Some(()), true) = (identity, rules, table, errors.is_empty())
        else {
            return Err(errors);
        };
        Ok(Self { document, specs: specs.into_iter().flatten().collect(), identity, rules })
    }

    /// Links everything with the registries. Nothing fails any more, but for what `ServerSpec::validate` has promised.
    fn commit(
        self,
        revision: u64,
        origin: &str,
        state: &State,
    ) -> Result<Arc<TenantSnapshot>, Vec<CompileError>> {
        let tenant = self.document.tenant().clone();
        self.identity.commit(&tenant, state);
        let servers = apply(&self.specs, |spec| state.upstreams.apply(spec))?;
        state.upstreams.retain(|of, id| *of != tenant || servers.contains_key(id));
        let authenticator = self.identity.authenticator.clone();
        Ok(self.link(revision, origin, state, &servers, &authenticator))
    }

    /// The same beside `base`, whose identity holds.
    fn commit_beside(
        self,
        base: &TenantSnapshot,
        revision: u64,
        origin: &str,
        state: &State,
    ) -> Result<Arc<TenantSnapshot>, Vec<CompileError>> {
        let tenant = self.document.tenant().clone();
        let servers = apply(&self.specs, |spec| state.upstreams.apply_beside(spec))?;
        state.upstreams.retain_beside(|of, id| *of != tenant || servers.contains_key(id));
        // A base without routes leads nowhere, whatever the candidate has.
        let own = &self.identity.authenticator;
        let authenticator = base.routes.first().map_or(own, |route| &route.authenticator).clone();
        Ok(self.link(revision, origin, state, &servers, &authenticator))
    }

    /// Routes to servers.
    fn link(
        self,
        revision: u64,
        origin: &str,
        state: &State,
        servers: &Servers,
        authenticator: &Arc<Authenticator>,
    ) -> Arc<TenantSnapshot> {
        let Self { document, rules, .. } = self;
        let tenant = document.tenant().clone();
        let named = HeaderValue::try_from(format!("{tenant}@{revision}"));
        let named = named.unwrap_or_else(|_| HeaderValue::from_static("-"));
        let issuers: Vec<&str> = authenticator.authorization_servers().collect();
        let mut table = Table::default();
        let mut routes = Vec::new();
        for resolved in document.routes() {
            let id = RouteId::new(resolved.route.name.as_str());
            let server_id = ServerId::new(resolved.server.name.as_str());
            let Some(server) = servers.get(&server_id) else { continue };
            let url = route_url(&origin_of(document.terms(), resolved.route, origin), resolved.path);
            let scopes: Vec<&str> = resolved.route.scopes.iter().map(String::as_str).collect();
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
                authenticator: authenticator.clone(),
                limits: resolved.limits().filter_map(|l| rules.limit(l.name.as_str())).collect(),
                policy: resolved.policy.and_then(|p| rules.policy(p.name.as_str())),
                methods: resolved.route.methods.iter().filter_map(|m| Glob::new(m).ok()).collect(),
                server: server.clone(),
                attempts: resolved.server.retry.attempts as usize,
                hash_on: hash_on(resolved.server),
                metrics: Arc::new(state.metrics.route(&tenant, &id, std::slice::from_ref(&server_id))),
                server_metrics: state.metrics.server(&tenant, &server_id),
                tenant_metrics: state.metrics.tenant(&tenant),
                revision: named.clone(),
                tenant: tenant.clone(),
                id,
                server_id,
            });
            // `route_table` has seen that nothing collides.
            let _ = table.insert(&hosts(resolved.route), resolved.path, route.clone());
            routes.push(route);
        }
        Arc::new(TenantSnapshot {
            tenant,
            revision,
            hash: document.revision().as_str().into(),
            terms: document.terms().clone(),
            table,
            routes,
            unusable: false,
        })
    }
}

type Servers = HashMap<ServerId, Arc<Server>>;

fn apply(
    specs: &[ServerSpec],
    apply: impl Fn(ServerSpec) -> Result<Arc<Server>, SpecError>,
) -> Result<Servers, Vec<CompileError>> {
    let one = |spec: &ServerSpec| {
        let failed = |e| vec![CompileError::new(format!("servers.{}", spec.id), e)];
        Ok((spec.id.clone(), apply(spec.clone()).map_err(failed)?))
    };
    specs.iter().map(one).collect()
}

/// Scheme, host and port of a tenant's routes: those of the listener, on the first host without `*` that the route or else
/// the tenant has of its own. Routes of the operator are all on the listener's own.
fn origin_of(terms: &Terms, route: &model::Route, origin: &str) -> String {
    if terms.is_operator() {
        return origin.to_owned();
    }
    let own = route.hosts.iter().map(model::HostPattern::host).find(|host| !host.starts_with('*'));
    let (Some(host), Some((scheme, authority))) = (own.or(terms.canonical_host()), origin.split_once("://"))
    else {
        return origin.to_owned();
    };
    let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.contains(']'));
    match port {
        Some(port) => format!("{scheme}://{host}:{port}"),
        None => format!("{scheme}://{host}"),
    }
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
