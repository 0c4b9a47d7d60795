//! Limits and policies.

use std::sync::Arc;

use super::CompileError;
use crate::base::{Role, TenantId};
use crate::config::model::{self, DefaultEffect, LimitBackend, LimitFail, LimitKey};
use crate::config::{RuleFinding, Validated};
use crate::limit::{Backend, CostSpec, KeyPart, Limit, LimitSpec, Outage, Rate, Rates};
use crate::policy::{Effect, Finding, Policy, PolicySpec, Record, RuleSpec};

/// The compiled rules of a document, by name.
pub(super) struct Rules {
    limits: Vec<Arc<Limit>>,
    policies: Vec<Arc<Policy>>,
}

impl Rules {
    pub(super) fn limit(&self, name: &str) -> Option<Arc<Limit>> {
        self.limits.iter().find(|l| l.name() == name).cloned()
    }

    pub(super) fn policy(&self, name: &str) -> Option<Arc<Policy>> {
        self.policies.iter().find(|p| p.name() == name).cloned()
    }
}

pub(super) fn compile(tenant: &TenantId, document: &Validated) -> Result<Rules, Vec<CompileError>> {
    let mut errors = Vec::new();
    let mut limits = Vec::new();
    for limit in document.limits() {
        match compile_limit(tenant, limit) {
            Ok(compiled) => limits.push(Arc::new(compiled)),
            Err(e) => errors.push(CompileError::new(format!("limits.{}", limit.name), e)),
        }
    }
    let mut policies = Vec::new();
    for policy in &document.document().policies {
        match Policy::compile(&policy_spec(policy)) {
            Ok(compiled) => policies.push(Arc::new(compiled)),
            Err(found) => {
                let at = format!("policies.{}", policy.name);
                errors.extend(found.0.iter().map(|e| CompileError::new(&at, e)));
            }
        }
    }
    if errors.is_empty() { Ok(Rules { limits, policies }) } else { Err(errors) }
}

fn compile_limit(tenant: &TenantId, limit: &model::Limit) -> Result<Limit, String> {
    let rate = |rate: model::Rate| {
        Rate::new(rate.count(), rate.per(), limit.burst.tokens(rate)).map_err(|e| e.to_string())
    };
    let rates = match (limit.rate, &limit.per_role) {
        (Some(one), _) => Rates::One(rate(one)?),
        (None, Some(_)) => {
            let mut table = [None; 6];
            for role in Role::ALL {
                table[role as usize] = limit.rate_of(role).map(rate).transpose()?;
            }
            Rates::PerRole(table)
        }
        (None, None) => return Err("has neither `rate` nor `per_role`".to_owned()),
    };
    let key = limit.key.as_slice().iter().map(|part| match part {
        LimitKey::Ip => KeyPart::Ip,
        LimitKey::Key => KeyPart::Key,
        LimitKey::Principal => KeyPart::Principal,
        LimitKey::Role => KeyPart::Role,
        LimitKey::Route => KeyPart::Route,
        LimitKey::Server => KeyPart::Server,
        LimitKey::Tenant => KeyPart::Tenant,
        LimitKey::Tool => KeyPart::Tool,
        LimitKey::User => KeyPart::User,
    });
    let costs =
        |map: &std::collections::BTreeMap<String, u32>| map.iter().map(|(k, v)| (k.clone(), *v)).collect();
    Limit::compile(&LimitSpec {
        scope: tenant.as_str().to_owned(),
        name: limit.name.as_str().to_owned(),
        key: key.collect(),
        rates,
        cost: CostSpec {
            default: limit.cost.default,
            methods: costs(&limit.cost.methods),
            tools: costs(&limit.cost.tools),
        },
        backend: match (limit.backend, limit.fail) {
            (LimitBackend::Local, _) => Backend::Local,
            (LimitBackend::Valkey, LimitFail::Closed) => Backend::Shared(Outage::Closed),
            (LimitBackend::Valkey, LimitFail::Local) => Backend::Shared(Outage::Local),
            (LimitBackend::Valkey, LimitFail::Open) => Backend::Shared(Outage::Open),
        },
    })
    .map_err(|e| e.to_string())
}

/// What the engine finds suspicious about a policy, besides what validation finds by itself.
pub fn policy_findings(policy: &model::Policy) -> Vec<RuleFinding> {
    let Ok(compiled) = Policy::compile(&policy_spec(policy)) else { return Vec::new() };
    let found = compiled.findings().into_iter().filter_map(|finding| {
        let text = finding.to_string();
        match finding {
            Finding::Shadowed { .. } => None,
            Finding::MayFail { rule, .. } | Finding::NeverMatches { rule, .. } => {
                Some(RuleFinding { rule, message: text })
            }
        }
    });
    found.collect()
}

/// A policy as its engine takes it.
pub(crate) fn policy_spec(policy: &model::Policy) -> PolicySpec {
    PolicySpec {
        name: policy.name.as_str().to_owned(),
        default: match policy.default {
            DefaultEffect::Allow => Effect::Allow,
            DefaultEffect::Deny => Effect::Deny,
        },
        explain: policy.explain,
        rules: policy.rules.iter().filter_map(rule_spec).collect(),
    }
}

fn rule_spec(rule: &model::Rule) -> Option<RuleSpec> {
    let (allow, matcher) = rule.effect()?;
    Some(RuleSpec {
        name: rule.name.as_ref().map(|n| n.as_str().to_owned()),
        roles: matcher.roles.iter().map(|r| Role::from(*r)).collect(),
        kinds: matcher.kinds.iter().map(|k| (*k).into()).collect(),
        principals: matcher.principals.clone(),
        groups: matcher.groups.clone(),
        scopes: matcher.scopes.clone(),
        methods: matcher.methods.clone(),
        tools: matcher.tools.clone(),
        prompts: matcher.prompts.clone(),
        resources: matcher.resources.clone(),
        servers: matcher.servers.iter().map(|s| s.as_str().to_owned()).collect(),
        cidrs: matcher.cidr.iter().map(|c| c.get()).collect(),
        when: rule.when.clone(),
        record: rule.record.as_ref().map(|record| Record {
            request: record.request,
            response: record.response,
            max: usize::try_from(record.max.bytes()).unwrap_or(usize::MAX),
            redact: record.redact.iter().map(|name| name.as_str().into()).collect(),
        }),
        ..RuleSpec::new(if allow { Effect::Allow } else { Effect::Deny })
    })
}
