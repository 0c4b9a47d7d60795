//! A route, compiled.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use crate::auth::Authenticator;
use crate::base::glob::Glob;
use crate::base::{RouteId, ServerId, TenantId};
use crate::limit::Limit;
use crate::mcp::version::Versions;
use crate::policy::Policy;
use crate::telemetry::{RouteMetrics, ServerMetrics, TenantMetrics, UpstreamError};
use crate::upstream::Server;

/// What a consistent hash is taken of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A request header.
    Header(HeaderName),
    /// The caller's stable id.
    Principal,
    /// The session.
    Session,
}

/// What clients dial, with everything that a request on it needs.
#[derive(Debug)]
pub struct Route {
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub id: RouteId,
    /// Its path.
    pub path: Box<str>,
    /// The URL that clients dial: the audience of tokens, and `resource` in the OAuth metadata.
    pub url: Box<str>,
    /// Audiences accepted: `url` and those configured.
    pub audiences: Box<[Box<str>]>,
    /// Scopes that a token must have, all of them.
    pub scopes: Box<[Box<str>]>,
    /// Where the OAuth metadata is.
    pub metadata_url: Box<str>,
    /// The OAuth metadata; none without an issuer.
    pub metadata: Option<Bytes>,
    /// Who may call.
    pub authenticator: Arc<Authenticator>,
    /// Limits, all of which apply.
    pub limits: Vec<Arc<Limit>>,
    /// Who may do what.
    pub policy: Option<Arc<Policy>>,
    /// Methods that exist here; empty = all.
    pub methods: Box<[Glob]>,
    /// The name of the server behind it.
    pub server_id: ServerId,
    /// The server behind it.
    pub server: Arc<Server>,
    /// Attempts per request.
    pub attempts: usize,
    /// What the balancer hashes, if it does.
    pub hash_on: Option<HashOn>,
    /// Its counters.
    pub metrics: Arc<RouteMetrics>,
    pub(crate) server_metrics: Arc<ServerMetrics>,
    /// Which revision it is of, as the answers name it: `acme@17`.
    pub revision: HeaderValue,
    /// Its tenant's counters.
    pub tenant_metrics: Arc<TenantMetrics>,
}

impl Route {
    /// Which revisions can be served here.
    pub fn served(&self) -> Versions {
        self.server.served()
    }

    /// Whether a method exists here.
    pub fn serves_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|glob| glob.matches(method))
    }

    /// Counts a failed exchange.
    pub fn server_failed(&self, kind: UpstreamError) {
        self.server_metrics.failed(kind);
    }

    /// Counts an attempt after the first.
    pub fn server_retried(&self) {
        self.server_metrics.retried();
    }
}
