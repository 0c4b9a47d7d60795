//! What the control plane tells the audit log: every change, every look at what is sensitive, every refusal.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::actor::Actor;
use super::permission::Operation;
use crate::base::{RequestId, TenantId};

/// One use of the API, after it was answered.
#[derive(Clone, Debug)]
pub struct Action {
    /// Which operation.
    pub operation: &'static Operation,
    /// Who; nobody if the credential was not good.
    pub actor: Option<Arc<Actor>>,
    /// In whose log it is: the tenant of the address, or the caller's own if that is none of theirs.
    pub tenant: Option<TenantId>,
    /// The address of the request, without its query.
    pub path: String,
    /// Why, as the caller says.
    pub reason: Option<String>,
    /// From where.
    pub address: IpAddr,
    /// The status of the answer; 499 if the request was given up before there was one: its caller went away, or it took too
    /// long. What it did is not known then.
    pub status: u16,
    /// The request.
    pub request: RequestId,
    /// How long it took.
    pub took: Duration,
}

impl Action {
    /// What those who follow the audit see of it.
    pub fn summary(&self) -> serde_json::Value {
        serde_json::json!({
            "operation": self.operation.id,
            "actor": self.actor.as_ref().map(|a| &*a.id),
            "path": self.path,
            "reason": self.reason,
            "address": self.address,
            "status": self.status,
            "request_id": self.request.to_string(),
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Whether it did what was asked.
    pub fn succeeded(&self) -> bool {
        self.status < 400
    }

    /// Whether the caller was not allowed to.
    pub fn refused(&self) -> bool {
        matches!(self.status, 401 | 403 | 404 | 429)
    }
}

/// Where actions are recorded.
pub trait Ledger: Send + Sync + 'static {
    /// Whether there is room for another record. If not, changes are refused before they happen.
    fn ready(&self) -> bool;

    /// Records an action. Does not block.
    fn record(&self, action: &Action);
}
