//! Whom a caller may act for or against: nobody who may more than they do.
//!
//! A key stands for its principal and has what the principal was given. So whoever could make a key for a stronger
//! principal, or turn such a key over, would become that principal; and whoever could take a stronger one's credentials,
//! roles or revocations away could shut them out, or let in whom they shut out.

use super::custom_roles::{AUDITOR, may_handle};
use super::may_give;
use crate::auth::{KeyRecord, RevocationRecord, RevocationTarget};
use crate::base::Role;
use crate::control::actor::{Actor, Proof, is_reserved};
use crate::control::problem::Problem;
use crate::store::{ApiKey, Page, Store, TenantScope};

/// Keys of one principal that are looked at. Who has more is beyond everybody's reach but the platform's.
const MAX_KEYS: usize = 999;
/// How many principals may stand between a caller's key and whoever made the first of those keys.
const MAX_MAKERS: usize = 32;

/// Whether the add-on is this caller's to give: administrators give it, and auditors do; a role of the tenant's own that
/// may bind others does not open the log.
///
/// # Errors
///
/// 403.
pub(super) fn may_give_auditor(actor: &Actor) -> Result<(), Problem> {
    if actor.auditor || actor.role() >= Role::Admin {
        return Ok(());
    }
    Err(Problem::forbidden("you cannot give or take `auditor` here: administrators and auditors can"))
}

/// Whether this caller may name a principal in what they do: those of the operator are in no table of a tenant's, and whoever
/// gave them something, or took it away, would do so to the operator.
///
/// # Errors
///
/// 403.
pub(super) fn may_name(actor: &Actor, principal: &str) -> Result<(), Problem> {
    if actor.is_platform() || !is_reserved(principal) {
        return Ok(());
    }
    Err(Problem::forbidden("principals of the kind `operator` are those who run the platform"))
}

/// Whether the caller has every role that a principal was given, in itself or by a key.
///
/// # Errors
///
/// 403; the store.
pub(super) async fn may_act_on(
    actor: &Actor,
    scope: &TenantScope<'_>,
    principal: &str,
) -> Result<(), Problem> {
    may_name(actor, principal)?;
    if actor.is_platform() || (*actor.id == *principal && actor.tenant == *scope.tenant()) {
        return Ok(());
    }
    let keys = keys_of(scope, principal).await?;
    if keys.len() > MAX_KEYS {
        return Err(Problem::forbidden(format!("they have more than {MAX_KEYS} keys")));
    }
    for key in keys {
        may_give_keys_roles(actor, scope, &key)?;
    }
    let standing = scope.standing(principal, principal).await?;
    for name in &standing.roles {
        if name == AUDITOR {
            may_give_auditor(actor)?;
        } else if let Ok(role) = name.parse::<Role>() {
            may_give(actor, scope.tenant(), role)?;
        }
    }
    standing.custom.iter().try_for_each(|names| may_handle(actor, names.split(' ')))
}

/// The same of a key: its own roles, and its principal's.
///
/// # Errors
///
/// 403; the store.
pub(super) async fn may_act_on_key(
    actor: &Actor,
    scope: &TenantScope<'_>,
    key: &ApiKey,
) -> Result<(), Problem> {
    may_give_keys_roles(actor, scope, key)?;
    may_act_on(actor, scope, &principal_of(key)).await
}

fn may_give_keys_roles(actor: &Actor, scope: &TenantScope<'_>, key: &ApiKey) -> Result<(), Problem> {
    let record = KeyRecord::parse(&key.record).map_err(Problem::internal)?;
    record.roles.into_iter().try_for_each(|role| may_give(actor, scope.tenant(), role))
}

async fn keys_of(scope: &TenantScope<'_>, principal: &str) -> Result<Vec<ApiKey>, Problem> {
    let rows = Page::of(u32::try_from(MAX_KEYS + 1).unwrap_or(u32::MAX));
    Ok(scope.api_keys_of(principal, rows).await?)
}

/// On whose word somebody acts: who made their keys, who made those of these, and so on.
pub(super) struct Makers {
    principals: Vec<String>,
    /// Whether it is known of all of them. It is not where a key in between is gone.
    pub(super) whole: bool,
}

impl Makers {
    /// Those of a caller.
    ///
    /// # Errors
    ///
    /// 403 if there are too many to follow; the store.
    pub(super) async fn of(actor: &Actor, store: &Store) -> Result<Self, Problem> {
        let mut makers = Self { principals: Vec::new(), whole: true };
        if actor.proof != Proof::Key {
            return Ok(makers);
        }
        let scope = store.tenant(&actor.tenant);
        let mut asked = 0;
        let mut next = Some(actor.id.to_string());
        while let Some(principal) = next {
            let keys = if is_reserved(&principal) { Vec::new() } else { keys_of(&scope, &principal).await? };
            makers.whole &= is_reserved(&principal) || !keys.is_empty();
            for key in keys {
                if *key.author != *actor.id && !makers.principals.contains(&key.author) {
                    makers.principals.push(key.author);
                }
            }
            if makers.principals.len() > MAX_MAKERS {
                return Err(Problem::forbidden("too many people stand behind your key to know whose it is"));
            }
            next = makers.principals.get(asked).cloned();
            asked += 1;
        }
        Ok(makers)
    }

    /// Whether this is one of them.
    pub(super) fn contains(&self, principal: &str) -> bool {
        self.principals.iter().any(|maker| maker == principal)
    }
}

/// Whom a key stands for.
pub(super) fn principal_of(key: &ApiKey) -> String {
    if key.principal.is_empty() { format!("key|{}", key.id) } else { key.principal.clone() }
}

/// The same of what a revocation refuses: a principal, or the key of that id. Tokens that are named by what they say are
/// anybody's.
///
/// # Errors
///
/// 403; the store.
pub(super) async fn may_revoke(
    actor: &Actor,
    scope: &TenantScope<'_>,
    record: &RevocationRecord,
) -> Result<(), Problem> {
    match &record.target {
        RevocationTarget::Principal(principal) => may_act_on(actor, scope, principal).await,
        RevocationTarget::Id(id) => match scope.api_key(id).await? {
            Some(key) => may_act_on_key(actor, scope, &key).await,
            None => Ok(()),
        },
        RevocationTarget::Subject(_) => Ok(()),
    }
}
