//! The table of operations. Sorted by resource; a test compares it with the registered routes.

use super::Operation;
use super::Permission::{self, *};
use super::Target::{self, *};
use super::Trail::{self, *};

const fn on(id: &'static str, permission: Permission, target: Target, trail: Trail) -> Operation {
    Operation { id, permission, target, trail }
}

/// Every operation of the API.
pub const OPERATIONS: &[Operation] = &[
    on("show_self", SelfRead, Own, Refusals),
    on("show_openapi", SelfRead, Own, Refusals),
    on("list_roles", RolesRead, Own, Refusals),
    on("list_permissions", RolesRead, Own, Refusals),
    on("list_health", HealthRead, Tenant, Refusals),
    on("show_platform_health", PlatformRead, Platform, Refusals),
    on("stream_events", EventsRead, Own, Refusals),
];
