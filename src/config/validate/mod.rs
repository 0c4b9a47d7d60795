//! The rules that no single value can break: references, combinations, consequences.
//!
//! One file per area; each rule reports under a stable code. Rules run on what could be typed of a document even if
//! some of it is wrong; then only errors are reported, and none about the wrong parts, so that every finding is real.

mod identity;
mod limits;
mod listeners;
mod policies;
mod process;
mod routes;
mod servers;
mod shadow;
mod tenant;
mod tenants;
mod valkey;

use std::collections::{BTreeSet, HashMap};

use super::findings::{Finding, Findings};
use super::model::{Document, Name, Period, Policy, SourceKind};
use super::path::Path;
use super::suggest::nearest;
use super::terms::Terms;

/// What validation asks other engines.
#[derive(Clone, Copy)]
pub struct Hooks<'a> {
    /// Compiles an expression, and says why it does not compile.
    pub expression: &'a dyn Fn(&str) -> Result<(), String>,
    /// Compiles a name pattern with `*`, and says why it does not compile.
    pub pattern: &'a dyn Fn(&str) -> Result<(), String>,
    /// What else can be said about a policy, such as expressions that can fail. Not rules that are never reached
    /// because of an earlier one; those are found here.
    pub policy: &'a dyn Fn(&Policy) -> Vec<RuleFinding>,
}

/// Something doubtful about a rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFinding {
    /// The rule, from 0.
    pub rule: usize,
    /// What is doubtful about it.
    pub message: String,
}

impl Hooks<'static> {
    /// Accepts every expression and pattern. For tests and tools without the policy engine.
    pub fn permissive() -> Self {
        Self { expression: &|_| Ok(()), pattern: &|_| Ok(()), policy: &|_| Vec::new() }
    }
}

/// A document under validation.
pub(crate) struct Context<'a> {
    pub(crate) document: &'a Document,
    pub(crate) hooks: Hooks<'a>,
    /// The parts that could not be typed and have been reported.
    pub(crate) broken: Vec<Path>,
    /// Names that the text defines, those of items that could not be typed included.
    pub(crate) names: Names,
    pub(crate) findings: Findings,
}

/// The names defined in a document.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) servers: Known,
    pub(crate) limits: Known,
    pub(crate) policies: Known,
}

/// The names defined in one list.
pub(crate) type Known = BTreeSet<String>;

impl Names {
    /// Those of a typed document.
    pub(crate) fn of(document: &Document) -> Self {
        Self {
            servers: document.servers.iter().map(|s| s.name.to_string()).collect(),
            limits: document.limits.iter().map(|l| l.name.to_string()).collect(),
            policies: document.policies.iter().map(|p| p.name.to_string()).collect(),
        }
    }
}

/// Runs every rule about a file, but those about the documents of its tenants.
pub(crate) fn validate(context: &mut Context<'_>) {
    listeners::validate(context);
    process::validate(context);
    valkey::validate(context);
    tenants::validate(context);
    sections(context);
    if context.document.source == SourceKind::File {
        listeners::exposure(context);
    }
}

/// Runs every rule about which tenants there are.
pub(crate) fn validate_platform(context: &mut Context<'_>) {
    tenants::validate(context);
    for (i, tenant) in context.document.tenants.iter().enumerate() {
        if tenant.document.is_some() {
            context
                .error(
                    "unknown-key",
                    &Path::of("tenants").index(i).key("document"),
                    "a document in the platform's own",
                )
                .hint("documents of tenants are stored each by itself");
        }
    }
}

/// Runs every rule about a tenant's document, which stands in `context` amid the static sections of the process.
pub(crate) fn validate_tenant(context: &mut Context<'_>, terms: &Terms) {
    if terms.is_operator() {
        listeners::exposure(context);
        tenants::own_routes(context);
    } else {
        tenant::validate(context, terms);
    }
    sections(context);
}

fn sections(context: &mut Context<'_>) {
    servers::validate(context);
    routes::validate(context);
    limits::validate(context);
    policies::validate(context);
    identity::validate(context);
    // A misspelt reference makes what it meant look unused; saying both would be one too many.
    if context.findings.has_code("unknown-name") {
        context.findings.drop_warnings("unused");
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(document: &'a Document, hooks: Hooks<'a>, broken: Vec<Path>, names: Names) -> Self {
        Self { document, hooks, broken, names, findings: Findings::default() }
    }

    pub(crate) fn error(
        &mut self,
        code: &'static str,
        path: &Path,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.findings.error(code, path, message)
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        path: &Path,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.findings.warning(code, path, message)
    }

    /// Whether nothing at, in or above this part is broken.
    pub(crate) fn intact(&self, dotted: &str) -> bool {
        let path = Path::of(dotted);
        !self.broken.iter().any(|broken| broken.overlaps(&path))
    }

    /// Reports names that are defined twice in a list.
    fn unique<'n>(&mut self, list: &str, what: &str, names: impl Iterator<Item = &'n Name>) {
        let mut seen: HashMap<&Name, usize> = HashMap::new();
        for (i, name) in names.enumerate() {
            if let Some(first) = seen.get(name) {
                let message = format!("{what} `{name}` is defined twice");
                let hint = format!("the first is {list}[{first}]");
                self.error("duplicate-name", &Path::of(list).index(i).key("name"), message).hint(hint);
            } else {
                seen.insert(name, i);
            }
        }
    }

    /// Reports a reference to something that is not defined.
    fn defined(&mut self, path: &Path, what: &str, name: &Name, known: impl Fn(&Names) -> &Known) {
        let known = known(&self.names);
        if known.contains(name.as_str()) {
            return;
        }
        // Bounded, because a document may have as many dangling references as names.
        let known: Vec<&str> = known.iter().take(MAX_SUGGESTED).map(String::as_str).collect();
        let has_room = self.findings.has_room();
        let finding = self.findings.error("unknown-name", path, format!("there is no {what} `{name}`"));
        if !has_room {
            return;
        }
        if known.is_empty() {
            finding.expected(format!("a {what} that is defined; none is"));
        } else {
            finding.expected(format!("one of {}", super::suggest::list(&known)));
        }
        if let Some(near) = nearest(name.as_str(), known) {
            finding.hint(format!("did you mean `{near}`?"));
        }
    }

    /// Reports a duration outside its bounds.
    fn period(&mut self, path: Path, value: Period, min: Period, max: Period) {
        if value < min || value > max {
            self.error("out-of-range", &path, format!("`{value}` is out of range"))
                .expected(format!("a duration from `{min}` to `{max}`"));
        }
    }
}

/// Most names looked through for the nearest one.
const MAX_SUGGESTED: usize = 500;
/// One millisecond: the least duration that is not none.
const SOME: Period = Period::from_millis(1);
/// An hour.
const HOUR: Period = Period::from_secs(3600);
/// A day.
const DAY: Period = Period::from_secs(86_400);
