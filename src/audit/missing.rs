//! What checkpoints have and an export has not any more, and whether retention excuses it.
//!
//! Three things go with time: whole chains, the beginnings of chains, and the oldest checkpoints. Each is only allowed
//! to be gone if its last event (or itself) lies before the horizon that some signed checkpoint states. So whoever takes
//! something out of the store that should still be there is found, though every later statement was signed by a gateway
//! that did not see it any more.

use std::collections::HashMap;

use super::chain::ChainId;
use super::event::Class;
use super::statement::{ChainState, Checkpoint, Horizon};
use super::verify::{Finding, Follow};

/// What was noticed while checkpoints were read.
#[derive(Debug, Default)]
pub(super) struct Missing {
    /// The latest that was stated; `None` if none was.
    horizon: Option<Horizon>,
    /// The first checkpoint of the file: its number and time.
    first: Option<(u64, u64)>,
    /// Chains that the export does not have, by what the last checkpoint that has them says.
    chains: HashMap<ChainId, Gone>,
    /// The latest event that is known to lie before where a chain begins, by class.
    beginnings: HashMap<Class, Gone>,
}

/// An event that is gone.
#[derive(Debug)]
struct Gone {
    /// Of which chain.
    chain: String,
    sequence: u64,
    time_us: u64,
    /// The checkpoint that knows it.
    checkpoint: u64,
}

impl Missing {
    /// What a checkpoint says may be gone.
    pub(super) fn states(&mut self, horizon: Option<Horizon>) {
        if let Some(horizon) = horizon {
            self.horizon = Some(self.horizon.unwrap_or_default().and(horizon));
        }
    }

    /// The first checkpoint of the file.
    pub(super) fn first(&mut self, number: u64, time_us: u64) {
        self.first = Some((number, time_us));
    }

    /// A chain that the export does not have.
    pub(super) fn chain(&mut self, id: ChainId, chain: String, state: &ChainState, checkpoint: &Checkpoint) {
        if self.chains.get(&id).is_some_and(|gone| gone.checkpoint > checkpoint.number) {
            return;
        }
        // Older checkpoints do not say when the last event was: at the latest when they were made.
        let time_us = state.time_us.unwrap_or(checkpoint.time_us);
        let (sequence, checkpoint) = (state.to.sequence, checkpoint.number);
        self.chains.insert(id, Gone { chain, sequence, time_us, checkpoint });
    }

    /// A chain that the export has, of which it may not have what the checkpoint knows.
    pub(super) fn beginning(&mut self, id: &ChainId, follow: &Follow, state: &ChainState, checkpoint: u64) {
        let Some(time_us) = state.time_us else { return };
        if state.to.sequence == 0
            || state.to.sequence > follow.from.sequence
            || self.beginnings.get(&id.class).is_some_and(|gone| gone.time_us >= time_us)
        {
            return;
        }
        let gone = Gone { chain: follow.name.clone(), sequence: state.to.sequence, time_us, checkpoint };
        self.beginnings.insert(id.class, gone);
    }

    /// Whether everything that is gone may be. `from_us`: the export begins there, and need not have what lies before.
    ///
    /// # Errors
    /// What should still be there.
    pub(super) fn excused(&self, from_us: Option<u64>) -> Result<(), Finding> {
        let horizon = self.horizon.unwrap_or_default();
        let mut chains: Vec<_> = self.chains.iter().collect();
        chains.sort_unstable_by(|a, b| a.0.cmp(b.0));
        for (id, gone) in chains {
            if gone.time_us >= horizon.of(id.class) {
                return Err(gone.found(format!(
                    "it has chain {}, and the store has not: it was removed, or rolled back",
                    gone.chain
                )));
            }
        }
        // Of what was made before horizons were stated nothing can be said.
        if self.horizon.is_some() {
            for class in [Class::Control, Class::Data] {
                let limit = horizon.of(class).max(from_us.unwrap_or(0));
                if let Some(gone) = self.beginnings.get(&class).filter(|gone| gone.time_us >= limit) {
                    return Err(gone.found(format!(
                        "it has event {} of chain {}, which begins later, though retention keeps it",
                        gone.sequence, gone.chain
                    )));
                }
            }
            if let Some((number, time_us)) = self.first
                && number > 1
                && time_us >= horizon.of_checkpoints()
            {
                let what = "those before it are gone, though retention keeps them".to_owned();
                return Err(Finding::Checkpoint { number, what });
            }
        }
        Ok(())
    }
}

impl Gone {
    fn found(&self, what: String) -> Finding {
        Finding::Checkpoint { number: self.checkpoint, what }
    }
}

#[cfg(test)]
#[path = "missing_tests.rs"]
mod tests;
