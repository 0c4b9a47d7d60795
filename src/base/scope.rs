//! Whose document, secret or event: the platform's or one tenant's.

use std::fmt;

use super::id::TenantId;

/// How the platform's scope is spelled where a tenant's name stands. No tenant can have this name.
pub const PLATFORM_SCOPE: &str = "@platform";

/// The platform, or one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// What belongs to whoever runs the installation.
    Platform,
    /// What belongs to one tenant.
    Tenant(TenantId),
}

impl Scope {
    /// Reads what [`Scope::as_str`] gives.
    pub fn parse(text: &str) -> Self {
        if text == PLATFORM_SCOPE { Self::Platform } else { Self::Tenant(TenantId::new(text)) }
    }

    /// The tenant's name, or [`PLATFORM_SCOPE`].
    pub fn as_str(&self) -> &str {
        match self {
            Self::Platform => PLATFORM_SCOPE,
            Self::Tenant(tenant) => tenant.as_str(),
        }
    }
}

impl From<TenantId> for Scope {
    fn from(tenant: TenantId) -> Self {
        Self::Tenant(tenant)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_what_they_write() {
        for scope in [Scope::Platform, Scope::Tenant(TenantId::new("acme"))] {
            assert_eq!(Scope::parse(scope.as_str()), scope);
        }
    }
}
