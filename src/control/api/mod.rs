//! The operations of `/api/v1`, one file per resource, and what they share.

mod events;
mod health;
mod own;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;

use super::actor::Actor;
use super::authn::Authenticator;
use super::events::{Hub, Topic};
use super::problem::Problem;
use super::state::ControlState;
use super::throttle::Throttle;
use super::trail::{Action, Ledger};

/// What handlers share. Cloning it is a reference count.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    state: Arc<dyn ControlState>,
    authenticator: Arc<Authenticator>,
    throttle: Throttle,
    ledger: Option<Arc<dyn Ledger>>,
    events: Arc<Hub>,
    readers: events::Readers,
}

impl Api {
    pub(super) fn new(
        state: Arc<dyn ControlState>,
        authenticator: Arc<Authenticator>,
        throttle: Throttle,
        ledger: Option<Arc<dyn Ledger>>,
        events: Arc<Hub>,
    ) -> Self {
        let readers = events::Readers::default();
        Self(Arc::new(Inner { state, authenticator, throttle, ledger, events, readers }))
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
        let tenant = action.tenant.clone().or_else(|| action.actor.as_ref().map(|a| a.tenant.clone()));
        self.0.events.publish(Topic::Audit, tenant, action.summary());
    }

    pub(super) fn events(&self) -> &Hub {
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
    events::operations(router)
}

/// Parameters of addresses in a tenant.
mod in_tenant {
    use serde::Deserialize;
    use utoipa::IntoParams;

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
