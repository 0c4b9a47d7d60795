//! Ids as types, so that a route is never passed where a server is meant.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name; cloning the result is a reference count.
            pub fn new(name: impl Into<Arc<str>>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }
    };
}

name_id!(
    /// Who owns servers, routes and documents. One file without `tenants` is the tenant `default`.
    TenantId
);
name_id!(
    /// What clients dial; unique in its tenant.
    RouteId
);
name_id!(
    /// A registered MCP server; unique in its tenant.
    ServerId
);
name_id!(
    /// One address of a server: `host:port` or the whole URL as configured. Unique in its server and stable over reloads.
    TargetId
);
name_id!(
    /// A caller's stable identity: the same person or service has the same id whatever token or key they present.
    PrincipalId
);

impl Default for TenantId {
    fn default() -> Self {
        Self::new("default")
    }
}

/// One request through the gateway, unique across replicas: a UUID version 7.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// A fresh id, ordered by time.
    pub fn fresh() -> Self {
        // `Uuid::now_v7` asks the kernel for random bytes each time; a system call per request is dear.
        let mut random = [0u8; 10];
        rand::fill(&mut random[..]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The bytes of the UUID.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// Writes the 36 characters of the id into `buffer`.
    pub fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a [u8] {
        self.0.hyphenated().encode_lower(buffer).as_bytes()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
