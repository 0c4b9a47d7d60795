//! All texts, sorted into classes that no pattern of a policy tells apart.
//!
//! The patterns run side by side as one automaton; two texts belong to the same class if the same lists of patterns
//! match them. The walk goes over states, not over texts, so it ends, and it visits every state that can be reached,
//! so no class is missed and none is made up. Breadth first: a class is shown by one of its shortest texts.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::bits::Bits;
use super::{Error, MAX_CLASSES, MAX_STATES};
use crate::base::glob::{Glob, Step};

/// A class of texts.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    /// One of them.
    pub(crate) text: String,
    /// Which lists match them.
    pub(crate) matched: Bits,
}

/// Characters to show what no pattern mentions, the most readable first.
const PLAIN: &str = "xabcdefghijklmnopqrstuvwyz0123456789-_.ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A place in one of the patterns: before step `.1` of pattern `.0`.
type Place = (u32, u32);

/// Every class of texts that the lists tell apart. An empty list matches everything.
///
/// # Errors
/// There are more states or classes than the bounds allow.
pub(crate) fn classes(lists: &[&[Glob]]) -> Result<Vec<Word>, Error> {
    let mut patterns: Vec<Vec<Step>> = Vec::new();
    let mut owners: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<&Glob, usize> = HashMap::new();
    for (list, globs) in lists.iter().enumerate() {
        for glob in *globs {
            let at = *known.entry(glob).or_insert_with(|| {
                patterns.push(glob.steps());
                owners.push(Vec::new());
                patterns.len() - 1
            });
            owners[at].push(list);
        }
    }
    let walk = Walk { patterns, owners, lists: lists.len() };
    let always = Bits::filter(lists.len(), |list| lists[list].is_empty());
    walk.run(&always)
}

struct Walk {
    patterns: Vec<Vec<Step>>,
    owners: Vec<Vec<usize>>,
    lists: usize,
}

impl Walk {
    fn run(&self, always: &Bits) -> Result<Vec<Word>, Error> {
        let start = self.close((0..self.patterns.len()).map(|p| (p as u32, 0)).collect());
        let mut seen: HashMap<Vec<Place>, ()> = HashMap::from([(start.clone(), ())]);
        // Each state with where it came from, so that its text can be read back.
        let mut queue: Vec<(Vec<Place>, usize, char)> = vec![(start, usize::MAX, ' ')];
        let mut found: HashMap<Bits, usize> = HashMap::new();
        let mut words = Vec::new();
        let mut at = 0;
        while at < queue.len() {
            let state = queue[at].0.clone();
            let matched = self.matched(&state).or(always);
            match found.entry(matched.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(words.len());
                    words.push(Word { text: text(&queue, at), matched });
                    if words.len() > MAX_CLASSES {
                        return Err(Error::TooComplex("classes of names", MAX_CLASSES));
                    }
                }
                // The empty text is a poor example.
                Entry::Occupied(entry) => {
                    let word: &mut Word = &mut words[*entry.get()];
                    if word.text.is_empty() {
                        word.text = text(&queue, at);
                    }
                }
            }
            let mut next: Vec<char> = state.iter().filter_map(|place| self.wants(*place)).collect();
            next.sort_unstable();
            next.dedup();
            let other = PLAIN.chars().chain('\u{100}'..).find(|c| next.binary_search(c).is_err());
            for c in other.into_iter().chain(next) {
                let after = self.step(&state, c);
                if let Entry::Vacant(entry) = seen.entry(after.clone()) {
                    entry.insert(());
                    queue.push((after, at, c));
                    if queue.len() > MAX_STATES {
                        return Err(Error::TooComplex("states of the patterns", MAX_STATES));
                    }
                }
            }
            at += 1;
        }
        Ok(words)
    }

    fn at(&self, place: Place) -> Option<Step> {
        self.patterns[place.0 as usize].get(place.1 as usize).copied()
    }

    fn wants(&self, place: Place) -> Option<char> {
        match self.at(place)? {
            Step::Char(c) => Some(c),
            Step::Many | Step::One => None,
        }
    }

    /// A `*` may stand for nothing.
    fn close(&self, mut places: Vec<Place>) -> Vec<Place> {
        let mut from = 0;
        while from < places.len() {
            if self.at(places[from]) == Some(Step::Many) {
                places.push((places[from].0, places[from].1 + 1));
            }
            from += 1;
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    fn step(&self, state: &[Place], c: char) -> Vec<Place> {
        let mut after = Vec::with_capacity(state.len());
        for place in state {
            match self.at(*place) {
                Some(Step::Many) => after.push(*place),
                Some(Step::One) => after.push((place.0, place.1 + 1)),
                Some(Step::Char(want)) if want == c => after.push((place.0, place.1 + 1)),
                Some(Step::Char(_)) | None => {}
            }
        }
        self.close(after)
    }

    fn matched(&self, state: &[Place]) -> Bits {
        let mut matched = Bits::none(self.lists);
        for place in state {
            if self.at(*place).is_none() {
                self.owners[place.0 as usize].iter().for_each(|list| matched.insert(*list));
            }
        }
        matched
    }
}

fn text(queue: &[(Vec<Place>, usize, char)], mut at: usize) -> String {
    let mut chars = Vec::new();
    while queue[at].1 != usize::MAX {
        chars.push(queue[at].2);
        at = queue[at].1;
    }
    chars.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn globs(list: &[String]) -> Vec<Glob> {
        list.iter().map(|p| Glob::new(p).unwrap()).collect()
    }

    fn matched(lists: &[Vec<Glob>], text: &str) -> Bits {
        Bits::filter(lists.len(), |at| lists[at].is_empty() || lists[at].iter().any(|g| g.matches(text)))
    }

    #[test]
    fn unions_that_cover_together_leave_nothing() {
        let lists = [globs(&["?*".into()]), globs(&["*?".into()])];
        let words = classes(&[&lists[0], &lists[1]]).unwrap();
        assert_eq!(words.len(), 2, "both or none: {words:?}");
    }

    #[test]
    fn too_many_states_are_an_error() {
        // What was read last decides, and there are 2^20 things that can have been.
        let list: Vec<String> = (0..12).map(|n| format!("*a{}", "?".repeat(n + 8))).collect();
        let globs = globs(&list);
        assert!(matches!(classes(&[&globs]), Err(Error::TooComplex(..))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Each class is real, all are different, and every text is in one.
        #[test]
        fn classes_are_exactly_those_that_exist(
            lists in prop::collection::vec(prop::collection::vec("[ab*?]{1,4}", 0..3), 0..5),
            texts in prop::collection::vec("[abc]{0,7}", 0..40),
        ) {
            let lists: Vec<Vec<Glob>> = lists.iter().map(|l| globs(l)).collect();
            let slices: Vec<&[Glob]> = lists.iter().map(Vec::as_slice).collect();
            let words = classes(&slices).unwrap();
            for (at, word) in words.iter().enumerate() {
                prop_assert_eq!(&matched(&lists, &word.text), &word.matched, "{}", word.text);
                prop_assert!(words[..at].iter().all(|other| other.matched != word.matched));
            }
            for text in texts {
                let of_text = matched(&lists, &text);
                prop_assert!(words.iter().any(|word| word.matched == of_text), "{text}");
            }
        }
    }
}
