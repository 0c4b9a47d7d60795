//! Signs checkpoints: where each chain of a tenant is, and what may be gone.
//!
//! A chain of which every event was dropped is left out, so that checkpoints do not grow with every restart; the horizon
//! in them says what could be left out. It comes from the configuration. The checkpoint before this one is asked as well,
//! if it is ours: a chain that it has and the store has not any more, though the horizon has not reached it, goes on to
//! be listed as it was, and no export is sound until it is back or old enough.

use std::collections::HashMap;
use std::time::Duration;

use crate::audit::{AuditKey, ChainState, Checkpoint, Class, Horizon, Mark, Statement, hex, statement_hash};
use crate::base::TenantId;
use crate::config::model::Retention;
use crate::store::{NewCheckpoint, Store, StoreError, StoredChain, Time};

const DAY: Duration = Duration::from_secs(86_400);

/// What became of several checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// Tenants that have one more.
    pub done: usize,
    /// Tenants of whom it failed; the log says why.
    pub failed: usize,
}

/// What may be gone at a moment. Days are whole.
pub fn horizon(retention: &Retention, now: Time) -> Horizon {
    let before = |days: u32| match days {
        0 => 0,
        days => u64::try_from(now.minus(DAY * days).floor(DAY).micros()).unwrap_or(0),
    };
    Horizon { control_us: before(retention.control_days), data_us: before(retention.data_days) }
}

/// Signs a checkpoint for every tenant whose chains moved since its last one.
///
/// # Errors
/// The store cannot be reached.
pub async fn checkpoint_all(store: &Store, key: &AuditKey, horizon: Horizon) -> Result<Signed, StoreError> {
    let tenants = store.platform().audit_unsigned().await?;
    checkpoint_each(store, key, horizon, &tenants).await
}

/// Signs one for each of these tenants. What fails for one does not keep the others from theirs.
pub(super) async fn checkpoint_each(
    store: &Store,
    key: &AuditKey,
    horizon: Horizon,
    tenants: impl IntoIterator<Item = &TenantId>,
) -> Result<Signed, StoreError> {
    let mut signed = Signed::default();
    for tenant in tenants {
        match checkpoint(store, key, tenant, horizon).await {
            Ok(_) => signed.done += 1,
            // It would be the same for all others, and each would wait for it.
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(error) => {
                signed.failed += 1;
                tracing::warn!(event = "audit_checkpoint_failed", %tenant, %error);
            }
        }
    }
    if signed.failed > 0 {
        tracing::warn!(event = "audit_checkpoints_failed", done = signed.done, failed = signed.failed);
    }
    Ok(signed)
}

/// Signs a checkpoint over the chains of a tenant, and returns it.
///
/// # Errors
/// The store; somebody else signed one at the same time.
pub async fn checkpoint(
    store: &Store,
    key: &AuditKey,
    tenant: &TenantId,
    horizon: Horizon,
) -> Result<String, StoreError> {
    let mut tx = store.platform().read().await?;
    let last = tx.audit_last_checkpoint(tenant).await?;
    let chains = tx.audit_chains(tenant).await?;
    drop(tx);
    let number = last.as_ref().map_or(0, |(number, _)| *number) + 1;
    let number = u64::try_from(number).unwrap_or(0);
    let before = last.as_ref().and_then(|(number, line)| ours(line, key, tenant, *number));
    let stated = before.as_ref().and_then(|before| before.horizon);
    let horizon = stated.unwrap_or_default().and(horizon);
    let statement = Statement::Checkpoint(Checkpoint {
        tenant: tenant.to_string(),
        number,
        time_us: u64::try_from(store.now().micros()).unwrap_or(0),
        previous: last.as_ref().and_then(|(_, line)| statement_hash(line)).map(|hash| hex(&hash)),
        horizon: Some(horizon),
        chains: listed(&chains, before.as_ref(), horizon),
    });
    let line = statement.sign(key);
    let new = NewCheckpoint {
        number,
        // By these it is known whether anything has moved since.
        events: chains.iter().map(|c| c.head.sequence).sum(),
        dropped: chains.iter().map(|c| c.from.sequence).sum(),
        horizon,
        statement: &line,
    };
    store.platform().audit_checkpoint(tenant, new).await?;
    Ok(line)
}

/// The checkpoint before this one, if it was signed with the same key.
fn ours(line: &str, key: &AuditKey, tenant: &TenantId, number: i64) -> Option<Checkpoint> {
    match Statement::verify(line, &[key.public()]) {
        Ok((Statement::Checkpoint(before), _)) if before.tenant == tenant.as_str() => Some(before),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(event = "audit_checkpoint_not_ours", %tenant, number, %error);
            None
        }
    }
}

/// What a checkpoint says of the chains.
fn listed(chains: &[StoredChain], before: Option<&Checkpoint>, horizon: Horizon) -> Vec<ChainState> {
    // One that says nothing of times is followed by one that says it of every chain: by that it is known later which of
    // those in the older ones were old.
    let every = before.is_some_and(|before| before.horizon.is_none());
    let mut known: HashMap<(String, String), (&ChainState, u64)> = HashMap::new();
    if let Some(before) = before {
        for state in &before.chains {
            let time = state.time_us.unwrap_or(before.time_us);
            known.insert((state.writer.clone(), state.class.clone()), (state, time));
        }
    }
    let due = |class: &str, time: u64| Class::parse(class).is_none_or(|class| time >= horizon.of(class));
    let mut list = Vec::new();
    for chain in chains {
        let state = state_of(chain);
        let was = known.remove(&(state.writer.clone(), state.class.clone()));
        let lost = was.filter(|(was, time)| {
            let end = (was.to.sequence, &was.to.link);
            let shorter =
                state.to.sequence < end.0 || (state.to.sequence == end.0 && state.to.link != *end.1);
            // All of it gone that was known: what was signed about its time counts.
            let emptied = chain.from.sequence >= end.0 && was.from.sequence < end.0;
            shorter || (emptied && was.time_us.is_some() && due(&was.class, *time))
        });
        if let Some((was, _)) = lost {
            missing(was);
            list.push(was.clone());
        } else if every || chain.from.sequence < chain.head.sequence || due(&state.class, chain.head.time_us)
        {
            list.push(state);
        }
    }
    let mut rest: Vec<_> = known.into_values().filter(|(was, time)| due(&was.class, *time)).collect();
    rest.sort_unstable_by(|a, b| (&a.0.class, &a.0.writer).cmp(&(&b.0.class, &b.0.writer)));
    for (was, _) in rest {
        missing(was);
        list.push(was.clone());
    }
    list
}

fn state_of(chain: &StoredChain) -> ChainState {
    ChainState {
        writer: chain.id.writer.to_string(),
        class: chain.id.class.as_str().to_owned(),
        from: Mark::new(chain.from.sequence, &chain.from.link),
        to: Mark::new(chain.head.sequence, &chain.head.link),
        head: None,
        time_us: Some(chain.head.time_us),
    }
}

fn missing(was: &ChainState) {
    tracing::error!(
        event = "audit_chain_missing",
        writer = was.writer,
        class = was.class,
        sequence = was.to.sequence,
        "the store does not have what was signed and should still be there: see docs/audit.md"
    );
}
