//! The authenticator as a whole: what it lets in, and every attack it must not.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::auth::testing::{FakeFetch, Signer, jwks, key_record};
use crate::auth::*;
use crate::base::{Clock, PrincipalKind, Role, TenantId};

const NOW: u64 = 1_700_000_000;
const ISSUER: &str = "https://login.example.com";
const ROUTE: &str = "https://gw.example/mcp/weather";
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// An authenticator with everything it hangs on.
struct Bench {
    clock: Clock,
    store: Arc<JwksStore>,
    fetch: Arc<FakeFetch>,
    state: AuthState,
    spec: AuthSpec,
    auth: Authenticator,
}

impl Bench {
    async fn new(signers: &[Signer]) -> Self {
        Self::with(signers, |_| {}).await
    }

    async fn with(signers: &[Signer], change: impl FnOnce(&mut AuthSpec)) -> Self {
        let clock = Clock::manual(NOW);
        let store = Arc::new(JwksStore::new(clock.clone()));
        let fetch = Arc::new(FakeFetch::new(jwks(signers)));
        let url = JwksLocation::Url("https://login.example.com/keys".into());
        let source = store.source(JwksSpec::new(url)).unwrap();
        store.refresh_due(&*fetch).await;
        let mut issuer = IssuerSpec::new("corp", ISSUER, source);
        issuer.roles = RoleMapping {
            claim: Some(ClaimPath::parse("groups").unwrap()),
            map: vec![("admins".into(), Role::Admin), ("devs".into(), Role::Developer)],
            default: Some(Role::Viewer),
            ..RoleMapping::default()
        };
        let mut spec = AuthSpec {
            tenant: TenantId::default(),
            issuers: vec![issuer],
            api_keys: None,
            anonymous: None,
            loopback: None,
            revocations: Arc::new(Revocations::new()),
            bindings: Arc::new(Bindings::new()),
            max_staleness: None,
        };
        change(&mut spec);
        let state = AuthState::new(CacheBounds::default(), FailureBounds::default(), clock.clone());
        let auth = Authenticator::compile(spec.clone(), state.clone()).unwrap();
        Self { clock, store, fetch, state, spec, auth }
    }

    fn token(&self, token: &str) -> Result<Identity, AuthError> {
        self.token_from(token, PEER)
    }

    fn token_from(&self, token: &str, peer: IpAddr) -> Result<Identity, AuthError> {
        let header = format!("Bearer {token}");
        let credential = bearer(&header, peer);
        self.auth.authenticate(&credential, &[ROUTE], self.clock.unix_secs())
    }

    fn reason(&self, token: &str) -> &'static str {
        match self.token(token) {
            Ok(_) => "ok",
            Err(error) => error.reason(),
        }
    }

    /// Recompiles with a changed spec, over the same state.
    fn reload(&mut self, change: impl FnOnce(&mut AuthSpec)) {
        change(&mut self.spec);
        self.auth = Authenticator::compile(self.spec.clone(), self.state.clone()).unwrap();
    }

    async fn refresh(&self) {
        self.clock.advance(Duration::from_secs(400));
        self.store.refresh_due(&*self.fetch).await;
    }

    fn misses(&self) -> u64 {
        self.state.tokens.misses()
    }
}

fn bearer(header: &str, peer: IpAddr) -> Credential<'_> {
    Credential {
        authorization: HeaderField::One(header.as_bytes()),
        api_key: HeaderField::Absent,
        peer,
        is_loopback: false,
        client_certificate: None,
    }
}

fn claims() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": ROUTE, "exp": NOW + 3600, "iat": NOW - 10, "jti": "t1"})
}

fn claims_with(change: Value) -> Value {
    let mut all = claims();
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(name)),
            value => all[name] = value.clone(),
        }
    }
    all
}

#[tokio::test]
async fn a_good_token_of_each_algorithm_is_let_in() {
    let signers = [Signer::rsa("r"), Signer::es256("e"), Signer::es384("e3"), Signer::ed25519("d")];
    let bench = Bench::new(&signers).await;
    let rsa = [
        Algorithm::RS256,
        Algorithm::RS384,
        Algorithm::RS512,
        Algorithm::PS256,
        Algorithm::PS384,
        Algorithm::PS512,
    ];
    let rsa = rsa.into_iter().map(|alg| signers[0].clone().with_alg(alg));
    for signer in rsa.chain(signers[1..].iter().cloned()) {
        let token = signer.sign(&claims_with(json!({"groups": ["devs"], "scope": "a b", "email": "ä@x"})));
        for _ in 0..2 {
            let principal = bench.token(&token).unwrap().principal;
            assert_eq!(principal.id.as_str(), "corp|alice");
            assert_eq!((principal.kind, principal.role()), (PrincipalKind::User, Role::Developer));
            assert_eq!(principal.scopes.iter().map(|s| &**s).collect::<Vec<_>>(), ["a", "b"]);
            assert_eq!(principal.groups.iter().map(|s| &**s).collect::<Vec<_>>(), ["devs"]);
            assert_eq!(principal.credential_id.as_deref(), Some("t1"));
            assert_eq!(principal.issuer.as_deref(), Some("corp"));
            assert_eq!(principal.expires_at, Some(NOW + 3600));
            assert_eq!(principal.claims["email"], "ä@x");
        }
    }
    assert_eq!((bench.misses(), bench.state.tokens.len()), (9, 9), "each token is verified once");
}

#[tokio::test]
async fn the_warm_path_gives_out_the_same_principal() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims());
    let first = bench.token(&token).unwrap().principal;
    assert!(Arc::ptr_eq(&first, &bench.token(&token).unwrap().principal));
    let other = signer.sign(&claims_with(json!({"jti": "t2"})));
    assert_eq!(first.id, bench.token(&other).unwrap().principal.id, "the id is stable over tokens");
}

#[tokio::test]
async fn unsigned_tokens_are_refused() {
    let signer = Signer::rsa("r");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let payload = URL_SAFE_NO_PAD.encode(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "r"}).to_string());
        for signature in ["", "AA", "c2ln"] {
            assert_eq!(bench.reason(&format!("{header}.{payload}.{signature}")), "algorithm");
        }
    }
    let good = signer.sign(&claims());
    let unsigned = good.rsplit_once('.').unwrap().0;
    assert_eq!(bench.reason(&format!("{unsigned}.")), "signature");
    assert_eq!(bench.reason(unsigned), "malformed_token");
}

#[tokio::test]
async fn a_public_key_is_never_an_hmac_secret() {
    let signer = Signer::rsa("r");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let jwk = signer.jwk();
    let modulus = URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let document = jwks(std::slice::from_ref(&signer));
    for secret in [modulus.as_slice(), jwk["n"].as_str().unwrap().as_bytes(), document.as_bytes(), b""] {
        for alg in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let header = Header { kid: Some("r".into()), ..Header::new(alg) };
            let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(secret)).unwrap();
            assert_eq!(bench.reason(&token), "algorithm");
        }
    }
}

#[tokio::test]
async fn the_header_does_not_choose_the_algorithm_or_the_key() {
    let (rsa, ec, stranger) = (Signer::rsa("r"), Signer::es256("e"), Signer::rsa("other"));
    let bench = Bench::new(&[rsa.clone(), ec.clone()]).await;
    let payload = claims().to_string();
    let sign = |signer: &Signer, header: Value| signer.sign_raw(&header.to_string(), &payload);

    assert_eq!(bench.reason(&sign(&rsa, json!({"alg": "ES256", "kid": "r"}))), "signature");
    assert_eq!(bench.reason(&sign(&rsa, json!({"alg": "RS512", "kid": "r"}))), "signature");
    assert_eq!(bench.reason(&sign(&rsa, json!({"alg": "RS256", "kid": "e"}))), "signature");
    // A key that the token brings along, or points to, is not looked at.
    let own = stranger.jwk();
    assert_eq!(bench.reason(&sign(&stranger, json!({"alg": "RS256", "kid": "r", "jwk": own}))), "signature");
    assert_eq!(bench.reason(&sign(&stranger, json!({"alg": "RS256", "jwk": own}))), "key_unknown");
    let url =
        json!({"alg": "RS256", "kid": "x", "jku": "https://evil.example/", "x5u": "https://evil.example/"});
    assert_eq!(bench.reason(&sign(&stranger, url)), "key_unknown");
    for kid in ["../../etc/passwd", "r' OR '1'='1", "r\u{0}", "", "R", "r ", "\u{202e}r"] {
        assert_eq!(
            bench.reason(&sign(&stranger, json!({"alg": "RS256", "kid": kid}))),
            "key_unknown",
            "{kid:?}"
        );
    }
    // Without a key id, the type decides; the signature still must be right.
    assert_eq!(bench.reason(&sign(&rsa, json!({"alg": "RS256"}))), "ok");
    assert_eq!(bench.reason(&sign(&ec, json!({"alg": "ES256"}))), "ok");
}

#[tokio::test]
async fn the_issuers_allow_list_and_the_keys_own_algorithm_bind() {
    let signer = Signer::rsa("r");
    let bench = Bench::with(std::slice::from_ref(&signer), |spec| {
        spec.issuers[0].algorithms = [Alg::Rs256, Alg::Ps256].into_iter().collect();
    })
    .await;
    assert_eq!(bench.reason(&signer.sign(&claims())), "ok");
    assert_eq!(bench.reason(&signer.clone().with_alg(Algorithm::RS384).sign(&claims())), "algorithm");
    let mut jwk = signer.jwk();
    jwk["alg"] = json!("RS256");
    bench.fetch.serve(json!({ "keys": [jwk] }).to_string());
    bench.refresh().await;
    assert_eq!(bench.reason(&signer.sign(&claims())), "ok");
    assert_eq!(bench.reason(&signer.with_alg(Algorithm::PS256).sign(&claims())), "signature");
}

#[tokio::test]
async fn the_issuer_must_be_exact() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    for iss in [
        "https://login.example.com/",
        "https://login.example.com.evil.example",
        "HTTPS://login.example.com",
        "http://login.example.com",
        "https://login.example.com\u{0}",
        "https://login.ex\u{e4}mple.com",
        "",
    ] {
        assert_eq!(
            bench.reason(&signer.sign(&claims_with(json!({ "iss": iss })))),
            "issuer_unknown",
            "{iss:?}"
        );
    }
    assert_eq!(bench.reason(&signer.sign(&claims_with(json!({"iss": null})))), "malformed_token");
    assert_eq!(bench.reason(&signer.sign(&claims_with(json!({"iss": [ISSUER]})))), "malformed_token");
}

#[tokio::test]
async fn one_issuers_key_does_not_sign_for_another() {
    let (one, two) = (Signer::ed25519("k"), Signer::ed25519("k"));
    let inline = |store: &JwksStore, signer: &Signer| {
        store.source(JwksSpec::new(JwksLocation::Inline(jwks(std::slice::from_ref(signer))))).unwrap()
    };
    let store = JwksStore::new(Clock::manual(NOW));
    let bench = Bench::with(&[], |spec| {
        let template = spec.issuers.remove(0);
        spec.issuers = vec![
            IssuerSpec { jwks: inline(&store, &one), ..template.clone() },
            IssuerSpec {
                name: "partner".into(),
                issuer: "https://partner.example".into(),
                jwks: inline(&store, &two),
                ..template
            },
        ];
    })
    .await;
    let partner = claims_with(json!({"iss": "https://partner.example"}));
    assert_eq!(bench.reason(&two.sign(&claims())), "signature");
    assert_eq!(bench.reason(&one.sign(&partner)), "signature");
    assert_eq!(bench.token(&one.sign(&claims())).unwrap().principal.id.as_str(), "corp|alice");
    assert_eq!(bench.token(&two.sign(&partner)).unwrap().principal.id.as_str(), "partner|alice");
}

#[tokio::test]
async fn audiences_are_checked_on_every_request() {
    let signer = Signer::ed25519("d");
    let bench = Bench::with(std::slice::from_ref(&signer), |spec| {
        spec.issuers[0].audiences = vec!["mcp-clients".into()];
    })
    .await;
    for (aud, expected) in [
        (json!(ROUTE), "ok"),
        (json!(["other", ROUTE]), "ok"),
        (json!("mcp-clients"), "ok"),
        (json!("https://gw.example/mcp/other"), "audience"),
        (json!("https://gw.example/mcp/weather/"), "audience"),
        (json!("https://gw.example"), "audience"),
        (json!([]), "audience"),
        (json!(""), "audience"),
        (json!([ROUTE, 1]), "claim"),
        (json!({"x": ROUTE}), "claim"),
        (json!(1), "claim"),
        (Value::Null, "claim"),
    ] {
        assert_eq!(bench.reason(&signer.sign(&claims_with(json!({ "aud": aud })))), expected, "{aud}");
    }
    // Verified for one route, presented at another.
    let token = signer.sign(&claims());
    assert_eq!(bench.reason(&token), "ok");
    let header = format!("Bearer {token}");
    let credential = bearer(&header, PEER);
    for audiences in [&["https://gw.example/mcp/other"][..], &[]] {
        let error = bench.auth.authenticate(&credential, audiences, NOW).unwrap_err();
        assert_eq!((error.reason(), error.status().as_u16()), ("audience", 401));
    }
}

#[tokio::test]
async fn times_are_checked_on_every_request_with_leeway() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    for (change, expected) in [
        (json!({"exp": NOW - 29}), "ok"),
        (json!({"exp": NOW - 30}), "expired"),
        (json!({"exp": NOW as f64 + 0.5}), "ok"),
        (json!({"exp": 0}), "expired"),
        (json!({"exp": -1}), "claim"),
        (json!({"exp": null}), "claim"),
        (json!({"exp": (NOW + 60).to_string()}), "claim"),
        (json!({"exp": u64::MAX}), "ok"),
        (json!({"nbf": NOW + 30}), "ok"),
        (json!({"nbf": NOW + 31}), "not_yet_valid"),
        (json!({"nbf": "0"}), "claim"),
        (json!({"iat": NOW + 330}), "ok"),
        (json!({"iat": NOW + 331}), "issued_in_future"),
        (json!({"iat": null}), "ok"),
    ] {
        assert_eq!(bench.reason(&signer.sign(&claims_with(change.clone()))), expected, "{change}");
    }
    let token = signer.sign(&claims_with(json!({"exp": NOW + 10})));
    assert_eq!(bench.reason(&token), "ok");
    bench.clock.advance(Duration::from_secs(39));
    assert_eq!(bench.reason(&token), "ok");
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.reason(&token), "expired", "also from the cache");
}

#[tokio::test]
async fn a_tampered_token_never_finds_the_cached_one() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims());
    assert_eq!(bench.reason(&token), "ok");
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let header = signed.split_once('.').unwrap().0;
    let payload =
        URL_SAFE_NO_PAD.encode(claims_with(json!({"sub": "root", "groups": ["admins"]})).to_string());
    assert_eq!(bench.reason(&format!("{header}.{payload}.{signature}")), "signature");
    // Every single character counts: nothing near the token is let in. Addresses differ to stay below the limit.
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let peer = Ipv4Addr::from(0x0a00_0000 + at as u32).into();
        assert!(bench.token_from(&changed, peer).is_err(), "character {at}");
    }
    assert_eq!(bench.reason(&token), "ok");
}

#[tokio::test]
async fn a_key_that_left_the_jwks_takes_its_tokens_along() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let bench = Bench::new(&[old.clone(), new.clone()]).await;
    let (old_token, new_token) = (old.sign(&claims()), new.sign(&claims()));
    assert_eq!((bench.reason(&old_token), bench.reason(&new_token)), ("ok", "ok"));
    bench.fetch.serve(jwks(std::slice::from_ref(&new)));
    bench.refresh().await;
    assert_eq!(bench.reason(&old_token), "key_unknown");
    assert_eq!(bench.state.tokens.len(), 1, "the entry is gone");
    let misses = bench.misses();
    assert_eq!(bench.reason(&new_token), "ok");
    assert_eq!(bench.misses(), misses, "what stayed in the JWKS stays in the cache");
    // Another key under the same id does not revive it either.
    let impostor = Signer::ed25519("old");
    bench.fetch.serve(jwks(&[impostor]));
    bench.refresh().await;
    assert_eq!(bench.reason(&old_token), "signature");
    assert_eq!(bench.reason(&new_token), "key_unknown");
}

#[tokio::test]
async fn keys_that_are_too_old_are_not_used_even_for_cached_tokens() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims_with(json!({"exp": NOW + 1_000_000})));
    assert_eq!(bench.reason(&token), "ok");
    bench.fetch.fail("down");
    bench.refresh().await;
    assert_eq!(bench.reason(&token), "ok", "an outage of the issuer is bridged");
    bench.clock.advance(Duration::from_secs(24 * 3600));
    let error = bench.token(&token).unwrap_err();
    assert_eq!(
        (error.reason(), error.blame(), error.status().as_u16()),
        ("keys_unavailable", Blame::Issuer, 401)
    );
    assert!(error.challenge_code().is_none() && !error.counts_as_failure());
}

#[tokio::test]
async fn a_changed_issuer_configuration_is_applied_to_cached_tokens() {
    let signer = Signer::ed25519("d");
    let mut bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims_with(json!({"groups": ["devs"]})));
    assert_eq!(bench.token(&token).unwrap().principal.role(), Role::Developer);

    bench.reload(|_| {});
    let misses = bench.misses();
    assert_eq!(bench.reason(&token), "ok");
    assert_eq!(bench.misses(), misses, "a reload that changes nothing keeps the cache");

    bench.reload(|spec| spec.issuers[0].roles.map[1].1 = Role::Viewer);
    assert_eq!(bench.token(&token).unwrap().principal.role(), Role::Viewer);
    bench.reload(|spec| spec.issuers[0].roles = RoleMapping::default());
    let error = bench.token(&token).unwrap_err();
    assert_eq!((error.reason(), error.status().as_u16()), ("no_role", 403));
    bench.reload(|spec| spec.issuers[0].algorithms = AlgSet::one(Alg::Rs256));
    assert_eq!(bench.reason(&token), "algorithm");
    bench.reload(|spec| spec.issuers.clear());
    assert_eq!(bench.reason(&token), "issuer_unknown");
}

#[tokio::test]
async fn one_tenants_cache_entry_says_nothing_to_another() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims());
    assert_eq!(bench.reason(&token), "ok");
    let mut spec = bench.spec.clone();
    spec.tenant = TenantId::new("acme");
    spec.issuers[0].required =
        vec![ClaimRule { claim: ClaimPath::parse("tid").unwrap(), test: ClaimTest::Equals(json!("acme")) }];
    let mut other = bench;
    other.auth = Authenticator::compile(spec, other.state.clone()).unwrap();
    assert_eq!(other.reason(&token), "claim");
    assert_eq!(other.reason(&signer.sign(&claims_with(json!({"tid": ["acme"]})))), "claim");
    let own = signer.sign(&claims_with(json!({"tid": "acme"})));
    assert_eq!(other.token(&own).unwrap().principal.tenant.as_str(), "acme");
}

#[tokio::test]
async fn two_tenants_with_the_same_issuer_stay_apart() {
    let signer = Signer::ed25519("d");
    let mut bench = Bench::new(std::slice::from_ref(&signer)).await;
    let token = signer.sign(&claims());
    let spec = AuthSpec { tenant: TenantId::new("acme"), ..bench.spec.clone() };
    let mut other = Authenticator::compile(spec, bench.state.clone()).unwrap();
    for turn in 0..4 {
        let expected = if turn % 2 == 0 { "default" } else { "acme" };
        assert_eq!(bench.token(&token).unwrap().principal.tenant.as_str(), expected);
        std::mem::swap(&mut bench.auth, &mut other);
    }
    assert_eq!((bench.misses(), bench.state.tokens.len()), (2, 2), "neither pushes out the other");
}

#[tokio::test]
async fn revocations_are_checked_on_every_request() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let (first, second) =
        (signer.sign(&claims()), signer.sign(&claims_with(json!({"jti": "t2", "iat": NOW}))));
    let bob = signer.sign(&claims_with(json!({"sub": "bob", "jti": "t3"})));
    for token in [&first, &second, &bob] {
        assert_eq!(bench.reason(token), "ok");
    }
    let all = |list: &str| {
        bench.spec.revocations.replace_text(list).unwrap();
        [bench.reason(&first), bench.reason(&second), bench.reason(&bob)]
    };
    assert_eq!(all("- jti: t1"), ["revoked", "ok", "ok"]);
    assert_eq!(all("- sub: alice"), ["revoked", "revoked", "ok"]);
    assert_eq!(
        all(&format!("- {{ sub: alice, issuer: corp, before: {} }}", NOW - 5)),
        ["revoked", "ok", "ok"]
    );
    assert_eq!(all("- principal: corp|bob"), ["ok", "ok", "revoked"]);
    assert_eq!(all("- { sub: alice, issuer: partner }"), ["ok", "ok", "ok"]);
    assert_eq!(all(""), ["ok", "ok", "ok"]);
}

#[tokio::test]
async fn a_bound_token_needs_its_proof_on_every_request() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let thumbprint = URL_SAFE_NO_PAD.encode([7; 32]);
    let bound = format!("Bearer {}", signer.sign(&claims_with(json!({"cnf": {"x5t#S256": thumbprint}}))));
    for (certificate, expected) in
        [(None, "binding"), (Some([8; 32]), "binding"), (Some([7; 32]), "ok"), (None, "binding")]
    {
        let credential = Credential { client_certificate: certificate, ..bearer(&bound, PEER) };
        let result = bench.auth.authenticate(&credential, &[ROUTE], NOW);
        assert_eq!(result.map_or_else(|e| e.reason(), |_| "ok"), expected, "{certificate:?}");
    }
    for cnf in [
        json!({"jkt": thumbprint}),
        json!({"x5t#S256": thumbprint, "jkt": thumbprint}),
        json!({"x5t#S256": "AAAA"}),
        json!({}),
        json!(thumbprint),
    ] {
        assert_eq!(bench.reason(&signer.sign(&claims_with(json!({ "cnf": cnf })))), "claim", "{cnf}");
    }
}

#[tokio::test]
async fn claims_of_odd_types_never_raise_a_role() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    for groups in [
        json!({"admins": true}),
        json!([{"admins": true}]),
        json!([["admins"]]),
        json!(1),
        json!(true),
        json!("devs admins"),
        json!("Admins"),
        json!("\u{430}dmins"),
        json!("admins\u{200b}"),
        json!(["admins\u{0}"]),
    ] {
        let token =
            signer.sign(&claims_with(json!({ "groups": groups, "roles": ["admins"], "role": "admin" })));
        assert_eq!(bench.token(&token).unwrap().principal.role(), Role::Viewer, "{groups}");
    }
    let twice = format!(
        r#"{{"iss":"{ISSUER}","sub":"a","aud":"{ROUTE}","exp":{},"groups":["x"],"groups":["admins"]}}"#,
        NOW + 60
    );
    let token = signer.sign_raw(r#"{"alg":"EdDSA","kid":"d"}"#, &twice);
    assert_eq!(bench.reason(&token), "malformed_token", "a claim that is given twice");
}

#[tokio::test]
async fn the_principal_is_a_clean_text() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    for (sub, expected) in [
        (json!("zoë|🦀 \"x\""), "ok"),
        (json!(""), "claim"),
        (json!("a\nb"), "claim"),
        (json!("a\u{0}"), "claim"),
        (json!("x".repeat(257)), "claim"),
        (json!(1), "claim"),
        (json!(["alice"]), "claim"),
        (json!({"id": "alice"}), "claim"),
        (Value::Null, "claim"),
    ] {
        assert_eq!(bench.reason(&signer.sign(&claims_with(json!({ "sub": sub })))), expected, "{sub}");
    }
    let token = signer.sign(&claims_with(json!({"sub": "zoë|🦀"})));
    assert_eq!(bench.token(&token).unwrap().principal.id.as_str(), "corp|zoë|🦀");
}

#[tokio::test]
async fn client_credentials_tokens_are_services() {
    let signer = Signer::ed25519("d");
    let mut bench = Bench::new(std::slice::from_ref(&signer)).await;
    let kind = |bench: &Bench, change: Value| {
        bench.token(&signer.sign(&claims_with(change))).unwrap().principal.kind
    };
    assert_eq!(kind(&bench, json!({"client_id": "alice"})), PrincipalKind::Service);
    assert_eq!(kind(&bench, json!({"azp": "alice"})), PrincipalKind::Service);
    assert_eq!(kind(&bench, json!({"gty": "client-credentials"})), PrincipalKind::Service);
    assert_eq!(kind(&bench, json!({"idtyp": "app"})), PrincipalKind::Service);
    assert_eq!(kind(&bench, json!({"client_id": "app", "idtyp": "user"})), PrincipalKind::User);
    bench.reload(|spec| spec.issuers[0].kind = KindRule::User);
    assert_eq!(kind(&bench, json!({"client_id": "alice"})), PrincipalKind::User);
    bench.reload(|spec| {
        let claim = ClaimPath::parse("kind").unwrap();
        spec.issuers[0].kind =
            KindRule::ServiceIf(ClaimRule { claim, test: ClaimTest::Equals(json!("bot")) });
    });
    assert_eq!(kind(&bench, json!({"kind": "bot"})), PrincipalKind::Service);
    assert_eq!(kind(&bench, json!({"client_id": "alice"})), PrincipalKind::User);
}

#[tokio::test]
async fn a_bad_credential_never_becomes_anonymous() {
    let signer = Signer::ed25519("d");
    let bench = Bench::with(std::slice::from_ref(&signer), |spec| {
        spec.anonymous = Some(Role::Anonymous);
        spec.loopback = Some(Role::Admin);
    })
    .await;
    let ask = |name: &'static str, value: &str, is_loopback: bool| {
        let mut headers = HeaderMap::new();
        if !name.is_empty() {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let credential = Credential::from_headers(&headers, PEER, is_loopback);
        bench
            .auth
            .authenticate(&credential, &[ROUTE], NOW)
            .map(|i| i.principal)
            .map_err(|e| e.status().as_u16())
    };
    let nobody = ask("", "", false).unwrap();
    assert_eq!(
        (nobody.id.as_str(), nobody.kind, nobody.role()),
        ("anonymous", PrincipalKind::Anonymous, Role::Anonymous)
    );
    let local = ask("", "", true).unwrap();
    assert_eq!((local.id.as_str(), local.role()), ("loopback", Role::Admin));
    let expired = format!("Bearer {}", signer.sign(&claims_with(json!({"exp": 1}))));
    for is_loopback in [false, true] {
        assert_eq!(ask("authorization", &expired, is_loopback).unwrap_err(), 401);
        assert_eq!(ask("authorization", "Bearer junk", is_loopback).unwrap_err(), 401);
        assert_eq!(ask("authorization", "Basic YTpi", is_loopback).unwrap_err(), 401);
        assert_eq!(ask("authorization", "Bearer tg_junk", is_loopback).unwrap_err(), 401);
        assert_eq!(ask("x-api-key", "junk", is_loopback).unwrap_err(), 401);
        assert_eq!(ask("authorization", "", is_loopback).unwrap_err(), 400);
    }
    let bench = Bench::new(&[]).await;
    let nothing = HeaderMap::new();
    let credential = Credential::from_headers(&nothing, PEER, true);
    assert_eq!(bench.auth.authenticate(&credential, &[ROUTE], NOW).unwrap_err().reason(), "missing");
}

#[tokio::test]
async fn oversized_and_junk_credentials_are_refused() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let status = |token: &str| bench.token(token).unwrap_err().status().as_u16();
    let long = signer.sign(&claims_with(json!({"x": "x".repeat(MAX_CREDENTIAL_BYTES)})));
    assert_eq!(status(&long), 400);
    let fits = signer.sign(&claims_with(json!({"x": "x".repeat(11_000)})));
    assert_eq!(bench.reason(&fits), "ok");
    assert_eq!(status("a b"), 400);
    assert_eq!(status("a,b"), 400);
    assert_eq!(status("e30.e30.e30"), 401);
    assert_eq!(status("!!!.e30.e30"), 400);
    assert_eq!(status("e30.e3=.e30"), 401);
    let good = signer.sign(&claims());
    assert_eq!(status(&format!("{good}=")), 401, "padding is not base64url");
    let deep = format!(r#"{{"iss":"{ISSUER}","x":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(status(&signer.sign_raw(r#"{"alg":"EdDSA","kid":"d"}"#, &deep)), 401);
}

#[tokio::test]
async fn a_flood_of_bad_tokens_keeps_memory_bounded_and_known_callers_working() {
    let signer = Signer::ed25519("d");
    let stranger = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    let known = signer.sign(&claims());
    assert_eq!(bench.reason(&known), "ok");
    let mut refused_unseen = 0;
    for i in 0..500 {
        let bad = stranger.sign(&claims_with(json!({ "jti": i })));
        refused_unseen += u32::from(bench.reason(&bad) == "too_many_failures");
    }
    assert_eq!(refused_unseen, 480, "after the burst nothing is verified");
    assert_eq!(bench.state.tokens.len(), 1, "bad tokens are not kept");
    assert_eq!(bench.reason(&known), "ok", "who is known passes");
    let fresh = signer.sign(&claims_with(json!({"jti": "new"})));
    let error = bench.token(&fresh).unwrap_err();
    assert_eq!((error.reason(), error.status().as_u16()), ("too_many_failures", 401), "never 429");
    assert!(bench.token_from(&fresh, Ipv4Addr::new(192, 0, 2, 2).into()).is_ok(), "others are not affected");
    bench.clock.advance(Duration::from_secs(3));
    assert_eq!(bench.reason(&fresh), "ok");
}

#[tokio::test]
async fn the_cache_is_bounded_in_entries_and_bytes() {
    let signer = Signer::ed25519("d");
    let mut bench = Bench::new(std::slice::from_ref(&signer)).await;
    bench.state.tokens = Arc::new(TokenCache::new(CacheBounds { entries: 100, bytes: 1024 * 1024 }));
    bench.reload(|_| {});
    for i in 0..400 {
        assert_eq!(bench.reason(&signer.sign(&claims_with(json!({"jti": i.to_string()})))), "ok");
    }
    assert!((50..=100).contains(&bench.state.tokens.len()), "{:?}", bench.state.tokens);
    for i in 0..200 {
        let big = json!({"jti": format!("b{i}"), "x": vec![0; 4000]});
        assert_eq!(bench.reason(&signer.sign(&claims_with(big))), "ok");
    }
    assert!(bench.state.tokens.weight() <= 1024 * 1024, "{:?}", bench.state.tokens);
}

#[tokio::test]
async fn authentic_but_useless_tokens_lock_nobody_out() {
    let signer = Signer::ed25519("d");
    let bench = Bench::new(std::slice::from_ref(&signer)).await;
    for i in 0..100 {
        let expired = signer.sign(&claims_with(json!({"exp": NOW - 100, "jti": i.to_string()})));
        assert_eq!(bench.reason(&expired), "expired");
    }
    assert_eq!(bench.reason(&signer.sign(&claims())), "ok");
}

#[tokio::test]
async fn api_keys_are_identities_with_restrictions() {
    let (text, mut record) = key_record(Role::Developer);
    record.principal = Some("corp|alice".into());
    record.scopes.tools = vec!["get_*".into()];
    let keys = Arc::new(KeyStore::new(TenantId::default(), None));
    keys.replace(vec![record.clone()]).unwrap();
    let bench = Bench::with(&[], |spec| spec.api_keys = Some(keys.clone())).await;
    let identity = bench.token(&text).unwrap();
    assert_eq!(identity.principal.id.as_str(), "corp|alice");
    assert!(!identity.restriction.unwrap().allows_tool("delete"));

    let mut headers = HeaderMap::new();
    headers.insert("x-api-key", HeaderValue::from_str(&text).unwrap());
    let credential = Credential::from_headers(&headers, PEER, false);
    let by_header = bench.auth.authenticate(&credential, &[""; 0], NOW).unwrap();
    assert!(Arc::ptr_eq(&by_header.principal, &identity.principal));

    bench.spec.revocations.replace_text(&format!("- {{ jti: {}, issuer: key }}", record.id)).unwrap();
    assert_eq!(bench.reason(&text), "revoked");
    bench.spec.revocations.replace_text("- principal: corp|alice").unwrap();
    assert_eq!(bench.reason(&text), "revoked");
    bench.spec.revocations.replace_text("").unwrap();
    keys.replace(vec![]).unwrap();
    let error = bench.token(&text).unwrap_err();
    assert_eq!((error.reason(), error.public_text()), ("api_key", "the API key is not valid"));
}

#[tokio::test]
async fn guessed_keys_are_limited_and_known_ones_pass() {
    let (known, record) = key_record(Role::Developer);
    let (unseen, unseen_record) = key_record(Role::Developer);
    let keys = Arc::new(KeyStore::new(TenantId::default(), None));
    keys.replace(vec![record, unseen_record]).unwrap();
    let bench = Bench::with(&[], |spec| spec.api_keys = Some(keys)).await;
    assert_eq!(bench.reason(&known), "ok");
    for _ in 0..20 {
        assert_eq!(bench.reason(&key_record(Role::Admin).0), "api_key");
    }
    assert_eq!(bench.reason(&key_record(Role::Admin).0), "too_many_failures");
    assert_eq!(bench.reason(&unseen), "too_many_failures");
    assert_eq!(bench.reason(&known), "ok");
}

#[tokio::test(start_paused = true)]
async fn a_rotated_key_is_fetched_while_the_request_waits() {
    let (old, new) = (Signer::ed25519("old"), Signer::ed25519("new"));
    let bench = Arc::new(Bench::new(&[old]).await);
    bench.fetch.serve(jwks(std::slice::from_ref(&new)));
    let shutdown = CancellationToken::new();
    let driver = tokio::spawn({
        let (store, fetch, shutdown) = (bench.store.clone(), bench.fetch.clone(), shutdown.clone());
        async move { store.run(fetch, shutdown).await }
    });
    let wait = |signer: Signer, id: u32| {
        let bench = bench.clone();
        tokio::spawn(async move {
            let header = format!("Bearer {}", signer.sign(&claims_with(json!({"jti": id.to_string()}))));
            let credential = bearer(&header, PEER);
            let wait = Duration::from_secs(2);
            bench.auth.authenticate_waiting(&credential, &[ROUTE], &bench.clock, wait).await
        })
    };
    let waiting: Vec<_> = (0..40).map(|id| wait(new.clone(), id)).collect();
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().principal.id.as_str(), "corp|alice");
    }
    assert_eq!(bench.fetch.calls(), 2, "one refresh for all");

    let before = tokio::time::Instant::now();
    let error = wait(Signer::ed25519("never"), 0).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), "key_unknown");
    assert!(before.elapsed() < Duration::from_millis(10), "within 30 s of the last trigger nobody waits");
    assert_eq!(bench.fetch.calls(), 2);
    shutdown.cancel();
    driver.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_key_that_does_not_come_is_a_failed_attempt() {
    let bench = Bench::new(&[Signer::ed25519("d")]).await;
    let stranger = Signer::ed25519("x");
    let header = format!("Bearer {}", stranger.sign(&claims()));
    let credential = bearer(&header, PEER);
    let before = tokio::time::Instant::now();
    for _ in 0..20 {
        let wait = Duration::from_secs(60);
        let error =
            bench.auth.authenticate_waiting(&credential, &[ROUTE], &bench.clock, wait).await.unwrap_err();
        assert_eq!(error.reason(), "key_unknown");
    }
    assert!(before.elapsed() >= MAX_REFRESH_WAIT, "nobody runs the driver");
    assert_eq!(bench.reason(&stranger.sign(&claims())), "too_many_failures");
}

#[tokio::test]
async fn specs_that_contradict_themselves_do_not_compile() {
    let bench = Bench::new(&[]).await;
    let compile = |change: &dyn Fn(&mut AuthSpec)| {
        let mut spec = bench.spec.clone();
        change(&mut spec);
        Authenticator::compile(spec, bench.state.clone()).map(drop).map_err(|e| e.field)
    };
    assert_eq!(compile(&|_| {}), Ok(()));
    let twice = |spec: &mut AuthSpec| {
        let again = IssuerSpec { issuer: "https://x.example".into(), ..spec.issuers[0].clone() };
        spec.issuers.push(again);
    };
    assert_eq!(compile(&twice), Err("issuers.corp.name".into()));
    let same = |spec: &mut AuthSpec| {
        let again = IssuerSpec { name: "b".into(), ..spec.issuers[0].clone() };
        spec.issuers.push(again);
    };
    assert_eq!(compile(&same), Err("issuers.b.issuer".into()));
    for name in ["key", "anonymous", "loopback", "a|b", "", "a b"] {
        let result = compile(&|spec| spec.issuers[0].name = name.into());
        assert_eq!(result, Err(format!("issuers.{name}.name")), "{name}");
    }
    assert!(compile(&|spec| spec.issuers[0].leeway = Duration::from_secs(301)).is_err());
    assert!(compile(&|spec| spec.issuers[0].algorithms = AlgSet::default()).is_err());
    assert!(compile(&|spec| spec.issuers[0].issuer.clear()).is_err());
    assert!(compile(&|spec| spec.issuers[0].audiences = vec![String::new()]).is_err());
    let foreign = Arc::new(KeyStore::new(TenantId::new("acme"), None));
    assert!(compile(&|spec| spec.api_keys = Some(foreign.clone())).is_err());
}

#[test]
fn errors_never_repeat_what_was_presented() {
    let error = AuthError::KeyUnknown { issuer: "corp".into(), kid: Some("a\r\nb".into()), refresh: None };
    assert!(!error.to_string().contains('\n'), "log lines cannot be forged");
    assert!(!error.public_text().contains("corp"));
}
