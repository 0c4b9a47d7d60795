//! Health of servers summed up over a time, and its score.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::time;
use super::in_tenant::{Named, Path};
use super::sessions::MissingReplica;
use super::{Api, When};
use crate::analytics::{self, Evidence, Grade};
use crate::base::TenantId;
use crate::control::extract::{At, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{Field, Kind, sortable};
use crate::control::seen::ServerNow;
use crate::store::{Grain, HealthSummary, Performance, Time};

/// Longest time that is summed up.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
/// Up to this length times are summed up by minute.
const BY_MINUTE: Duration = Duration::from_secs(3 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(summarize_health)).operation(routes!(show_server_health))
}

/// A time to sum up.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Span {
    /// From this time on; an hour before `to` unless given, and at most 31 days.
    #[param(format = DateTime)]
    pub(super) from: Option<String>,
    /// Before this time; now unless given.
    #[param(format = DateTime)]
    pub(super) to: Option<String>,
}

/// A time that is summed up, and by what.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) from: Time,
    pub(super) to: Time,
    pub(super) grain: Grain,
}

impl Range {
    /// The time asked for, by minute if it is short. It begins at a whole minute or hour.
    pub(super) fn of(api: &Api, ask: &Span) -> Result<Self, Problem> {
        let to = time("to", ask.to.as_deref())?.unwrap_or(api.store()?.now());
        let from = time("from", ask.from.as_deref())?.unwrap_or(to.minus(HOUR));
        if from > to || to.since(from) > LONGEST {
            let error = FieldError::new("?from", "the time is empty or too long");
            let error = error.expecting("at most 31 days before `to`");
            return Err(Problem::parameter("from", "").replacing_errors([error]));
        }
        let (grain, length) =
            if to.since(from) <= BY_MINUTE { (Grain::Minute, MINUTE) } else { (Grain::Hour, HOUR) };
        Ok(Self { from: from.floor(length), to, grain })
    }
}

/// How well a server is.
#[derive(Serialize, ToSchema)]
struct ScoreView {
    /// From 0, the worst, to 100.
    score: u32,
    /// `good` from 90 on, `fair` from 60 on, `poor`.
    grade: &'static str,
    /// What it is made of.
    components: Vec<ComponentView>,
}

/// One part of a score.
#[derive(Serialize, ToSchema)]
struct ComponentView {
    /// `availability`, `errors`, `latency` or `stability`.
    name: &'static str,
    /// From 0, the worst, to 1; absent if nothing is known, and then it does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<f64>,
    /// How much it counts, of 100.
    weight: u32,
}

impl From<analytics::Score> for ScoreView {
    fn from(score: analytics::Score) -> Self {
        let parts = score.components;
        let known = |name, part: analytics::Component| ComponentView {
            name,
            value: Some(part.value),
            weight: part.weight,
        };
        let maybe = |name, part: Option<analytics::Component>, weight| match part {
            Some(part) => known(name, part),
            None => ComponentView { name, value: None, weight },
        };
        Self {
            score: score.score,
            grade: match score.grade {
                Grade::Good => "good",
                Grade::Fair => "fair",
                Grade::Poor => "poor",
            },
            components: vec![
                known("availability", parts.availability),
                maybe("errors", parts.errors, 25),
                maybe("latency", parts.latency, 15),
                known("stability", parts.stability),
            ],
        }
    }
}

/// A server over a time, all of its targets on all replicas together.
#[derive(Serialize, ToSchema)]
struct ServerHealth {
    /// The server.
    server: String,
    /// How well it was; absent if no replica looked at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<ScoreView>,
    /// Share of the looks at its targets, one a second, that found the target taking work.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<f64>,
    /// Targets that were seen.
    targets: i64,
    /// Replicas that saw them.
    replicas: i64,
    /// Active checks.
    probes: i64,
    /// Those that failed.
    probes_failed: i64,
    /// How long one took on average, in microseconds.
    probe_us: i64,
    /// Most requests under way at one target at once.
    in_flight_max: i64,
    /// How often live traffic took a target out.
    ejections: i64,
    /// How often a target's state changed.
    changes: i64,
    /// Requests that it was sent.
    calls: i64,
    /// Those that it failed: no answer, not in time, or not as the protocol has it.
    failures: i64,
    /// How long one took on average, in microseconds.
    mean_us: i64,
}

impl ServerHealth {
    fn of(server: &str, health: Option<&HealthSummary>, performance: &[Performance]) -> Self {
        let (mut calls, mut failures, mut busy) = (0, 0, 0i128);
        for row in performance.iter().filter(|row| row.server == server) {
            calls += row.calls;
            failures += row.failures;
            busy += i128::from(row.mean_us) * i128::from(row.calls);
        }
        let mean_us = i64::try_from(busy / i128::from(calls.max(1))).unwrap_or(i64::MAX);
        let sum = |of: fn(&HealthSummary) -> i64| health.map_or(0, of);
        let (changes, ejections) = (sum(|h| h.changes), sum(|h| h.ejections));
        let evidence = Evidence {
            observed: sum(|h| h.observed),
            available: sum(|h| h.available),
            calls,
            failures,
            mean_us,
            changes: changes + ejections,
        };
        Self {
            server: server.to_owned(),
            score: analytics::Score::of(&evidence).map(ScoreView::from),
            available: health.map(|h| h.available as f64 / h.observed.max(1) as f64),
            targets: sum(|h| h.targets),
            replicas: sum(|h| h.replicas),
            probes: sum(|h| h.probes),
            probes_failed: sum(|h| h.probes_failed),
            probe_us: sum(|h| h.probe_us),
            in_flight_max: sum(|h| h.in_flight_max),
            ejections,
            changes,
            calls,
            failures,
            mean_us,
        }
    }
}

const SERVERS: &[Field] = &[sortable("server", Kind::Text)];

/// Health of a tenant's servers over a time
///
/// Each with its score. Of all replicas together.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/health/summary", tag = "health", params(Path, Span, ListQuery),
    responses((status = 200, description = "Servers by name.", body = Page<ServerHealth>)))]
async fn summarize_health(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<SpanList>,
) -> Result<Answer<Page<Value>>, Problem> {
    let (span, ask) = ask.parts();
    let range = Range::of(&api, &span)?;
    let scope = api.store()?.tenant(&tenant);
    let health = scope.server_health_summary(range.grain, range.from, range.to).await?;
    let performance = scope.request_performance_summary(range.grain, range.from, range.to).await?;
    let servers = health.iter().map(|row| ServerHealth::of(&row.server, Some(row), &performance));
    list::page(servers, &ask, &["summarize_health", tenant.as_str()], SERVERS).map(Answer)
}

/// Parameters of a list over a time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SpanList {
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    filter: Option<String>,
    sort: Option<String>,
}

impl SpanList {
    pub(super) fn parts(self) -> (Span, ListQuery) {
        let Self { from, to, limit, cursor, filter, sort } = self;
        (Span { from, to }, ListQuery { limit, cursor, filter, sort })
    }
}

/// A server's health.
#[derive(Serialize, ToSchema)]
struct ServerHealthView {
    /// The beginning of the time.
    from: When,
    /// Its end.
    to: When,
    /// Over that time, as all replicas saw it.
    over: ServerHealth,
    /// Now, as all replicas see it; absent if none has the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<ServerNow>,
    /// Replicas of which it is not known how they see it now.
    missing: Vec<MissingReplica>,
}

/// Health of a server
///
/// Its state now, and its score over a time with what it is made of.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/servers/{name}/health", tag = "health", params(Named, Span),
    responses((status = 200, description = "The server.", body = ServerHealthView),
        (status = 404, description = "No replica has such a server, and none had it in that time.")))]
async fn show_server_health(
    State(api): State<Api>,
    At(at): At<Named>,
    Params(ask): Params<Span>,
) -> Result<Answer<ServerHealthView>, Problem> {
    let (tenant, name) = at.names()?;
    let range = Range::of(&api, &ask)?;
    let scope = api.store()?.tenant(&tenant);
    let health = scope.server_health_summary(range.grain, range.from, range.to).await?;
    let health = health.into_iter().find(|row| row.server == name);
    let seen = api.fleet()?.servers(Some(tenant.as_str())).await;
    let now = seen.servers().into_iter().find(|now| now.server.name == name);
    if health.is_none() && now.is_none() {
        return Err(Problem::not_found());
    }
    let performance = scope.request_performance_summary(range.grain, range.from, range.to).await?;
    let over = ServerHealth::of(&name, health.as_ref(), &performance);
    let missing = seen.missing.into_iter().map(MissingReplica::from).collect();
    Ok(Answer(ServerHealthView { from: range.from.into(), to: range.to.into(), over, now, missing }))
}
