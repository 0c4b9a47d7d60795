//! The families of series with labels.

use std::sync::Arc;

use prometheus::{Histogram, Registry};

use super::family::{Child, Counter, Family, Gauge};
use super::names;

/// All of them.
pub(super) struct Families {
    pub(super) auth_failures: Arc<Family<Counter>>,
    pub(super) canaries_ended: Arc<Family<Counter>>,
    pub(super) canary_calls: Arc<Family<Counter>>,
    pub(super) gateway_seconds: Arc<Family<Histogram>>,
    pub(super) label_overflow: Arc<Family<Counter>>,
    pub(super) limit_fallbacks: Arc<Family<Counter>>,
    pub(super) limit_refusals: Arc<Family<Counter>>,
    pub(super) limit_trips: Arc<Family<Counter>>,
    pub(super) policy_denials: Arc<Family<Counter>>,
    pub(super) reloads: Arc<Family<Counter>>,
    pub(super) request_seconds: Arc<Family<Histogram>>,
    pub(super) requests: Arc<Family<Counter>>,
    pub(super) retries: Arc<Family<Counter>>,
    pub(super) streams: Arc<Family<Gauge>>,
    pub(super) target_ejections: Arc<Family<Counter>>,
    pub(super) target_healthy: Arc<Family<Gauge>>,
    pub(super) target_in_flight: Arc<Family<Gauge>>,
    pub(super) tool_seconds: Arc<Family<Histogram>>,
    pub(super) upstream_errors: Arc<Family<Counter>>,
}

impl Families {
    pub(super) fn register(registry: &Registry) -> Self {
        fn make<C: Child>(spec: &'static names::Spec, registry: &Registry) -> Arc<Family<C>> {
            Family::register(spec, registry)
        }
        Self {
            auth_failures: make(&names::AUTH_FAILURES, registry),
            canaries_ended: make(&names::CANARIES_ENDED, registry),
            canary_calls: make(&names::CANARY_CALLS, registry),
            gateway_seconds: make(&names::GATEWAY_SECONDS, registry),
            label_overflow: make(&names::LABEL_OVERFLOW, registry),
            limit_fallbacks: make(&names::LIMIT_FALLBACKS, registry),
            limit_refusals: make(&names::LIMIT_REFUSALS, registry),
            limit_trips: make(&names::LIMIT_TRIPS, registry),
            policy_denials: make(&names::POLICY_DENIALS, registry),
            reloads: make(&names::CONFIG_RELOADS, registry),
            request_seconds: make(&names::REQUEST_SECONDS, registry),
            requests: make(&names::REQUESTS, registry),
            retries: make(&names::RETRIES, registry),
            streams: make(&names::STREAMS, registry),
            target_ejections: make(&names::TARGET_EJECTIONS, registry),
            target_healthy: make(&names::TARGET_HEALTHY, registry),
            target_in_flight: make(&names::TARGET_IN_FLIGHT, registry),
            tool_seconds: make(&names::TOOL_SECONDS, registry),
            upstream_errors: make(&names::UPSTREAM_ERRORS, registry),
        }
    }
}
