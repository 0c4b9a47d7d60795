//! The audit log and usage of a tenant.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json as Answer};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::Path;
use super::{Api, When};
use crate::audit::{BODIES, Class};
use crate::base::TenantId;
use crate::control::extract::{At, Params};
use crate::control::gate::Gated as _;
use crate::control::page::{Fingerprint, Page, Slice};
use crate::control::problem::{FieldError, Problem};
use crate::store::{AuditEvent, AuditFilter, AuditPlace, Grain, Page as Rows, Time, UsageBy, UsageFilter};

/// Most entries of a ranking.
const MAX_TOP: u32 = 500;
/// Most intervals that usage is asked of: a week of minutes.
const MAX_POINTS: u32 = 7 * 24 * 60;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(search_audit))
        .operation(routes!(read_audit_bodies))
        .operation(routes!(usage_series))
        .operation(routes!(usage_top))
        .operation(routes!(usage_latency))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Search {
    /// From this time on.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `data` or `control`.
    class: Option<String>,
    /// The caller.
    principal: Option<String>,
    /// The route.
    route: Option<String>,
    /// The server.
    server: Option<String>,
    /// The tool, prompt, resource or object.
    name: Option<String>,
    /// How it ended.
    outcome: Option<String>,
    /// Items of a page, 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before it.
    #[param(max_length = 2048)]
    cursor: Option<String>,
}

/// An event.
#[derive(Serialize, ToSchema)]
struct EventView {
    /// When.
    time: When,
    /// `data` or `control`.
    class: &'static str,
    /// The process that wrote its chain.
    writer: String,
    /// Its number in its chain.
    sequence: u64,
    /// What happened, without recorded bodies; absent once it was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    event: Option<Value>,
    /// Which bodies were recorded: `request`, `response`. They are read one event at a time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bodies: Vec<&'static str>,
}

/// One event.
#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct Place {
    /// Whose.
    #[param(max_length = 63, pattern = "^[a-z0-9][a-z0-9_-]*$")]
    #[allow(dead_code, reason = "the gate has read it")]
    tenant: String,
    /// `data` or `control`.
    class: String,
    /// The process that wrote its chain.
    #[param(max_length = 64)]
    writer: String,
    /// Its number in its chain.
    sequence: u64,
}

/// What was recorded of the bodies of a request.
#[derive(Serialize, ToSchema)]
struct BodiesView {
    /// As the client sent it, or its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<String>,
    /// How many bytes of it are missing in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_cut: Option<u64>,
    /// As the client got it, or its beginning. Of an event stream: the message that ended the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// How many bytes of it are missing in that.
    #[serde(skip_serializing_if = "Option::is_none")]
    response_cut: Option<u64>,
}

/// Reads a parameter that is a time.
pub(super) fn time(name: &str, text: Option<&str>) -> Result<Option<Time>, Problem> {
    text.map(|text| {
        Time::parse(text).ok_or_else(|| {
            let error = FieldError::new(format!("?{name}"), "this is no time");
            Problem::parameter(name, "").replacing_errors([error.expecting("such as 2026-01-31T12:00:00Z")])
        })
    })
    .transpose()
}

/// What is asked for, as the store takes it.
///
/// # Errors
///
/// 400 with the parameter that is not as it must be.
pub(super) fn filter(times: [Option<&str>; 2], others: AuditFilter) -> Result<AuditFilter, Problem> {
    if others.class.as_deref().is_some_and(|class| Class::parse(class).is_none()) {
        let error = FieldError::new("?class", "there is no such class").expecting("`data` or `control`");
        return Err(Problem::parameter("class", "").replacing_errors([error]));
    }
    Ok(AuditFilter { from: time("from", times[0])?, to: time("to", times[1])?, ..others })
}

/// Search the audit log
///
/// The newest first. Recorded bodies are not in it; each event says which there are.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit", tag = "audit", params(Path, Search),
    responses((status = 200, description = "Events.", body = Page<EventView>)))]
async fn search_audit(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Search>,
) -> Result<Answer<Page<EventView>>, Problem> {
    let filter = filter(
        [ask.from.as_deref(), ask.to.as_deref()],
        AuditFilter {
            class: ask.class,
            principal: ask.principal,
            route: ask.route,
            server: ask.server,
            name: ask.name,
            outcome: ask.outcome,
            ..AuditFilter::default()
        },
    )?;
    let written = serde_json::to_string(&filter).map_err(Problem::internal)?;
    let list = Fingerprint::of(&["search_audit", tenant.as_str(), &written]);
    let slice = Slice::read(ask.limit, ask.cursor.as_deref(), list, 1)?;
    let before = match &slice.after {
        None => None,
        Some(keys) => Some(
            place(&keys[0]).ok_or_else(|| Problem::parameter("cursor", "it is no cursor of this list"))?,
        ),
    };
    let rows = Rows::of(slice.limit as u32 + 1);
    let found = api.store()?.tenant(&tenant).audit_search(&filter, before, rows).await?;
    let page = slice.page(found, |event| vec![mark(&event.place())]);
    Ok(Answer(page.map(|event| shown(&event))))
}

/// Read the recorded bodies of an event
///
/// For auditors only. Each look is itself in the log, refused ones, too.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/audit/{class}/{writer}/{sequence}/bodies", tag = "audit", params(Place),
    responses((status = 200, description = "What was recorded of them.", body = BodiesView),
        (status = 404, description = "There is no such event, or nothing was recorded of its bodies.")))]
async fn read_audit_bodies(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    At(place): At<Place>,
) -> Result<Answer<BodiesView>, Problem> {
    let (Some(class), Ok(writer)) = (Class::parse(&place.class), place.writer.parse()) else {
        return Err(Problem::not_found());
    };
    let scope = api.store()?.tenant(&tenant);
    let event = scope.audit_event(class, writer, place.sequence).await?;
    let payload = event.filter(AuditEvent::has_bodies).and_then(|event| event.payload);
    let payload = payload.ok_or_else(Problem::not_found)?;
    let mut fields: serde_json::Map<String, Value> =
        serde_json::from_str(&payload).map_err(Problem::internal)?;
    let mut text = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let [request, response] = BODIES.map(&mut text);
    let number = |name: &str| fields.get(name).and_then(Value::as_u64);
    let (request_cut, response_cut) = (number("request_cut"), number("response_cut"));
    Ok(Answer(BodiesView { request, request_cut, response, response_cut }))
}

/// A place in the log as one value of a cursor.
fn mark(place: &AuditPlace) -> Value {
    BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).expect("numbers always serialize")).into()
}

fn place(mark: &Value) -> Option<AuditPlace> {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(mark.as_str()?).ok()?).ok()
}

fn shown(event: &AuditEvent) -> EventView {
    let mut payload: Option<Value> =
        event.payload.as_deref().and_then(|text| serde_json::from_str(text).ok());
    // The store has left them out; this holds even if it had not.
    if let Some(Value::Object(fields)) = &mut payload {
        BODIES.iter().for_each(|field| drop(fields.remove(*field)));
    }
    EventView {
        time: event.time.into(),
        class: event.class().as_str(),
        writer: event.writer().to_string(),
        sequence: event.sequence(),
        event: payload,
        bodies: event.bodies(),
    }
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Series {
    /// From this time on; a day ago unless given.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time; now unless given.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `minute`, `hour` or `day`; `hour` unless given.
    grain: Option<String>,
    /// The caller.
    principal: Option<String>,
    /// The route.
    route: Option<String>,
    /// The server.
    server: Option<String>,
    /// The tool.
    tool: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Top {
    /// `principal`, `route`, `server` or `tool`.
    by: String,
    /// From this time on; a day ago unless given.
    #[param(format = DateTime)]
    from: Option<String>,
    /// Before this time; now unless given.
    #[param(format = DateTime)]
    to: Option<String>,
    /// `minute`, `hour` or `day`; `hour` unless given.
    grain: Option<String>,
    /// How many, 10 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
}

/// Usage.
#[derive(Serialize, ToSchema)]
struct UsageView {
    /// When the interval begins, or whose usage it is.
    #[serde(flatten)]
    key: BTreeMap<&'static str, String>,
    /// Requests.
    calls: i64,
    /// Requests that did not end well.
    errors: i64,
    /// Bytes of request bodies.
    bytes_in: i64,
    /// Bytes of response bodies.
    bytes_out: i64,
}

/// How long requests took, each quantile within one percent.
#[derive(Serialize, ToSchema)]
struct LatencyView {
    /// Requests.
    calls: usize,
    /// Half of them took no longer, in milliseconds; absent without requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_ms: Option<f64>,
    /// Nine of ten took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    p90_ms: Option<f64>,
    /// 95 of a hundred took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    p95_ms: Option<f64>,
    /// 99 of a hundred took no longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_ms: Option<f64>,
}

fn grain(name: Option<&str>) -> Result<Grain, Problem> {
    Ok(match name {
        Some("minute") => Grain::Minute,
        None | Some("hour") => Grain::Hour,
        Some("day") => Grain::Day,
        Some(_) => {
            let error =
                FieldError::new("?grain", "there is no such grain").expecting("`minute`, `hour` or `day`");
            return Err(Problem::parameter("grain", "").replacing_errors([error]));
        }
    })
}

/// The time asked for: the last day unless said otherwise. Of a grain that it has not too many intervals of.
fn range(api: &Api, grain: Grain, from: Option<&str>, to: Option<&str>) -> Result<(Time, Time), Problem> {
    let now = api.store()?.now();
    let to = time("to", to)?.unwrap_or(now);
    let from = time("from", from)?.unwrap_or(to.minus(Duration::from_secs(86_400)));
    if from > to || to.since(from) > grain.length() * MAX_POINTS {
        let error = FieldError::new("?from", "the time is empty or too long");
        let most =
            format!("at most {MAX_POINTS} intervals before `to`: ask for less, or for longer intervals");
        return Err(Problem::parameter("from", "").replacing_errors([error.expecting(most)]));
    }
    Ok((from, to))
}

/// Usage over time
///
/// One entry per interval that has any, of at most 10,080.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage", tag = "usage", params(Path, Series),
    responses((status = 200, description = "In the order of time.", body = Page<UsageView>)))]
async fn usage_series(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Series>,
) -> Result<Answer<Page<UsageView>>, Problem> {
    let grain = grain(ask.grain.as_deref())?;
    let (from, to) = range(&api, grain, ask.from.as_deref(), ask.to.as_deref())?;
    let filter =
        UsageFilter { principal: ask.principal, route: ask.route, server: ask.server, tool: ask.tool };
    let points = api.store()?.tenant(&tenant).usage_series(grain, from, to, &filter).await?;
    let items = points.into_iter().map(|p| UsageView {
        key: BTreeMap::from([("at", p.at.to_string())]),
        calls: p.calls,
        errors: p.errors,
        bytes_in: p.bytes_in,
        bytes_out: p.bytes_out,
    });
    Ok(Answer(Page { items: items.collect(), next_cursor: None }))
}

/// How long requests took
///
/// Of all in a time, or of one caller, route, server or tool. Long-lived streams count with all their time.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage/latency", tag = "usage", params(Path, Series),
    responses((status = 200, description = "Quantiles in milliseconds.", body = LatencyView)))]
async fn usage_latency(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Series>,
) -> Result<Answer<LatencyView>, Problem> {
    let grain = grain(ask.grain.as_deref())?;
    let (from, to) = range(&api, grain, ask.from.as_deref(), ask.to.as_deref())?;
    let filter =
        UsageFilter { principal: ask.principal, route: ask.route, server: ask.server, tool: ask.tool };
    let Some(all) = api.store()?.tenant(&tenant).usage_latency(grain, from, to, &filter).await? else {
        let error = FieldError::new("?from", "there are too many callers, routes and tools in this time");
        let error = error
            .expecting("a shorter time, a longer `grain`, or one `principal`, `route`, `server` or `tool`");
        return Err(Problem::parameter("from", "").replacing_errors([error]));
    };
    let quantile = |share| all.quantile_ms(share);
    Ok(Answer(LatencyView {
        calls: all.count(),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p95_ms: quantile(0.95),
        p99_ms: quantile(0.99),
    }))
}

/// Who or what is used most
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage/top", tag = "usage", params(Path, Top),
    responses((status = 200, description = "Those with the most calls first.", body = Page<UsageView>)))]
async fn usage_top(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Top>,
) -> Result<Answer<Page<UsageView>>, Problem> {
    let by = match ask.by.as_str() {
        "principal" => UsageBy::Principal,
        "route" => UsageBy::Route,
        "server" => UsageBy::Server,
        "tool" => UsageBy::Tool,
        _ => {
            let error = FieldError::new("?by", "there is no such ranking");
            let error = error.expecting("`principal`, `route`, `server` or `tool`");
            return Err(Problem::parameter("by", "").replacing_errors([error]));
        }
    };
    let limit = ask.limit.unwrap_or(10);
    if !(1..=MAX_TOP).contains(&limit) {
        return Err(Problem::parameter("limit", format!("it must be from 1 to {MAX_TOP}")));
    }
    let grain = grain(ask.grain.as_deref())?;
    let (from, to) = range(&api, grain, ask.from.as_deref(), ask.to.as_deref())?;
    let top = api.store()?.tenant(&tenant).usage_top(grain, by, from, to, limit).await?;
    let items = top.into_iter().map(|t| UsageView {
        key: BTreeMap::from([("name", t.name)]),
        calls: t.calls,
        errors: t.errors,
        bytes_in: t.bytes_in,
        bytes_out: t.bytes_out,
    });
    Ok(Answer(Page { items: items.collect(), next_cursor: None }))
}
