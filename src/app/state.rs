//! What outlives snapshots, and the telemetry of a process, made from the static sections of its document.

use std::sync::Arc;

use crate::app::StartError;
use crate::app::runtimes::Runtimes;
use crate::auth::{AuthState, CacheBounds, FailureBounds, JwksStore};
use crate::base::Clock;
use crate::config::model;
use crate::snapshot::{Identities, State};
use crate::store::{Environment, Store, StoreSettings};
use crate::telemetry::{ACCESS_LOG_CAPACITY, AccessLog, Caps, Metrics, Output, Telemetry, Tracer, trace};
use crate::upstream::Upstreams;

/// Empty registries.
pub(super) fn state(model: &model::Document, clock: &Clock) -> State {
    State {
        upstreams: Arc::new(Upstreams::new(clock.clone())),
        metrics: Metrics::new(caps(&model.telemetry.metrics), clock.clone(), env!("CARGO_PKG_VERSION")),
        jwks: Arc::new(JwksStore::new(clock.clone())),
        identities: Arc::new(Identities::new(model.source == model::SourceKind::Database)),
        auth: AuthState::new(
            CacheBounds::default(),
            failures(&model.identity.failed_attempts),
            clock.clone(),
        ),
        clock: clock.clone(),
    }
}

fn caps(model: &model::MetricsCaps) -> Caps {
    Caps {
        tools: model.max_tools as usize,
        routes: model.max_routes as usize,
        servers: model.max_servers as usize,
        tenants: model.max_tenants as usize,
        ..Caps::default()
    }
}

fn failures(failed: &model::FailedAttempts) -> FailureBounds {
    FailureBounds {
        burst: failed.burst,
        forget_one: failed.rate.per() / u32::try_from(failed.rate.count().max(1)).unwrap_or(u32::MAX),
        ..FailureBounds::default()
    }
}

/// Access log and traces.
pub(super) fn telemetry(
    model: &model::Document,
    metrics: &Arc<Metrics>,
    runtimes: &Runtimes,
) -> Result<Telemetry, StartError> {
    let access = &model.telemetry.access_log;
    let access_log = if access.enabled {
        let output = access.path.clone().map_or(Output::Stdout, Output::File);
        AccessLog::start(output, ACCESS_LOG_CAPACITY, metrics.access_log_dropped().clone())?
    } else {
        AccessLog::disabled()
    };
    let tracer = match &model.telemetry.otlp {
        None => Tracer::disabled(),
        Some(otlp) => {
            let config = trace::TraceConfig {
                headers: otlp.headers.iter().map(|(k, v)| (k.clone(), v.secret().clone())).collect(),
                timeout: otlp.timeout.get(),
                sample_ratio: otlp.sample.fraction(),
                service_name: otlp.service_name.clone(),
                ..trace::TraceConfig::new(otlp.endpoint.as_str())
            };
            let (tracer, exporter) = trace::exporter(&config, metrics.trace_dropped().clone())?;
            let stop = runtimes.background.clone();
            // It has a last batch to send, so it is told and not cut off.
            runtimes.control.spawn(exporter.run(async move { stop.cancelled().await }));
            tracer
        }
    };
    Ok(Telemetry { metrics: metrics.clone(), access: access_log, tracer })
}

/// The store, which connects when it is first used.
pub(super) fn store(
    model: &model::Document,
    runtimes: &Runtimes,
    clock: &Clock,
    env: Environment,
) -> Result<Store, StartError> {
    let _on_control = runtimes.control.enter();
    let settings = StoreSettings::new(&model.store, &model.data_dir);
    Ok(Store::open(settings, clock.clone(), env)?)
}
