//! The operations of `/api/v1`, one file per resource, and what they share.

mod audit;
mod audit_export;
mod bindings;
mod bulk;
mod canary;
mod custom_roles;
mod database;
mod documents;
mod events;
mod health;
mod health_log;
mod history;
mod installation;
mod keys;
mod objects;
mod own;
mod people;
mod performance;
mod questions;
mod reach;
mod replicas;
mod revocations;
mod secrets;
mod sessions;
mod tenants;
#[cfg(test)]
pub(super) mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use super::ControlConfig;
use super::actor::Actor;
use super::authn::Authenticator;
use super::documents::Turns;
use super::events::{Hub, Topic};
use super::fleet::Fleet;
use super::problem::Problem;
use super::shares::Shares;
use super::size;
use super::state::ControlState;
use super::throttle::Throttle;
use super::trail::{Action, Ledger};
use crate::base::{Role, TenantId};
use crate::source::Publisher;
use crate::source::canary::Canaries;
use crate::store::{SigningKey, Store, Time};

/// What handlers share. Cloning it is a reference count.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    state: Arc<dyn ControlState>,
    authenticator: Arc<Authenticator>,
    throttle: Throttle,
    ledger: Option<Arc<dyn Ledger>>,
    events: Arc<Hub>,
    audit_is_followed: bool,
    readers: events::Readers,
    exports: Shares,
    max_body: usize,
    large_bodies: Semaphore,
    turns: Turns,
    audit_key: Option<Arc<SigningKey>>,
    store: Option<Store>,
    publisher: Option<Publisher>,
    canaries: Option<Canaries>,
    questions: Shares,
    fleet: Option<Fleet>,
}

impl Api {
    pub(super) fn new(config: &ControlConfig, state: Arc<dyn ControlState>) -> Self {
        Self(Arc::new(Inner {
            state,
            authenticator: config.authenticator.clone(),
            throttle: Throttle::new(config.rate, config.clock.clone()),
            ledger: config.ledger.clone(),
            events: config.events.clone(),
            audit_is_followed: config.audit_is_followed,
            readers: events::Readers::default(),
            exports: audit_export::shares(config.store.as_ref().map_or(0, Store::read_connections)),
            max_body: config.limits.body,
            large_bodies: Semaphore::new(size::AT_ONCE),
            turns: Turns::default(),
            audit_key: config.audit_key.clone(),
            store: config.store.clone(),
            publisher: config.publisher.clone(),
            canaries: config.canaries.clone(),
            questions: questions::shares(),
            fleet: config.fleet.clone(),
        }))
    }

    /// The store.
    pub(super) fn store(&self) -> Result<&Store, Problem> {
        let missing = || Problem::unavailable("no_store", "this process has no store");
        self.0.store.as_ref().ok_or_else(missing)
    }

    /// Whether there is a tenant: as the store has it where documents come from there, or else as this process serves it.
    pub(super) async fn has_tenant(&self, tenant: &TenantId) -> Result<bool, Problem> {
        if *tenant == TenantId::default() {
            return Ok(true);
        }
        match &self.0.publisher {
            Some(_) => Ok(self.store()?.platform().find_tenant(tenant).await?.is_some()),
            None => Ok(self.0.state.revisions().iter().any(|served| served.tenant == tenant.as_str())),
        }
    }

    /// Whether there is no such tenant, and nothing is left of one. Where that cannot be asked, nothing says so.
    pub(super) async fn never_was(&self, tenant: &TenantId) -> bool {
        let served = self.0.state.revisions().iter().any(|served| served.tenant == tenant.as_str());
        match &self.0.store {
            Some(store) if !served => store.platform().has_traces(tenant).await.is_ok_and(|there| !there),
            _ => false,
        }
    }

    /// What exports of the audit are signed with.
    fn audit_key(&self) -> Result<&Arc<SigningKey>, Problem> {
        let missing = || Problem::conflict("audit_is_off", "the audit is off here: see `audit.enabled`");
        self.0.audit_key.as_ref().ok_or_else(missing)
    }

    /// Bytes of a body, unless its operation may have more.
    pub(super) fn max_body(&self) -> usize {
        self.0.max_body
    }

    /// Places for bodies that are larger than that.
    pub(super) fn large_bodies(&self) -> &Semaphore {
        &self.0.large_bodies
    }

    /// Whose turn it is to change a document.
    pub(super) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Places for exports.
    fn exports(&self) -> &Shares {
        &self.0.exports
    }

    fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    /// What publishes documents.
    pub(super) fn publisher(&self) -> Result<&Publisher, Problem> {
        let missing = || {
            Problem::conflict(
                "source_is_a_file",
                "documents come from a file here, and are changed there; see `source: database`",
            )
        };
        self.0.publisher.as_ref().ok_or_else(missing)
    }

    /// Sessions and streams of all replicas.
    fn fleet(&self) -> Result<&Fleet, Problem> {
        let missing = || Problem::unavailable("no_data_plane", "this process knows of no sessions");
        self.0.fleet.as_ref().ok_or_else(missing)
    }

    /// What starts and ends canaries.
    pub(super) fn canaries(&self) -> Result<&Canaries, Problem> {
        self.publisher()?;
        self.0
            .canaries
            .as_ref()
            .ok_or_else(|| Problem::unavailable("no_store", "this process has no canaries"))
    }

    /// Places for questions.
    fn questions(&self) -> &Shares {
        &self.0.questions
    }

    pub(super) async fn authenticate(&self, headers: &HeaderMap, ip: IpAddr) -> Result<Arc<Actor>, Problem> {
        self.0.authenticator.authenticate(headers, ip).await
    }

    pub(super) fn throttle(&self, actor: &Actor, ip: IpAddr) -> Result<(), Problem> {
        self.0.throttle.take(actor, ip)
    }

    /// Whether another action can be recorded.
    pub(super) fn can_record(&self) -> bool {
        self.0.ledger.as_ref().is_none_or(|ledger| ledger.ready())
    }

    pub(super) fn record(&self, action: &Action) {
        tracing::info!(
            event = "control_action",
            operation = action.operation.id,
            principal = action.actor.as_ref().map(|a| &*a.id),
            tenant = action.tenant.as_ref().map(|t| t.as_str()),
            status = action.status,
            request_id = %action.request,
            reason = action.reason,
            "an operation of the API was called"
        );
        if let Some(ledger) = &self.0.ledger {
            ledger.record(action);
        }
        if !self.0.audit_is_followed {
            let tenant = action.tenant.clone().or_else(|| action.actor.as_ref().map(|a| a.tenant.clone()));
            self.0.events.publish(Topic::Audit, tenant, action.summary());
        }
    }

    pub(super) fn events(&self) -> &Arc<Hub> {
        &self.0.events
    }

    fn readers(&self) -> &events::Readers {
        &self.0.readers
    }

    fn state(&self) -> &Arc<dyn ControlState> {
        &self.0.state
    }
}

/// All operations.
pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    let router = own::operations(router);
    let router = health::operations(router);
    let router = history::operations(router);
    let router = health_log::operations(router);
    let router = performance::operations(router);
    let router = replicas::operations(router);
    let router = database::operations(router);
    let router = sessions::operations(router);
    let router = tenants::operations(router);
    let router = documents::operations(router);
    let router = canary::operations(router);
    let router = questions::operations(router);
    let router = objects::operations(router);
    let router = secrets::operations(router);
    let router = audit::operations(router);
    let router = audit_export::operations(router);
    let router = installation::operations(router);
    let router = people::operations(router);
    let router = bindings::operations(router);
    let router = revocations::operations(router);
    let router = custom_roles::operations(router);
    let router = keys::operations(router);
    events::operations(router)
}

/// Nobody gives what they do not have: no role above the caller's own, and `super_admin` only in the operator's tenant,
/// where it means something.
///
/// # Errors
///
/// 403.
fn may_give(actor: &Actor, tenant: &TenantId, role: Role) -> Result<(), Problem> {
    let own = if actor.is_platform() { Role::SuperAdmin } else { actor.role() };
    let anywhere = role < Role::SuperAdmin || *tenant == TenantId::default();
    if role <= own && anywhere {
        return Ok(());
    }
    Err(Problem::forbidden(format!("you cannot give or take the role `{role}` here")))
}

/// A time as callers read it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(value_type = String, format = DateTime)]
struct When(String);

impl From<Time> for When {
    fn from(time: Time) -> Self {
        Self(time.to_string())
    }
}

/// Parameters of addresses in a tenant.
mod in_tenant {
    use serde::Deserialize;
    use utoipa::IntoParams;

    use crate::base::TenantId;
    use crate::control::list::ListQuery;
    use crate::control::page::{Fingerprint, Slice};
    use crate::control::problem::Problem;

    /// Longest name, in bytes.
    const MAX_NAME: usize = 63;

    /// Something with a name in a tenant.
    #[derive(Deserialize, IntoParams)]
    #[into_params(parameter_in = Path)]
    pub(super) struct Named {
        /// Whose.
        #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
        pub(super) tenant: String,
        /// Its name.
        #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
        pub(super) name: String,
    }

    impl Named {
        /// The name, if something can have it.
        pub(super) fn name(&self) -> Result<&str, Problem> {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let name = self.name.as_str();
            let good = name.len() <= MAX_NAME
                && name.bytes().next().is_some_and(plain)
                && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_'));
            if good {
                return Ok(name);
            }
            let rule = "a name has 1 to 63 lower-case letters, digits, `-` and `_`, and begins with a letter or digit";
            Err(Problem::bad_request(rule))
        }

        /// Tenant and name.
        pub(super) fn names(&self) -> Result<(TenantId, String), Problem> {
            Ok((TenantId::new(self.tenant.as_str()), self.name()?.to_owned()))
        }
    }

    /// A page of a list that has one order.
    #[derive(Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    #[into_params(parameter_in = Query)]
    pub(super) struct Walk {
        /// Items of a page, 50 unless given.
        #[param(minimum = 1, maximum = 500)]
        pub(super) limit: Option<usize>,
        /// Where the page begins: `next_cursor` of the one before it.
        #[param(max_length = 2048)]
        pub(super) cursor: Option<String>,
    }

    impl From<ListQuery> for Walk {
        fn from(ask: ListQuery) -> Self {
            Self { limit: ask.limit, cursor: ask.cursor }
        }
    }

    impl Walk {
        /// The page of an operation's list in a tenant, whose order is that of so many keys.
        pub(super) fn slice(
            &self,
            operation: &str,
            tenant: &TenantId,
            keys: usize,
        ) -> Result<Slice, Problem> {
            let list = Fingerprint::of(&[operation, tenant.as_str()]);
            Slice::read(self.limit, self.cursor.as_deref(), list, keys)
        }
    }

    /// How a change is made.
    #[derive(Deserialize, IntoParams)]
    #[serde(deny_unknown_fields)]
    #[into_params(parameter_in = Query)]
    #[allow(dead_code, reason = "the reason has an extractor of its own")]
    pub(super) struct Write {
        /// Say what would change, and change nothing.
        #[serde(default)]
        pub(super) dry_run: bool,
        /// Why, at most 500 characters; the header `X-Tollgate-Reason` does the same.
        #[param(max_length = 500)]
        pub(super) reason: Option<String>,
    }

    /// What a change may build on.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    #[allow(dead_code, reason = "describes headers")]
    pub(super) struct Conditional {
        /// The ETag that was read last, or `*` for whatever there is.
        #[param(rename = "If-Match")]
        if_match: Option<String>,
        /// `*`: only if there is none yet.
        #[param(rename = "If-None-Match")]
        if_none_match: Option<String>,
        /// Makes repeating the request safe: it is done once, and answered the same.
        #[param(rename = "Idempotency-Key", max_length = 255)]
        idempotency_key: Option<String>,
    }

    /// What makes repeating a request safe.
    #[derive(IntoParams)]
    #[into_params(parameter_in = Header)]
    #[allow(dead_code, reason = "describes a header")]
    pub(super) struct Repeatable {
        /// Makes repeating the request safe: it is done once, and answered the same.
        #[param(rename = "Idempotency-Key", max_length = 255)]
        idempotency_key: Option<String>,
    }

    /// The tenant alone.
    #[derive(Deserialize, IntoParams)]
    #[into_params(parameter_in = Path)]
    #[allow(dead_code, reason = "the gate reads the tenant")]
    pub(super) struct Path {
        /// Whose.
        #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
        pub(super) tenant: String,
    }
}
