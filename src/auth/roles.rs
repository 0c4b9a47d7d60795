//! From claims to roles. Whatever is not a text never gives a role.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::auth::claims::{CompiledRule, texts};
use crate::auth::{ClaimPath, ClaimRule, SpecError};
use crate::base::{Role, RoleSet};

/// The most entries of a role map.
const MAX_MAP: usize = 4096;
/// The most role rules of one issuer.
const MAX_RULES: usize = 256;

/// How an issuer's claims become roles: every mapped value adds its role, then the first rule that matches adds its
/// own; if that gives none, `default` does. Without a default the caller is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoleMapping {
    /// Which claim the map reads: a text or a list of texts. Without it the map must be empty.
    pub claim: Option<ClaimPath>,
    /// Values of the claim and their roles. Compared exactly.
    pub map: Vec<(String, Role)>,
    /// Tried in order after the map; the first match adds its role.
    pub rules: Vec<RoleRule>,
    /// The role of tokens that nothing above matched. None: they are refused.
    pub default: Option<Role>,
}

/// A condition on the claims, and the role it gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleRule {
    /// The condition.
    pub when: ClaimRule,
    /// The role.
    pub role: Role,
}

#[derive(Clone, Debug)]
pub(crate) struct CompiledMapping {
    claim: Option<ClaimPath>,
    map: HashMap<Box<str>, Role>,
    rules: Vec<(CompiledRule, Role)>,
    default: Option<Role>,
}

impl CompiledMapping {
    pub(crate) fn compile(spec: &RoleMapping, field: &str) -> Result<Self, SpecError> {
        if spec.map.len() > MAX_MAP || spec.rules.len() > MAX_RULES {
            return Err(SpecError::new(
                field,
                format!("at most {MAX_MAP} mapped values and {MAX_RULES} rules are allowed"),
            ));
        }
        if spec.claim.is_none() && !spec.map.is_empty() {
            return Err(SpecError::new(format!("{field}.claim"), "a map needs the claim that it reads"));
        }
        let mut map = HashMap::with_capacity(spec.map.len());
        for (value, role) in &spec.map {
            if map.insert(value.as_str().into(), *role).is_some_and(|earlier| earlier != *role) {
                return Err(SpecError::new(format!("{field}.map"), format!("{value:?} has two roles")));
            }
        }
        let rules = spec.rules.iter().enumerate().map(|(i, rule)| {
            Ok((CompiledRule::compile(&rule.when, &format!("{field}.rules[{i}]"))?, rule.role))
        });
        Ok(Self {
            claim: spec.claim.clone(),
            map,
            rules: rules.collect::<Result<_, SpecError>>()?,
            default: spec.default,
        })
    }

    /// The roles that the claims give; empty means refuse.
    pub(crate) fn roles(&self, claims: &Map<String, Value>) -> RoleSet {
        let mut roles = RoleSet::default();
        if let Some(value) = self.claim.as_ref().and_then(|path| path.get(claims)) {
            texts(value).filter_map(|t| self.map.get(t)).for_each(|role| roles.insert(*role));
        }
        if let Some((_, role)) = self.rules.iter().find(|(rule, _)| rule.matches(claims)) {
            roles.insert(*role);
        }
        if roles.is_empty() {
            self.default.into_iter().for_each(|role| roles.insert(role));
        }
        roles
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::auth::ClaimTest;

    fn mapping(default: Option<Role>) -> CompiledMapping {
        let rule = |test, role| RoleRule {
            when: ClaimRule { claim: ClaimPath::parse("email").unwrap(), test },
            role,
        };
        CompiledMapping::compile(
            &RoleMapping {
                claim: Some(ClaimPath::parse("groups").unwrap()),
                map: vec![
                    ("mcp-admins".into(), Role::Admin),
                    ("dev".into(), Role::Developer),
                    ("1".into(), Role::SuperAdmin),
                ],
                rules: vec![
                    rule(ClaimTest::Glob("*@ops.example".into()), Role::ServerOwner),
                    rule(ClaimTest::Glob("*".into()), Role::Viewer),
                ],
                default,
            },
            "roles",
        )
        .unwrap()
    }

    fn roles(default: Option<Role>, claims: Value) -> Vec<Role> {
        mapping(default).roles(claims.as_object().unwrap()).iter().collect()
    }

    #[test]
    fn mapped_values_add_up_and_the_first_rule_counts() {
        let claims = json!({"groups": ["dev", "mcp-admins", "other"], "email": "a@ops.example"});
        assert_eq!(roles(None, claims), [Role::Developer, Role::ServerOwner, Role::Admin]);
        assert_eq!(roles(None, json!({"groups": "dev"})), [Role::Developer]);
        assert_eq!(roles(None, json!({"email": "b@x.example"})), [Role::Viewer]);
    }

    #[test]
    fn the_default_counts_only_if_nothing_matched() {
        assert_eq!(roles(Some(Role::Viewer), json!({"groups": ["x"]})), [Role::Viewer]);
        assert_eq!(roles(Some(Role::Viewer), json!({"groups": ["dev"]})), [Role::Developer]);
        assert_eq!(roles(None, json!({"groups": ["x"]})), []);
    }

    #[test]
    fn odd_types_never_give_a_role() {
        for groups in [
            json!({"mcp-admins": true}),
            json!([{"mcp-admins": 1}]),
            json!([["mcp-admins"]]),
            json!(1),
            json!([1]),
            json!(true),
            json!(null),
            json!("dev mcp-admins"),
            json!("MCP-ADMINS"),
            json!("mcp-admins\u{0}"),
            json!(["mcp\u{2010}admins"]),
        ] {
            assert_eq!(roles(None, json!({ "groups": groups })), [], "{groups}");
        }
    }

    #[test]
    fn contradictions_do_not_compile() {
        let twice = RoleMapping {
            claim: Some(ClaimPath::parse("groups").unwrap()),
            map: vec![("a".into(), Role::Admin), ("a".into(), Role::Viewer)],
            ..RoleMapping::default()
        };
        assert!(CompiledMapping::compile(&twice, "roles").is_err());
        let unread = RoleMapping { claim: None, ..twice };
        assert!(CompiledMapping::compile(&unread, "roles").is_err());
    }
}
