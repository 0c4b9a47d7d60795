//! The inside of string literals: finding their end, and their escapes (RFC 8259 §7).

use std::borrow::Cow;

const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);

/// The offset of the first quote, backslash or control character at or after `at`, or the end of the text.
#[inline]
pub(super) fn plain_run(bytes: &[u8], at: usize) -> usize {
    let mut rest = bytes.get(at..).unwrap_or_default();
    while let Some((word, after)) = rest.split_first_chunk() {
        let hits = special(u64::from_le_bytes(*word));
        if hits != 0 {
            return bytes.len() - rest.len() + hits.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let plain = |&byte: &u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    bytes.len() - rest.len() + rest.iter().take_while(|byte| plain(byte)).count()
}

/// Sets the high bit of bytes that are a quote, a backslash or below 0x20. A borrow can only set wrong bits above the
/// lowest right one, and only that one is used.
#[inline]
fn special(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    (below(word, 0x20) | below(quote, 1) | below(backslash, 1)) & HIGHS
}

/// Reads the escape whose backslash is at `at`: the character it stands for and the offset after it. `None` for an
/// unknown escape and for half a surrogate pair.
pub(super) fn escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let character = match bytes.get(at + 1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode_escape(bytes, at),
        _ => return None,
    };
    Some((character, at + 2))
}

fn unicode_escape(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let unit = hex4(bytes, at + 2)?;
    if !(0xD800..0xDC00).contains(&unit) {
        return char::from_u32(unit).map(|character| (character, at + 6));
    }
    if bytes.get(at + 6..at + 8) != Some(br"\u") {
        return None;
    }
    let low = hex4(bytes, at + 8)?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + low).map(|character| (character, at + 12))
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..at + 4)?
        .iter()
        .try_fold(0, |value, &byte| Some(value << 4 | char::from(byte).to_digit(16)?))
}

/// Resolves the escapes of a validated string's content. In text that was not validated, a bad escape stands for
/// itself.
pub(super) fn unescape(content: &str) -> Cow<'_, str> {
    let bytes = content.as_bytes();
    let Some(first) = memchr::memchr(b'\\', bytes) else {
        return Cow::Borrowed(content);
    };
    let mut out = String::with_capacity(content.len());
    let (mut from, mut next) = (0, Some(first));
    while let Some(backslash) = next {
        out.push_str(&content[from..backslash]);
        let (character, after) = escape(bytes, backslash).unwrap_or(('\\', backslash + 1));
        out.push(character);
        from = after;
        next = memchr::memchr(b'\\', &bytes[from..]).map(|offset| from + offset);
    }
    out.push_str(&content[from..]);
    Cow::Owned(out)
}
