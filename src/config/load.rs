//! From text to a validated document: parse, expand references, check, validate. One way, and every finding of it.
//!
//! A file holds everything ([`load`]). The store holds one document for the platform ([`load_platform`]) and one per
//! tenant ([`load_tenant`]), which are read on the terms of the platform's and with the static sections of the file.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use super::check::{Checked, Shape, check};
use super::diagnostic::{Diagnostics, Severity};
use super::expand::{Sources, expand, expand_for};
use super::findings::{Findings, Source};
use super::model::{Document, Tenant, TenantDocument};
use super::path::Path;
use super::terms::Terms;
use super::tree::{self, Node, Value};
use super::validate::{Context, Hooks, Known, Names, validate, validate_platform, validate_tenant};
use super::validated::{Revision, Validated};

/// The outcome of loading a document.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The document, if there was no error.
    pub validated: Option<Validated>,
    /// Everything found; warnings only if there is a document.
    pub diagnostics: Diagnostics,
    /// Files that the document's `${file:…}` references name, for watching. Also filled when loading failed, as far as
    /// it came, so that a file that appears later is noticed.
    pub files: Vec<PathBuf>,
}

impl Loaded {
    /// What loading a document gives that cannot be read.
    pub fn unreadable(name: &str, error: &std::io::Error) -> Self {
        let mut findings = Findings::default();
        findings.error("unreadable", &Path::default(), format!("cannot read the document: {error}"));
        let diagnostics = findings.into_diagnostics(&Source::new(name, ""));
        Self { validated: None, diagnostics, files: Vec::new() }
    }

    /// The document, or what is wrong with it.
    pub fn into_result(self) -> Result<Validated, Diagnostics> {
        self.validated.ok_or(self.diagnostics)
    }
}

/// A text that has been parsed, with what was found in it.
struct Read<'a> {
    root: Node,
    source: Source<'a>,
    findings: Findings,
}

impl<'a> Read<'a> {
    fn new(bytes: &'a [u8], name: &str) -> Result<Self, Diagnostics> {
        let mut findings = Findings::default();
        match tree::parse(bytes) {
            Ok((text, root)) => Ok(Self { root, source: Source::new(name, text), findings }),
            Err(error) => {
                let finding = findings.error("syntax", &Path::default(), error.message).at(error.at);
                finding.expected = error.expected.map(str::to_owned);
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(tree::MAX_DOCUMENT)]);
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                Err(findings.into_diagnostics(&Source::new(name, text)))
            }
        }
    }

    fn check<T: serde::de::DeserializeOwned>(&mut self, shape: Shape) -> Checked<T> {
        let checked = check(shape, &self.root, &mut self.findings);
        self.source.hide(checked.secrets.clone());
        checked
    }

    fn finish(self) -> (bool, Diagnostics) {
        (self.findings.has_errors(), self.findings.into_diagnostics(&self.source))
    }
}

/// Loads a file from bytes: static sections, tenants and the documents of all. `name` is what findings call it, usually
/// its path. Never panics, whatever the bytes.
pub fn load(bytes: &[u8], name: &str, sources: &dyn Sources, hooks: Hooks<'_>) -> Loaded {
    let mut read = match Read::new(bytes, name) {
        Ok(read) => read,
        Err(diagnostics) => return Loaded { validated: None, diagnostics, files: Vec::new() },
    };
    let files = expand(&mut read.root, sources, &mut read.findings);
    let checked: Checked<Document> = read.check(Shape::File);
    let partial = read.findings.has_errors();
    if let Some(document) = &checked.document {
        let mut context = Context::new(document, hooks, checked.broken.clone(), names(&read.root));
        validate(&mut context);
        place(context, &Path::default(), partial, &read.root, &checked, &mut read.findings);
        for (i, tenant) in document.tenants.iter().enumerate() {
            let Some(own) = &tenant.document else { continue };
            // As the file has it: items before this one may have been left out.
            let at = Path::of("tenants").index(i).key("document");
            let written = at.translate(|list, index| checked.original(list, index));
            let whole = for_tenant(document, own, &Terms::of(tenant));
            let broken = checked.broken.iter().filter_map(|path| path.below(&written)).collect();
            let names = written.find(&read.root).map(names).unwrap_or_default();
            let mut context = Context::new(&whole, hooks, broken, names);
            validate_tenant(&mut context, &Terms::of(tenant));
            place(context, &at, partial, &read.root, &checked, &mut read.findings);
        }
    }
    let revision = Revision::of(bytes);
    let (errors, diagnostics) = read.finish();
    let validated = checked.document.filter(|_| !errors).map(|document| with_tenants(document, &revision));
    Loaded { validated, diagnostics, files }
}

/// A file in which nothing was found, and the documents of its tenants.
pub(crate) fn with_tenants(document: Document, revision: &Revision) -> Validated {
    let tenants = document.tenants.iter().map(|tenant| {
        let terms = Terms::of(tenant);
        let own = tenant.document.clone().unwrap_or_default();
        let whole = for_tenant(&document, &own, &terms);
        Arc::new(Validated::resolve(whole, terms, revision.clone()))
    });
    let tenants = tenants.collect();
    Validated::resolve(document, Terms::operator(), revision.clone()).with_tenants(tenants)
}

/// Loads the stored document of a tenant. `settings` is the file with the static sections that the process runs with;
/// `sources` resolve `${secret:…}` for this tenant.
pub fn load_tenant(
    bytes: &[u8],
    name: &str,
    terms: &Terms,
    settings: &Document,
    sources: &dyn Sources,
    hooks: Hooks<'_>,
) -> Loaded {
    let mut read = match Read::new(bytes, name) {
        Ok(read) => read,
        Err(diagnostics) => return Loaded { validated: None, diagnostics, files: Vec::new() },
    };
    let files = expand_for(&mut read.root, terms, sources, &mut read.findings);
    let checked: Checked<TenantDocument> = read.check(Shape::Tenant);
    let partial = read.findings.has_errors();
    let whole = checked.document.as_ref().map(|own| for_tenant(settings, own, terms));
    if let Some(whole) = &whole {
        let mut context = Context::new(whole, hooks, checked.broken.clone(), names(&read.root));
        validate_tenant(&mut context, terms);
        place(context, &Path::default(), partial, &read.root, &checked, &mut read.findings);
    }
    let (errors, diagnostics) = read.finish();
    let validated =
        whole.filter(|_| !errors).map(|whole| Validated::resolve(whole, terms.clone(), Revision::of(bytes)));
    Loaded { validated, diagnostics, files }
}

/// The tenants of a stored platform document.
#[derive(Clone, Debug)]
pub struct LoadedPlatform {
    /// The tenants besides `default`, if there was no error.
    pub tenants: Option<Vec<Tenant>>,
    /// Everything found.
    pub diagnostics: Diagnostics,
}

/// Loads the stored document of the platform. `settings` is the file with the static sections that the process runs with.
pub fn load_platform(
    bytes: &[u8],
    name: &str,
    settings: &Document,
    sources: &dyn Sources,
    hooks: Hooks<'_>,
) -> LoadedPlatform {
    let mut read = match Read::new(bytes, name) {
        Ok(read) => read,
        Err(diagnostics) => return LoadedPlatform { tenants: None, diagnostics },
    };
    expand_for(&mut read.root, &Terms::operator(), sources, &mut read.findings);
    let checked: Checked<Document> = read.check(Shape::Platform);
    let partial = read.findings.has_errors();
    let whole = checked.document.as_ref().map(|document| Document {
        tenants: document.tenants.clone(),
        servers: Vec::new(),
        routes: Vec::new(),
        ..settings.clone()
    });
    if let Some(whole) = &whole {
        let mut context = Context::new(whole, hooks, checked.broken.clone(), Names::default());
        validate_platform(&mut context);
        place(context, &Path::default(), partial, &read.root, &checked, &mut read.findings);
    }
    let (errors, diagnostics) = read.finish();
    LoadedPlatform { tenants: whole.filter(|_| !errors).map(|whole| whole.tenants), diagnostics }
}

/// A tenant's document with the static sections of the process around it, as the rules and the compiler take it: paths
/// filled in, and nothing of what only the operator may switch on.
fn for_tenant(settings: &Document, own: &TenantDocument, terms: &Terms) -> Document {
    let mut whole = Document {
        servers: own.servers.clone(),
        routes: own.routes.clone(),
        limits: own.limits.clone(),
        policies: own.policies.clone(),
        identity: own.identity.clone(),
        tenants: Vec::new(),
        ..settings.clone()
    };
    if terms.is_operator() {
        whole.tenants.clone_from(&settings.tenants);
        return whole;
    }
    whole.insecure_options = Default::default();
    // Hosts that the platform granted are accepted, whatever the listener's own list says.
    whole.listeners.mcp.allowed_hosts = None;
    for route in &mut whole.routes {
        let path = terms.default_path(route.name.as_str());
        route.path.get_or_insert(path);
    }
    whole
}

/// Gives the findings of rules their places in the text. `base` is where the document they are about is in the typed
/// one. If some of the text is wrong, only errors that are none of its consequences are kept.
fn place<T>(
    context: Context<'_>,
    base: &Path,
    partial: bool,
    root: &Node,
    checked: &Checked<T>,
    findings: &mut Findings,
) {
    for mut finding in context.findings.into_list() {
        let path = base.join(&finding.path);
        finding.path = path.translate(|list, index| checked.original(list, index));
        finding.at.get_or_insert(finding.path.locate(root));
        let real = finding.severity == Severity::Error
            && !checked.broken.iter().any(|broken| broken.overlaps(&finding.path));
        if !partial || real {
            findings.add(finding);
        }
    }
}

/// The names that the items of lists have in the text, whether or not the items are right.
fn names(root: &Node) -> Names {
    let of = |list: &str| -> Known {
        let items = root.entry(list).map(|entry| entry.node.items()).unwrap_or_default();
        items
            .iter()
            .filter_map(|item| match &item.entry("name")?.node.value {
                Value::Text(name) => Some(name.clone()),
                _ => None,
            })
            .collect()
    };
    Names { servers: of("servers"), limits: of("limits"), policies: of("policies") }
}

/// The document that `tollgate` runs without a file: everything on loopback, one route to the built-in demo server.
///
/// Callers from this machine are developers, everybody else is refused, and the built-in limits apply.
pub fn embedded(
    demo: std::net::SocketAddr,
    mcp: std::net::SocketAddr,
    admin: std::net::SocketAddr,
    data_dir: &FilePath,
    hooks: Hooks<'_>,
) -> Loaded {
    let sources = super::sources::FixedSources::default()
        .with_env("TOLLGATE_DEMO", &demo.to_string())
        .with_env("TOLLGATE_MCP", &mcp.to_string())
        .with_env("TOLLGATE_ADMIN", &admin.to_string())
        .with_env("TOLLGATE_DATA", &data_dir.to_string_lossy());
    load(EMBEDDED.as_bytes(), "embedded.yaml", &sources, hooks)
}

/// The text of the embedded document.
pub const EMBEDDED: &str = include_str!("../../conf/embedded.yaml");
