//! Servers, routes, policies, limits and issuers, one by one: each is part of its tenant's document, and each edit a
//! revision of it. The tag of an object is the revision of the document.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json as Answer};
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::bulk::{Bulk, BulkDone};
use super::in_tenant::{Conditional, Named, Path, Write};
use crate::base::{Scope, TenantId};
use crate::config::Diagnostics;
use crate::config::edit::{self, EditError, Kind};
use crate::control::documents::{Edit, Edited, current, findings};
use crate::control::etag::{self, Precondition};
use crate::control::extract::{At, Caller, Json, Params, Reason};
use crate::control::gate::Gated as _;
use crate::control::list::{self, ListQuery};
use crate::control::page::Page;
use crate::control::problem::{FieldError, Problem};
use crate::control::query::{self, Field, sortable};

const FIELDS: &[Field] = &[sortable("name", query::Kind::Text)];

/// One of them, with everything around it.
pub(super) struct Place {
    pub(super) api: Api,
    pub(super) kind: Kind,
    tenant: TenantId,
}

impl Place {
    fn scope(&self) -> Scope {
        Scope::Tenant(self.tenant.clone())
    }

    async fn list(&self, ask: &ListQuery, operation: &str) -> Result<Response, Problem> {
        let current = current(&self.api, &self.scope()).await?;
        let objects = edit::list(&current.document, self.kind).into_iter().map(|(_, object)| object);
        let page = list::page(objects, ask, &[operation, self.tenant.as_str()], FIELDS)?;
        Ok(([etag::header(&current.tag())], Answer(page)).into_response())
    }

    async fn show(&self, name: &str) -> Result<Response, Problem> {
        let current = current(&self.api, &self.scope()).await?;
        let found = edit::get(&current.document, self.kind, name).ok_or_else(Problem::not_found)?;
        Ok(([etag::header(&current.tag())], Answer(found)).into_response())
    }

    async fn put(&self, name: &str, how: How, object: Value) -> Result<Response, Problem> {
        let kind = self.kind;
        let (existed, index) = (AtomicBool::new(false), AtomicUsize::new(0));
        let edited = how
            .edit(self)?
            .run(
                |document| edit::get(document, kind, name).is_some(),
                |document| {
                    let names = edit::list(document, kind);
                    let at = names.iter().position(|(known, _)| known == name);
                    existed.store(at.is_some(), Ordering::Relaxed);
                    index.store(at.unwrap_or(names.len()), Ordering::Relaxed);
                    edit::put(document, kind, name, &object).map_err(|e| refused(&e))
                },
            )
            .await
            .map_err(|problem| problem.within(&place(kind, index.load(Ordering::Relaxed))))?;
        let status = match existed.into_inner() || edited.dry_run {
            true => StatusCode::OK,
            false => StatusCode::CREATED,
        };
        Ok((status, [etag::header(&etag::of_revision(edited.revision))], Answer(edited)).into_response())
    }

    async fn delete(&self, name: &str, how: How) -> Result<Response, Problem> {
        let kind = self.kind;
        let edited = how
            .edit(self)?
            .run(
                |document| edit::get(document, kind, name).is_some(),
                |document| edit::remove(document, kind, name).map_err(|e| refused(&e)),
            )
            .await
            .map_err(|problem| {
                problem.not_sent(format!("without the {kind} `{name}` the document would not be good"))
            })?;
        Ok(([etag::header(&etag::of_revision(edited.revision))], Answer(edited)).into_response())
    }

    /// Which object a place in a document belongs to, and the rest of the pointer.
    pub(super) fn split(pointer: &str, kind: Kind) -> Option<(usize, &str)> {
        let inside = pointer.strip_prefix(list_of(kind))?.strip_prefix('/')?;
        let (index, rest) = inside.split_at(inside.find('/').unwrap_or(inside.len()));
        Some((index.parse().ok()?, rest))
    }
}

/// Where an object is in its document, as a JSON pointer.
pub(super) fn place(kind: Kind, index: usize) -> String {
    format!("{}/{index}", list_of(kind))
}

fn list_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Issuer => "/identity/issuers",
        Kind::Limit => "/limits",
        Kind::Policy => "/policies",
        Kind::Route => "/routes",
        Kind::Server => "/servers",
        Kind::Tenant => "/tenants",
    }
}

/// What the error of an edit means to a caller.
pub(super) fn refused(error: &EditError) -> Problem {
    match error {
        EditError::NotFound { .. } => Problem::not_found(),
        EditError::Document(diagnostics) => document(diagnostics),
        EditError::Name(_) | EditError::Kind(_) => Problem::bad_request(error.to_string()),
        EditError::OtherName(_) => Problem::invalid([FieldError::new("/name", error.to_string())]),
        EditError::Shape(_) => Problem::invalid([FieldError::new("", error.to_string())]),
    }
}

/// 422 with every finding.
pub(in crate::control) fn document(diagnostics: &Diagnostics) -> Problem {
    Problem::invalid(findings(diagnostics))
}

/// Everything that says how an edit is made.
pub(super) struct How {
    actor: Caller,
    reason: Reason,
    precondition: Precondition,
    dry_run: bool,
}

impl How {
    pub(super) fn edit<'a>(&self, place: &'a Place) -> Result<Edit<'a>, Problem> {
        Ok(Edit {
            api: &place.api,
            actor: self.actor.0.clone(),
            scope: place.scope(),
            reason: self.reason.0.clone(),
            precondition: self.precondition.clone().required()?,
            dry_run: self.dry_run,
        })
    }
}

macro_rules! objects {
    ($($kind:ident $tag:literal $schema:literal: $list:ident $all:literal $what_list:literal, $show:ident $one:literal $what_show:literal,
        $put:ident $what_put:literal, $delete:ident $what_delete:literal, $bulk:ident $many:literal $what_bulk:literal;)+) => {
        pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
            router$(
                .operation(routes!($list))
                .operation(routes!($show))
                .operation(routes!($put))
                .operation(routes!($delete))
                .operation(routes!($bulk)))+
        }

        $(
        #[utoipa::path(get, path = $all, tag = $tag, summary = $what_list, params(Path, ListQuery),
            responses((status = 200, description = "Objects by name. `ETag` is the document's revision.", body = Page<Value>)))]
        async fn $list(
            State(api): State<Api>,
            Extension(tenant): Extension<TenantId>,
            Params(ask): Params<ListQuery>,
        ) -> Result<Response, Problem> {
            Place { api, kind: Kind::$kind, tenant }.list(&ask, stringify!($list)).await
        }

        #[utoipa::path(get, path = $one, tag = $tag, summary = $what_show, params(Named),
            responses((status = 200, description = "The object as it stands in the document. `ETag` is its revision.", body = Value)))]
        async fn $show(
            State(api): State<Api>,
            Extension(tenant): Extension<TenantId>,
            At(at): At<Named>,
        ) -> Result<Response, Problem> {
            Place { api, kind: Kind::$kind, tenant }.show(at.name()?).await
        }

        #[utoipa::path(put, path = $one, tag = $tag, summary = $what_put,
            params(Named, Write, Conditional), request_body = Value,
            responses((status = 200, description = "Replaced, or tried.", body = Edited),
                (status = 201, description = "Added.", body = Edited),
                (status = 412, description = "Somebody changed the document since it was read."),
                (status = 422, description = "The document would not be good."),
                (status = 428, description = "No precondition.")))]
        #[allow(clippy::too_many_arguments, reason = "one extractor per part of the request")]
        async fn $put(
            State(api): State<Api>,
            Extension(tenant): Extension<TenantId>,
            actor: Caller,
            At(at): At<Named>,
            Params(write): Params<Write>,
            reason: Reason,
            precondition: Precondition,
            Json(object): Json<Value>,
        ) -> Result<Response, Problem> {
            let how = How { actor, reason, precondition, dry_run: write.dry_run };
            Place { api, kind: Kind::$kind, tenant }.put(at.name()?, how, object).await
        }

        #[utoipa::path(delete, path = $one, tag = $tag, summary = $what_delete,
            params(Named, Write, Conditional),
            responses((status = 200, description = "Taken out, or tried.", body = Edited),
                (status = 412, description = "Somebody changed the document since it was read."),
                (status = 422, description = "The document would not be good."),
                (status = 428, description = "No precondition.")))]
        async fn $delete(
            State(api): State<Api>,
            Extension(tenant): Extension<TenantId>,
            actor: Caller,
            At(at): At<Named>,
            Params(write): Params<Write>,
            reason: Reason,
            precondition: Precondition,
        ) -> Result<Response, Problem> {
            let how = How { actor, reason, precondition, dry_run: write.dry_run };
            Place { api, kind: Kind::$kind, tenant }.delete(at.name()?, how).await
        }

        #[utoipa::path(post, path = $many, tag = $tag, summary = $what_bulk,
            params(Path, Write, Conditional), request_body = Bulk,
            responses((status = 207, description = "What became of each item.", body = BulkDone),
                (status = 412, description = "Somebody changed the document since it was read."),
                (status = 422, description = "The document would not be good."),
                (status = 428, description = "No precondition.")))]
        async fn $bulk(
            State(api): State<Api>,
            Extension(tenant): Extension<TenantId>,
            actor: Caller,
            Params(write): Params<Write>,
            reason: Reason,
            precondition: Precondition,
            Json(bulk): Json<Bulk>,
        ) -> Result<Response, Problem> {
            let how = How { actor, reason, precondition, dry_run: write.dry_run };
            Place { api, kind: Kind::$kind, tenant }.bulk(how, bulk).await
        }
        )+
    };
}

objects! {
    Server "servers" "Server":
        list_servers "/api/v1/tenants/{tenant}/servers" "Servers of a tenant",
        show_server "/api/v1/tenants/{tenant}/servers/{name}" "One server",
        put_server "Add or replace a server",
        delete_server "Take a server out",
        bulk_servers "/api/v1/tenants/{tenant}/servers:bulk" "Several servers as one revision";
    Route "routes" "Route":
        list_routes "/api/v1/tenants/{tenant}/routes" "Routes of a tenant",
        show_route "/api/v1/tenants/{tenant}/routes/{name}" "One route",
        put_route "Add or replace a route",
        delete_route "Take a route out",
        bulk_routes "/api/v1/tenants/{tenant}/routes:bulk" "Several routes as one revision";
    Policy "policies" "Policy":
        list_policies "/api/v1/tenants/{tenant}/policies" "Policies of a tenant",
        show_policy "/api/v1/tenants/{tenant}/policies/{name}" "One policy",
        put_policy "Add or replace a policy",
        delete_policy "Take a policy out",
        bulk_policies "/api/v1/tenants/{tenant}/policies:bulk" "Several policies as one revision";
    Limit "limits" "Limit":
        list_limits "/api/v1/tenants/{tenant}/limits" "Limits of a tenant",
        show_limit "/api/v1/tenants/{tenant}/limits/{name}" "One limit",
        put_limit "Add or replace a limit",
        delete_limit "Take a limit out",
        bulk_limits "/api/v1/tenants/{tenant}/limits:bulk" "Several limits as one revision";
    Issuer "issuers" "Issuer":
        list_issuers "/api/v1/tenants/{tenant}/issuers" "Issuers of a tenant",
        show_issuer "/api/v1/tenants/{tenant}/issuers/{name}" "One issuer",
        put_issuer "Add or replace an issuer",
        delete_issuer "Take an issuer out",
        bulk_issuers "/api/v1/tenants/{tenant}/issuers:bulk" "Several issuers as one revision";
}
