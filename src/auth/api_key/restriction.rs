//! What a key is restricted to, ready to be asked.

use crate::auth::KeyScopes;
use crate::auth::pattern::Pattern;

/// The compiled scopes of a key. Whoever serves a request of the key's principal must ask each question that applies:
/// roles and policies come on top, they do not widen this.
#[derive(Debug)]
pub struct Restriction {
    routes: Vec<Pattern>,
    servers: Vec<Pattern>,
    tools: Vec<Pattern>,
    methods: Vec<Pattern>,
}

impl Restriction {
    /// Compiles scopes; `None` if they restrict nothing.
    pub(super) fn compile(scopes: &KeyScopes) -> Result<Option<Self>, String> {
        if *scopes == KeyScopes::default() {
            return Ok(None);
        }
        let list = |name: &str, list: &[String]| -> Result<Vec<Pattern>, String> {
            let patterns = list.iter().map(|text| {
                Pattern::parse(text).map_err(|problem| format!("`scopes.{name}`: {text:?}: {problem}"))
            });
            patterns.collect()
        };
        Ok(Some(Self {
            routes: list("routes", &scopes.routes)?,
            servers: list("servers", &scopes.servers)?,
            tools: list("tools", &scopes.tools)?,
            methods: list("methods", &scopes.methods)?,
        }))
    }

    /// Whether the key may use this route.
    pub fn allows_route(&self, name: &str) -> bool {
        allows(&self.routes, name)
    }

    /// Whether the key may use this server.
    pub fn allows_server(&self, name: &str) -> bool {
        allows(&self.servers, name)
    }

    /// Whether the key may see and call this tool (the server's own name for it).
    pub fn allows_tool(&self, name: &str) -> bool {
        allows(&self.tools, name)
    }

    /// Whether the key may use this JSON-RPC method.
    pub fn allows_method(&self, name: &str) -> bool {
        allows(&self.methods, name)
    }
}

fn allows(patterns: &[Pattern], name: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_lists_do_not_restrict_and_others_do() {
        assert!(Restriction::compile(&KeyScopes::default()).unwrap().is_none());
        let scopes = KeyScopes { tools: vec!["get_*".into(), "ping".into()], ..KeyScopes::default() };
        let restriction = Restriction::compile(&scopes).unwrap().unwrap();
        assert!(restriction.allows_tool("get_weather") && restriction.allows_tool("ping"));
        assert!(!restriction.allows_tool("delete") && !restriction.allows_tool(""));
        assert!(
            restriction.allows_route("any")
                && restriction.allows_server("any")
                && restriction.allows_method("any")
        );
    }

    #[test]
    fn broken_patterns_are_named() {
        let scopes = KeyScopes { routes: vec!["[".into()], ..KeyScopes::default() };
        assert!(Restriction::compile(&scopes).unwrap_err().starts_with("`scopes.routes`: \"[\""));
    }
}
