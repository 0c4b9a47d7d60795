//! What it costs to know who is calling: a token seen before, a token for the first time, an API key.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use serde_json::json;
use tollgate::auth::{
    AuthSpec, AuthState, Authenticator, Bindings, CacheBounds, Credential, FailureBounds, IssuerSpec,
    JwksLocation, JwksSpec, JwksStore, KeyHash, KeyRecord, KeyScopes, KeyStore, Revocations,
    generate_api_key,
};
use tollgate::base::{Clock, Role, TenantId};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://login.example.com";
const ROUTE: &str = "https://gw.example/mcp/weather";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn sign(key: &KeyPair, id: u64) -> String {
    let claims = json!({
        "iss": ISSUER, "sub": "f3b5a2c8-6f0e-4b9e-9a53-3f1f6f2d8a11", "aud": [ROUTE, "account"],
        "exp": NOW + 3600, "iat": NOW, "jti": id.to_string(), "scope": "openid profile mcp:call",
        "groups": ["mcp-users", "engineering", "on-call"], "email": "alice@example.com", "name": "Alice Example",
    });
    let header = json!({"alg": "RS256", "typ": "at+jwt", "kid": "k"});
    let encode = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let mut signature = vec![0; key.public_modulus_len()];
    let rng = aws_lc_rs::rand::SystemRandom::new();
    key.sign(&RSA_PKCS1_SHA256, &rng, signed.as_bytes(), &mut signature).expect("signs");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("gw.example"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("authorization", HeaderValue::try_from(format!("Bearer {token}")).expect("a header"));
    headers
}

fn identify(auth: &Authenticator, headers: &HeaderMap) {
    let credential = Credential::from_headers(headers, PEER, false);
    let _ = black_box(auth.authenticate(&credential, &[ROUTE], NOW).expect("a good credential"));
}

fn benches(c: &mut Criterion) {
    let key = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let public = key.public_key();
    let document = json!({"keys": [{
        "kty": "RSA", "kid": "k", "use": "sig",
        "n": URL_SAFE_NO_PAD.encode(public.modulus().big_endian_without_leading_zero()),
        "e": URL_SAFE_NO_PAD.encode(public.exponent().big_endian_without_leading_zero()),
    }]});
    let clock = Clock::manual(NOW);
    let store = JwksStore::new(clock.clone());
    let jwks = store.source(JwksSpec::new(JwksLocation::Inline(document.to_string()))).expect("a source");
    let mut issuer = IssuerSpec::new("corp", ISSUER, jwks);
    issuer.roles.default = Some(Role::Developer);

    let api_key = generate_api_key(&mut rand::rng());
    let keys = Arc::new(KeyStore::new(TenantId::default(), None));
    keys.replace(vec![KeyRecord {
        id: api_key.id.clone(),
        hash: KeyHash::of(api_key.text.expose().as_bytes(), None),
        principal: None,
        roles: vec![Role::Developer],
        scopes: KeyScopes::default(),
        cidr: Vec::new(),
        created: None,
        expires: None,
        disabled: false,
        note: None,
    }])
    .expect("a good record");
    let revocations = Arc::new(Revocations::new());
    revocations.replace_text("- jti: somebody-else\n- sub: mallory\n").expect("a good list");
    let spec = AuthSpec {
        tenant: TenantId::default(),
        issuers: vec![issuer],
        api_keys: Some(keys),
        anonymous: None,
        loopback: None,
        revocations,
        bindings: Arc::new(Bindings::new()),
        max_staleness: None,
    };
    let compile = |entries| {
        let bounds = CacheBounds { entries, ..CacheBounds::default() };
        let state = AuthState::new(bounds, FailureBounds::default(), clock.clone());
        Authenticator::compile(spec.clone(), state).expect("a good spec")
    };

    let auth = compile(50_000);
    let mut group = c.benchmark_group("auth");
    let token = bearer(&sign(&key, 0));
    group.bench_function("jwt_warm", |b| b.iter(|| identify(&auth, &token)));
    // More tokens than the cache holds, in turn: each is always a stranger.
    let small = compile(1);
    let strangers: Vec<_> = (0..512).map(|id| bearer(&sign(&key, id))).collect();
    let mut turn = strangers.iter().cycle();
    group.bench_function("jwt_cold_rs256", |b| {
        b.iter(|| identify(&small, turn.next().expect("a cycle does not end")));
    });
    let key = bearer(api_key.text.expose());
    group.bench_function("api_key", |b| b.iter(|| identify(&auth, &key)));
    group.finish();
}

criterion_group!(auth, benches);
criterion_main!(auth);
