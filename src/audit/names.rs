//! Texts that come again and again, each kept once: what events are searched and counted by.

use std::collections::HashSet;
use std::sync::Arc;

use super::event::Event;

/// Most texts that are remembered; beyond it all are forgotten, which costs time and changes nothing.
const MAX_NAMES: usize = 8192;

/// Texts that were seen lately.
#[derive(Clone, Debug, Default)]
pub struct Names(HashSet<Arc<str>, ahash::RandomState>);

impl Names {
    /// The text, shared with everybody who asked for it before.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        if self.0.len() >= MAX_NAMES {
            self.0.clear();
        }
        let new: Arc<str> = text.into();
        self.0.insert(new.clone());
        new
    }
}

/// Fields that events are searched and counted by; empty if absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Whose event it is.
    pub tenant: Arc<str>,
    /// The caller.
    pub principal: Arc<str>,
    /// The route.
    pub route: Arc<str>,
    /// The server.
    pub server: Arc<str>,
    /// The tool, prompt or resource, or the object of an action.
    pub name: Arc<str>,
    /// How it ended.
    pub outcome: Arc<str>,
}

impl Keys {
    /// Those of an event.
    pub fn of(event: &Event<'_>, names: &mut Names) -> Self {
        Self {
            tenant: names.get(event.tenant),
            principal: names.get(event.principal.unwrap_or_default()),
            route: names.get(event.route.unwrap_or_default()),
            server: names.get(event.server.unwrap_or_default()),
            name: names.get(event.name.or(event.object).unwrap_or_default()),
            outcome: names.get(event.outcome.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Class;
    use super::*;

    #[test]
    fn a_text_is_kept_once_and_no_more_than_the_bound_are() {
        let mut names = Names::default();
        let first = names.get("a");
        assert!(Arc::ptr_eq(&first, &names.get("a")));
        for n in 0..2 * MAX_NAMES {
            assert_eq!(&*names.get(&n.to_string()), n.to_string());
            assert!(names.0.len() <= MAX_NAMES);
        }
        assert_eq!(&*names.get("a"), "a", "forgotten, and found again");
    }

    #[test]
    fn an_action_is_searched_by_its_object_and_a_request_by_its_name() {
        let mut names = Names::default();
        let action = Event { object: Some("/o"), ..Event::new(0, "t", Class::Control) };
        assert_eq!(&*Keys::of(&action, &mut names).name, "/o");
        let request = Event { name: Some("n"), object: Some("/o"), ..Event::new(0, "t", Class::Data) };
        let keys = Keys::of(&request, &mut names);
        assert_eq!((&*keys.tenant, &*keys.name, &*keys.principal), ("t", "n", ""));
    }
}
