//! Going through the rules.

use super::analysis::{Finding, findings};
use super::cel::Scope;
use super::decision::{Cause, Decision, Outcome, RuleRef, RuleTrace, Trace};
use super::error::{CompileError, CompileErrors, Problem};
use super::facts::{COMPLETE, Facts, Item, ItemKind, is_open_method};
use super::rule::{Field, MAX_ENTRIES, Rule, View, When};
use super::spec::{Effect, PolicySpec, Record};

/// A compiled policy. Immutable; share it in an `Arc`.
#[derive(Debug)]
pub struct Policy {
    name: Box<str>,
    default: Effect,
    explain: bool,
    rules: Box<[Rule]>,
    decides_lists: [bool; 3],
    reads_arguments: bool,
}

impl Policy {
    /// Compiles a policy.
    ///
    /// # Errors
    ///
    /// Every problem of every rule, not only the first.
    pub fn compile(spec: &PolicySpec) -> Result<Self, CompileErrors> {
        if spec.rules.len() > MAX_ENTRIES {
            let problem = Problem::TooMany(MAX_ENTRIES);
            return Err(CompileErrors(vec![CompileError { rule: None, field: None, problem }]));
        }
        let mut errors = Vec::new();
        let rules: Box<[Rule]> =
            spec.rules.iter().enumerate().map(|(i, rule)| Rule::compile(i, rule, &mut errors)).collect();
        if !errors.is_empty() {
            return Err(CompileErrors(errors));
        }
        let mut decides_lists = [false; 3];
        for kind in ItemKind::ALL {
            decides_lists[kind as usize] = can_hide(&rules, spec.default, kind);
        }
        let reads = |rule: &Rule| matches!(&rule.when, When::If(program) if program.reads_arguments());
        Ok(Self {
            name: spec.name.as_str().into(),
            default: spec.default,
            explain: spec.explain,
            reads_arguments: rules.iter().any(reads),
            rules,
            decides_lists,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its rules, in order.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What happens to requests that no rule matches.
    pub(crate) fn default_effect(&self) -> Effect {
        self.default
    }

    /// Whether a denied caller is told so, instead of hearing that the item does not exist.
    pub fn explains(&self) -> bool {
        self.explain
    }

    /// Whether some rule reads the arguments of calls, so that [`Facts::arguments`] must be filled in.
    pub fn reads_arguments(&self) -> bool {
        self.reads_arguments
    }

    /// Whether lists of this kind must be filtered: whether any item of it could be hidden from anybody.
    pub fn decides_lists(&self, kind: ItemKind) -> bool {
        self.decides_lists[kind as usize]
    }

    /// What is to be recorded of the bodies of a request that was decided so.
    pub fn recorded(&self, decision: &Decision<'_>) -> Option<&Record> {
        self.rules.get(decision.rule()?.index)?.record.as_ref()
    }

    /// Decides a request. For `completion/complete` the item stands for the later call, whose arguments are unknown.
    pub fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        self.run(facts, view_of(facts), None)
    }

    /// Whether an item appears in a list that `facts` ask for: whether some call of it could be allowed.
    pub fn visible(&self, facts: &Facts<'_>, item: Item<'_>) -> bool {
        let facts = Facts { method: item.method(), item, arguments: None, ..*facts };
        self.run(&facts, View::List, None).is_allowed()
    }

    /// Decides a request and says what every rule had to do with it.
    pub fn explain(&self, facts: &Facts<'_>) -> Trace<'_> {
        let mut rules = Vec::with_capacity(self.rules.len());
        let decision = self.run(facts, view_of(facts), Some(&mut rules));
        for index in rules.len()..self.rules.len() {
            rules.push(self.trace(index, Outcome::NotReached));
        }
        Trace { decision, rules }
    }

    /// What is suspicious about the policy, for `check`.
    pub fn findings(&self) -> Vec<Finding> {
        findings(&self.rules)
    }

    fn run<'p>(
        &'p self,
        facts: &Facts<'_>,
        view: View,
        mut trace: Option<&mut Vec<RuleTrace<'p>>>,
    ) -> Decision<'p> {
        if !facts.is_consistent() {
            return Decision { effect: Effect::Deny, cause: Cause::Malformed };
        }
        let ip = facts.ip.to_canonical();
        let scope = Scope::new(facts, ip);
        for (index, rule) in self.rules.iter().enumerate() {
            if let Err(field) = rule.matches(facts, ip) {
                if let Some(trace) = &mut trace {
                    trace.push(self.trace(index, Outcome::Mismatch(field)));
                }
                continue;
            }
            let outcome = judge(rule, view, &scope);
            let decision = self.conclude(index, rule, &outcome);
            if let Some(trace) = &mut trace {
                trace.push(self.trace(index, outcome));
            }
            if let Some(decision) = decision {
                return decision;
            }
        }
        match self.default {
            Effect::Deny if facts.item == Item::None && is_open_method(facts.method) => {
                Decision { effect: Effect::Allow, cause: Cause::OpenMethod }
            }
            effect => Decision { effect, cause: Cause::Default },
        }
    }

    /// The decision that follows from what a rule's expression says, if one does.
    fn conclude(&self, index: usize, rule: &Rule, outcome: &Outcome) -> Option<Decision<'_>> {
        let this = self.rule_ref(index);
        Some(match outcome {
            Outcome::Failed(failure) => {
                Decision { effect: Effect::Deny, cause: Cause::Failed(this, *failure) }
            }
            Outcome::Matched => Decision { effect: rule.effect, cause: Cause::Rule(this) },
            Outcome::Undecided if rule.effect == Effect::Allow => {
                Decision { effect: Effect::Allow, cause: Cause::Undecided(this) }
            }
            Outcome::Mismatch(_) | Outcome::NotReached | Outcome::Undecided => return None,
        })
    }

    fn rule_ref(&self, index: usize) -> RuleRef<'_> {
        RuleRef { index, name: self.rules[index].name.as_deref() }
    }

    fn trace(&self, index: usize, outcome: Outcome) -> RuleTrace<'_> {
        RuleTrace { rule: self.rule_ref(index), effect: self.rules[index].effect, outcome }
    }
}

/// What the expression of a rule says whose fields match.
fn judge(rule: &Rule, view: View, scope: &Scope<'_>) -> Outcome {
    match &rule.when {
        When::Always => Outcome::Matched,
        When::Never => Outcome::Mismatch(Field::When),
        When::If(program) if view == View::List && program.reads_arguments() => Outcome::Undecided,
        When::If(program) => match program.evaluate(scope) {
            Ok(true) => Outcome::Matched,
            Ok(false) => Outcome::Mismatch(Field::When),
            Err(failure) => Outcome::Failed(failure),
        },
    }
}

fn view_of(facts: &Facts<'_>) -> View {
    if facts.method == COMPLETE { View::List } else { View::Call }
}

/// Whether any item of this kind could be invisible to anybody.
fn can_hide(rules: &[Rule], default: Effect, kind: ItemKind) -> bool {
    for rule in rules {
        let concerns = rule.items.is_empty() || rule.items.contains(kind);
        let hides = match &rule.when {
            When::Always => rule.effect == Effect::Deny,
            // An undecided deny is skipped, an undecided allow shows; anything else may also fail, which denies.
            When::If(program) => !program.reads_arguments(),
            When::Never => false,
        };
        if concerns && hides {
            return true;
        }
        if rule.effect == Effect::Allow && rule.covers_all(kind) {
            return false;
        }
    }
    default == Effect::Deny
}
