//! No input opens that was not sealed; what was sealed opens unchanged.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tollgate::base::{PrincipalId, RouteId, TenantId};
use tollgate::mcp::seal::{KeyRing, Purpose};
use tollgate::mcp::session::{Binding, RequestState, SessionToken, TokenBuf, open_task};

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    KeyRing::parse("abcd AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= 1", 2).expect("a valid key file")
});

fuzz_target!(|input: (&str, &[u8])| {
    let (text, plaintext) = input;
    let (tenant, route, principal) = (TenantId::from("t"), RouteId::from("r"), PrincipalId::from("p"));
    let binding = Binding { tenant: &tenant, route: &route, principal: &principal };
    let mut buf = Vec::new();
    for token in [text.to_owned(), format!("1abcd{text}")] {
        assert!(SessionToken::open(&RING, binding, &token, 1, 100, &mut TokenBuf::default()).is_err());
        assert!(RequestState::open(&RING, binding, &token, ("m", None), 1, &mut buf).is_err());
        assert!(open_task(&RING, binding, &token, &mut buf).is_err());
    }
    let _ = KeyRing::parse(text, 1);
    // Authentic, but of any layout: what another version might have written.
    let aad: [&[u8]; 3] = [b"t", b"r", b"p"];
    if let Ok(token) = RING.seal(Purpose::Session, &aad, plaintext) {
        assert_eq!(RING.open(Purpose::Session, &aad, &token).as_deref(), Ok(plaintext));
        let _ = SessionToken::open(&RING, binding, &token, 1, 100, &mut TokenBuf::default());
    }
    if let Ok(token) = RING.seal(Purpose::RequestState, &aad, plaintext) {
        let _ = RequestState::open(&RING, binding, &token, ("m", None), 1, &mut buf);
    }
    if let Ok(token) = RING.seal(Purpose::Task, &aad, plaintext) {
        let _ = open_task(&RING, binding, &token, &mut buf);
    }
});
