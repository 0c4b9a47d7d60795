//! The OpenAPI 3.1 description of the API, generated from the handlers that serve it.
//!
//! What every operation has in common is added here and not repeated at each: the bearer scheme, the refusals, the
//! problem details, the header with the request id.

mod answers;
mod objects;
mod parameters;

use std::sync::OnceLock;

use axum::Router;
use bytes::Bytes;
use serde_json::Value;
use utoipa::OpenApi as _;
use utoipa::openapi::path::{Operation as Described, PathItem, Paths};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{OpenApi, RefOr, Response, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;

use super::api::{self, Api};
use super::problem::{Body, FieldError};

pub(super) use self::parameters::{Parameters, parameters};

/// The name of the one security scheme.
const SCHEME: &str = "bearer";

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Tollgate control API",
        description = "Configuration, identity, audit and operation of a Tollgate installation. Errors are problem \
                       details (RFC 9457). Lists are paged by opaque cursors. Changes of what was read before need \
                       its ETag in `If-Match`. See docs/api.md and docs/permissions.md.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(Body<'static>, FieldError)),
    servers((url = "/")),
)]
struct Base;

/// The router of all operations, and their description.
pub(super) fn build() -> (Router<Api>, OpenApi) {
    let router = OpenApiRouter::with_openapi(Base::openapi());
    let (router, mut openapi) = api::operations(router).split_for_parts();
    if let Some(components) = &mut openapi.components {
        let scheme = Http::builder()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The admin token made at first start, `listeners.admin.token`, or an API key."))
            .build();
        components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    }
    openapi.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
    for item in openapi.paths.paths.values_mut() {
        for (method, operation) in methods_mut(item) {
            refusals(method, operation);
        }
    }
    (router, openapi)
}

/// The refusals that any operation may answer with.
fn refusals(method: &str, operation: &mut Described) {
    const CHANGES: [(&str, &str); 5] = [
        ("409", "It conflicts with what is there, or the same request is still running."),
        ("412", "It is not what the caller last saw."),
        ("413", "The body is too long."),
        ("415", "The body is of another kind."),
        ("422", "The body, or the idempotency key, is not as it must be."),
    ];
    let texts = [
        ("400", "The request is not as it must be."),
        ("401", "No good credential."),
        ("403", "The caller does not have the permission."),
        ("404", "It does not exist, or belongs to somebody else."),
        ("421", "The `Host` header names another machine."),
        ("429", "Too many calls."),
        ("500", "The server failed; its log has the request id."),
        ("503", "The request took too long, or something it needs is not there."),
    ];
    let responses = &mut operation.responses.responses;
    let changes = if method == "GET" { &[][..] } else { &CHANGES[..] };
    for (status, text) in texts.iter().chain(changes).copied() {
        responses.entry(status.to_owned()).or_insert_with(|| RefOr::T(Response::new(text)));
    }
    for (_, response) in responses.iter_mut().filter(|(status, _)| status.starts_with(['4', '5'])) {
        let RefOr::T(response) = response else { continue };
        if !response.content.is_empty() {
            continue;
        }
        let schema = utoipa::openapi::Ref::from_schema_name("Problem");
        let content = utoipa::openapi::Content::new(Some(RefOr::Ref(schema)));
        response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
    }
}

/// The document as JSON: one line per thing, keys sorted as the types have them, a line break at the end.
pub fn text() -> &'static Bytes {
    static TEXT: OnceLock<Bytes> = OnceLock::new();
    TEXT.get_or_init(|| {
        let mut text = serde_json::to_string_pretty(&document()).expect("the document serializes");
        text.push('\n');
        Bytes::from(text)
    })
}

fn document() -> Value {
    let mut value = serde_json::to_value(build().1).expect("the document serializes");
    for operation in value["paths"].as_object_mut().into_iter().flat_map(|p| p.values_mut()) {
        for (method, operation) in operation.as_object_mut().into_iter().flatten() {
            answers::describe(method, operation);
        }
    }
    objects::describe(&mut value);
    value
}

/// Method, path and `operationId` of every operation, in the order of the document.
pub fn operations(openapi: &OpenApi) -> Vec<(&'static str, String, String)> {
    let ids = openapi.paths.paths.iter().flat_map(|(path, item)| {
        methods(item).map(|(method, o)| (method, path.clone(), o.operation_id.clone().unwrap_or_default()))
    });
    ids.collect()
}

/// The description that `docs/permissions.md` and the tests read.
pub fn described() -> OpenApi {
    build().1
}

/// The `operationId` of the only operation.
pub(super) fn only_id(paths: &Paths) -> String {
    let mut ids = paths.paths.values().flat_map(methods).map(|(_, o)| o.operation_id.clone());
    match (ids.next(), ids.next()) {
        (Some(Some(id)), None) => id,
        other => panic!("one operation with an id at a time, not {other:?}"),
    }
}

fn methods(item: &PathItem) -> impl Iterator<Item = (&'static str, &Described)> {
    let all = [
        ("GET", &item.get),
        ("POST", &item.post),
        ("PUT", &item.put),
        ("PATCH", &item.patch),
        ("DELETE", &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn methods_mut(item: &mut PathItem) -> impl Iterator<Item = (&'static str, &mut Described)> {
    let all = [
        ("GET", &mut item.get),
        ("POST", &mut item.post),
        ("PUT", &mut item.put),
        ("PATCH", &mut item.patch),
        ("DELETE", &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}
