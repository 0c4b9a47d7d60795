//! What the gateway changes in messages on their way to the client.

use crate::auth::Restriction;
use crate::gateway::relay::Rewrite;
use crate::mcp::rewrite::{CacheScope, Field, ListKind, filter_list, map_result_ids};
use crate::mcp::seal::KeyRing;
use crate::mcp::session::{Binding, RequestState, TaskRef, WrapError, seal_task};
use crate::policy::{self, Item, Policy};

/// How long a client may take over the input that a server asked for, in seconds.
const STATE_LIFETIME: u64 = 24 * 3600;

/// Drops from a list what the caller may not use. A list that could not be checked does not pass.
pub(crate) struct ListFilter<'a> {
    pub(crate) kind: ListKind,
    pub(crate) policy: Option<&'a Policy>,
    pub(crate) restriction: Option<&'a Restriction>,
    pub(crate) facts: policy::Facts<'a>,
}

impl Rewrite for ListFilter<'_> {
    fn message(&mut self, json: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let keep = |name: &str| {
            self.restriction.is_none_or(|r| self.kind != ListKind::Tools || r.allows_tool(name))
                && self.policy.is_none_or(|p| p.visible(&self.facts, item(self.kind, name)))
        };
        filter_list(json, self.kind, keep, CacheScope::MakePrivate).map_err(|e| e.to_string())
    }

    fn may_skip(&self) -> bool {
        false
    }
}

/// An entry of a list, as policy knows it.
fn item(kind: ListKind, name: &str) -> Item<'_> {
    match kind {
        ListKind::Prompts => Item::Prompt(name),
        ListKind::ResourceTemplates => Item::ResourceTemplate(name),
        ListKind::Resources => Item::Resource(name),
        ListKind::Tools => Item::Tool(name),
    }
}

/// Seals `requestState` and task ids, so that they come back to the target that issued them and to nobody else.
pub(crate) struct Handles<'a> {
    pub(crate) ring: &'a KeyRing,
    pub(crate) binding: Binding<'a>,
    pub(crate) target: &'a str,
    pub(crate) method: &'a str,
    pub(crate) name: Option<&'a str>,
    /// Seconds since the Unix epoch.
    pub(crate) now: u64,
    /// Task ids of this request: what the server calls them, and how the client knows them.
    pub(crate) known: &'a [(String, String)],
}

impl Rewrite for Handles<'_> {
    fn message(&mut self, json: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let mut failed = None;
        let changed = map_result_ids(json, |field, value| {
            let sealed = match field {
                Field::RequestState => self.state(value),
                Field::TaskId => match self.known.iter().find(|(upstream, _)| upstream == value) {
                    Some((_, known)) => Ok(known.clone()),
                    None => {
                        let task = TaskRef { target: self.target, id: value };
                        seal_task(self.ring, self.binding, task, None)
                    }
                },
            };
            sealed.map_err(|e| failed = Some(e.to_string())).ok()
        })
        .map_err(|e| e.to_string())?;
        match failed {
            Some(reason) => Err(reason),
            None => Ok(changed),
        }
    }

    /// A handle that passes unsealed is refused when it comes back: the client starts over, nothing leaks.
    fn may_skip(&self) -> bool {
        true
    }
}

impl Handles<'_> {
    fn state(&self, state: &str) -> Result<String, WrapError> {
        RequestState {
            target: Some(self.target),
            method: self.method,
            name: self.name,
            state: Some(state),
            expires_at: self.now + STATE_LIFETIME,
            parked: None,
        }
        .seal(self.ring, self.binding)
    }
}
