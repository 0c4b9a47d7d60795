//! Revoked credentials.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::in_tenant::{Path, Repeatable, Walk};
use super::people::MAX_PRINCIPAL;
use super::reach::may_revoke;
use super::{Api, When};
use crate::auth::{RevocationRecord, RevocationTarget};
use crate::base::TenantId;
use crate::control::actor::is_token;
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery, every_row};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{Field, Kind, sortable};
use crate::control::trail::note;
use crate::store::{Page as Rows, RevocationEntry};

const FIELDS: &[Field] =
    &[sortable("id", Kind::Text), sortable("author", Kind::Text), sortable("created", Kind::Time)];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_revocations))
        .operation(routes!(create_revocation))
        .operation(routes!(delete_revocation))
}

/// Credentials that are refused whatever their signature says: exactly one of `jti`, `sub` and `principal`.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RevocationBody {
    /// One token, by its `jti`; or one API key, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// Every token with this `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    /// Every credential of a principal, such as `corp|alice`.
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    /// Only credentials of this issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Only credentials that were issued at or before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    before: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 256)]
    note: Option<String>,
}

/// A revocation.
#[derive(Serialize, ToSchema)]
struct RevocationView {
    /// Its own id.
    id: String,
    /// What is refused.
    #[schema(value_type = Object)]
    record: Value,
    /// Who revoked.
    author: String,
    /// When.
    created: When,
}

impl From<RevocationEntry> for RevocationView {
    fn from(row: RevocationEntry) -> Self {
        Self {
            id: row.id,
            record: serde_json::from_str(&row.record).unwrap_or_else(|_| json!(row.record)),
            author: row.author,
            created: row.created_at.into(),
        }
    }
}

/// Revoked credentials
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/revocations", tag = "users", params(Path, ListQuery),
    responses((status = 200, description = "The oldest first, or as asked.", body = Page<RevocationView>)))]
async fn list_revocations(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Response, Problem> {
    let scope = api.store()?.tenant(&tenant);
    if !ask.is_plain() {
        let rows = every_row!(
            |after| scope.revocations(after.map(String::as_str), Rows::of(Rows::MAX)),
            |row: &RevocationEntry| row.id.clone()
        );
        let rows = rows.into_iter().map(RevocationView::from);
        let list = ["list_revocations", tenant.as_str()];
        return Ok(Answer(list::page(rows, &ask, &list, FIELDS)?).into_response());
    }
    let slice = Walk::from(ask).slice("list_revocations", &tenant, 1)?;
    let rows = scope.revocations(slice.after_text(), slice.rows()).await?;
    let page = slice.page(rows, |row| vec![Value::from(row.id.clone())]).map(RevocationView::from);
    Ok(Answer(page).into_response())
}

/// Revoke credentials
///
/// Those of nobody who was given more than the caller has.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/revocations", tag = "users", params(Path, Repeatable),
    request_body = RevocationBody,
    responses((status = 201, description = "Revoked.", body = RevocationView),
        (status = 403, description = "They were given more than the caller has."),
        (status = 422, description = "It does not say what is revoked.")))]
async fn create_revocation(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    Json(body): Json<RevocationBody>,
) -> Result<Response, Problem> {
    let long = [&body.jti, &body.sub, &body.principal, &body.issuer, &body.note];
    if long.iter().any(|text| text.as_ref().is_some_and(|t| t.len() > MAX_PRINCIPAL)) {
        return Err(Problem::invalid([FieldError::new(
            "",
            format!("a text has more than {MAX_PRINCIPAL} bytes"),
        )]));
    }
    let record = serde_json::to_string(&body).map_err(Problem::internal)?;
    let parsed =
        RevocationRecord::parse(&record).map_err(|what| Problem::invalid([FieldError::new("", what)]))?;
    let scope = api.store()?.tenant(&tenant);
    may_revoke(&actor, &scope, &parsed).await?;
    if let RevocationTarget::Principal(principal) = &parsed.target
        && is_token(principal)
    {
        let error =
            FieldError::new("/principal", "a token of the installation is not revoked: it is replaced");
        return Err(Problem::invalid([error.expecting(
            "`POST /api/v1/platform/admin-token/rotate`, or another token in the listener's configuration",
        )]));
    }
    let row = scope.revoke(&record, &actor.id).await?;
    note(|notes| {
        notes.object = Some(row.id.clone());
        notes.changes.push(format!("refused: {}", target(&parsed.target)));
    });
    Ok((StatusCode::CREATED, Answer(RevocationView::from(row))).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneRevocation {
    /// Whose.
    tenant: String,
    /// Its id.
    #[param(max_length = 64)]
    id: String,
}

/// Take a revocation back
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/revocations/{id}", tag = "users", params(OneRevocation),
    responses((status = 204, description = "Taken back."),
        (status = 403, description = "It is about somebody who was given more than the caller has.")))]
async fn delete_revocation(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneRevocation>,
) -> Result<StatusCode, Problem> {
    if !at.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(Problem::not_found());
    }
    let tenant = TenantId::new(at.tenant.as_str());
    let scope = api.store()?.tenant(&tenant);
    let found = scope.revocation(&at.id).await?.ok_or_else(Problem::not_found)?;
    // One that cannot be read any more refuses nobody.
    let record = RevocationRecord::parse(&found.record).ok();
    if let Some(record) = &record {
        may_revoke(&actor, &scope, record).await?;
    }
    scope.unrevoke(&at.id).await?;
    note(|notes| {
        notes.object = Some(at.id.clone());
        notes
            .changes
            .extend(record.map(|record| format!("not refused any more: {}", target(&record.target))));
    });
    Ok(StatusCode::NO_CONTENT)
}

/// What a revocation refuses, for the record of it.
fn target(target: &RevocationTarget) -> String {
    match target {
        RevocationTarget::Id(id) => format!("jti {id}"),
        RevocationTarget::Principal(principal) => format!("principal {principal}"),
        RevocationTarget::Subject(subject) => format!("sub {subject}"),
    }
}
