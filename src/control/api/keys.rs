//! API keys: shown once when they are made, kept as hashes.

use std::time::Duration;

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
use super::people::principal;
use super::reach::{may_act_on, may_act_on_key, principal_of};
use super::{Api, When, may_give};
use crate::auth::{KeyHash, KeyRecord, generate_api_key};
use crate::base::{Role, TenantId};
use crate::control::actor::{Actor, is_reserved};
use crate::control::extract::{At, Caller, Json, Params};
use crate::control::gate::Gated as _;
use crate::control::keys::revoked;
use crate::control::list::{self, ListQuery, every_row};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{Field, Kind, sortable};
use crate::control::trail::note;
use crate::store::{ApiKey, NewApiKey, Page as Rows, Store, Time};

/// Longest note, in characters.
const MAX_NOTE: usize = 500;
/// Longest overlap of a rotated key, in seconds: 90 days.
const MAX_OVERLAP: u64 = 90 * 86_400;

const FIELDS: &[Field] = &[
    sortable("id", Kind::Text),
    sortable("principal", Kind::Text),
    sortable("author", Kind::Text),
    sortable("disabled", Kind::Bool),
    sortable("note", Kind::Text),
    sortable("created", Kind::Time),
    sortable("expires", Kind::Time),
    sortable("last_used", Kind::Time),
];

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(list_api_keys))
        .operation(routes!(create_api_key))
        .operation(routes!(show_api_key))
        .operation(routes!(rotate_api_key))
        .operation(routes!(delete_api_key))
}

/// What a key may be used for, as globs. An empty list does not restrict.
#[derive(Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Scopes {
    /// Names of routes.
    routes: Vec<String>,
    /// Names of servers.
    servers: Vec<String>,
    /// Names of tools.
    tools: Vec<String>,
    /// JSON-RPC methods.
    methods: Vec<String>,
}

/// A key to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Who it stands for, such as `corp|alice`: nobody who was given more than the caller has. Unless given: itself.
    #[schema(max_length = 256)]
    principal: Option<String>,
    /// Names of roles; none above the caller's own.
    #[schema(min_items = 1)]
    roles: Vec<String>,
    /// What it is restricted to. A restricted key does not open this API.
    #[serde(default)]
    scopes: Scopes,
    /// Networks from which it may be used, such as `10.0.0.0/8`; any unless given.
    #[serde(default)]
    cidr: Vec<String>,
    /// From when on it is refused.
    #[schema(format = DateTime)]
    expires: Option<String>,
    /// For people.
    #[schema(max_length = 500)]
    note: Option<String>,
}

/// How a key is replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
struct Rotation {
    /// For how many seconds the old key is still good; at most 90 days.
    #[schema(maximum = 7776000)]
    overlap_seconds: u64,
}

/// A key, without its text.
#[derive(Serialize, ToSchema)]
struct KeyView {
    /// The part of the key between `tg_` and the next `_`.
    id: String,
    /// Who it stands for.
    principal: String,
    /// Its roles.
    roles: Vec<String>,
    /// What it is restricted to.
    scopes: Scopes,
    /// Networks from which it may be used.
    cidr: Vec<String>,
    /// Who made it.
    author: String,
    /// Whether it is switched off.
    disabled: bool,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// When it was made.
    created: When,
    /// From when on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<When>,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used: Option<When>,
}

/// A key that was made, with its text: this is the only time that it is shown.
#[derive(Serialize, ToSchema)]
struct MadeKey {
    /// The key.
    key: String,
    /// What is kept of it.
    #[serde(flatten)]
    view: KeyView,
}

/// What the stored record says that the row does not.
#[derive(Deserialize)]
struct Recorded {
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    scopes: Scopes,
    #[serde(default)]
    cidr: Vec<String>,
    note: Option<String>,
}

impl TryFrom<ApiKey> for KeyView {
    type Error = Problem;

    fn try_from(row: ApiKey) -> Result<Self, Problem> {
        let recorded: Recorded = serde_json::from_str(&row.record).map_err(Problem::internal)?;
        Ok(Self {
            id: row.id,
            principal: row.principal,
            roles: recorded.roles,
            scopes: recorded.scopes,
            cidr: recorded.cidr,
            author: row.author,
            disabled: row.disabled,
            note: recorded.note,
            created: row.created_at.into(),
            expires: row.expires_at.map(Into::into),
            last_used: row.last_used_at.map(Into::into),
        })
    }
}

/// API keys, without their text
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/api-keys", tag = "api-keys", params(Path, ListQuery),
    responses((status = 200, description = "Keys by id, or as asked.", body = Page<KeyView>)))]
async fn list_api_keys(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Params(ask): Params<ListQuery>,
) -> Result<Response, Problem> {
    let scope = api.store()?.tenant(&tenant);
    if !ask.is_plain() {
        let rows = every_row!(
            |after| scope.api_keys(after.map(String::as_str), Rows::of(Rows::MAX)),
            |row: &ApiKey| row.id.clone()
        );
        let rows = rows.into_iter().map(KeyView::try_from).collect::<Result<Vec<_>, _>>()?;
        let list = ["list_api_keys", tenant.as_str()];
        return Ok(Answer(list::page(rows, &ask, &list, FIELDS)?).into_response());
    }
    let slice = Walk::from(ask).slice("list_api_keys", &tenant, 1)?;
    let rows = scope.api_keys(slice.after_text(), slice.rows()).await?;
    let page = slice.page(rows, |row| vec![Value::from(row.id.clone())]);
    let items = page.items.into_iter().map(KeyView::try_from).collect::<Result<Vec<_>, _>>()?;
    Ok(Answer(Page { items, next_cursor: page.next_cursor }).into_response())
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Path)]
struct OneKey {
    /// Whose.
    tenant: String,
    /// The part of the key between `tg_` and the next `_`.
    id: String,
}

impl OneKey {
    async fn find(&self, store: &Store) -> Result<ApiKey, Problem> {
        let tenant = TenantId::new(self.tenant.as_str());
        if !self.id.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(Problem::not_found());
        }
        store.tenant(&tenant).api_key(&self.id).await?.ok_or_else(Problem::not_found)
    }
}

/// One API key, without its text
#[utoipa::path(get, path = "/api/v1/tenants/{tenant}/api-keys/{id}", tag = "api-keys", params(OneKey),
    responses((status = 200, description = "The key.", body = KeyView)))]
async fn show_api_key(State(api): State<Api>, At(at): At<OneKey>) -> Result<Answer<KeyView>, Problem> {
    KeyView::try_from(at.find(api.store()?).await?).map(Answer)
}

/// Make an API key
///
/// The answer has the key, once. Only its hash is kept.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/api-keys", tag = "api-keys", params(Path, Repeatable),
    request_body = NewKey,
    responses((status = 201, description = "The key.", body = MadeKey),
        (status = 403, description = "A role is above the caller's own."),
        (status = 422, description = "The key is not as it must be.")))]
async fn create_api_key(
    State(api): State<Api>,
    Extension(tenant): Extension<TenantId>,
    Caller(actor): Caller,
    Json(new): Json<NewKey>,
) -> Result<Response, Problem> {
    let store = api.store()?;
    if new.roles.is_empty() {
        return Err(Problem::invalid([FieldError::new("/roles", "there must be at least one role")]));
    }
    for (i, name) in new.roles.iter().enumerate() {
        let role = name.parse::<Role>();
        let pointer = format!("/roles/{i}");
        let role = role.map_err(|e| Problem::invalid([FieldError::new(&pointer, e.to_string())]))?;
        may_give(&actor, &tenant, role)?;
    }
    if let Some(id) = &new.principal {
        let wrong = |problem: Problem| Problem::invalid([FieldError::new("/principal", problem.detail())]);
        may_act_on(&actor, &store.tenant(&tenant), principal(id).map_err(wrong)?).await?;
        // Not for the platform either: what is done with a key would be recorded as done with the token.
        if is_reserved(id) {
            return Err(wrong(Problem::forbidden("no key stands for a token of the installation")));
        }
    }
    let network =
        |text: &str| text.parse::<ipnet::IpNet>().is_ok() || text.parse::<std::net::IpAddr>().is_ok();
    if let Some(at) = new.cidr.iter().position(|text| !network(text)) {
        let error = FieldError::new(format!("/cidr/{at}"), "this is no network");
        return Err(Problem::invalid([error.expecting("one such as `10.0.0.0/8`, or an address")]));
    }
    if new.note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE) {
        return Err(Problem::invalid([FieldError::new("/note", format!("at most {MAX_NOTE} characters"))]));
    }
    let expires = match &new.expires {
        None => None,
        Some(text) => Some(Time::parse(text).filter(|at| *at > store.now()).ok_or_else(|| {
            let error = FieldError::new("/expires", "this is no time to come");
            Problem::invalid([error.expecting("a time such as 2027-01-31T12:00:00Z")])
        })?),
    };
    let made = Made::new(store, &new, expires)?;
    let row = store.tenant(&tenant).put_api_key(made.row(&actor)).await?;
    Ok((StatusCode::CREATED, Answer(made.shown(&new, row)?)).into_response())
}

/// Replace an API key
///
/// Makes a key with the same owner, roles and restrictions. The old one stays good for the overlap. A key that is not good
/// any more has no successor.
#[utoipa::path(post, path = "/api/v1/tenants/{tenant}/api-keys/{id}/rotate", tag = "api-keys",
    params(OneKey, Repeatable), request_body = Rotation,
    responses((status = 201, description = "The new key.", body = MadeKey),
        (status = 403, description = "A role of the key, or of whom it stands for, is above the caller's own."),
        (status = 409, description = "The key is switched off, expired or revoked, or was changed meanwhile.")))]
async fn rotate_api_key(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneKey>,
    Json(rotation): Json<Rotation>,
) -> Result<Response, Problem> {
    if rotation.overlap_seconds > MAX_OVERLAP {
        let error = FieldError::new("/overlap_seconds", format!("at most {MAX_OVERLAP}"));
        return Err(Problem::invalid([error]));
    }
    let store = api.store()?;
    let tenant = TenantId::new(at.tenant.as_str());
    let old = at.find(store).await?;
    let scope = store.tenant(&tenant);
    may_act_on_key(&actor, &scope, &old).await?;
    // A key that stood for itself goes on standing for the old one: limits and bindings stay.
    let owner = principal_of(&old);
    if is_reserved(&owner) {
        let detail = "the key stands for a token of the installation: delete it";
        return Err(Problem::conflict("key_not_good", detail));
    }
    let standing = scope.standing(&owner, &old.id).await?;
    let created = u64::try_from(old.created_at.secs()).ok();
    let over = old.expires_at.is_some_and(|at| at <= store.now());
    if old.disabled || over || revoked(&standing, &owner, &old.id, created) {
        let detail = "the key is switched off, expired or revoked: make another one";
        return Err(Problem::conflict("key_not_good", detail));
    }
    let recorded: Recorded = serde_json::from_str(&old.record).map_err(Problem::internal)?;
    let new = NewKey {
        principal: Some(owner),
        roles: recorded.roles,
        scopes: recorded.scopes,
        cidr: recorded.cidr,
        expires: None,
        note: recorded.note,
    };
    let end = store.now().plus(Duration::from_secs(rotation.overlap_seconds));
    let end = old.expires_at.map_or(end, |at| at.min(end));
    let mut record: Value = serde_json::from_str(&old.record).map_err(Problem::internal)?;
    record["expires"] = json!(end.secs().max(0));
    let record = record.to_string();
    let retired = NewApiKey {
        id: &old.id,
        principal: &old.principal,
        record: &record,
        author: &old.author,
        disabled: old.disabled,
        expires_at: Some(end),
    };
    let made = Made::new(store, &new, old.expires_at)?;
    // One that was taken away, switched off or replaced since is not brought back.
    let as_seen = |found: &ApiKey| {
        let changed = || Problem::conflict("key_changed", "the key was changed meanwhile: look at it again");
        (found.record == old.record && found.disabled == old.disabled).then_some(()).ok_or_else(changed)
    };
    let row = scope.succeed_api_key(retired, made.row(&actor), as_seen).await?;
    let shown = made.shown(&new, row)?;
    note(|notes| notes.changes.push(format!("in place of {}", old.id)));
    Ok((StatusCode::CREATED, Answer(shown)).into_response())
}

/// Revoke an API key
///
/// It is refused at once here, and within moments by every data plane.
#[utoipa::path(delete, path = "/api/v1/tenants/{tenant}/api-keys/{id}", tag = "api-keys", params(OneKey),
    responses((status = 204, description = "Gone."),
        (status = 403, description = "A role of the key, or of whom it stands for, is above the caller's own.")))]
async fn delete_api_key(
    State(api): State<Api>,
    Caller(actor): Caller,
    At(at): At<OneKey>,
) -> Result<StatusCode, Problem> {
    let store = api.store()?;
    let tenant = TenantId::new(at.tenant.as_str());
    let scope = store.tenant(&tenant);
    let key = at.find(store).await?;
    may_act_on_key(&actor, &scope, &key).await?;
    scope.remove_api_key(&at.id).await?;
    note(|notes| {
        notes.object = Some(at.id.clone());
        notes.changes.push(format!("principal: {}", principal_of(&key)));
    });
    Ok(StatusCode::NO_CONTENT)
}

/// A key that is not in the store yet.
struct Made {
    key: crate::auth::NewKey,
    /// What is kept of it.
    record: String,
    principal: String,
    expires: Option<Time>,
}

impl Made {
    fn new(store: &Store, new: &NewKey, expires: Option<Time>) -> Result<Self, Problem> {
        let key = generate_api_key(&mut rand::rng());
        let mut record = json!({
            "id": key.id,
            "hash": KeyHash::of(key.text.expose().as_bytes(), None).to_string(),
            "roles": new.roles,
            "scopes": new.scopes,
            "cidr": new.cidr,
            "created": store.now().secs().max(0),
        });
        if let Some(principal) = &new.principal {
            record["principal"] = json!(principal);
        }
        if let Some(at) = expires {
            record["expires"] = json!(at.secs().max(0));
        }
        if let Some(note) = &new.note {
            record["note"] = json!(note);
        }
        let record = record.to_string();
        KeyRecord::parse(&record).map_err(|what| Problem::invalid([FieldError::new("", what)]))?;
        let principal = new.principal.clone().unwrap_or_else(|| format!("key|{}", key.id));
        Ok(Self { key, record, principal, expires })
    }

    fn row<'a>(&'a self, author: &'a Actor) -> NewApiKey<'a> {
        NewApiKey {
            id: &self.key.id,
            principal: &self.principal,
            record: &self.record,
            author: &author.id,
            disabled: false,
            expires_at: self.expires,
        }
    }

    /// The answer, once it is in the store.
    fn shown(self, new: &NewKey, row: ApiKey) -> Result<MadeKey, Problem> {
        note(|notes| {
            notes.object = Some(self.key.id.clone());
            notes.changes.push(format!("principal: {}", row.principal));
            notes.changes.push(format!("roles: {}", new.roles.join(", ")));
            notes.changes.extend(self.expires.map(|at| format!("expires: {at}")));
        });
        Ok(MadeKey { key: self.key.text.expose().clone(), view: row.try_into()? })
    }
}
