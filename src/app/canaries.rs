//! What happens to canaries, told to whoever should know: the audit, those who follow live events, the metrics.

use std::sync::{Arc, OnceLock};

use serde_json::json;

use crate::audit::{Auditor, Class, Event};
use crate::base::{Clock, TenantId};
use crate::control::events::{Hub, Topic};
use crate::source::canary::{News, Tell};
use crate::store::Canary;
use crate::telemetry::{CanaryEnd, Metrics};

/// Tells.
pub(super) struct Herald {
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Documents are served before anybody can listen and the audit is open.
    hub: OnceLock<Arc<Hub>>,
    auditor: OnceLock<Auditor>,
}

impl Herald {
    pub(super) fn new(clock: Clock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { clock, metrics, hub: OnceLock::new(), auditor: OnceLock::new() })
    }

    /// From now on what happens is a live event, too.
    pub(super) fn publish_in(&self, hub: &Arc<Hub>) {
        let _ = self.hub.set(hub.clone());
    }

    /// From now on what happens is in the audit, too.
    pub(super) fn record_in(&self, auditor: &Auditor) {
        let _ = self.auditor.set(auditor.clone());
    }

    pub(super) fn tell(self: &Arc<Self>) -> Tell {
        let herald = self.clone();
        Arc::new(move |news| herald.hear(news))
    }

    fn hear(&self, news: &News) {
        let canary = &news.canary;
        if !news.ours {
            // Every replica hears of it once, whoever did it.
            if let Some(hub) = self.hub.get() {
                hub.publish(Topic::Config, Some(TenantId::new(canary.tenant.as_str())), summary(canary));
            }
            return;
        }
        match canary.state.as_str() {
            "aborted" => self.metrics.canary_ended(CanaryEnd::Aborted),
            "promoted" => self.metrics.canary_ended(CanaryEnd::Promoted),
            "rolled_back" => self.metrics.canary_ended(CanaryEnd::RolledBack),
            _ => {}
        }
        self.record(canary);
    }

    fn record(&self, canary: &Canary) {
        let Some(auditor) = self.auditor.get() else { return };
        let object = format!("revision {} beside {} ({})", canary.candidate, canary.base, canary.id);
        let action = match canary.state.as_str() {
            "running" if canary.share_before == 0 => "canary.started".to_owned(),
            "running" => "canary.share_changed".to_owned(),
            ended => format!("canary.{ended}"),
        };
        let started = (canary.state == "running" && canary.share_before == 0)
            .then_some((canary.reason.as_str(), canary.started_by.as_str()));
        // Who changed a share is in the event of the call that did it: here nobody is better than who started.
        let (reason, by) = canary.end_reason.as_deref().zip(canary.ended_by.as_deref()).or(started).unzip();
        let event = Event {
            action: Some(&action),
            object: Some(&object),
            principal: by,
            reason,
            outcome: Some("ok"),
            ..Event::new(self.clock.unix_ms() * 1000, &canary.tenant, Class::Control)
        };
        if let Err(error) = auditor.record(&event, None) {
            tracing::error!(event = "audit_action_not_recorded", operation = action, %error);
        }
    }
}

fn summary(canary: &Canary) -> serde_json::Value {
    json!({
        "kind": "canary",
        "canary": canary.id.to_string(),
        "state": canary.state,
        "base": canary.base,
        "candidate": canary.candidate,
        "by": canary.ended_by.as_ref().unwrap_or(&canary.started_by),
        "reason": canary.end_reason.as_ref().unwrap_or(&canary.reason),
        "promoted": canary.promoted,
    })
}
