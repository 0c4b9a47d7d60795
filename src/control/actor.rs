//! Who calls the API.

use std::fmt;
use std::sync::Arc;

use super::permission::Permissions;
use crate::base::{Role, RoleSet, TenantId};

/// How an actor proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The token that was made at first start.
    Bootstrap,
    /// An API key of the store.
    Key,
    /// The token of the listener's configuration.
    Listener,
}

impl Proof {
    /// The name used in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Proof::Bootstrap => "bootstrap_token",
            Proof::Key => "api_key",
            Proof::Listener => "listener_token",
        }
    }
}

/// The kind of those who hold a token of the installation: what comes before `|` in their ids.
pub const OPERATOR: &str = "operator";

/// What the commands of this program that work on the store call themselves begins so: `tollgate audit (root)`.
pub const COMMANDS: &str = "tollgate";

/// Whether a principal's id is of the kind that only tokens of the installation give or that commands of this program write,
/// or could be taken for one.
pub fn is_reserved(principal: &str) -> bool {
    let kind = principal.split('|').next().unwrap_or_default().trim();
    let command = kind.split_whitespace().next().unwrap_or_default();
    kind.eq_ignore_ascii_case(OPERATOR)
        || (command.eq_ignore_ascii_case(COMMANDS)
            && (command.len() < kind.len() || !principal.contains('|')))
}

/// Whether these are tokens of the installation: no list of revocations is asked about them.
pub fn is_token(principal: &str) -> bool {
    [Proof::Bootstrap, Proof::Listener].iter().any(|proof| *Actor::operator(*proof).id == *principal)
}

/// A verified caller of the API. [`super::permission::decide`] reads this and nothing else of the caller.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Stable over credentials; the author of what the actor changes.
    pub id: Arc<str>,
    /// Whose the actor is.
    pub tenant: TenantId,
    /// What the actor was given; empty means that nothing is allowed.
    pub roles: RoleSet,
    /// The add-on that alone may read recorded bodies.
    pub auditor: bool,
    /// What roles of the tenant's own give.
    pub custom: Permissions,
    /// How they proved who they are.
    pub proof: Proof,
    /// The public id of the credential: safe to log.
    pub credential: Arc<str>,
    /// When the credential ends, in milliseconds since the Unix epoch.
    pub expires: Option<u64>,
}

impl Actor {
    /// Who holds a token of the installation itself.
    pub fn operator(proof: Proof) -> Self {
        Self {
            id: format!("{OPERATOR}|{}", proof.as_str()).into(),
            tenant: TenantId::default(),
            roles: RoleSet::one(Role::SuperAdmin),
            auditor: false,
            custom: Permissions::default(),
            proof,
            credential: proof.as_str().into(),
            expires: None,
        }
    }

    /// Whether the actor runs the platform. `super_admin` says so only in the operator's own tenant: a tenant's
    /// administrator must not be able to give it to somebody.
    pub fn is_platform(&self) -> bool {
        self.tenant.as_str() == TenantId::default().as_str() && self.roles.contains(Role::SuperAdmin)
    }

    /// The most powerful role that counts: outside of the operator's tenant `super_admin` is no more than `admin`.
    pub fn role(&self) -> Role {
        match self.roles.highest() {
            Some(Role::SuperAdmin) if !self.is_platform() => Role::Admin,
            Some(role) => role,
            None => Role::Anonymous,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_operator_is_reserved() {
        for id in ["operator|bootstrap_token", "operator|x", "operator", " Operator |x", "OPERATOR|"] {
            assert!(is_reserved(id), "{id}");
        }
        assert!(is_reserved(&Actor::operator(Proof::Listener).id));
        for id in ["corp|operator", "operators|x", "key|operator", "x operator|y", ""] {
            assert!(!is_reserved(id), "{id}");
        }
    }

    #[test]
    fn what_commands_of_this_program_write_is_reserved() {
        for id in [
            "tollgate",
            "tollgate audit",
            "tollgate secrets (root)",
            " Tollgate admin-token (ada)",
            "tollgate x|y",
        ] {
            assert!(is_reserved(id), "{id}");
        }
        // An issuer may have any name, and whoever it vouches for is a caller like others.
        for id in ["tollgate|alice", "tollgates", "corp|tollgate audit", "x tollgate audit"] {
            assert!(!is_reserved(id), "{id}");
        }
    }

    #[test]
    fn only_the_two_tokens_of_the_installation_are_tokens() {
        assert!(is_token("operator|bootstrap_token") && is_token("operator|listener_token"));
        assert!(!is_token("operator|x") && !is_token("tollgate audit"));
    }

    #[test]
    fn super_admin_is_platform_wide_only_in_the_operators_tenant() {
        let mut actor = Actor::operator(Proof::Key);
        assert!(actor.is_platform());
        assert_eq!(actor.role(), Role::SuperAdmin);
        actor.tenant = TenantId::new("acme");
        assert!(!actor.is_platform());
        assert_eq!(actor.role(), Role::Admin);
        actor.roles = RoleSet::default();
        assert_eq!(actor.role(), Role::Anonymous);
    }
}
