//! What was of a server's targets: each interval, and each change of their states.

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::audit::time;
use super::history::DAY;
use super::in_tenant::Named;
use super::{Api, When};
use crate::control::extract::{At, Params};
use crate::control::gate::Gated as _;
use crate::control::page::{Fingerprint, Page, Slice};
use crate::control::problem::{FieldError, Problem};
use crate::store::{Grain, HealthChange, HealthPlace, HealthSample, Time};

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(list_server_health_history)).operation(routes!(list_server_health_changes))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct History {
    /// From this time on; a day before `to` unless given.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time; now unless given.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `minute` or `hour`; `minute` unless given.
    grain: Option<String>,
    /// Items of a page, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before it.
    #[param(max_length = 2048)]
    cursor: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Changes {
    /// From this time on; a day before `to` unless given.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time; now unless given.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Items of a page, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before it.
    #[param(max_length = 2048)]
    cursor: Option<String>,
}

/// What a replica saw of a target in one minute or hour.
#[derive(Serialize, ToSchema)]
struct SampleView {
    /// When the interval begins.
    at: When,
    /// The target.
    target: String,
    /// Who saw it.
    replica: String,
    /// Its state in the end: `healthy`, `draining`, `unhealthy`, `ejected` or `circuit_open`.
    state: String,
    /// What was wrong with it in the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Looks at it, one a second.
    observed: i64,
    /// Those that found it taking work.
    available: i64,
    /// Active checks.
    probes: i64,
    /// Those that failed.
    probes_failed: i64,
    /// How long one took on average, in microseconds; absent if there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe_us: Option<i64>,
    /// Latency of requests, smoothed, in microseconds; absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_us: Option<i64>,
    /// Most requests under way at once.
    in_flight_max: i64,
    /// How often live traffic took it out.
    ejections: i64,
    /// How often its state changed.
    changes: i64,
}

impl From<HealthSample> for SampleView {
    fn from(row: HealthSample) -> Self {
        let mean = |sum: i64, count: i64| (count > 0).then(|| sum / count);
        Self {
            probe_us: mean(row.probe_us, row.probes),
            latency_us: mean(row.latency_us, row.latency_count),
            at: row.at.into(),
            target: row.target,
            replica: row.replica,
            state: row.state,
            error: row.error,
            observed: row.observed,
            available: row.available,
            probes: row.probes,
            probes_failed: row.probes_failed,
            in_flight_max: row.in_flight_max,
            ejections: row.ejections,
            changes: row.changes,
        }
    }
}

/// A change of a target's state.
#[derive(Serialize, ToSchema)]
struct ChangeView {
    /// When.
    at: When,
    /// The target.
    target: String,
    /// Who saw it.
    replica: String,
    /// The state before; absent if the target was seen for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<String>,
    /// The state from then on.
    state: String,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl From<HealthChange> for ChangeView {
    fn from(row: HealthChange) -> Self {
        Self {
            at: row.at.into(),
            target: row.target,
            replica: row.replica,
            was: row.was,
            state: row.state,
            error: row.error,
        }
    }
}

/// The time of a history: the last day unless said otherwise.
fn span(api: &Api, from: Option<&str>, to: Option<&str>) -> Result<(Time, Time), Problem> {
    let to = time("to", to)?.unwrap_or(api.store()?.now());
    Ok((time("from", from)?.unwrap_or(to.minus(DAY)), to))
}

/// A page of a history, and behind which row it begins.
fn slice(
    list: [&str; 6],
    limit: Option<usize>,
    cursor: Option<&str>,
) -> Result<(Slice, Option<HealthPlace>), Problem> {
    let slice = Slice::read(limit, cursor, Fingerprint::of(&list), 3)?;
    let place = match slice.after.as_deref() {
        Some([at, target, replica]) => {
            let place = (at.as_i64(), target.as_str(), replica.as_str());
            let (Some(at), Some(target), Some(replica)) = place else {
                return Err(Problem::parameter("cursor", "it is no cursor of this list"));
            };
            Some(HealthPlace {
                at: Time::from_micros(at),
                target: target.to_owned(),
                replica: replica.to_owned(),
            })
        }
        _ => None,
    };
    Ok((slice, place))
}

/// Health of a server's targets over time
///
/// What each replica saw of each target, by minute or hour, the newest first. The minute under way is not there yet.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/servers/{name}/health/history", tag = "health", params(Named, History),
    responses((status = 200, description = "Intervals.", body = Page<SampleView>)))]
async fn list_server_health_history(
    State(api): State<Api>,
    At(at): At<Named>,
    Params(ask): Params<History>,
) -> Result<Answer<Page<SampleView>>, Problem> {
    let (tenant, name) = at.names()?;
    let grain = match ask.grain.as_deref() {
        None | Some("minute") => Grain::Minute,
        Some("hour") => Grain::Hour,
        Some(_) => {
            let error = FieldError::new("?grain", "there is no such grain").expecting("`minute` or `hour`");
            return Err(Problem::parameter("grain", "").replacing_errors([error]));
        }
    };
    let range = span(&api, ask.from.as_deref(), ask.to.as_deref())?;
    let (from, to) = (ask.from.as_deref().unwrap_or_default(), ask.to.as_deref().unwrap_or_default());
    let list = ["list_server_health_history", tenant.as_str(), &name, grain.as_str(), from, to];
    let (slice, place) = slice(list, ask.limit, ask.cursor.as_deref())?;
    let rows = slice.rows();
    let scope = api.store()?.tenant(&tenant);
    let found = scope.health_history(&name, grain, range, place.as_ref(), rows).await?;
    let page = slice.page(found, |row| vec![json!(row.at.micros()), json!(row.target), json!(row.replica)]);
    Ok(Answer(page.map(SampleView::from)))
}

/// Changes of the states of a server's targets
///
/// As each replica saw them, the newest first.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/servers/{name}/health/changes", tag = "health", params(Named, Changes),
    responses((status = 200, description = "Changes.", body = Page<ChangeView>)))]
async fn list_server_health_changes(
    State(api): State<Api>,
    At(at): At<Named>,
    Params(ask): Params<Changes>,
) -> Result<Answer<Page<ChangeView>>, Problem> {
    let (tenant, name) = at.names()?;
    let range = span(&api, ask.from.as_deref(), ask.to.as_deref())?;
    let (from, to) = (ask.from.as_deref().unwrap_or_default(), ask.to.as_deref().unwrap_or_default());
    let list = ["list_server_health_changes", tenant.as_str(), &name, "", from, to];
    let (slice, place) = slice(list, ask.limit, ask.cursor.as_deref())?;
    let rows = slice.rows();
    let found = api.store()?.tenant(&tenant).health_changes(&name, range, place.as_ref(), rows).await?;
    let page = slice.page(found, |row| vec![json!(row.at.micros()), json!(row.target), json!(row.replica)]);
    Ok(Answer(page.map(ChangeView::from)))
}
