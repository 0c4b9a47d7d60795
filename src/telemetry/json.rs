//! Writes one JSON object into a byte buffer, field by field, without a document in between.
//!
//! Strings may come from clients. They are escaped as RFC 8259 §7 demands, and DEL and the C1 controls as well:
//! logs are read on terminals, which act on them.

use std::fmt::Display;
use std::io::Write as _;

/// Appends the fields of one object. The buffer holds valid JSON once [`Object::end`] has been called.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Object<'a> {
    pub(super) fn begin(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    /// Keys are constants of this crate and need no escaping.
    fn key(&mut self, key: &'static str) {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    pub(super) fn str(&mut self, key: &'static str, value: &str) {
        self.key(key);
        string(self.out, value);
    }

    /// At most `max` characters; an ellipsis marks a cut.
    pub(super) fn bounded(&mut self, key: &'static str, value: &str, max: usize) {
        self.key(key);
        self.out.push(b'"');
        let (head, cut) = truncate(value, max);
        escape(self.out, head);
        if cut {
            self.out.extend_from_slice("…".as_bytes());
        }
        self.out.push(b'"');
    }

    /// Bytes that should be UTF-8; what is not becomes U+FFFD.
    pub(super) fn lossy(&mut self, key: &'static str, value: &[u8], max: usize) {
        match std::str::from_utf8(value) {
            Ok(text) => self.bounded(key, text, max),
            Err(_) => {
                // Cut before converting, so that a long header costs no more than its bound.
                let head = &value[..value.len().min(max * 4)];
                self.bounded(key, &String::from_utf8_lossy(head), max);
            }
        }
    }

    /// A value whose text needs no escaping: ids, addresses, hexadecimal digits.
    pub(super) fn plain(&mut self, key: &'static str, value: impl Display) {
        self.key(key);
        self.out.push(b'"');
        write!(self.out, "{value}").expect("a Vec takes all bytes");
        self.out.push(b'"');
    }

    pub(super) fn number(&mut self, key: &'static str, value: u64) {
        self.key(key);
        decimal(self.out, value);
    }

    pub(super) fn signed(&mut self, key: &'static str, value: i64) {
        self.key(key);
        if value < 0 {
            self.out.push(b'-');
        }
        decimal(self.out, value.unsigned_abs());
    }

    /// Microseconds, written as milliseconds with three decimals.
    pub(super) fn millis(&mut self, key: &'static str, micros: u64) {
        self.key(key);
        decimal(self.out, micros / 1000);
        let rest = micros % 1000;
        self.out.extend_from_slice(&[
            b'.',
            b'0' + (rest / 100) as u8,
            b'0' + (rest / 10 % 10) as u8,
            b'0' + (rest % 10) as u8,
        ]);
    }

    /// Milliseconds since the Unix epoch, written as RFC 3339 in UTC.
    pub(super) fn time(&mut self, key: &'static str, unix_ms: u64) {
        self.key(key);
        self.out.push(b'"');
        rfc3339(self.out, unix_ms);
        self.out.push(b'"');
    }
}

/// The first `max` characters, and whether something was left off.
fn truncate(value: &str, max: usize) -> (&str, bool) {
    // A string has at most as many characters as bytes: nearly all values end here.
    if value.len() <= max {
        return (value, false);
    }
    match value.char_indices().nth(max) {
        Some((at, _)) => (&value[..at], true),
        None => (value, false),
    }
}

pub(super) fn string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    escape(out, value);
    out.push(b'"');
}

/// What to do with a byte: copy, escape, or look at the next one.
const PLAIN: u8 = 0;
const ESCAPE: u8 = 1;
/// The first byte of U+0080 to U+00BF, of which the C1 controls are the first half.
const MAYBE_C1: u8 = 2;

const CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut i = 0;
    while i < 0x20 {
        class[i] = ESCAPE;
        i += 1;
    }
    class[b'"' as usize] = ESCAPE;
    class[b'\\' as usize] = ESCAPE;
    class[0x7f] = ESCAPE;
    class[0xc2] = MAYBE_C1;
    class
};

fn escape(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    let mut copied = 0;
    let mut i = 0;
    while i < bytes.len() {
        let byte = bytes[i];
        let (code, width) = match CLASS[byte as usize] {
            PLAIN => (None, 1),
            MAYBE_C1 if bytes[i + 1] < 0xa0 => (Some(bytes[i + 1]), 2),
            MAYBE_C1 => (None, 2),
            _ => (Some(byte), 1),
        };
        if let Some(code) = code {
            out.extend_from_slice(&bytes[copied..i]);
            control(out, code);
            copied = i + width;
        }
        i += width;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn control(out: &mut Vec<u8>, code: u8) {
    let short = match code {
        b'"' => b'"',
        b'\\' => b'\\',
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            let digits = [HEX[usize::from(code >> 4)], HEX[usize::from(code & 15)]];
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// `2026-11-22T10:03:00.123Z`.
pub(super) fn rfc3339(out: &mut Vec<u8>, unix_ms: u64) {
    let (secs, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    // Four digits are enough until the year 9999; a clock beyond that is broken, and the text stays parseable.
    let year = year.min(9999);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    let mut put = |at: usize, width: usize, mut value: u64| {
        for i in (at..at + width).rev() {
            text[i] = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, second / 3600);
    put(14, 2, second / 60 % 60);
    put(17, 2, second % 60);
    put(20, 3, ms);
    out.extend_from_slice(&text);
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar. Years are counted from March, so that
/// the leap day is the last day of a year, in eras of 400 years.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(value: &str) -> String {
        let mut out = Vec::new();
        string(&mut out, value);
        String::from_utf8(out).expect("escaping keeps UTF-8")
    }

    fn object(write: impl FnOnce(&mut Object<'_>)) -> serde_json::Value {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        write(&mut object);
        object.end();
        serde_json::from_slice(&out).expect("valid JSON")
    }

    fn time(unix_ms: u64) -> String {
        let mut out = Vec::new();
        rfc3339(&mut out, unix_ms);
        String::from_utf8(out).expect("ASCII")
    }

    proptest! {
        #[test]
        fn any_string_comes_back(value in any::<String>()) {
            prop_assert_eq!(serde_json::from_str::<String>(&escaped(&value)).expect("valid"), value);
        }

        #[test]
        fn control_heavy_strings_come_back(value in "[\\x00-\\x1f\"\\\\\\x7e-\u{c0}é]{0,40}") {
            prop_assert_eq!(serde_json::from_str::<String>(&escaped(&value)).expect("valid"), value);
        }

        #[test]
        fn the_same_bytes_as_serde_json_without_del_and_c1(value in "[^\\x7f-\u{9f}]{0,60}") {
            prop_assert_eq!(escaped(&value), serde_json::to_string(&value).expect("a string"));
        }

        #[test]
        fn no_control_character_reaches_the_terminal(value in any::<String>()) {
            prop_assert!(!escaped(&value).chars().any(char::is_control));
        }

        #[test]
        fn a_bound_holds_in_characters(value in any::<String>(), max in 0usize..20) {
            let json = object(|o| o.bounded("k", &value, max));
            let text = json["k"].as_str().expect("a string");
            let kept = value.chars().count().min(max);
            prop_assert_eq!(text.chars().take(kept).collect::<String>(), value.chars().take(kept).collect::<String>());
            prop_assert_eq!(text.chars().count(), kept + usize::from(value.chars().count() > max));
        }

        #[test]
        fn any_bytes_become_a_string(value in prop::collection::vec(any::<u8>(), 0..80)) {
            let json = object(|o| o.lossy("k", &value, 100));
            let want = String::from_utf8_lossy(&value);
            prop_assert_eq!(json["k"].as_str().expect("a string"), &*want);
        }

        #[test]
        fn numbers_come_back(value in any::<u64>(), signed in any::<i64>()) {
            let json = object(|o| { o.number("n", value); o.signed("s", signed) });
            prop_assert_eq!(json["n"].as_u64(), Some(value));
            prop_assert_eq!(json["s"].as_i64(), Some(signed));
        }

        #[test]
        fn times_are_those_of_httpdate(secs in 0u64..253_402_300_800) {
            let ours = time(secs * 1000);
            let theirs = httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_secs(secs));
            // Sun, 06 Nov 1994 08:49:37 GMT
            prop_assert_eq!(&ours[0..4], &theirs[12..16]);
            prop_assert_eq!(&ours[8..10], &theirs[5..7]);
            prop_assert_eq!(&ours[11..19], &theirs[17..25]);
            let month: usize = ours[5..7].parse().expect("two digits");
            prop_assert_eq!(&theirs[8..11], &"JanFebMarAprMayJunJulAugSepOctNovDec"[month * 3 - 3..month * 3]);
        }
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(1_709_164_800_007), "2024-02-29T00:00:00.007Z");
        assert_eq!(time(u64::MAX).len(), 24, "a broken clock does not break the line");
    }

    #[test]
    fn millis_have_three_decimals() {
        let mut out = Vec::new();
        let mut object = Object::begin(&mut out);
        object.millis("a", 1_234_007);
        object.millis("b", 50);
        object.end();
        assert_eq!(out, br#"{"a":1234.007,"b":0.050}"#);
    }
}
