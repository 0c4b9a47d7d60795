//! Who may do what: one table of permissions, one table of operations, one function that decides.
//!
//! - A [`Permission`] is named `resource:action` and says from which role on it is held, or that the `auditor` add-on
//!   holds it.
//! - An [`Operation`] is one entry of the API: the `operationId` of its OpenAPI description, the permission it needs,
//!   and what it acts on. A route cannot be registered without one ([`super::gate`]).
//! - [`decide`] is the only place that says yes. It is a pure function of the actor, the tenant of the address and the
//!   operation, so the whole table is tested and printed (`docs/permissions.md`).
//!
//! A tenant that is not the actor's own is answered as one that does not exist.

mod operations;
mod page;

use crate::base::{Role, TenantId};

use super::actor::Actor;

pub use operations::OPERATIONS;
pub use page::page;

/// What an operation acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The caller, or nothing that belongs to anybody.
    Own,
    /// The installation or several tenants: only for who runs the platform.
    Platform,
    /// The tenant in the address.
    Tenant,
}

/// Which uses of an operation the audit log has. Refusals are always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trail {
    /// All uses.
    Always,
    /// Refused ones only: it shows what its caller may see anyway.
    Refusals,
}

macro_rules! permissions {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $holder:expr;)+) => {
        /// A named ability.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Permission {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Permission {
            /// Every permission.
            pub const ALL: &[Permission] = &[$(Permission::$name,)+];

            /// The name, `resource:action`.
            pub fn as_str(self) -> &'static str {
                match self { $(Permission::$name => $text,)+ }
            }

            /// The permission of this name.
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|permission| permission.as_str() == name)
            }

            /// What it allows, for people.
            pub fn summary(self) -> &'static str {
                match self { $(Permission::$name => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// Who holds it.
            pub fn holder(self) -> Holder {
                match self { $(Permission::$name => $holder,)+ }
            }
        }
    };
}

/// Who holds a permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// This role and the stronger ones.
    From(Role),
    /// This role, the stronger ones, and auditors of the tenant.
    FromOrAuditor(Role),
    /// Auditors of the tenant; no role suffices.
    AuditorOnly,
}

permissions! {
    /// See who you are and what you may do
    SelfRead = "self:read", Holder::From(Role::Anonymous);
    /// See servers' health, load and readiness
    HealthRead = "health:read", Holder::From(Role::Viewer);
    /// See how much is used, by whom
    UsageRead = "usage:read", Holder::FromOrAuditor(Role::Viewer);
    /// Follow live events
    EventsRead = "events:read", Holder::From(Role::Viewer);
    /// See roles and permissions
    RolesRead = "roles:read", Holder::From(Role::Viewer);
    /// Change the tenant's own roles
    RolesWrite = "roles:write", Holder::From(Role::Admin);
    /// Read documents, their objects and revisions; ask what a document would do
    ConfigRead = "config:read", Holder::From(Role::ServerOwner);
    /// Change servers
    ServersWrite = "servers:write", Holder::From(Role::ServerOwner);
    /// Change routes, policies, limits, issuers and the document as a whole; roll back; try a revision
    ConfigWrite = "config:write", Holder::From(Role::Admin);
    /// See users and role bindings
    UsersRead = "users:read", Holder::FromOrAuditor(Role::Admin);
    /// Change users and role bindings, revoke credentials
    UsersWrite = "users:write", Holder::From(Role::Admin);
    /// See API keys, without their text
    KeysRead = "keys:read", Holder::FromOrAuditor(Role::Admin);
    /// Make, rotate and revoke API keys
    KeysWrite = "keys:write", Holder::From(Role::Admin);
    /// See names of secrets, never values
    SecretsRead = "secrets:read", Holder::From(Role::Admin);
    /// Set and delete secrets
    SecretsWrite = "secrets:write", Holder::From(Role::Admin);
    /// Search, export and follow the audit log
    AuditRead = "audit:read", Holder::FromOrAuditor(Role::Admin);
    /// Erase what events of a principal say
    AuditErase = "audit:erase", Holder::From(Role::Admin);
    /// Read recorded bodies
    AuditBodies = "audit:bodies", Holder::AuditorOnly;
    /// See sessions and streams
    SessionsRead = "sessions:read", Holder::From(Role::Admin);
    /// Close sessions and streams
    SessionsClose = "sessions:close", Holder::From(Role::Admin);
    /// See replicas, the platform document and all tenants
    PlatformRead = "platform:read", Holder::From(Role::SuperAdmin);
    /// Change the platform document and tenants
    PlatformWrite = "platform:write", Holder::From(Role::SuperAdmin);
}

/// One entry of the API.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The `operationId`.
    pub id: &'static str,
    /// What it needs.
    pub permission: Permission,
    /// What it acts on.
    pub target: Target,
    /// Which uses the audit log has.
    pub trail: Trail,
}

impl Operation {
    /// The operation with this `operationId`.
    pub fn find(id: &str) -> Option<&'static Operation> {
        OPERATIONS.iter().find(|o| o.id == id)
    }

    /// Whether it makes something, or asks what would be, in a tenant that must be there. What is left of one that was taken
    /// out can be read, removed and erased.
    pub fn needs_tenant(&self, method: &http::Method) -> bool {
        let reads = matches!(*method, http::Method::GET | http::Method::HEAD | http::Method::DELETE);
        self.target == Target::Tenant && !reads && self.id != "erase_audit"
    }
}

/// Why [`decide`] said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The caller does not have the permission.
    Missing(Permission),
    /// The tenant is not the caller's. Answered as if it did not exist.
    ForeignTenant,
}

/// Whether `actor` may do `operation` in `tenant`, the one that the address names.
///
/// # Errors
///
/// See [`Refusal`].
pub fn decide(actor: &Actor, tenant: Option<&TenantId>, operation: &Operation) -> Result<(), Refusal> {
    let missing = Err(Refusal::Missing(operation.permission));
    match (operation.target, tenant) {
        (Target::Platform, _) if !actor.is_platform() => return missing,
        // An address without a tenant cannot be one of a tenant's; refusing is the safe side of a mistake.
        (Target::Tenant, None) => return Err(Refusal::ForeignTenant),
        (_, Some(tenant)) if !actor.is_platform() && *tenant != actor.tenant => {
            return Err(Refusal::ForeignTenant);
        }
        _ => {}
    }
    if holds(actor, operation.permission) { Ok(()) } else { missing }
}

/// Whether a tenant's own role can hold a permission: not those of the platform, and not that to read recorded bodies,
/// which only the `auditor` add-on gives.
pub fn may_be_given(permission: Permission) -> bool {
    !matches!(permission.holder(), Holder::From(Role::SuperAdmin) | Holder::AuditorOnly)
}

/// Some permissions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u64);

impl Permissions {
    /// Whether this is one of them.
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u64) != 0
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        const { assert!(Permission::ALL.len() <= 64, "one bit each") };
        Self(permissions.into_iter().fold(0, |bits, permission| bits | (1 << permission as u64)))
    }
}

/// Whether the actor has a permission, where they may use it at all.
pub fn holds(actor: &Actor, permission: Permission) -> bool {
    if actor.custom.contains(permission) && may_be_given(permission) {
        return true;
    }
    let at_least = |role: Role| actor.role() >= role;
    match permission.holder() {
        Holder::From(role) => at_least(role),
        Holder::FromOrAuditor(role) => at_least(role) || actor.auditor,
        Holder::AuditorOnly => actor.auditor,
    }
}

#[cfg(test)]
mod tests;
