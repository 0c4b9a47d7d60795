//! Documents and their revisions: read, publish, compare, roll back, and how far replicas are.
//!
//! A document goes in and out as YAML; what comes out are the bytes of the store. Each operation is there twice, for a
//! tenant and for the platform: the permissions differ, what is done ([`work`]) does not.

mod platform;
mod tenant;
mod views;
mod work;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use crate::control::gate::Gated as _;

pub(super) fn operations(router: OpenApiRouter<Api>) -> OpenApiRouter<Api> {
    router
        .operation(routes!(tenant::read_document))
        .operation(routes!(tenant::replace_document))
        .operation(routes!(tenant::list_revisions))
        .operation(routes!(tenant::read_revision))
        .operation(routes!(tenant::compare_revisions))
        .operation(routes!(tenant::compare_document))
        .operation(routes!(tenant::rollback_document))
        .operation(routes!(tenant::show_convergence))
        .operation(routes!(platform::read_platform_document))
        .operation(routes!(platform::replace_platform_document))
        .operation(routes!(platform::apply_documents))
        .operation(routes!(platform::list_platform_revisions))
        .operation(routes!(platform::read_platform_revision))
        .operation(routes!(platform::compare_platform_revisions))
        .operation(routes!(platform::compare_platform_document))
        .operation(routes!(platform::rollback_platform_document))
        .operation(routes!(platform::show_platform_convergence))
        .operation(routes!(platform::list_convergence))
}
