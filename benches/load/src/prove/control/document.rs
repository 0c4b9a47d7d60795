//! What the replicas are configured with: their own part, in a file, and the document that is published.

use std::net::SocketAddr;

use crate::identity::{AUDIENCE, ISSUER};

/// Quota of the paired limit in a variant: another one each time, and never reached.
pub fn quota(variant: u64) -> u64 {
    1_000_000 + variant
}

/// The default tenant's document. `variant` changes the name of a limit, its rate and the server of the route `paired`:
/// three settings in three sections that belong together.
pub fn document(servers: &[SocketAddr], jwks: &str, variant: u64) -> String {
    let target = |number: usize| format!("http://{}/mcp", servers[number % servers.len()]);
    let (a, b, quota) = (target(0), target(1), quota(variant));
    let chosen = if variant.is_multiple_of(2) { "a" } else { "b" };
    format!(
        r#"version: 1
servers:
  - {{ name: a, http: {{ targets: ["{a}"] }}, max_in_flight: 1000000 }}
  - {{ name: b, http: {{ targets: ["{b}"] }}, max_in_flight: 1000000 }}
routes:
  - {{ name: load, servers: [a], limits: [ample], policy: staff }}
  - {{ name: paired, servers: [{chosen}], limits: [paired_{variant}], policy: staff }}
limits:
  - {{ name: ample, key: principal, rate: 1000000/s, burst: {{ tokens: 1000000 }} }}
  - {{ name: paired_{variant}, key: principal, rate: {quota}/s, burst: {{ tokens: {quota} }} }}
policies:
  - name: staff
    default: deny
    rules:
      - {{ allow: {{ roles: [developer] }} }}
identity:
  issuers:
    - name: load
      issuer: {ISSUER}
      audiences: ["{AUDIENCE}"]
      jwks: {{ file: "{jwks}" }}
      algorithms: [RS256]
      groups_claim: groups
      scopes_claim: scope
      roles: {{ claim: groups, map: {{ mcp-developers: developer }}, default: viewer }}
"#
    )
}

/// The same for callers with keys of the store, and with a credential for server `a` that is a secret of the store.
pub fn keyed(servers: &[SocketAddr], jwks: &str, variant: u64) -> String {
    let credential = "max_in_flight: 1000000, credential: { bearer: \"${secret:upstream}\" }";
    document(servers, jwks, variant).replacen("max_in_flight: 1000000", credential, 1).replacen(
        "identity:\n",
        "identity:\n  api_keys: true\n",
        1,
    )
}
