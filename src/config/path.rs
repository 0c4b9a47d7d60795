//! Where in a document something is: `servers[1].http.targets[0]`.

use std::fmt;

use super::diagnostic::At;
use super::tree::{Node, Value};

/// A key or an index, from the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Index(usize),
    Key(String),
}

impl Path {
    /// A path of keys, separated by dots.
    pub(crate) fn of(dotted: &str) -> Self {
        Self(dotted.split('.').map(|key| Step::Key(key.to_owned())).collect())
    }

    /// One key further. Dots separate several.
    pub(crate) fn key(&self, dotted: &str) -> Self {
        let mut steps = self.0.clone();
        steps.extend(dotted.split('.').map(|key| Step::Key(key.to_owned())));
        Self(steps)
    }

    /// One key further, dots and all.
    pub(crate) fn entry(&self, key: &str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Key(key.to_owned()));
        Self(steps)
    }

    /// One index further.
    pub(crate) fn index(&self, index: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Index(index));
        Self(steps)
    }

    /// This path, with another one behind it.
    pub(crate) fn join(&self, other: &Path) -> Self {
        let mut steps = self.0.clone();
        steps.extend(other.0.iter().cloned());
        Self(steps)
    }

    /// What is left of this path below another one; nothing if it is elsewhere. A path above counts as all of it.
    pub(crate) fn below(&self, base: &Path) -> Option<Self> {
        self.overlaps(base).then(|| Self(self.0.iter().skip(base.0.len()).cloned().collect()))
    }

    /// The part of a tree that it leads to.
    pub(crate) fn find<'a>(&self, root: &'a Node) -> Option<&'a Node> {
        self.0.iter().try_fold(root, |node, step| match step {
            Step::Index(index) => node.items().get(*index),
            Step::Key(key) => node.entry(key).map(|entry| &entry.node),
        })
    }

    /// Whether one of the two contains the other, or they are the same.
    pub(crate) fn overlaps(&self, other: &Path) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }

    /// Replaces each index by what `original` says about it, given the path of its list.
    pub(crate) fn translate(&self, original: impl Fn(&Path, usize) -> usize) -> Path {
        let mut out = Path::default();
        for step in &self.0 {
            let step = match step {
                Step::Index(index) => Step::Index(original(&out, *index)),
                key => key.clone(),
            };
            out.0.push(step);
        }
        out
    }

    /// The keys alone: `servers.http.targets`, for tables that hold for every item of a list.
    pub(crate) fn keys(&self) -> String {
        let keys: Vec<&str> = self
            .0
            .iter()
            .filter_map(|step| match step {
                Step::Key(key) => Some(key.as_str()),
                Step::Index(_) => None,
            })
            .collect();
        keys.join(".")
    }

    /// Where it stands: the scalar itself, or else the key of the deepest part of the path that there is.
    pub(crate) fn locate(&self, root: &Node) -> At {
        let mut node = root;
        let mut at = root.at;
        for step in &self.0 {
            match step {
                Step::Key(key) => {
                    let Some(entry) = node.entry(key) else { return at };
                    at = entry.key_at;
                    node = &entry.node;
                }
                Step::Index(index) => {
                    let Some(item) = node.items().get(*index) else { return at };
                    at = item.at;
                    node = item;
                }
            }
        }
        match node.value {
            Value::List(_) | Value::Map(_) | Value::Null => at,
            _ => node.at,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) => {
                    let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    match (plain && !key.is_empty(), i) {
                        (true, 0) => f.write_str(key)?,
                        (true, _) => write!(f, ".{key}")?,
                        (false, _) => write!(f, "[{key:?}]")?,
                    }
                }
            }
        }
        Ok(())
    }
}
