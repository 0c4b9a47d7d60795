//! The variables of an expression. Each is made when first asked for, at most once per request.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use cel::common::types::{CelList, CelMap, CelNull, CelString};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde_json::Value as Json;

use super::json::{self, Tree};
use super::meter::PatternVal;
use super::program::ExpressionFailure;
use crate::policy::facts::{Facts, Item};

/// Names that stand for a variable; none may be used for anything else.
pub(super) const VARIABLES: [&str; 9] =
    ["arguments", "ip", "method", "prompt", "resource", "route", "server", "tenant", "tool"];

/// The variable whose fields are variables.
pub(super) const PRINCIPAL: &str = "principal";

/// The fields of [`PRINCIPAL`].
pub(super) const PRINCIPAL_FIELDS: [&str; 7] =
    ["claims", "groups", "id", "issuer", "kind", "roles", "scopes"];

/// What a reference to a compiled pattern starts with; no identifier of CEL does.
pub(super) const PATTERN: &str = "@pattern";

/// What expressions can see of one request. Shared by all rules that look at it.
pub(crate) struct Scope<'a> {
    facts: Facts<'a>,
    ip: IpAddr,
    arguments: OnceLock<Result<Tree<'a>, ExpressionFailure>>,
    claims: OnceLock<Result<Tree<'a>, ExpressionFailure>>,
    groups: OnceLock<Tree<'a>>,
    roles: OnceLock<Tree<'a>>,
    scopes: OnceLock<Tree<'a>>,
    ip_text: OnceLock<String>,
}

/// The scope as one program sees it.
pub(super) struct Variables<'s, 'a> {
    scope: Option<&'s Scope<'a>>,
    patterns: &'s [PatternVal],
}

impl<'a> Scope<'a> {
    /// Costs nothing until an expression asks.
    pub(crate) fn new(facts: &Facts<'a>, ip: IpAddr) -> Self {
        Self {
            facts: *facts,
            ip,
            arguments: OnceLock::new(),
            claims: OnceLock::new(),
            groups: OnceLock::new(),
            roles: OnceLock::new(),
            scopes: OnceLock::new(),
            ip_text: OnceLock::new(),
        }
    }

    /// Parses the arguments, once.
    pub(super) fn read_arguments(&self) -> Result<&(dyn Val + 'a), ExpressionFailure> {
        let parse = || match self.facts.arguments {
            Some(text) => json::parse(text),
            None => Ok(Box::new(CelMap::default()) as Tree<'a>),
        };
        self.arguments.get_or_init(parse).as_deref().map_err(|failure| *failure)
    }

    /// Converts the claims, once.
    pub(super) fn read_claims(&self) -> Result<&(dyn Val + 'a), ExpressionFailure> {
        let convert = || match &self.facts.principal.claims {
            claims @ Json::Object(_) => json::convert(claims),
            _ => Ok(Box::new(CelMap::default()) as Tree<'a>),
        };
        self.claims.get_or_init(convert).as_deref().map_err(|failure| *failure)
    }

    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        let principal = self.facts.principal;
        let item = |wanted: bool| text(if wanted { self.facts.item.name() } else { "" });
        Some(match name {
            "arguments" => CowVal::Borrowed(self.read_arguments().ok()?),
            "ip" => text(self.ip_text.get_or_init(|| self.ip.to_string())),
            "method" => text(self.facts.method),
            "prompt" => item(matches!(self.facts.item, Item::Prompt(_))),
            "resource" => item(matches!(self.facts.item, Item::Resource(_) | Item::ResourceTemplate(_))),
            "route" => text(self.facts.route),
            "server" => text(self.facts.server.unwrap_or_default()),
            "tenant" => text(self.facts.tenant),
            "tool" => item(matches!(self.facts.item, Item::Tool(_))),
            _ => match name.strip_prefix(PRINCIPAL)?.strip_prefix('.')? {
                "claims" => CowVal::Borrowed(self.read_claims().ok()?),
                "groups" => CowVal::Borrowed(&**self.groups.get_or_init(|| texts(&principal.groups))),
                "id" => text(principal.id.as_str()),
                "issuer" => match &principal.issuer {
                    Some(issuer) => text(issuer),
                    None => CowVal::owned(CelNull),
                },
                "kind" => text(principal.kind.as_str()),
                "roles" => CowVal::Borrowed(&**self.roles.get_or_init(|| {
                    let names = principal.roles.iter().map(|r| Box::new(CelString::from(r.as_str())) as _);
                    Box::new(CelList::from(names.collect::<Vec<_>>()))
                })),
                "scopes" => CowVal::Borrowed(&**self.scopes.get_or_init(|| texts(&principal.scopes))),
                _ => return None,
            },
        })
    }
}

impl<'s, 'a> Variables<'s, 'a> {
    pub(super) fn new(scope: Option<&'s Scope<'a>>, patterns: &'s [PatternVal]) -> Self {
        Self { scope, patterns }
    }
}

impl VariableResolver for Variables<'_, '_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if let Some(index) = name.strip_prefix(PATTERN) {
            let pattern = self.patterns.get(index.parse::<usize>().ok()?)?;
            return Some(CowVal::Borrowed(pattern));
        }
        self.scope?.resolve(name)
    }
}

fn text<'b>(text: &'b str) -> CowVal<'b, 'b> {
    CowVal::owned(CelString::from(text))
}

fn texts<'a>(names: &'a [Arc<str>]) -> Tree<'a> {
    let names = names.iter().map(|name| Box::new(CelString::from(&**name)) as Tree<'a>);
    Box::new(CelList::from(names.collect::<Vec<_>>()))
}
