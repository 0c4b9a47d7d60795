//! Whom a caller may act for or against: nobody who may more than they do.
//!
//! A key stands for its principal and has what the principal was given. So whoever could make a key for a stronger
//! principal, or turn such a key over, would become that principal; and whoever could take a stronger one's credentials,
//! roles or revocations away could shut them out, or let in whom they shut out.

use super::custom_roles::{AUDITOR, may_handle};
use super::may_give;
use crate::auth::{KeyRecord, RevocationRecord, RevocationTarget};
use crate::base::Role;
use crate::control::actor::Actor;
use crate::control::problem::Problem;
use crate::store::{ApiKey, TenantScope};

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

/// Whether the caller has every role that a principal was given.
///
/// # Errors
///
/// 403; the store.
pub(super) async fn may_act_on(
    actor: &Actor,
    scope: &TenantScope<'_>,
    principal: &str,
) -> Result<(), Problem> {
    if actor.is_platform() || (*actor.id == *principal && actor.tenant == *scope.tenant()) {
        return Ok(());
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
    let record = KeyRecord::parse(&key.record).map_err(Problem::internal)?;
    for role in record.roles {
        may_give(actor, scope.tenant(), role)?;
    }
    may_act_on(actor, scope, &principal_of(key)).await
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
