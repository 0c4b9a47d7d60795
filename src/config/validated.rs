//! The document the rest of the program takes: one that went through every rule.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::check::{Checked, Shape, check};
use super::diagnostic::Diagnostics;
use super::findings::{Findings, Source};
use super::hosts::{AllowedOrigins, allowed_hosts};
use super::model::{
    Address, ClientAuth, Document, HostPattern, Limit, ListenerTls, Name, Policy, Route, Server,
    limit::DEFAULT_LIMIT,
};
use super::terms::Terms;
use super::tree::Node;
use super::validate::{Context, Hooks, Names, validate};
use crate::base::TenantId;

/// A document without errors. Only loading and [`Validated::new`] make one; it never changes.
///
/// References are resolved once here, so that compiling it cannot meet a name that does not exist.
#[derive(Clone, Debug)]
pub struct Validated {
    document: Document,
    limits: Vec<Limit>,
    routes: Vec<Links>,
    hosts: Vec<HostPattern>,
    origins: AllowedOrigins,
    revision: Revision,
    terms: Terms,
    tenants: Vec<Arc<Validated>>,
}

/// What a route refers to, as indices.
#[derive(Clone, Debug)]
struct Links {
    path: String,
    server: usize,
    limits: Vec<usize>,
    policy: Option<usize>,
}

/// A route with what it refers to.
#[derive(Clone, Copy, Debug)]
pub struct ResolvedRoute<'a> {
    /// The route as written.
    pub route: &'a Route,
    /// The path that clients dial, default filled in; no trailing slash.
    pub path: &'a str,
    /// The server behind it.
    pub server: &'a Server,
    /// Its policy.
    pub policy: Option<&'a Policy>,
    validated: &'a Validated,
    links: &'a Links,
}

impl<'a> ResolvedRoute<'a> {
    /// The limits that apply, in the order written.
    pub fn limits(&self) -> impl Iterator<Item = &'a Limit> + use<'a> {
        let validated = self.validated;
        self.links.limits.iter().map(move |i| &validated.limits[*i])
    }
}

impl Validated {
    /// Validates a document that was built by the program. Findings then have no line.
    pub fn new(document: Document, hooks: Hooks<'_>) -> Result<Self, Diagnostics> {
        // The types do not hold every bound that the schema does, so a built document goes through the checker as well.
        let tree = Node::from_json(serde_json::to_value(&document).unwrap_or_default());
        let mut findings = Findings::default();
        let checked: Checked<Document> = check(Shape::File, &tree, &mut findings);
        let mut context = Context::new(&document, hooks, checked.broken, Names::of(&document));
        validate(&mut context);
        for finding in context.findings.into_list() {
            findings.add(finding);
        }
        if findings.has_errors() {
            return Err(findings.into_diagnostics(&Source::new("built-in document", "")));
        }
        let text = serde_json::to_string(&document).unwrap_or_default();
        Ok(Self::resolve(document, Terms::operator(), Revision::of(text.as_bytes())))
    }

    /// Links a document in which nothing was found.
    pub(crate) fn resolve(document: Document, terms: Terms, revision: Revision) -> Self {
        let mut limits = document.limits.clone();
        if !limits.iter().any(|limit| limit.name.as_str() == DEFAULT_LIMIT) {
            limits.push(Limit::built_in());
        }
        fn positions<'n>(names: impl Iterator<Item = &'n Name>) -> HashMap<&'n str, usize> {
            names.enumerate().map(|(i, name)| (name.as_str(), i)).collect()
        }
        let servers = positions(document.servers.iter().map(|server| &server.name));
        let policies = positions(document.policies.iter().map(|policy| &policy.name));
        let by_name = positions(limits.iter().map(|limit| &limit.name));
        let position = |of: &HashMap<&str, usize>, name: &Name| of.get(name.as_str()).copied();
        let routes = document
            .routes
            .iter()
            .map(|route| {
                let server = route.servers.first().and_then(|name| position(&servers, name));
                Links {
                    path: route.path(),
                    server: server.expect("validation has seen the server of every route"),
                    limits: route.limits.iter().filter_map(|name| position(&by_name, name)).collect(),
                    policy: route.policy.as_ref().and_then(|name| position(&policies, name)),
                }
            })
            .collect();
        let hosts = allowed_hosts(&document);
        let origins = AllowedOrigins::of(&document);
        Self { limits, routes, hosts, origins, revision, document, terms, tenants: Vec::new() }
    }

    /// The same with the documents of the tenants of its file.
    pub(crate) fn with_tenants(mut self, tenants: Vec<Arc<Validated>>) -> Self {
        self.tenants = tenants;
        self
    }

    /// On which terms it was read.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whose document it is.
    pub fn tenant(&self) -> &TenantId {
        self.terms.tenant()
    }

    /// The documents of the tenants besides `default` of a file, in its order.
    pub fn tenants(&self) -> &[Arc<Validated>] {
        &self.tenants
    }

    /// The same document at other places, as the command line says.
    #[must_use]
    pub fn placed(
        mut self,
        mcp: Option<SocketAddr>,
        admin: Option<SocketAddr>,
        data_dir: Option<&Path>,
    ) -> Self {
        if let Some(address) = mcp {
            self.document.listeners.mcp.address = Address::new(address);
        }
        if let Some(address) = admin {
            self.document.listeners.admin.address = Address::new(address);
        }
        if let Some(folder) = data_dir {
            self.document.data_dir = folder.to_owned();
        }
        self
    }

    /// The whole document, with defaults.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Which document this is.
    pub fn revision(&self) -> &Revision {
        &self.revision
    }

    /// The routes, with what they refer to, in the order written.
    pub fn routes(&self) -> impl Iterator<Item = ResolvedRoute<'_>> {
        self.document.routes.iter().zip(&self.routes).map(|(route, links)| ResolvedRoute {
            route,
            path: &links.path,
            server: &self.document.servers[links.server],
            policy: links.policy.map(|i| &self.document.policies[i]),
            validated: self,
            links,
        })
    }

    /// Every limit, the built-in `default` included unless the document replaces it.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The hosts accepted in the `Host` header.
    pub fn allowed_hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// The origins accepted in the `Origin` header.
    pub fn allowed_origins(&self) -> &AllowedOrigins {
        &self.origins
    }

    /// Scheme, host and port that clients dial, without a trailing slash: `public_url`, or else the address bound.
    pub fn public_origin(&self, bound: SocketAddr) -> String {
        let mcp = &self.document.listeners.mcp;
        match &mcp.public_url {
            Some(url) => url.origin(),
            None => format!("{}://{bound}", if mcp.tls.is_some() { "https" } else { "http" }),
        }
    }

    /// Whether the MCP listener offers HTTP/2.
    pub fn offers_h2(&self) -> bool {
        let mcp = &self.document.listeners.mcp;
        mcp.tls.is_some() && mcp.h2.unwrap_or(true)
    }

    /// Where the keys are that seal session ids.
    pub fn session_key_file(&self) -> PathBuf {
        let file = self.document.sessions.key_file.clone();
        file.unwrap_or_else(|| self.document.data_dir.join("session.keys"))
    }
}

impl ListenerTls {
    /// Whether client certificates are asked for, and whether one must be presented.
    pub fn client_auth(&self) -> Option<ClientAuth> {
        self.client_ca.as_ref().map(|_| self.client_auth.unwrap_or(ClientAuth::Require))
    }
}

/// Which document this is: the first 64 bits of the SHA-256 of its text as written, in hexadecimal. References are not
/// part of it, so that it can be shown without saying anything about a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Revision(Arc<str>);

impl Revision {
    pub(crate) fn of(text: &[u8]) -> Self {
        let digest = Sha256::digest(text);
        Self(digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>().into())
    }

    /// Sixteen hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Two are the same if the program would behave the same: secrets are compared as well.
impl PartialEq for Validated {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document && self.terms == other.terms
    }
}
