//! Who is calling.

use std::sync::Arc;

use crate::base::{PrincipalId, Role, RoleSet, TenantId};

/// What kind of caller a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrincipalKind {
    /// Presented no credential.
    Anonymous,
    /// Presented an API key.
    Key,
    /// A program with a token of its own (client credentials).
    Service,
    /// A person.
    User,
}

impl PrincipalKind {
    /// Every kind.
    pub const ALL: [PrincipalKind; 4] =
        [PrincipalKind::Anonymous, PrincipalKind::Key, PrincipalKind::Service, PrincipalKind::User];

    /// The name used in logs and expressions.
    pub fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::Anonymous => "anonymous",
            PrincipalKind::Key => "key",
            PrincipalKind::Service => "service",
            PrincipalKind::User => "user",
        }
    }
}

/// A verified caller. Everything that decides about a request reads this, never the credential itself.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Whose the caller is.
    pub tenant: TenantId,
    /// Stable over tokens and keys: what sessions, limits and audit are bound to.
    pub id: PrincipalId,
    /// What kind of caller this is.
    pub kind: PrincipalKind,
    /// Never empty.
    pub roles: RoleSet,
    /// Group names as the issuer states them.
    pub groups: Vec<Arc<str>>,
    /// OAuth scopes of the token, or those of the key.
    pub scopes: Vec<Arc<str>>,
    /// The verified claims of a token, for expressions; `null` for others.
    pub claims: serde_json::Value,
    /// Which issuer or key store vouched, by its configured name.
    pub issuer: Option<Arc<str>>,
    /// The key's public id or the token's `jti`: safe to log.
    pub credential_id: Option<Arc<str>>,
    /// When the credential ends, in seconds since the Unix epoch. Long streams end then, too.
    pub expires_at: Option<u64>,
}

impl Principal {
    /// The caller who presented nothing.
    pub fn anonymous(tenant: TenantId, role: Role) -> Self {
        Self {
            tenant,
            id: PrincipalId::new("anonymous"),
            kind: PrincipalKind::Anonymous,
            roles: RoleSet::one(role),
            groups: Vec::new(),
            scopes: Vec::new(),
            claims: serde_json::Value::Null,
            issuer: None,
            credential_id: None,
            expires_at: None,
        }
    }

    /// The most powerful role; what limits by role go by.
    pub fn role(&self) -> Role {
        self.roles.highest().unwrap_or(Role::Anonymous)
    }
}
