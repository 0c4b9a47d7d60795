//! Compiles the documents of the store into what is served.
//!
//! The static sections stay those of the process's own file. A document is compiled on registries of its own first, so
//! that one that does not compile touches nothing that is in force.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::app::options::Environment;
use crate::app::reload::{hooks, read_file};
use crate::app::state;
use crate::base::{Scope, TenantId};
use crate::config::{
    self, Canonical, Loaded, LoadedPlatform, SourceError, Sources, SystemSources, Terms, Validated, model,
};
use crate::snapshot::{
    Canary, CompileError, Snapshot, SnapshotCell, State, TenantSnapshot, compile_beside, compile_tenant,
};
use crate::source::canary::Beside;
use crate::source::{Refusal, SecretValues, Serve, Stored};

/// Serves the documents of one store.
pub(super) struct DocumentServer {
    settings: model::Document,
    env: Environment,
    origin: String,
    state: State,
    cell: Arc<SnapshotCell>,
    current: Mutex<Current>,
}

/// What is in force.
#[derive(Default)]
struct Current {
    tenants: Vec<model::Tenant>,
    documents: HashMap<TenantId, Validated>,
    since: u64,
}

impl DocumentServer {
    /// Serves nothing yet: the snapshot has no tenants.
    pub(super) fn new(own: &Validated, env: Environment, origin: &str, state: &State) -> Self {
        let settings = model::Document {
            servers: Vec::new(),
            routes: Vec::new(),
            limits: Vec::new(),
            policies: Vec::new(),
            identity: model::Identity::default(),
            tenants: Vec::new(),
            ..own.document().clone()
        };
        Self {
            settings,
            env,
            origin: origin.to_owned(),
            state: state.clone(),
            cell: Arc::new(SnapshotCell::new(Snapshot::new([]))),
            current: Mutex::default(),
        }
    }

    /// Where the snapshot in force is.
    pub(super) fn cell(&self) -> Arc<SnapshotCell> {
        self.cell.clone()
    }

    /// Since when what is in force is, in milliseconds since the Unix epoch.
    pub(super) fn since(&self) -> u64 {
        self.current.lock().since
    }

    fn platform(&self, content: &[u8]) -> Result<LoadedPlatform, Refusal> {
        let none = SecretValues::new();
        let sources = sources(&self.env, &TenantId::default(), &none);
        let loaded = config::load_platform(content, "platform document", &self.settings, &sources, hooks());
        if loaded.tenants.is_some() {
            Ok(loaded)
        } else {
            Err(Refusal::Document(Box::new(loaded.diagnostics)))
        }
    }

    /// Reads a tenant's document on the terms of the platform's.
    fn load(
        &self,
        tenants: &[model::Tenant],
        tenant: &TenantId,
        content: &[u8],
        secrets: &SecretValues,
    ) -> Result<Loaded, Refusal> {
        let terms = if *tenant == TenantId::default() {
            Terms::operator()
        } else {
            let granted = tenants.iter().find(|t| t.name.as_str() == tenant.as_str());
            granted.map(Terms::of).ok_or_else(|| unknown(tenant))?
        };
        let settings = model::Document { tenants: tenants.to_vec(), ..self.settings.clone() };
        let sources = sources(&self.env, tenant, secrets);
        let name = format!("document of {tenant}");
        Ok(config::load_tenant(content, &name, &terms, &settings, &sources, hooks()))
    }

    fn validated(
        &self,
        tenants: &[model::Tenant],
        tenant: &TenantId,
        content: &[u8],
        secrets: &SecretValues,
    ) -> Result<Validated, Refusal> {
        let loaded = self.load(tenants, tenant, content, secrets)?;
        loaded.into_result().map_err(|diagnostics| Refusal::Document(Box::new(diagnostics)))
    }

    /// A candidate beside `base`.
    fn beside(
        &self,
        tenants: &[model::Tenant],
        base: &TenantSnapshot,
        beside: &Beside,
        secrets: &SecretValues,
    ) -> Result<Canary, Refusal> {
        let validated = self.validated(tenants, &beside.tenant, &beside.document.content, secrets)?;
        let revision = beside.document.revision.unsigned_abs();
        let compiled = compile_beside(base, &validated, revision, &self.origin, &self.state, &read_file);
        let candidate = compiled.map_err(|e| refused(&e))?;
        Ok(Canary::new(beside.id, base.revision, candidate, beside.chooser.clone(), beside.counts.clone()))
    }

    fn check_on(
        &self,
        tenants: &[model::Tenant],
        scope: &Scope,
        content: &[u8],
        secrets: &SecretValues,
    ) -> Result<Vec<String>, Refusal> {
        let Scope::Tenant(tenant) = scope else {
            let loaded = self.platform(content)?;
            return Ok(loaded.diagnostics.iter().map(|d| d.message.clone()).collect());
        };
        let loaded = self.load(tenants, tenant, content, secrets)?;
        let warnings = loaded.diagnostics.iter().map(|d| d.message.clone()).collect();
        let validated =
            loaded.into_result().map_err(|diagnostics| Refusal::Document(Box::new(diagnostics)))?;
        // Registries of its own: nothing that is in force is touched.
        let trial = state::state(&self.settings, &self.state.clock);
        compile_tenant(&validated, 0, &self.origin, &trial, &read_file).map_err(|e| refused(&e))?;
        Ok(warnings)
    }

    fn diff_on(
        &self,
        tenants: &[model::Tenant],
        scope: &Scope,
        old: &[u8],
        new: &[u8],
        secrets: &SecretValues,
    ) -> Vec<String> {
        let Scope::Tenant(tenant) = scope else { return written_diff(old, new) };
        let read = |content| self.validated(tenants, tenant, content, secrets);
        match (read(old), read(new)) {
            (Ok(old), Ok(new)) => config::diff(&old, &new).iter().map(ToString::to_string).collect(),
            // One that is not valid any more, as on terms that were reduced since, is compared as it is written.
            _ => written_diff(old, new),
        }
    }

    /// A tenant's place with nothing in it: it is nobody else's either.
    fn empty(&self, tenants: &[model::Tenant], name: &TenantId) -> Option<(Validated, Arc<TenantSnapshot>)> {
        let content = Canonical::empty();
        let empty = self.validated(tenants, name, content.as_bytes(), &SecretValues::new()).ok()?;
        let compiled = compile_tenant(&empty, 0, &self.origin, &self.state, &read_file).ok()?;
        Some((empty, compiled.snapshot))
    }

    /// What is in force of a tenant stays when a document is refused, but not beyond what the platform gives it now: a
    /// grant that was taken back, or a place that is another's, must not wait for the tenant to say something else.
    fn withdraw(&self, current: &mut Current, tenant: &TenantId) {
        let given = current.tenants.iter().find(|t| t.name.as_str() == tenant.as_str()).map(Terms::of);
        let snapshot = self.cell.load();
        let (Some(given), Some(served)) = (given, snapshot.tenant(tenant)) else { return };
        if given.cover(served.terms()) {
            return;
        }
        tracing::error!(
            event = "tenant_withdrawn",
            %tenant,
            revision = served.revision,
            "it goes beyond what the platform gives the tenant now, and is not served any more"
        );
        let without = match self.empty(&current.tenants, tenant) {
            Some((empty, compiled)) => {
                current.documents.insert(tenant.clone(), empty);
                snapshot.with(Arc::new(compiled.unusable()))
            }
            None => snapshot.without(tenant),
        };
        self.publish(current, without);
    }

    /// If nothing of a tenant is in force whose document was refused, its place says so.
    fn close(&self, current: &mut Current, tenant: &TenantId) {
        let snapshot = self.cell.load();
        let empty = |served: &Arc<TenantSnapshot>| served.revision == 0 && served.routes().is_empty();
        if !snapshot.tenant(tenant).is_none_or(empty) {
            return;
        }
        if let Some((empty, compiled)) = self.empty(&current.tenants, tenant) {
            current.documents.insert(tenant.clone(), empty);
            self.publish(current, snapshot.with(Arc::new(compiled.unusable())));
        }
    }

    fn compile(
        &self,
        tenants: &[model::Tenant],
        tenant: &TenantId,
        document: &Stored,
        secrets: &SecretValues,
    ) -> Result<(Validated, Arc<TenantSnapshot>), Refusal> {
        let validated = self.validated(tenants, tenant, &document.content, secrets)?;
        let revision = document.revision.unsigned_abs();
        let compiled = compile_tenant(&validated, revision, &self.origin, &self.state, &read_file);
        let compiled = compiled.map_err(|e| refused(&e))?;
        Ok((validated, compiled.snapshot))
    }

    fn publish(&self, current: &mut Current, snapshot: Snapshot) {
        let own = snapshot.tenant(&TenantId::default()).map_or(0, |own| own.revision);
        self.state.metrics.config_revision(own);
        self.state.retain(&snapshot);
        self.cell.publish(snapshot);
        current.since = self.state.clock.unix_ms();
    }

    /// Takes up which tenants there are. Gives those whose terms are not what they were.
    fn take_tenants(&self, tenants: Vec<model::Tenant>) -> Vec<TenantId> {
        let mut current = self.current.lock();
        let find = |list: &[model::Tenant], name: &TenantId| {
            list.iter().find(|t| t.name.as_str() == name.as_str()).map(Terms::of)
        };
        let names: Vec<TenantId> = tenants.iter().map(|t| TenantId::new(t.name.as_str())).collect();
        let changed = names.iter().filter(|name| find(&current.tenants, name) != find(&tenants, name));
        // The operator's own routes keep out of tenants' places.
        let changed: Vec<TenantId> = changed.cloned().chain([TenantId::default()]).collect();
        let mut snapshot = self.cell.load().again();
        let gone = current.tenants.iter().map(|t| TenantId::new(t.name.as_str()));
        for gone in gone.filter(|gone| !names.contains(gone)).collect::<Vec<_>>() {
            snapshot = snapshot.without(&gone);
            current.documents.remove(&gone);
        }
        for name in names.iter().filter(|name| snapshot.tenant(name).is_none()).cloned().collect::<Vec<_>>() {
            if let Some((empty, compiled)) = self.empty(&tenants, &name) {
                snapshot = snapshot.with(compiled);
                current.documents.insert(name, empty);
            }
        }
        current.tenants = tenants;
        self.publish(&mut current, snapshot);
        changed
    }
}

impl Serve for DocumentServer {
    fn serve(&self, document: &Stored, secrets: &SecretValues) -> Result<Vec<TenantId>, Refusal> {
        let tenant = match &document.scope {
            Scope::Platform => {
                let tenants = self.platform(&document.content)?.tenants.unwrap_or_default();
                return Ok(self.take_tenants(tenants));
            }
            Scope::Tenant(tenant) => tenant,
        };
        // Held to the end: what is published last is what was taken last.
        let mut current = self.current.lock();
        let (validated, compiled) = match self.compile(&current.tenants, tenant, document, secrets) {
            Ok(compiled) => compiled,
            Err(refusal) => {
                self.withdraw(&mut current, tenant);
                self.close(&mut current, tenant);
                return Err(refusal);
            }
        };
        if let Some(old) = current.documents.get(tenant) {
            for change in config::diff(old, &validated) {
                tracing::info!(event = "configuration_changed", tenant = %tenant, change = change.place());
            }
        }
        current.documents.insert(tenant.clone(), validated);
        self.publish(&mut current, self.cell.load().with(compiled));
        Ok(Vec::new())
    }

    fn has_tenant(&self, tenant: &TenantId) -> bool {
        *tenant == TenantId::default()
            || self.current.lock().tenants.iter().any(|known| known.name.as_str() == tenant.as_str())
    }

    fn is_in_force(&self, document: &Stored) -> bool {
        let Scope::Tenant(tenant) = &document.scope else { return true };
        let revision = document.revision.unsigned_abs();
        self.cell.load().tenant(tenant).is_some_and(|served| served.revision == revision)
    }

    fn check(&self, scope: &Scope, content: &[u8], secrets: &SecretValues) -> Result<Vec<String>, Refusal> {
        let tenants = self.current.lock().tenants.clone();
        self.check_on(&tenants, scope, content, secrets)
    }

    fn serve_beside(&self, beside: &Beside, secrets: &SecretValues) -> Result<(), Refusal> {
        let (tenant, revision) = (&beside.tenant, beside.base.unsigned_abs());
        // As in `serve`: nothing comes between what is compiled and what is published.
        let mut current = self.current.lock();
        let snapshot = self.cell.load();
        let outcome = match snapshot.tenant(tenant).filter(|base| base.revision == revision) {
            Some(base) => self.beside(&current.tenants, base, beside, secrets).map(Some),
            // The head has moved: there is nothing to stand beside.
            None => Ok(None),
        };
        let (canary, outcome) = match outcome {
            Ok(candidate) => (candidate.map(Arc::new), Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        self.publish(&mut current, snapshot.with_canary(tenant, canary));
        outcome
    }

    fn end_beside(&self, tenant: &TenantId, canary: Uuid) {
        let mut current = self.current.lock();
        let snapshot = self.cell.load();
        if snapshot.canary(tenant).is_some_and(|c| c.id() == canary) {
            self.publish(&mut current, snapshot.with_canary(tenant, None));
        }
    }

    fn trial(&self, tenant: &TenantId, content: &[u8], secrets: &SecretValues) -> Result<Snapshot, Refusal> {
        let tenants = self.current.lock().tenants.clone();
        let validated = self.validated(&tenants, tenant, content, secrets)?;
        let trial = state::state(&self.settings, &self.state.clock);
        let compiled = compile_tenant(&validated, 0, &self.origin, &trial, &read_file);
        Ok(Snapshot::new([compiled.map_err(|e| refused(&e))?.snapshot]))
    }

    fn diff(&self, scope: &Scope, old: &[u8], new: &[u8], secrets: &SecretValues) -> Vec<String> {
        let tenants = self.current.lock().tenants.clone();
        self.diff_on(&tenants, scope, old, new, secrets)
    }

    fn check_under(
        &self,
        platform: &[u8],
        scope: &Scope,
        content: &[u8],
        secrets: &SecretValues,
    ) -> Result<Vec<String>, Refusal> {
        let tenants = self.platform(platform)?.tenants.unwrap_or_default();
        self.check_on(&tenants, scope, content, secrets)
    }

    fn diff_under(
        &self,
        platform: &[u8],
        scope: &Scope,
        old: &[u8],
        new: &[u8],
        secrets: &SecretValues,
    ) -> Vec<String> {
        let tenants = self.platform(platform).ok().and_then(|loaded| loaded.tenants).unwrap_or_default();
        self.diff_on(&tenants, scope, old, new, secrets)
    }
}

fn refused(errors: &[CompileError]) -> Refusal {
    Refusal::Compile(errors.iter().map(|e| (e.path.clone(), e.message.clone())).collect())
}

fn unknown(tenant: &TenantId) -> Refusal {
    let message = "the platform document has no tenant of this name";
    Refusal::Compile(vec![(format!("tenants.{tenant}"), message.to_owned())])
}

/// What is written differently, tenant by tenant and grant by grant; references as they stand.
fn written_diff(old: &[u8], new: &[u8]) -> Vec<String> {
    let read = |bytes: &[u8]| config::canonical(bytes).unwrap_or_else(|_| Canonical::empty());
    config::diff_documents(&read(old), &read(new)).iter().map(ToString::to_string).collect()
}

/// Looks up an environment variable.
type Lookup = Box<dyn Fn(&str) -> Option<String>>;

/// The environment and files of this process, and the secrets of the store.
struct WithSecrets<'a> {
    system: SystemSources<Lookup>,
    tenant: TenantId,
    secrets: &'a SecretValues,
}

fn sources<'a>(env: &Environment, tenant: &TenantId, secrets: &'a SecretValues) -> WithSecrets<'a> {
    let env = env.clone();
    WithSecrets {
        system: SystemSources::new(Box::new(move |name: &str| env(name))),
        tenant: tenant.clone(),
        secrets,
    }
}

impl Sources for WithSecrets<'_> {
    fn env(&self, name: &str) -> Result<String, SourceError> {
        self.system.env(name)
    }

    fn file(&self, path: &std::path::Path) -> Result<Vec<u8>, SourceError> {
        self.system.file(path)
    }

    fn secret(&self, tenant: &TenantId, name: &str) -> Result<String, SourceError> {
        let own = (*tenant == self.tenant).then(|| self.secrets.get(name)).flatten();
        own.map(|value| value.expose().clone()).ok_or_else(|| match &self.secrets.unusable {
            Some(why) => SourceError::Unreadable(why.clone()),
            None => SourceError::Missing,
        })
    }
}
