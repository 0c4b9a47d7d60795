//! W3C Trace Context: the `traceparent` value.

use std::fmt;

/// Length of a version 00 value.
const LENGTH: usize = 55;

/// The flag that says the caller records this trace.
const SAMPLED: u8 = 1;

/// The flag that says the trace id is random (Trace Context level 2).
const RANDOM: u8 = 2;

/// A trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The id with these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether the last eight bytes, the random ones in every generator, are below a threshold. All gateways of a
    /// trace decide alike.
    pub(super) fn is_below(self, threshold: u64) -> bool {
        let [.., a, b, c, d, e, f, g, h] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h]) < threshold
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span of a trace. Never all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// The bytes.
    pub fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    fn fresh() -> Self {
        Self(random())
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A span and what its owner said about recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent` value (Trace Context §3.2). A version after 00 is read as far as 00 goes, as §3.2.4
    /// demands; flags this version does not know are dropped.
    pub fn parse(value: &str) -> Option<Self> {
        let b = value.as_bytes();
        let known = b.len() == LENGTH || (b.len() > LENGTH && b[LENGTH] == b'-' && &b[..2] != b"00");
        if !known || b[2] != b'-' || b[35] != b'-' || b[52] != b'-' {
            return None;
        }
        let [version] = hex::<1>(&b[..2])?;
        let trace_id = hex::<16>(&b[3..35])?;
        let span_id = hex::<8>(&b[36..52])?;
        let [flags] = hex::<1>(&b[53..55])?;
        if version == 0xff || trace_id == [0; 16] || span_id == [0; 8] {
            return None;
        }
        Some(Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            flags: flags & (SAMPLED | RANDOM),
        })
    }

    /// The first span of a new trace, not sampled.
    pub fn root() -> Self {
        Self { trace_id: TraceId(random()), span_id: SpanId::fresh(), flags: RANDOM }
    }

    /// A new span below this one, with the same flags.
    pub fn child(&self) -> Self {
        Self { span_id: SpanId::fresh(), ..*self }
    }

    /// The same span, sampled.
    pub fn sampled(self) -> Self {
        Self { flags: self.flags | SAMPLED, ..self }
    }

    /// Whether its owner records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The flags as sent.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// The value to send, without allocating.
    pub fn to_traceparent(&self) -> TraceParent {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        put_hex(&mut text[3..35], &self.trace_id.0);
        put_hex(&mut text[36..52], &self.span_id.0);
        put_hex(&mut text[53..55], &[self.flags]);
        TraceParent(text)
    }
}

/// A `traceparent` value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; LENGTH]);

impl TraceParent {
    /// The value.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("written from hexadecimal digits and dashes")
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a `tracestate` value may travel on: printable ASCII of at most 512 characters, the length that Trace
/// Context §3.3.1.5 asks everyone to carry. Its entries belong to vendors and are not read. Send it only along with a
/// `traceparent` from the same place.
pub fn is_tracestate(value: &str) -> bool {
    (1..=512).contains(&value.len()) && value.bytes().all(|b| (0x20..0x7f).contains(&b) || b == b'\t')
}

fn random<const N: usize>() -> [u8; N]
where
    [u8; N]: Default,
{
    let mut bytes = [0; N];
    // All zeros means "no id" in Trace Context; the loop ends at the first draw in practice.
    while bytes == [0; N] {
        rand::fill(&mut bytes[..]);
    }
    bytes
}

/// The value of a digit, [`NO_DIGIT`] for any other byte. Lower case only, as the specification demands.
const DIGIT: [u8; 256] = {
    let mut table = [NO_DIGIT; 256];
    let mut i = 0;
    while i < 16 {
        table[b"0123456789abcdef"[i] as usize] = i as u8;
        i += 1;
    }
    table
};

const NO_DIGIT: u8 = 0xff;

fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (DIGIT[usize::from(pair[0])], DIGIT[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low & 15;
    }
    (seen < 16).then_some(bytes)
}

fn put_hex(out: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_example_of_the_specification_round_trips() {
        let context = TraceContext::parse(EXAMPLE).expect("valid");
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
        assert!(context.is_sampled());
        assert_eq!(context.to_traceparent().as_str(), EXAMPLE);
    }

    #[test]
    fn refuses_what_the_specification_refuses() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-011",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_this_one_goes() {
        let later = "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-what-ever";
        let context = TraceContext::parse(later).expect("valid");
        assert_eq!(context.to_traceparent().as_str(), EXAMPLE.replace("-01", "-03"));
    }

    #[test]
    fn children_share_the_trace_and_its_flags() {
        let parent = TraceContext::parse(EXAMPLE).expect("valid");
        let child = parent.child();
        assert_eq!(child.trace_id, parent.trace_id);
        assert_ne!(child.span_id, parent.span_id);
        assert!(child.is_sampled());
        assert!(!TraceContext::root().is_sampled());
    }

    #[test]
    fn tracestate_is_bounded() {
        assert!(is_tracestate("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"));
        assert!(!is_tracestate("") && !is_tracestate("a=\u{e9}") && !is_tracestate("a=b\r\nx: y"));
        assert!(is_tracestate(&"x".repeat(512)) && !is_tracestate(&"x".repeat(513)));
    }

    proptest! {
        #[test]
        fn never_panics_and_normalizes(value in "[0-9a-f-]{50,60}|\\PC{0,60}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}") {
            if let Some(context) = TraceContext::parse(&value) {
                let text = context.to_traceparent();
                prop_assert_eq!(TraceContext::parse(text.as_str()), Some(context));
            }
        }

        #[test]
        fn fresh_contexts_are_valid(_ in 0..50) {
            let root = TraceContext::root();
            prop_assert_eq!(TraceContext::parse(root.to_traceparent().as_str()), Some(root));
        }
    }
}
