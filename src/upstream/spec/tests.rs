use http::header;

use super::*;

fn server(urls: &[&str]) -> ServerSpec {
    let targets = urls.iter().map(|u| TargetSpec::parse(u, 1).unwrap()).collect();
    ServerSpec::new(TenantId::default(), ServerId::new("s"), targets)
}

#[test]
fn reads_urls_with_their_default_ports() {
    let t = TargetSpec::parse("https://api.example.com/mcp?x=1", 3).unwrap();
    assert_eq!((t.scheme, t.port, t.weight), (Scheme::Https, 443, 3));
    assert_eq!(t.path_and_query.as_str(), "/mcp?x=1");
    assert_eq!(t.authority(), "api.example.com");
    let t = TargetSpec::parse("http://[::1]:9001", 1).unwrap();
    assert_eq!((t.host.as_str(), t.port, t.path_and_query.as_str()), ("::1", 9001, "/"));
    assert_eq!(t.authority(), "[::1]:9001");
}

#[test]
fn refuses_urls_that_cannot_be_dialled() {
    for url in ["ftp://h/", "/mcp", "http://u:p@h/", "http://h:0/", "http://h:99999/", "http://h:/x", ""] {
        assert!(matches!(TargetSpec::parse(url, 1), Err(SpecError::Url { .. })), "{url}");
    }
}

#[test]
fn refuses_targets_that_share_an_address() {
    assert!(server(&["http://h:1/a", "http://h:2/a"]).validate().is_ok());
    assert!(matches!(
        server(&["http://h:1/a", "http://H:1/b"]).validate(),
        Err(SpecError::SameAddress { .. })
    ));
    assert!(matches!(server(&["http://h/a", "http://h/a"]).validate(), Err(SpecError::DuplicateTarget(_))));
}

#[test]
fn refuses_weights_that_would_break_the_ring() {
    let mut spec = server(&["http://h/"]);
    for weight in [0, MAX_WEIGHT + 1] {
        spec.targets[0].weight = weight;
        assert!(matches!(spec.validate(), Err(SpecError::Weight { .. })));
    }
    assert!(matches!(server(&[]).validate(), Err(SpecError::NoTargets)));
}

#[test]
fn refuses_literals_the_guard_does_not_allow() {
    let mut spec = server(&["http://127.0.0.1:1/"]);
    assert!(spec.validate().is_ok());
    spec.guard = AddressGuard::PublicOnly { except: Vec::new() };
    assert!(matches!(spec.validate(), Err(SpecError::Address { .. })));
}

#[test]
fn refuses_credentials_in_framing_headers() {
    let mut spec = server(&["http://h/"]);
    spec.credentials = vec![(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))];
    assert!(spec.validate().is_ok());
    spec.credentials = vec![(header::CONTENT_LENGTH, HeaderValue::from_static("1"))];
    assert!(matches!(spec.validate(), Err(SpecError::Header(_))));
}

#[test]
fn refuses_contradicting_health_and_breaker_settings() {
    let mut spec = server(&["http://h/"]);
    spec.health = Some(HealthSpec { unhealthy_after: 0, ..HealthSpec::new(ProbeKind::Tcp) });
    assert!(matches!(spec.validate(), Err(SpecError::Health(_))));
    spec.health = Some(HealthSpec::new(ProbeKind::Mcp));
    spec.era = EraHint::Foreign;
    assert!(matches!(spec.validate(), Err(SpecError::Health(_))));
    spec.health = None;
    spec.breaker = Some(BreakerSpec { probes: 0, ..BreakerSpec::default() });
    assert!(matches!(spec.validate(), Err(SpecError::Range(_))));
    spec.breaker = None;
    spec.tls.sni = Some("not a name".to_owned());
    assert!(matches!(spec.validate(), Err(SpecError::Sni(_))));
}
