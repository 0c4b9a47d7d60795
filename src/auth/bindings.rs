//! What the store says of principals besides their credentials: who is shut out, and which roles somebody has in addition.
//!
//! Asked on every request with one lookup and no lock; replaced as a whole by whoever follows the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::base::{Principal, RoleSet};

/// What is said of one principal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Every credential of theirs is refused.
    pub disabled: bool,
    /// Roles besides those of their credential.
    pub roles: RoleSet,
}

/// Principals of whom something is said, by their whole id.
pub type Standings = HashMap<Box<str>, Standing>;

/// The principals of one tenant of whom something is said. Lives beside the snapshot.
#[derive(Debug)]
pub struct Bindings {
    standings: ArcSwap<Standings>,
    /// When the store was last heard of, in seconds since the Unix epoch; [`NO_STORE`] where there is none to hear of.
    heard: AtomicU64,
}

/// Nothing comes from a store, so nothing of it can be old.
const NO_STORE: u64 = u64::MAX;

impl Default for Bindings {
    fn default() -> Self {
        Self { standings: ArcSwap::default(), heard: AtomicU64::new(NO_STORE) }
    }
}

impl Bindings {
    /// Nothing is said of anybody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces everything that is said.
    pub fn replace(&self, standings: Standings) {
        self.standings.store(Arc::new(standings));
    }

    /// Says when the store was last heard of, in seconds since the Unix epoch.
    pub fn set_heard(&self, at: u64) {
        self.heard.store(at, Ordering::Relaxed);
    }

    /// For how many seconds the store was not heard of.
    pub fn age(&self, now_unix: u64) -> u64 {
        now_unix.saturating_sub(self.heard.load(Ordering::Relaxed))
    }

    /// Of how many principals something is said.
    pub fn len(&self) -> usize {
        self.standings.load().len()
    }

    /// Whether nothing is said of anybody.
    pub fn is_empty(&self) -> bool {
        self.standings.load().is_empty()
    }

    /// Hot: the principal with all roles; `None` if they are shut out.
    pub fn admit(&self, principal: Arc<Principal>) -> Option<Arc<Principal>> {
        let standings = self.standings.load();
        if standings.is_empty() {
            return Some(principal);
        }
        match standings.get(principal.id.as_str()) {
            None => Some(principal),
            Some(standing) if standing.disabled => None,
            Some(standing) => {
                let roles: RoleSet = principal.roles.iter().chain(standing.roles.iter()).collect();
                if roles == principal.roles {
                    return Some(principal);
                }
                Some(Arc::new(Principal { roles, ..(*principal).clone() }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PrincipalId, Role, TenantId};

    fn alice() -> Arc<Principal> {
        let nobody = Principal::anonymous(TenantId::default(), Role::Viewer);
        Arc::new(Principal { id: PrincipalId::new("corp|alice"), ..nobody })
    }

    fn with(id: &str, standing: Standing) -> Bindings {
        let bindings = Bindings::new();
        bindings.replace(Standings::from([(id.into(), standing)]));
        bindings
    }

    #[test]
    fn somebody_who_is_disabled_is_shut_out_and_nobody_else() {
        let disabled = Standing { disabled: true, ..Standing::default() };
        assert!(with("corp|alice", disabled).admit(alice()).is_none());
        assert!(with("corp|alic", disabled).admit(alice()).is_some());
        assert!(Bindings::new().admit(alice()).is_some());
    }

    #[test]
    fn age_counts_from_the_last_word_of_the_store() {
        let bindings = Bindings::new();
        assert_eq!(bindings.age(1_000_000), 0, "no store, no age");
        bindings.set_heard(999_990);
        assert_eq!(bindings.age(1_000_000), 10);
    }

    #[test]
    fn roles_that_were_given_add_to_those_of_the_credential() {
        let given = Standing { roles: RoleSet::one(Role::Admin), ..Standing::default() };
        let admitted = with("corp|alice", given).admit(alice()).unwrap();
        assert_eq!(admitted.roles.iter().collect::<Vec<_>>(), [Role::Viewer, Role::Admin]);
        let same = alice();
        let known = Standing { roles: same.roles, ..Standing::default() };
        let admitted = with("corp|alice", known).admit(same.clone()).unwrap();
        assert!(Arc::ptr_eq(&admitted, &same), "nothing to add, nothing to copy");
    }
}
