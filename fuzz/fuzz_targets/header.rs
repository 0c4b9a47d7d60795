//! Any value decodes or is refused, any text survives encoding, and classifying never panics.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use tollgate::mcp::classify::{Body, Facts, Headers, Kind, Message, classify};
use tollgate::mcp::header::{Field, MAX_VALUE_BYTES, decode, encode};
use tollgate::mcp::version::{Era, Version, Versions};

fuzz_target!(|input: (u8, &[u8], &[u8], &[u8], &str, &str, &str)| {
    let (bits, version, method, name, body_method, body_name, claim) = input;
    if let Ok(text) = decode(name) {
        assert_eq!(decode(encode(&text).as_bytes()).as_deref(), Ok(&*text));
    }
    if body_name.len() < MAX_VALUE_BYTES / 2 {
        assert_eq!(decode(encode(body_name).as_bytes()).as_deref(), Ok(body_name));
    }
    let bit = |n: u8| bits & (1 << n) != 0;
    let field = |there: bool, value| if there { Field::One(value) } else { Field::Absent };
    let mut message = Message::new(if bit(0) { Kind::Request } else { Kind::Notification }, body_method);
    message.name = Some(body_name);
    message.meta_version = bit(1).then_some(claim);
    message.client_capabilities = bit(2);
    let facts = Facts {
        http: &Method::POST,
        headers: Headers {
            protocol_version: field(bit(3), version),
            method: field(bit(4), method),
            name: field(bit(5), name),
        },
        body: Some(Body::Message(message)),
        session: bit(6).then_some(Version::LATEST_LEGACY),
    };
    match classify(&facts, Versions::ALL) {
        Ok(c) if c.era == Era::Modern && bit(0) => assert!(bit(1) && bit(2) && bit(3) && bit(4)),
        Ok(_) => {}
        Err(refusal) => assert!(refusal.message.len() < 4096),
    }
});
