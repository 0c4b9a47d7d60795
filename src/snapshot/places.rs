//! Whose request it is: by host, then by path prefix; what is nobody's own is the operator's.
//!
//! The most specific host wins (a name, then the longest wildcard, then any host), and on a host the longest prefix. A host
//! of a tenant without a prefix is the tenant's altogether. Looking up costs a few hash look-ups, however many tenants
//! there are, and allocates only if the host has upper-case letters.

use std::borrow::Cow;

use ahash::AHashMap;

use crate::config::Terms;

/// Most segments of a prefix; longer ones cannot be configured.
const MAX_SEGMENTS: usize = 8;

/// From places to tenants, by their index.
#[derive(Debug, Default)]
pub(super) struct Places {
    exact: AHashMap<Box<str>, Prefixes>,
    /// By `.acme.example.com`.
    below: AHashMap<Box<str>, Prefixes>,
    any: Prefixes,
}

#[derive(Debug, Default)]
struct Prefixes(AHashMap<Box<str>, usize>);

impl Prefixes {
    fn find(&self, path: &str) -> Option<usize> {
        if self.0.is_empty() {
            return None;
        }
        let mut ends = [0; MAX_SEGMENTS + 1];
        let mut count = 1;
        for (at, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            if count > MAX_SEGMENTS {
                break;
            }
            ends[count] = at;
            count += 1;
        }
        ends[..count].iter().rev().find_map(|end| self.0.get(&path[..*end]).copied())
    }
}

impl Places {
    pub(super) fn insert(&mut self, terms: &Terms, tenant: usize) {
        let prefix: Box<str> = terms.prefix().into();
        if terms.hosts().is_empty() {
            self.any.0.insert(prefix, tenant);
            return;
        }
        for host in terms.hosts() {
            let prefixes = match host.host().strip_prefix('*') {
                Some(suffix) => self.below.entry(suffix.into()),
                None => self.exact.entry(host.host().into()),
            };
            prefixes.or_default().0.insert(prefix.clone(), tenant);
        }
    }

    pub(super) fn find(&self, host: &str, path: &str) -> Option<usize> {
        if !(self.exact.is_empty() && self.below.is_empty()) {
            let host = plain(host);
            if let Some(found) = self.exact.get(&*host).and_then(|prefixes| prefixes.find(path)) {
                return Some(found);
            }
            let mut wildcards =
                suffixes(&host).filter_map(|suffix| self.below.get(suffix)).filter_map(|p| p.find(path));
            if let Some(found) = wildcards.next() {
                return Some(found);
            }
        }
        self.any.find(path)
    }

    /// Whether a host was given to some tenant.
    pub(super) fn has_host(&self, host: &str) -> bool {
        if self.exact.is_empty() && self.below.is_empty() {
            return false;
        }
        let host = plain(host);
        self.exact.contains_key(&*host) || suffixes(&host).any(|suffix| self.below.contains_key(suffix))
    }
}

/// `.b.c` and `.c` of `a.b.c`; a host that begins with a dot is below nothing.
fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.')
        .map(|(at, _)| at)
        .filter(|at| *at > 0 && !host.starts_with('.'))
        .map(|at| &host[at..])
}

/// Without port, in lower case.
fn plain(host: &str) -> Cow<'_, str> {
    let name = match host.starts_with('[') {
        true => host.split_inclusive(']').next().unwrap_or(host),
        false => host.split(':').next().unwrap_or(host),
    };
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(tenants: &[&str]) -> Places {
        let mut places = Places::default();
        for (i, text) in tenants.iter().enumerate() {
            let tenant = serde_saphyr::from_str(text).unwrap();
            places.insert(&Terms::of(&tenant), i);
        }
        places
    }

    #[test]
    fn the_most_specific_host_and_the_longest_prefix_win() {
        let p = places(&[
            "name: a",
            "{ name: b, hosts: [b.example, \"*.b.example\"] }",
            "{ name: c, hosts: [c.b.example] }",
            "{ name: d, hosts: [shared.example], path_prefix: /d }",
            "{ name: e, hosts: [shared.example], path_prefix: /e }",
            "{ name: f, hosts: [\"*.x.b.example\"] }",
        ]);
        for (host, path, want) in [
            ("any", "/t/a/mcp/s", Some(0)),
            ("any", "/t/a", Some(0)),
            ("any", "/t/ab", None),
            ("any", "/mcp/s", None),
            ("any", "/t/a/../b", Some(0)),
            ("B.example:8080", "/mcp/s", Some(1)),
            ("b.example", "/t/a/mcp/s", Some(1)),
            ("x.b.example", "/", Some(1)),
            ("c.b.example", "/", Some(2)),
            ("y.x.b.example", "/", Some(5)),
            ("evilb.example", "/", None),
            (".b.example", "/", None),
            ("shared.example", "/d/mcp", Some(3)),
            ("shared.example", "/e/mcp", Some(4)),
            ("shared.example", "/mcp", None),
            ("shared.example", "/t/a/x", Some(0)),
        ] {
            assert_eq!(p.find(host, path), want, "{host}{path}");
        }
        assert!(p.has_host("z.b.example:1") && !p.has_host("any"));
    }
}
