//! The compiled table.

use std::fmt;

use ahash::AHashMap;

/// Which hosts a route answers to. Compared without case and without the port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// Every host.
    Any,
    /// `*.example.com`, kept as `.example.com`: one or more labels before it.
    Suffix(Box<str>),
    /// One name.
    Exact(Box<str>),
}

impl HostPattern {
    /// Reads `*`, `*.example.com` or `mcp.example.com`.
    pub fn parse(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        match text.strip_prefix('*') {
            Some("") => HostPattern::Any,
            Some(rest) => HostPattern::Suffix(rest.into()),
            None => HostPattern::Exact(text.into()),
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            HostPattern::Any => true,
            HostPattern::Exact(name) => name.eq_ignore_ascii_case(host),
            HostPattern::Suffix(suffix) => host
                .len()
                .checked_sub(suffix.len())
                .filter(|at| *at > 0)
                .and_then(|at| host.get(at..))
                .is_some_and(|end| end.eq_ignore_ascii_case(suffix)),
        }
    }

    /// Larger is more specific.
    fn rank(&self) -> usize {
        match self {
            HostPattern::Any => 0,
            HostPattern::Suffix(suffix) => suffix.len(),
            HostPattern::Exact(_) => usize::MAX,
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Any => f.write_str("*"),
            HostPattern::Suffix(suffix) => write!(f, "*{suffix}"),
            HostPattern::Exact(name) => f.write_str(name),
        }
    }
}

/// Two routes claim the same host and path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("host `{host}` and path `{path}` are already taken")]
pub struct Conflict {
    /// The host pattern both have.
    pub host: String,
    /// The path both have.
    pub path: String,
}

/// Host and path to route. Immutable once built.
#[derive(Clone, Debug)]
pub struct Table<T> {
    by_path: AHashMap<Box<str>, Vec<(HostPattern, T)>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { by_path: AHashMap::new() }
    }
}

impl<T> Table<T> {
    /// Adds a route for each host pattern (none = any host).
    ///
    /// # Errors
    /// The first pair of host and path that another route already has.
    pub fn insert(&mut self, hosts: &[HostPattern], path: &str, value: T) -> Result<(), Conflict>
    where
        T: Clone,
    {
        let any = [HostPattern::Any];
        let hosts = if hosts.is_empty() { &any } else { hosts };
        let entries = self.by_path.entry(normalize(path).into()).or_default();
        for host in hosts {
            if entries.iter().any(|(other, _)| other == host) {
                return Err(Conflict { host: host.to_string(), path: path.to_owned() });
            }
            entries.push((host.clone(), value.clone()));
        }
        entries.sort_by_key(|(host, _)| std::cmp::Reverse(host.rank()));
        Ok(())
    }

    /// The route for a host (port allowed, case ignored) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let entries = self.by_path.get(normalize(path))?;
        let host = without_port(host);
        entries.iter().find(|(pattern, _)| pattern.matches(host)).map(|(_, value)| value)
    }

    /// Every path of the table.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.by_path.keys().map(|p| &**p)
    }
}

fn normalize(path: &str) -> &str {
    match path.strip_suffix('/') {
        Some("") | None => path,
        Some(rest) => rest,
    }
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.split(':').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(routes: &[(&[&str], &str, u32)]) -> Table<u32> {
        let mut table = Table::default();
        for (hosts, path, value) in routes {
            let hosts: Vec<_> = hosts.iter().map(|h| HostPattern::parse(h)).collect();
            table.insert(&hosts, path, *value).unwrap();
        }
        table
    }

    #[test]
    fn the_most_specific_host_wins() {
        let t = table(&[
            (&[], "/mcp", 0),
            (&["*.example.com"], "/mcp", 1),
            (&["*.eu.example.com"], "/mcp", 2),
            (&["a.eu.example.com"], "/mcp", 3),
        ]);
        for (host, want) in [
            ("a.eu.example.com", 3),
            ("A.EU.example.com:8443", 3),
            ("b.eu.example.com", 2),
            ("us.example.com", 1),
            ("example.com", 0),
            (".example.com", 0),
            ("[::1]:8080", 0),
        ] {
            assert_eq!(t.find(host, "/mcp"), Some(&want), "{host}");
        }
    }

    #[test]
    fn paths_match_whole_and_forgive_a_trailing_slash() {
        let t = table(&[(&[], "/mcp/a", 1), (&[], "/", 2)]);
        assert_eq!(t.find("x", "/mcp/a/"), Some(&1));
        assert_eq!(t.find("x", "/mcp/a/b"), None);
        assert_eq!(t.find("x", "/mcp/A"), None);
        assert_eq!(t.find("x", "/"), Some(&2));
        assert_eq!(t.find("x", "/mcp/a//"), None);
    }

    #[test]
    fn the_same_host_and_path_twice_is_refused() {
        let mut t = table(&[(&["a.example"], "/mcp", 1)]);
        let err = t.insert(&[HostPattern::parse("A.example")], "/mcp/", 2).unwrap_err();
        assert_eq!(err.host, "a.example");
    }

    proptest! {
        /// The table answers as a naive walk over all routes does.
        #[test]
        fn agrees_with_a_naive_matcher(
            routes in prop::collection::vec((0usize..4, "[ab](\\.[ab]){0,2}", "/[ab]{1,2}"), 0..12),
            host in "[abAB](\\.[ab]){0,3}",
            path in "/[ab]{1,2}/?",
        ) {
            let mut t = Table::default();
            let mut kept = Vec::new();
            for (i, (kind, name, path)) in routes.iter().enumerate() {
                let pattern = HostPattern::parse(&match kind {
                    0 => "*".to_owned(),
                    1 => format!("*.{name}"),
                    _ => name.clone(),
                });
                if t.insert(std::slice::from_ref(&pattern), path, i).is_ok() {
                    kept.push((pattern, path.clone(), i));
                }
            }
            let wanted_path = path.strip_suffix('/').unwrap_or(&path);
            let naive = kept
                .iter()
                .filter(|(pattern, p, _)| p == wanted_path && pattern.matches(&host))
                .max_by_key(|(pattern, _, _)| pattern.rank())
                .map(|(_, _, i)| *i);
            prop_assert_eq!(t.find(&host, &path).copied(), naive);
        }
    }
}
