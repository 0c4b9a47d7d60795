//! Who may call: issuers, keys, revocations.

use std::sync::Arc;

use super::{CompileError, Files, State};
use crate::auth::{
    Alg, AlgSet, AuthSpec, Authenticator, ClaimPath, ClaimRule, ClaimTest, IssuerSpec, JwksLocation,
    JwksSpec, KeyTable, KindRule, RevocationList, RoleMapping, RoleRule,
};
use crate::base::{Role, TenantId};
use crate::config::Validated;
use crate::config::model::{self, Algorithm};
use crate::snapshot::TenantIdentity;

/// Identity, built and not yet in force.
pub(super) struct Identity {
    pub(super) authenticator: Arc<Authenticator>,
    registries: TenantIdentity,
    api_keys: KeyTable,
    revocations: Option<RevocationList>,
}

impl Identity {
    /// Puts keys and revocations in force; the authenticator comes with the snapshot.
    pub(super) fn commit(&self, tenant: &TenantId, state: &State) {
        self.registries.file_keys.install(self.api_keys.clone());
        match &self.revocations {
            Some(list) => self.registries.revocations.replace(list.clone()),
            // Whatever the feed brought stays.
            None if state.identities.is_fed() => {}
            None => self.registries.revocations.replace(RevocationList::default()),
        }
        state.identities.keep(tenant, self.registries.clone());
    }
}

pub(super) fn compile(
    document: &Validated,
    state: &State,
    files: &mut Files<'_>,
) -> Result<Identity, Vec<CompileError>> {
    let tenant = document.tenant();
    let model = document.document();
    let identity = &model.identity;
    let mut errors = Vec::new();
    let mut issuers = Vec::new();
    for issuer in &identity.issuers {
        match issuer_spec(issuer, document, state, files) {
            Ok(spec) => issuers.push(spec),
            Err(e) => errors.push(CompileError::new(format!("identity.issuers.{}", issuer.name), e)),
        }
    }
    let pepper = identity.key_file().and_then(|keys| keys.pepper.as_ref());
    let registries = match state.identities.peppered(tenant, pepper) {
        Ok(registries) => registries,
        Err(e) => {
            errors.push(CompileError::new("identity.api_keys.pepper", e));
            state.identities.of(tenant)
        }
    };
    let mut api_keys = KeyTable::default();
    if let Some(keys) = identity.key_file() {
        let at = "identity.api_keys.file";
        match files.text(&keys.file, at) {
            Ok(text) => match registries.file_keys.parse(&text) {
                Ok(table) => api_keys = table,
                Err(lines) => errors.extend(lines.iter().map(|l| at_line(at, &keys.file, l))),
            },
            Err(e) => errors.push(e),
        }
    }
    let mut revocations = None;
    if let Some(list) = &identity.revocations {
        let at = "identity.revocations.file";
        if state.identities.is_fed() {
            errors.push(CompileError::new(at, "revocations come from the store; revoke there"));
        }
        match files.text(&list.file, at) {
            Ok(text) => match RevocationList::parse(&text) {
                Ok(parsed) => revocations = Some(parsed),
                Err(lines) => errors.extend(lines.iter().map(|l| at_line(at, &list.file, l))),
            },
            Err(e) => errors.push(e),
        }
    }
    // An operator's document that says nothing of identity is one that passed validation as open; a tenant's lets
    // nobody in.
    let open = identity.says_nothing() && document.terms().is_operator();
    let spec = AuthSpec {
        tenant: tenant.clone(),
        issuers,
        api_keys: if identity.store_keys() {
            Some(registries.store_keys.clone())
        } else {
            identity.key_file().map(|_| registries.file_keys.clone())
        },
        anonymous: match &identity.anonymous {
            Some(anonymous) => Some(Role::from(anonymous.role)),
            None => open.then_some(Role::Anonymous),
        },
        loopback: identity.loopback.as_ref().map(|l| Role::from(l.role)),
        revocations: registries.revocations.clone(),
        bindings: registries.bindings.clone(),
        max_staleness: (identity.store_keys() && identity.on_stale == model::OnStale::Refuse)
            .then(|| identity.max_staleness.get()),
    };
    match Authenticator::compile(spec, state.auth.clone()) {
        Ok(authenticator) if errors.is_empty() => {
            Ok(Identity { authenticator: Arc::new(authenticator), registries, api_keys, revocations })
        }
        Ok(_) => Err(errors),
        Err(e) => {
            errors.push(CompileError::new("identity", e));
            Err(errors)
        }
    }
}

fn at_line(at: &str, file: &std::path::Path, line: &crate::auth::LineError) -> CompileError {
    CompileError::new(at, format!("{}: {line}", file.display()))
}

fn issuer_spec(
    issuer: &model::Issuer,
    document: &Validated,
    state: &State,
    files: &mut Files<'_>,
) -> Result<IssuerSpec, String> {
    let location = match (&issuer.jwks.url, &issuer.jwks.file) {
        (Some(url), _) => JwksLocation::Url(url.as_str().to_owned()),
        (None, Some(file)) => {
            files.seen.push(file.clone());
            JwksLocation::File(file.clone())
        }
        (None, None) => JwksLocation::Discovery(issuer.issuer.clone()),
    };
    let jwks = state
        .jwks
        .source(JwksSpec {
            refresh: issuer.jwks.refresh().get(),
            max_stale: issuer.jwks.max_stale.get(),
            allow_http: document.document().insecure_options.plaintext_jwks,
            tenant: document.tenant().clone(),
            guard: document.terms().guard(),
            // Where the issuer's configuration may send us was not granted, but for the issuer itself.
            same_origin: !document.terms().issuers().is_empty(),
            ..JwksSpec::new(location)
        })
        .map_err(|e| format!("jwks: {e}"))?;
    let path = |text: &str| ClaimPath::parse(text).map_err(|e| e.to_string());
    let mut spec = IssuerSpec::new(issuer.name.as_str(), issuer.issuer.clone(), jwks);
    spec.audiences.clone_from(&issuer.audiences);
    spec.algorithms = issuer.algorithms.iter().copied().map(algorithm).collect::<AlgSet>();
    spec.leeway = issuer.leeway.get();
    spec.principal_claim = path(&issuer.principal_claim)?;
    spec.groups_claim = path(&issuer.groups_claim)?;
    spec.scope_claim = issuer.scopes_claim.as_deref().map(path).transpose()?;
    spec.kind = match issuer.kind {
        model::IssuerKind::Auto => KindRule::Auto,
        model::IssuerKind::Service => KindRule::Service,
        model::IssuerKind::User => KindRule::User,
    };
    spec.required = issuer.required.iter().map(claim_rule).collect::<Result<_, _>>()?;
    spec.roles = RoleMapping {
        claim: issuer.roles.claim.as_deref().map(path).transpose()?,
        map: issuer.roles.map.iter().map(|(value, role)| (value.clone(), Role::from(*role))).collect(),
        rules: issuer
            .roles
            .rules
            .iter()
            .map(|rule| {
                let when = claim_rule(&rule.when)?;
                Ok::<_, String>(RoleRule { when, role: Role::from(rule.role) })
            })
            .collect::<Result<_, _>>()?,
        default: issuer.roles.default.role(),
    };
    Ok(spec)
}

fn claim_rule(test: &model::ClaimTest) -> Result<ClaimRule, String> {
    let claim = ClaimPath::parse(&test.claim).map_err(|e| e.to_string())?;
    let test = match (&test.contains, &test.equals, &test.matches) {
        (Some(word), _, _) => ClaimTest::Contains(word.clone()),
        (_, Some(value), _) => ClaimTest::Equals(serde_json::to_value(value).map_err(|e| e.to_string())?),
        (_, _, Some(glob)) => ClaimTest::Glob(glob.clone()),
        (None, None, None) => return Err("a claim test needs `contains`, `equals` or `matches`".to_owned()),
    };
    Ok(ClaimRule { claim, test })
}

fn algorithm(algorithm: Algorithm) -> Alg {
    match algorithm {
        Algorithm::ES256 => Alg::Es256,
        Algorithm::ES384 => Alg::Es384,
        Algorithm::EdDSA => Alg::EdDsa,
        Algorithm::PS256 => Alg::Ps256,
        Algorithm::PS384 => Alg::Ps384,
        Algorithm::PS512 => Alg::Ps512,
        Algorithm::RS256 => Alg::Rs256,
        Algorithm::RS384 => Alg::Rs384,
        Algorithm::RS512 => Alg::Rs512,
    }
}
