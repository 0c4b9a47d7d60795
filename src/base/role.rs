//! The six built-in roles and sets of them.

use std::fmt;
use std::str::FromStr;

/// A built-in role. The order is by power: a later one may more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Nobody said who they are.
    Anonymous = 0,
    /// May look.
    Viewer = 1,
    /// May call tools.
    Developer = 2,
    /// Owns registered servers.
    ServerOwner = 3,
    /// Runs a tenant.
    Admin = 4,
    /// Runs the platform.
    SuperAdmin = 5,
}

impl Role {
    /// Every role, weakest first.
    pub const ALL: [Role; 6] =
        [Role::Anonymous, Role::Viewer, Role::Developer, Role::ServerOwner, Role::Admin, Role::SuperAdmin];

    /// The name used in configuration, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Anonymous => "anonymous",
            Role::Viewer => "viewer",
            Role::Developer => "developer",
            Role::ServerOwner => "server_owner",
            Role::Admin => "admin",
            Role::SuperAdmin => "super_admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name is none of the six.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown role `{0}`: expected super_admin, admin, server_owner, developer, viewer or anonymous")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(name: &str) -> Result<Self, UnknownRole> {
        Role::ALL.into_iter().find(|r| r.as_str() == name).ok_or_else(|| UnknownRole(name.to_owned()))
    }
}

/// A set of roles in one byte.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RoleSet(u8);

impl RoleSet {
    /// The set with one role.
    pub fn one(role: Role) -> Self {
        Self(1 << role as u8)
    }

    /// Adds a role.
    pub fn insert(&mut self, role: Role) {
        self.0 |= 1 << role as u8;
    }

    /// Whether the role is in the set.
    pub fn contains(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }

    /// Whether the two sets share a role.
    pub fn intersects(self, other: RoleSet) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no role in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The most powerful role of the set.
    pub fn highest(self) -> Option<Role> {
        Role::ALL.into_iter().rev().find(|r| self.contains(*r))
    }

    /// The roles, weakest first.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |r| self.contains(*r))
    }
}

impl FromIterator<Role> for RoleSet {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut set = Self::default();
        roles.into_iter().for_each(|r| set.insert(r));
        set
    }
}

impl fmt::Debug for RoleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Role::as_str)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn highest_is_the_most_powerful() {
        let set: RoleSet = [Role::Viewer, Role::Admin, Role::Developer].into_iter().collect();
        assert_eq!(set.highest(), Some(Role::Admin));
        assert_eq!(RoleSet::default().highest(), None);
        assert!(set.contains(Role::Viewer) && !set.contains(Role::SuperAdmin));
    }
}
