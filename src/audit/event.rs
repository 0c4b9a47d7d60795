//! What is recorded of a decision or an action, and its compact binary form in the spool.
//!
//! The data plane encodes into a buffer of the calling thread: a bit map of the fields that are there, then numbers as
//! variable-length integers and texts with their lengths. [`Event::decode`] borrows from the bytes. JSON is made off the request path, by
//! whoever drains the spool.

use std::net::IpAddr;

use super::clip;

/// Most bytes of a text field; longer ones are cut.
pub const MAX_TEXT: usize = 256;
/// The same for `reason` and `detail`, which people write and read.
pub const MAX_LONG: usize = 1024;
/// Most bytes of one body that is kept.
pub const MAX_BODY: usize = 64 * 1024;

/// What stands in place of NUL in a text, which PostgreSQL takes in none: the character that ASCII has for this.
const SUBSTITUTE: u8 = 0x1a;

/// First byte of every encoded event; another one means that a version of the program wrote it which this one cannot read.
/// A field that is added gets a bit behind all others and is encoded last: records of earlier versions stay readable.
const FORMAT: u8 = 1;

/// Which plane an event is from. Each has a hash chain and a retention of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// An action of an operator or of the program itself.
    Control,
    /// A decision about a request of an MCP client.
    Data,
}

impl Class {
    /// Both.
    pub const ALL: [Class; 2] = [Class::Control, Class::Data];

    /// The name in documents and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Control => "control",
            Class::Data => "data",
        }
    }

    /// The class of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }
}

macro_rules! event {
    (texts { $($(#[$tdoc:meta])* $text:ident,)* } numbers { $($(#[$ndoc:meta])* $number:ident,)* }) => {
        /// One event. Absent fields are `None`; texts are cut to [`MAX_TEXT`] or [`MAX_LONG`] bytes when encoded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct Event<'a> {
            /// When it was recorded, in microseconds since the Unix epoch.
            pub time_us: u64,
            /// Whose event it is.
            pub tenant: &'a str,
            /// Which plane.
            pub class: Class,
            $($(#[$tdoc])* pub $text: Option<&'a str>,)*
            $($(#[$ndoc])* pub $number: Option<u64>,)*
            /// The code of a JSON-RPC error.
            pub rpc_code: Option<i32>,
            /// The caller's address, after trusted proxies.
            pub client_ip: Option<IpAddr>,
            /// The request's id, a UUID.
            pub request_id: Option<[u8; 16]>,
            /// The trace it belongs to.
            pub trace_id: Option<[u8; 16]>,
            /// The beginning of the request's body, if a policy says that it is to be kept.
            pub request_body: Option<&'a [u8]>,
            /// The beginning of the response's body, if a policy says that it is to be kept.
            pub response_body: Option<&'a [u8]>,
            /// How many bytes of the request's body are missing in what was to be kept of it; absent if none.
            pub request_cut: Option<u64>,
            /// How many bytes of the response's body are missing in what was to be kept of it; absent if none.
            pub response_cut: Option<u64>,
            /// How many requests the event tells of; absent if it is one. Times and bytes are those of all of them.
            pub count: Option<u64>,
            /// When the first of them was, in microseconds since the Unix epoch.
            pub since_us: Option<u64>,
        }

        impl<'a> Event<'a> {
            /// An event with nothing but what each one has.
            pub fn new(time_us: u64, tenant: &'a str, class: Class) -> Self {
                Self {
                    time_us, tenant, class,
                    $($text: None,)* $($number: None,)*
                    rpc_code: None, client_ip: None, request_id: None, trace_id: None,
                    request_body: None, response_body: None, request_cut: None, response_cut: None,
                    count: None, since_us: None,
                }
            }

            /// Names of the text fields, in their order.
            pub const TEXTS: &'static [&'static str] = &[$(stringify!($text)),*];
            /// Names of the number fields, in their order.
            pub const NUMBERS: &'static [&'static str] = &[$(stringify!($number)),*];

            fn texts(&self) -> [Option<&'a str>; TEXTS] {
                [$(self.$text),*]
            }

            pub(super) fn texts_mut(&mut self) -> [&mut Option<&'a str>; TEXTS] {
                [$(&mut self.$text),*]
            }

            fn numbers(&self) -> [Option<u64>; NUMBERS] {
                [$(self.$number),*]
            }

            fn numbers_mut(&mut self) -> [&mut Option<u64>; NUMBERS] {
                [$(&mut self.$number),*]
            }

            /// All text fields that are there, by name.
            pub fn named_texts(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
                Self::TEXTS.iter().zip(self.texts()).filter_map(|(name, value)| Some((*name, value?)))
            }

            /// All number fields that are there, by name.
            pub fn named_numbers(&self) -> impl Iterator<Item = (&'static str, u64)> {
                Self::NUMBERS.iter().zip(self.numbers()).filter_map(|(name, value)| Some((*name, value?)))
            }
        }
    };
}

event! {
    texts {
        /// What a control action did, such as `route.put`; absent for requests of MCP clients.
        action,
        /// What it was done to.
        object,
        /// The caller's stable id.
        principal,
        /// `user`, `key`, `service` or `anonymous`.
        kind,
        /// The caller's most powerful role.
        role,
        /// The HTTP method.
        http_method,
        /// The JSON-RPC method.
        method,
        /// The route.
        route,
        /// The server that was asked.
        server,
        /// The target that answered.
        target,
        /// The tool, prompt or resource.
        name,
        /// `allow`, `deny`, `limit` or `error`: what was decided.
        decision,
        /// The policy rule that decided.
        rule,
        /// The limit that refused.
        limit,
        /// How it ended.
        outcome,
        /// The revision of the configuration that decided.
        revision,
        /// Why: what an operator gave as the reason, or what went wrong.
        reason,
        /// What changed, in words.
        detail,
    }
    numbers {
        /// The HTTP status.
        status,
        /// Bytes of the request's body.
        bytes_in,
        /// Bytes of the response's body.
        bytes_out,
        /// From the head of the request to the end of the response.
        duration_us,
        /// How much of that the gateway waited for the server.
        upstream_us,
        /// A hash of the session id.
        session,
    }
}

const TEXTS: usize = Event::TEXTS.len();
/// How many of the texts, at the end, may be long.
const LONG: usize = 2;
const NUMBERS: usize = Event::NUMBERS.len();
const RPC_CODE: usize = TEXTS + NUMBERS;
const CLIENT_IP: usize = RPC_CODE + 1;
const REQUEST_ID: usize = CLIENT_IP + 1;
const TRACE_ID: usize = REQUEST_ID + 1;
const REQUEST_BODY: usize = TRACE_ID + 1;
const RESPONSE_BODY: usize = REQUEST_BODY + 1;
const REQUEST_CUT: usize = RESPONSE_BODY + 1;
const RESPONSE_CUT: usize = REQUEST_CUT + 1;
const COUNT: usize = RESPONSE_CUT + 1;
const SINCE: usize = COUNT + 1;

/// Most bytes of an encoded event without bodies whose texts are all as long as they may be.
pub const MAX_PLAIN: usize =
    20 + (TEXTS - LONG + 1) * (MAX_TEXT + 2) + LONG * (MAX_LONG + 2) + (NUMBERS + 4) * 10 + 60;
/// Most bytes of an encoded event.
pub const MAX_ENCODED: usize = MAX_PLAIN + 2 * (MAX_BODY + 4);

/// The bytes are no event of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the spool holds a record that this version cannot read")]
pub struct Unreadable;

impl<'a> Event<'a> {
    /// Appends the binary form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let texts = self.texts();
        let numbers = self.numbers();
        let mut present = 0u64;
        let mut note = |bit: usize, there: bool| present |= u64::from(there) << bit;
        for (i, text) in texts.iter().enumerate() {
            note(i, text.is_some());
        }
        for (i, number) in numbers.iter().enumerate() {
            note(TEXTS + i, number.is_some());
        }
        note(RPC_CODE, self.rpc_code.is_some());
        note(CLIENT_IP, self.client_ip.is_some());
        note(REQUEST_ID, self.request_id.is_some());
        note(TRACE_ID, self.trace_id.is_some());
        note(REQUEST_BODY, self.request_body.is_some());
        note(RESPONSE_BODY, self.response_body.is_some());
        note(REQUEST_CUT, self.request_cut.is_some());
        note(RESPONSE_CUT, self.response_cut.is_some());
        note(COUNT, self.count.is_some());
        note(SINCE, self.since_us.is_some());

        out.push(FORMAT);
        out.push(self.class as u8);
        out.extend_from_slice(&self.time_us.to_le_bytes());
        out.extend_from_slice(&present.to_le_bytes());
        text(out, clip(self.tenant, MAX_TEXT));
        for (i, value) in texts.into_iter().enumerate() {
            if let Some(value) = value {
                text(out, clip(value, if i + LONG < TEXTS { MAX_TEXT } else { MAX_LONG }));
            }
        }
        for number in numbers.into_iter().flatten() {
            varint(out, number);
        }
        if let Some(code) = self.rpc_code {
            out.extend_from_slice(&code.to_le_bytes());
        }
        match self.client_ip {
            None => {}
            Some(IpAddr::V4(ip)) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            Some(IpAddr::V6(ip)) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        for id in [self.request_id, self.trace_id].into_iter().flatten() {
            out.extend_from_slice(&id);
        }
        for body in [self.request_body, self.response_body].into_iter().flatten() {
            bytes(out, &body[..body.len().min(MAX_BODY)]);
        }
        let last = [self.request_cut, self.response_cut, self.count, self.since_us];
        for number in last.into_iter().flatten() {
            varint(out, number);
        }
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// It was written by another version, or is damaged.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, Unreadable> {
        let mut r = Reader(bytes);
        if r.byte()? != FORMAT {
            return Err(Unreadable);
        }
        let class = match r.byte()? {
            c if c == Class::Control as u8 => Class::Control,
            c if c == Class::Data as u8 => Class::Data,
            _ => return Err(Unreadable),
        };
        let time_us = u64::from_le_bytes(r.array()?);
        let present = u64::from_le_bytes(r.array()?);
        let has = |bit: usize| present >> bit & 1 == 1;
        let mut event = Event::new(time_us, r.text()?, class);
        for (i, text) in event.texts_mut().iter_mut().enumerate() {
            if has(i) {
                **text = Some(r.text()?);
            }
        }
        for (i, number) in event.numbers_mut().iter_mut().enumerate() {
            if has(TEXTS + i) {
                **number = Some(r.varint()?);
            }
        }
        if has(RPC_CODE) {
            event.rpc_code = Some(i32::from_le_bytes(r.array()?));
        }
        if has(CLIENT_IP) {
            event.client_ip = Some(match r.byte()? {
                4 => IpAddr::from(r.array::<4>()?),
                6 => IpAddr::from(r.array::<16>()?),
                _ => return Err(Unreadable),
            });
        }
        if has(REQUEST_ID) {
            event.request_id = Some(r.array()?);
        }
        if has(TRACE_ID) {
            event.trace_id = Some(r.array()?);
        }
        if has(REQUEST_BODY) {
            event.request_body = Some(r.bytes()?);
        }
        if has(RESPONSE_BODY) {
            event.response_body = Some(r.bytes()?);
        }
        if has(REQUEST_CUT) {
            event.request_cut = Some(r.varint()?);
        }
        if has(RESPONSE_CUT) {
            event.response_cut = Some(r.varint()?);
        }
        if has(COUNT) {
            event.count = Some(r.varint()?);
        }
        if has(SINCE) {
            event.since_us = Some(r.varint()?);
        }
        if r.0.is_empty() { Ok(event) } else { Err(Unreadable) }
    }
}

fn bytes(out: &mut Vec<u8>, value: &[u8]) {
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// One text that no database refuses: a caller may name a tool as it likes, and one event that cannot be stored would keep
/// all later ones back.
fn text(out: &mut Vec<u8>, value: &str) {
    bytes(out, value.as_bytes());
    if memchr::memchr(0, value.as_bytes()).is_some() {
        let begin = out.len() - value.len();
        out[begin..].iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = SUBSTITUTE);
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Unreadable> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(Unreadable)?;
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        self.take(N)?.try_into().map_err(|_| Unreadable)
    }

    fn varint(&mut self) -> Result<u64, Unreadable> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn bytes(&mut self) -> Result<&'a [u8], Unreadable> {
        let n = usize::try_from(self.varint()?).map_err(|_| Unreadable)?;
        self.take(n)
    }

    fn text(&mut self) -> Result<&'a str, Unreadable> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(
            texts in prop::collection::vec(prop::option::of("[a-zü/]{0,40}"), TEXTS),
            numbers in prop::collection::vec(any::<Option<u64>>(), NUMBERS),
            rpc_code in any::<Option<i32>>(), ip in any::<Option<IpAddr>>(),
            ids in any::<(Option<[u8; 16]>, Option<[u8; 16]>)>(),
            body in prop::option::of(prop::collection::vec(any::<u8>(), 0..300)),
            cuts in any::<[Option<u64>; 4]>(),
            time in any::<u64>(), is_data in any::<bool>(),
        ) {
            let class = if is_data { Class::Data } else { Class::Control };
            let mut event = Event::new(time, "acme", class);
            for (field, value) in event.texts_mut().iter_mut().zip(&texts) {
                **field = value.as_deref();
            }
            for (field, value) in event.numbers_mut().iter_mut().zip(&numbers) {
                **field = *value;
            }
            let event = Event {
                rpc_code, client_ip: ip, request_id: ids.0, trace_id: ids.1,
                request_body: body.as_deref(), response_body: body.as_deref(),
                request_cut: cuts[0], response_cut: cuts[1], count: cuts[2], since_us: cuts[3], ..event
            };
            let mut bytes = Vec::new();
            event.encode(&mut bytes);
            prop_assert_eq!(Event::decode(&bytes), Ok(event));
            // Nothing shorter is taken for an event.
            for cut in 0..bytes.len().min(60) {
                prop_assert!(Event::decode(&bytes[..bytes.len() - 1 - cut]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::decode(&bytes);
        }
    }

    #[test]
    fn no_text_has_what_a_database_refuses() {
        let event = Event {
            name: Some("a\0b\0"),
            principal: Some(""),
            request_body: Some(b"\0"),
            ..Event::new(1, "t\0", Class::Data)
        };
        let mut bytes = Vec::new();
        event.encode(&mut bytes);
        let read = Event::decode(&bytes).unwrap();
        assert_eq!((read.tenant, read.name, read.principal), ("t\u{1a}", Some("a\u{1a}b\u{1a}"), Some("")));
        assert_eq!(read.request_body, Some(&b"\0"[..]), "bodies are escaped when they become text");
    }

    #[test]
    fn the_longest_event_is_within_its_bound() {
        let text = "ü".repeat(MAX_TEXT);
        let body = vec![0; 2 * MAX_BODY];
        let mut event = Event::new(u64::MAX, &text, Class::Data);
        for field in event.texts_mut().iter_mut() {
            **field = Some(&text);
        }
        for field in event.numbers_mut().iter_mut() {
            **field = Some(u64::MAX);
        }
        event.rpc_code = Some(1);
        event.client_ip = Some("::1".parse().unwrap());
        event.request_id = Some([1; 16]);
        event.trace_id = Some([1; 16]);
        event.request_cut = Some(u64::MAX);
        event.response_cut = Some(u64::MAX);
        event.count = Some(u64::MAX);
        event.since_us = Some(u64::MAX);
        let mut plain = Vec::new();
        event.encode(&mut plain);
        assert!(plain.len() <= MAX_PLAIN, "{}", plain.len());
        let mut whole = Vec::new();
        Event { request_body: Some(&body), response_body: Some(&body), ..event }.encode(&mut whole);
        assert!(whole.len() <= MAX_ENCODED && whole.len() <= crate::base::mapped::MAX_PAYLOAD);
        assert_eq!(Event::decode(&whole).unwrap().request_body.unwrap().len(), MAX_BODY);
    }

    /// Byte for byte what the version before the cuts wrote: the spool that it left must stay readable.
    #[test]
    fn a_record_of_an_earlier_version_is_read_as_it_was_written() {
        let mut old = vec![1, 1];
        old.extend_from_slice(&7u64.to_le_bytes());
        let (action, status, request_body) = (1u64, 1u64 << 18, 1u64 << 28);
        old.extend_from_slice(&(action | status | request_body).to_le_bytes());
        old.extend_from_slice(b"\x04acme\x03put\xc8\x01\x02{}");
        let event = Event {
            action: Some("put"),
            status: Some(200),
            request_body: Some(b"{}"),
            ..Event::new(7, "acme", Class::Data)
        };
        assert_eq!(Event::decode(&old), Ok(event));
        let mut new = Vec::new();
        event.encode(&mut new);
        assert_eq!(new, old, "and nothing changes where nothing was cut");
    }
}
