//! On which terms a tenant's document is read: what is the tenant's own, and what it may do.

use crate::base::TenantId;
use crate::base::guard::AddressGuard;

use super::hosts::host_matches;
use super::model::{Grants, HostPattern, HttpUrl, Tenant};

/// The tenant of a document with its hosts, its path prefix and its grants.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    tenant: TenantId,
    hosts: Vec<HostPattern>,
    prefix: String,
    /// None for the operator's own tenant: it may do everything.
    grants: Option<Grants>,
}

impl Terms {
    /// Those of the operator's own tenant, `default`: everything is allowed.
    pub fn operator() -> Self {
        Self { tenant: TenantId::default(), hosts: Vec::new(), prefix: String::new(), grants: None }
    }

    /// Those that the platform document gives a tenant.
    pub fn of(tenant: &Tenant) -> Self {
        Self {
            tenant: TenantId::new(tenant.name.as_str()),
            hosts: tenant.hosts.clone(),
            prefix: tenant.prefix(),
            grants: Some(tenant.grants.clone()),
        }
    }

    /// Whose document it is.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Whether everything is allowed.
    pub fn is_operator(&self) -> bool {
        self.grants.is_none()
    }

    /// The tenant's hosts; empty for every host that is nobody's own.
    pub fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// The path under which all routes are: empty for everything, otherwise without a slash at its end.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The host that URLs of the tenant's routes have, if not that of the listener.
    pub fn canonical_host(&self) -> Option<&str> {
        self.hosts.iter().map(HostPattern::host).find(|host| !host.starts_with('*'))
    }

    /// Whether the document may refer to environment variables.
    pub fn allows_env(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.env)
    }

    /// Whether the document may name files.
    pub fn allows_files(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.file)
    }

    /// Whether callers who prove nothing may be let in.
    pub fn allows_anonymous(&self) -> bool {
        self.grants.as_ref().is_none_or(|grants| grants.anonymous)
    }

    /// Whether all that was allowed on earlier terms is allowed on these, in the same place: what was compiled on those may
    /// then go on.
    pub fn cover(&self, earlier: &Self) -> bool {
        let place = |terms: &Self| (terms.tenant.clone(), terms.hosts.clone(), terms.prefix.clone());
        if place(self) != place(earlier) {
            return false;
        }
        let (now, then) = match (&self.grants, &earlier.grants) {
            (None, _) => return true,
            (Some(_), None) => return false,
            (Some(now), Some(then)) => (now, then),
        };
        let issuers = now.issuers.is_empty()
            || (!then.issuers.is_empty() && then.issuers.iter().all(|issuer| now.issuers.contains(issuer)));
        let networks = then.private_targets.iter().all(|net| now.private_targets.contains(net));
        let switches = [(now.env, then.env), (now.file, then.file), (now.anonymous, then.anonymous)];
        issuers && networks && switches.iter().all(|(now, then)| *now || !then)
    }

    /// Which addresses may be dialled for the tenant.
    pub fn guard(&self) -> AddressGuard {
        match &self.grants {
            None => AddressGuard::AllowAll,
            Some(grants) => AddressGuard::PublicOnly {
                except: grants.private_targets.iter().map(|net| net.get()).collect(),
            },
        }
    }

    /// Whether tokens of an issuer with this URL may be accepted, and keys fetched from it.
    pub fn allows_issuer(&self, url: &HttpUrl) -> bool {
        let granted = self.grants.as_ref().map(|grants| grants.issuers.as_slice()).unwrap_or_default();
        granted.is_empty() || granted.iter().any(|pattern| pattern.matches(url))
    }

    /// The issuers that are granted one by one; empty for any.
    pub fn issuers(&self) -> &[super::model::UrlPattern] {
        self.grants.as_ref().map(|grants| grants.issuers.as_slice()).unwrap_or_default()
    }

    /// Whether a path is the tenant's.
    pub fn owns_path(&self, path: &str) -> bool {
        path.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether everything that a host pattern of a route matches is the tenant's.
    pub fn owns_host(&self, host: &HostPattern) -> bool {
        if self.is_operator() {
            return true;
        }
        self.hosts.iter().any(|own| match host.host().strip_prefix('*') {
            // `*.eu.acme.com` is within `*.acme.com`, and within itself.
            Some(suffix) => own.host().strip_prefix('*').is_some_and(|own| suffix.ends_with(own)),
            None => host_matches(own, host.host(), None),
        })
    }

    /// The path of a route that does not say one.
    pub fn default_path(&self, route: &str) -> String {
        format!("{}/mcp/{route}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(tenant: &str) -> Terms {
        Terms::of(&serde_json::from_str(tenant).unwrap())
    }

    #[test]
    fn paths_are_owned_by_whole_segments() {
        let acme = terms(r#"{ "name": "acme" }"#);
        assert!(acme.owns_path("/t/acme") && acme.owns_path("/t/acme/mcp/x"));
        for path in ["/t/acmeother/mcp", "/t/", "/mcp/x", "/T/acme/x"] {
            assert!(!acme.owns_path(path), "{path}");
        }
        assert_eq!(acme.default_path("x"), "/t/acme/mcp/x");
        assert!(terms(r#"{ "name": "a", "hosts": ["a.example"] }"#).owns_path("/anything"));
    }

    #[test]
    fn terms_cover_those_that_allow_no_more_in_the_same_place() {
        let least = r#"{ "name": "acme", "hosts": ["a.example"] }"#;
        let most = r#"{ "name": "acme", "hosts": ["a.example"],
                        "grants": { "env": true, "file": true, "anonymous": true, "private_targets": ["10.0.0.0/8"] } }"#;
        assert!(terms(most).cover(&terms(least)) && terms(least).cover(&terms(least)));
        assert!(Terms::operator().cover(&Terms::operator()));
        for grant in [
            r#""env": true"#,
            r#""file": true"#,
            r#""anonymous": true"#,
            r#""private_targets": ["10.0.0.0/8"]"#,
        ] {
            let more = format!(r#"{{ "name": "acme", "hosts": ["a.example"], "grants": {{ {grant} }} }}"#);
            assert!(!terms(least).cover(&terms(&more)) && terms(most).cover(&terms(&more)), "{grant}");
        }
        let issuers = |list: &str| {
            terms(&format!(
                r#"{{ "name": "acme", "hosts": ["a.example"], "grants": {{ "issuers": [{list}] }} }}"#
            ))
        };
        let (one, two) = (r#""https://i.example""#, r#""https://i.example", "https://j.example""#);
        assert!(issuers(two).cover(&issuers(one)) && !issuers(one).cover(&issuers(two)));
        assert!(issuers("").cover(&issuers(one)) && !issuers(one).cover(&issuers("")), "none listed is any");
        for place in
            [r#""hosts": ["b.example"]"#, r#""path_prefix": "/x""#, r#""hosts": ["a.example", "b.example"]"#]
        {
            let moved = terms(&format!(r#"{{ "name": "acme", {place} }}"#));
            assert!(!moved.cover(&terms(least)) && !terms(least).cover(&moved), "{place}");
        }
    }

    #[test]
    fn hosts_are_owned_with_all_that_they_match() {
        let acme = terms(r#"{ "name": "acme", "hosts": ["acme.example", "*.acme.example"] }"#);
        let owns = |host: &str| acme.owns_host(&host.parse().unwrap());
        for host in
            ["acme.example", "acme.example:8443", "a.acme.example", "*.acme.example", "*.b.acme.example"]
        {
            assert!(owns(host), "{host}");
        }
        for host in ["*.example", "other.example", "xacme.example", "*.xacme.example"] {
            assert!(!owns(host), "{host}");
        }
        assert_eq!(acme.canonical_host(), Some("acme.example"));
    }
}
