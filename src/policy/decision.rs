//! What a policy answers.

use super::cel::ExpressionFailure;
use super::rule::Field;
use super::spec::Effect;

/// The answer to one request. Borrows the policy for the rule's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'p> {
    /// Whether the request may go on.
    pub effect: Effect,
    /// Why.
    pub cause: Cause<'p>,
}

/// Why a request was allowed or denied. For logs and audit; what the client hears is decided elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause<'p> {
    /// No rule matched; the policy's default.
    Default,
    /// A rule's expression could not be evaluated: denied.
    Failed(RuleRef<'p>, ExpressionFailure),
    /// The method and what it reaches do not belong together, or a name is too long: denied.
    Malformed,
    /// No rule matched, and the default does not apply to this method: allowed.
    OpenMethod,
    /// This rule matched.
    Rule(RuleRef<'p>),
    /// This allow rule reads arguments, which are not known yet: allowed so far.
    Undecided(RuleRef<'p>),
}

/// A rule of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'p> {
    /// Its position, counted from zero.
    pub index: usize,
    /// Its name, if it has one.
    pub name: Option<&'p str>,
}

/// Why a request is decided as it is, rule by rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace<'p> {
    /// The decision.
    pub decision: Decision<'p>,
    /// Every rule, in order.
    pub rules: Vec<RuleTrace<'p>>,
}

/// What one rule said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleTrace<'p> {
    /// Which.
    pub rule: RuleRef<'p>,
    /// What it would do.
    pub effect: Effect,
    /// Whether it matched.
    pub outcome: Outcome,
}

/// Whether a rule matched, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The expression could not be evaluated.
    Failed(ExpressionFailure),
    /// It decided the request.
    Matched,
    /// The first field that did not match.
    Mismatch(Field),
    /// An earlier rule had decided.
    NotReached,
    /// It reads arguments, which are not known for lists and completions.
    Undecided,
}

impl Decision<'_> {
    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        self.effect == Effect::Allow
    }

    /// The rule that decided, if one did.
    pub fn rule(&self) -> Option<RuleRef<'_>> {
        match &self.cause {
            Cause::Failed(rule, _) | Cause::Rule(rule) | Cause::Undecided(rule) => Some(*rule),
            Cause::Default | Cause::Malformed | Cause::OpenMethod => None,
        }
    }

    /// A word for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self.cause {
            Cause::Default => "default",
            Cause::Failed(..) => "expression_failed",
            Cause::Malformed => "malformed",
            Cause::OpenMethod => "open_method",
            Cause::Rule(_) => "rule",
            Cause::Undecided(_) => "undecided",
        }
    }
}
