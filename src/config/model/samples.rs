//! Which requests are kept for later questions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Period;

/// A sample of requests that is kept in the store, for `tollgate whatif`: method, name, caller and outcome, never a
/// body. Changes need a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Samples {
    /// Requests kept of each route and minute, chosen at random among all. 0: none.
    #[schemars(range(max = 1000))]
    pub per_minute: u32,
    /// How long they are kept.
    pub retention: Period,
    /// Whether the arguments of calls are kept, up to 4 KiB each. They may hold what nobody should read later; without
    /// them, rules that read arguments stay undecided in a replay.
    pub arguments: bool,
}

impl Default for Samples {
    fn default() -> Self {
        Self { per_minute: 60, retention: Period::from_secs(7 * 24 * 3600), arguments: false }
    }
}
