//! What every operation passes: who calls, how often, may they, and the record of it.
//!
//! Routes are added with [`Gated::operation`] only, which looks their [`Operation`] up by the `operationId` of their
//! description; a route without one does not start (a test builds them all). So there is no handler that runs before
//! [`decide`] said yes to exactly its operation.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequestParts as _, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::SemaphorePermit;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter, UtoipaMethodRouterExt as _};

use super::actor::Actor;
use super::api::Api;
use super::extract::{Caller, ClientAddress, Reason};
use super::idempotency;
use super::openapi::{self, Parameters};
use super::permission::{Operation, Refusal, Target, Trail, decide};
use super::problem::Problem;
use super::size;
use super::trail::{Action, SharedNotes, noting};
use crate::base::{RequestId, TenantId};

/// The parameter of a path that names the tenant.
const TENANT: &str = "tenant";
/// Longest name of a tenant, in bytes.
const MAX_TENANT: usize = 64;
/// What a record says of a request that was given up before it was answered.
const GIVEN_UP: u16 = 499;
/// Longest path that a record repeats, in characters.
const MAX_PATH: usize = 256;

/// Adds routes with their gate.
pub(super) trait Gated {
    /// One handler, with the operation that its description names.
    fn operation(self, routes: UtoipaMethodRouter<Api>) -> Self;
}

impl Gated for OpenApiRouter<Api> {
    fn operation(self, mut routes: UtoipaMethodRouter<Api>) -> Self {
        let id = openapi::only_id(&routes.1);
        let operation = Operation::find(&id)
            .unwrap_or_else(|| panic!("`{id}` is not in the table of operations: control/permission"));
        let large = size::of(operation.id);
        let parameters = openapi::parameters(&mut routes.1, operation);
        self.routes(routes.map(|r| {
            let gated = r.route_layer(from_fn(pass)).route_layer(Extension(operation));
            let gated = gated.route_layer(Extension(parameters));
            match large {
                Some(max) => gated.route_layer(DefaultBodyLimit::max(max)),
                None => gated,
            }
        }))
    }
}

/// What a request may tell before its handler runs.
#[derive(Default)]
struct Seen {
    actor: Option<Arc<Actor>>,
    tenant: Option<TenantId>,
    reason: Option<String>,
}

impl Seen {
    /// In whose log it is told: the tenant of the address, if the caller may know that there is one. What others try there
    /// is told to their own tenant, and what nobody known tries to the operator: nobody writes into a log that is none of
    /// theirs, or makes one by naming it.
    fn log(&self) -> Option<TenantId> {
        let actor = self.actor.as_ref()?;
        let inside = |tenant: &&TenantId| actor.is_platform() || **tenant == actor.tenant;
        self.tenant.as_ref().map(|tenant| Some(tenant).filter(inside).unwrap_or(&actor.tenant).clone())
    }
}

/// A request that is being answered. Told of when it is over, however that comes about: a caller that goes away, or a
/// handler that takes too long, may have changed something all the same.
struct Told {
    operation: &'static Operation,
    api: Api,
    path: String,
    address: IpAddr,
    id: RequestId,
    began: Instant,
    seen: Seen,
    notes: SharedNotes,
    status: Option<u16>,
}

impl Drop for Told {
    fn drop(&mut self) {
        let action = Action {
            operation: self.operation,
            tenant: self.seen.log(),
            actor: self.seen.actor.take(),
            path: std::mem::take(&mut self.path),
            reason: self.seen.reason.take(),
            address: self.address,
            status: self.status.unwrap_or(GIVEN_UP),
            request: self.id,
            took: self.began.elapsed(),
            notes: std::mem::take(&mut *self.notes.lock()),
        };
        // Given up before it was known who asks: nothing was done.
        let asked = self.status.is_some() || action.actor.is_some();
        if action.refused() || (asked && self.operation.trail == Trail::Always) {
            self.api.record(&action);
        }
    }
}

async fn pass(
    Extension(operation): Extension<&'static Operation>,
    Extension(api): Extension<Api>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    let address = client(&request);
    let mut told = Told {
        operation,
        path: request.uri().path().chars().take(MAX_PATH).collect(),
        address,
        id,
        began: Instant::now(),
        seen: Seen::default(),
        notes: SharedNotes::default(),
        status: None,
        api,
    };
    let response = match admit(operation, &told.api, address, request, &mut told.seen).await {
        Ok(request) => noting(told.notes.clone(), run(&told.api, operation, request, next))
            .await
            .unwrap_or_else(|p| p.into_response()),
        Err(problem) => problem.into_response(),
    };
    told.status = Some(response.status().as_u16());
    response
}

/// Runs the handler; once only, if the request has a key for that.
async fn run(api: &Api, operation: &Operation, request: Request, next: Next) -> Result<Response, Problem> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    // Held until there is an answer.
    let _room = if reads { None } else { room(api, operation, request.headers())? };
    let key = if reads { None } else { idempotency::key(request.headers())? };
    match (key, request.extensions().get::<Caller>().cloned()) {
        (Some(key), Some(Caller(actor))) => idempotency::once(api, &actor, &key, request, next).await,
        _ => Ok(next.run(request).await),
    }
}

/// Refuses a body that declares more than its operation may have. A large one takes one of few places.
fn room<'a>(
    api: &'a Api,
    operation: &Operation,
    headers: &HeaderMap,
) -> Result<Option<SemaphorePermit<'a>>, Problem> {
    let (own, large) = (api.max_body(), size::of(operation.id));
    let max = large.map_or(own, |large| large.max(own));
    let declared = size::declared(headers);
    if declared.is_some_and(|length| length > max as u64) {
        return Err(Problem::too_large(max));
    }
    if large.is_none() || declared.is_some_and(|length| length <= own as u64) {
        return Ok(None);
    }
    let permit = api.large_bodies().try_acquire();
    permit.map(Some).map_err(|_| Problem::too_many("too many large documents are under way", 2))
}

/// Everything that is decided before the handler runs.
async fn admit(
    operation: &'static Operation,
    api: &Api,
    address: IpAddr,
    request: Request,
    seen: &mut Seen,
) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    seen.tenant = tenant(&mut parts).await?;
    let actor = api.authenticate(&parts.headers, address).await?;
    seen.actor = Some(actor.clone());
    api.throttle(&actor, address)?;
    decide(&actor, seen.tenant.as_ref(), operation).map_err(|refusal| match refusal {
        Refusal::Missing(permission) => {
            Problem::forbidden(format!("this needs the permission `{}`", permission.as_str()))
        }
        Refusal::ForeignTenant => Problem::not_found(),
    })?;
    // A key of another tenant's is none if its tenant is not there.
    if let Some(tenant) = seen.tenant.clone()
        && actor.is_platform()
        && operation.target == Target::Tenant
        && match operation.needs_tenant(&parts.method) {
            true => !api.has_tenant(&tenant).await?,
            false => api.never_was(&tenant).await,
        }
    {
        // Nobody's log is made by naming it.
        seen.tenant = None;
        return Err(Problem::no_tenant(&tenant));
    }
    // Before anything is done: what is not understood might have been meant to keep it from being done.
    if let Some(parameters) = parts.extensions.get::<Parameters>() {
        parameters.check(&parts.uri)?;
    }
    seen.reason = Reason::from_request_parts(&mut parts, &()).await?.0;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD);
    if changes && !api.can_record() {
        return Err(Problem::unavailable(
            "audit_full",
            "the audit log has no room, and nothing is changed without a record of it",
        ));
    }
    parts.extensions.insert(Caller(actor));
    parts.extensions.insert(ClientAddress(address));
    if let Some(tenant) = &seen.tenant {
        parts.extensions.insert(tenant.clone());
    }
    Ok(Request::from_parts(parts, body))
}

/// The tenant that the path names.
async fn tenant(parts: &mut Parts) -> Result<Option<TenantId>, Problem> {
    let params = RawPathParams::from_request_parts(parts, &()).await.map_err(|_| Problem::not_found())?;
    let Some((_, name)) = params.iter().find(|(key, _)| *key == TENANT) else { return Ok(None) };
    let good = (1..=MAX_TENANT).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if good { Ok(Some(TenantId::new(name))) } else { Err(Problem::not_found()) }
}

/// Where the request comes from. Routers that are called without a socket are called from here.
fn client(request: &Request) -> IpAddr {
    let info = request.extensions().get::<ConnectInfo<SocketAddr>>();
    info.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |ConnectInfo(address)| address.ip().to_canonical())
}
