//! Where in a text something is that is known by a JSON pointer.

use super::path::Path;
use super::tree::{self, Node, Value};

/// The places of a document's parts in its text.
#[derive(Clone, Debug)]
pub struct Places(Node);

impl Places {
    /// Those of a text, if it can be read as a document.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        tree::parse(bytes).ok().map(|(_, root)| Self(root))
    }

    /// Line and column, from 1, of what a pointer (RFC 6901) leads to, or of the deepest part of the way that there is.
    /// Nothing if not even its beginning is there.
    pub fn at(&self, pointer: &str) -> Option<(u32, u32)> {
        let mut path = Path::default();
        let mut node = Some(&self.0);
        for (depth, part) in pointer.split('/').skip(1).enumerate() {
            let part = part.replace("~1", "/").replace("~0", "~");
            path = match node.map(|node| &node.value) {
                Some(Value::List(_)) => path.index(part.parse().ok()?),
                _ => path.entry(&part),
            };
            node = path.find(&self.0);
            if depth == 0 && node.is_none() {
                return None;
            }
        }
        let at = path.locate(&self.0);
        (at.line > 0).then_some((at.line, at.column))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# a comment\nversion: 1\nservers:\n  - name: s\n    http: { targets: [\"http://x\", nowhere] }\na/b: 1\n";

    #[test]
    fn pointers_lead_to_lines_and_columns() {
        let places = Places::of(TEXT.as_bytes()).expect("a document");
        assert_eq!(places.at("/version"), Some((2, 10)));
        assert_eq!(places.at("/servers/0/http/targets/1"), Some((5, 35)));
        assert_eq!(places.at("/servers/0/http/nothing"), Some((5, 5)), "the part that there is");
        assert_eq!(places.at("/a~1b"), Some((6, 6)));
    }

    #[test]
    fn what_is_not_there_at_all_has_no_place() {
        let places = Places::of(TEXT.as_bytes()).expect("a document");
        assert_eq!(places.at("/document"), None);
        assert_eq!(places.at("/servers/x"), None);
        assert!(Places::of(b"a: [").is_none());
    }
}
