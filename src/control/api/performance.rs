//! Performance of routes and servers, and usage, summed up over a time.

use axum::extract::State;
use axum::{Extension, Json as Answer};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::history::{DAY, HOUR, Range, Span, SpanList};
use super::in_tenant::Path;
use super::{Api, When};
use crate::base::TenantId;
use crate::control::extract::Params;
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::Problem;
use crate::control::query::{Field, Kind, sortable};
use crate::store::Grain;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router.operation(routes!(summarize_performance)).operation(routes!(summarize_usage))
}

/// What a route and server were like in a time.
#[derive(Serialize, ToSchema)]
struct PerformanceView {
    /// Route and server, joined by `/`: what lists are sorted by.
    id: String,
    /// The route; empty if there was none.
    route: String,
    /// The server; empty if none was asked.
    server: String,
    /// Requests.
    calls: i64,
    /// Requests that did not end well.
    errors: i64,
    /// Those of them for which the server is to blame.
    failures: i64,
    /// How long one took on average, in microseconds.
    mean_us: i64,
    /// Half of them took no longer, within 4.4 percent.
    p50_us: Option<i64>,
    /// 95 of 100 took no longer.
    p95_us: Option<i64>,
    /// 99 of 100 took no longer.
    p99_us: Option<i64>,
}

const PERFORMANCE: &[Field] = &[
    sortable("id", Kind::Text),
    sortable("route", Kind::Text),
    sortable("server", Kind::Text),
    sortable("calls", Kind::Number),
    sortable("errors", Kind::Number),
    sortable("failures", Kind::Number),
    sortable("mean_us", Kind::Number),
];

/// Performance of routes and servers
///
/// Requests, errors and durations over a time.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/performance", tag = "usage", params(Path, Span, ListQuery),
    responses((status = 200, description = "Routes and servers.", body = Page<PerformanceView>)))]
async fn summarize_performance(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<SpanList>,
) -> Result<Answer<Page<Value>>, Problem> {
    let (span, ask) = ask.parts();
    let range = Range::of(&api, &span)?;
    let scope = api.store()?.tenant(&tenant);
    let rows = scope.request_performance_summary(range.grain, range.from, range.to).await?;
    let rows = rows.into_iter().map(|row| PerformanceView {
        id: format!("{}/{}", row.route, row.server),
        route: row.route,
        server: row.server,
        calls: row.calls,
        errors: row.errors,
        failures: row.failures,
        mean_us: row.mean_us,
        p50_us: row.p50_us,
        p95_us: row.p95_us,
        p99_us: row.p99_us,
    });
    list::page(rows, &ask, &["summarize_performance", tenant.as_str()], PERFORMANCE).map(Answer)
}

/// A tenant's usage over a time.
#[derive(Serialize, ToSchema)]
struct UsageSummaryView {
    /// The beginning of the time: a whole hour, or a whole day of more than two.
    from: When,
    /// Its end.
    to: When,
    /// Requests.
    calls: i64,
    /// Requests that did not end well.
    errors: i64,
    /// Bytes of request bodies.
    bytes_in: i64,
    /// Bytes of response bodies.
    bytes_out: i64,
    /// How many callers.
    principals: i64,
    /// How many routes.
    routes: i64,
    /// How many servers.
    servers: i64,
    /// How many tools.
    tools: i64,
}

/// Usage in all
///
/// Of a time of at most 31 days, by hour, or by day if it is longer than two.
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/usage/summary", tag = "usage", params(Path, Span),
    responses((status = 200, description = "The sum.", body = UsageSummaryView)))]
async fn summarize_usage(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<Span>,
) -> Result<Answer<UsageSummaryView>, Problem> {
    let Range { from, to, .. } = Range::of(&api, &ask)?;
    let (grain, length) = if to.since(from) > DAY + DAY { (Grain::Day, DAY) } else { (Grain::Hour, HOUR) };
    let from = from.floor(length);
    let sum = api.store()?.tenant(&tenant).tenant_usage_summary(grain, from, to).await?;
    Ok(Answer(UsageSummaryView {
        from: from.into(),
        to: to.into(),
        calls: sum.calls,
        errors: sum.errors,
        bytes_in: sum.bytes_in,
        bytes_out: sum.bytes_out,
        principals: sum.principals,
        routes: sum.routes,
        servers: sum.servers,
        tools: sum.tools,
    }))
}
