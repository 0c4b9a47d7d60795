//! The text of a key: `tg_` id `_` secret checksum, all base62.

use rand::CryptoRng;

use crate::base::Secret;

/// What every key begins with.
pub(crate) const PREFIX: &[u8] = b"tg_";
const ID_LEN: usize = 12;
/// 43 base62 characters hold 256 bits.
const SECRET_LEN: usize = 43;
/// CRC-32 in base62.
const CHECK_LEN: usize = 6;
/// The length of a key, in bytes.
pub(crate) const KEY_LEN: usize = PREFIX.len() + ID_LEN + 1 + SECRET_LEN + CHECK_LEN;

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key that was just made. The text is shown to its owner once and never kept.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// The public id.
    pub id: String,
    /// The whole key.
    pub text: Secret<String>,
}

/// Makes a key from a cryptographic source of randomness.
pub fn generate(rng: &mut impl CryptoRng) -> NewKey {
    let id = base62_random(rng, ID_LEN);
    let mut text = String::with_capacity(KEY_LEN);
    text.push_str("tg_");
    text.push_str(&id);
    text.push('_');
    text.push_str(&base62_random(rng, SECRET_LEN));
    let check = checksum(text.as_bytes());
    text.extend(check.iter().map(|b| char::from(*b)));
    NewKey { id, text: Secret::new(text) }
}

/// The public id of a key, if its form and checksum are right.
pub(crate) fn parse(text: &[u8]) -> Option<&str> {
    if text.len() != KEY_LEN || !text.starts_with(PREFIX) {
        return None;
    }
    let (body, check) = text.split_at(KEY_LEN - CHECK_LEN);
    let (id, rest) = body[PREFIX.len()..].split_at(ID_LEN);
    let secret = rest.strip_prefix(b"_")?;
    if !id.iter().chain(secret).all(u8::is_ascii_alphanumeric) || checksum(body) != check {
        return None;
    }
    std::str::from_utf8(id).ok()
}

/// Whether a text could be the id of a key.
pub(crate) fn is_id(id: &str) -> bool {
    id.len() == ID_LEN && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn base62_random(rng: &mut impl CryptoRng, len: usize) -> String {
    // The largest multiple of 62 in a byte: what lies above would make some characters likelier.
    const ACCEPT: u8 = 248;
    let mut text = String::with_capacity(len);
    let mut bytes = [0; 64];
    while text.len() < len {
        rng.fill_bytes(&mut bytes);
        let wanted = len - text.len();
        let fair = bytes.iter().filter(|b| **b < ACCEPT).take(wanted);
        text.extend(fair.map(|b| char::from(BASE62[usize::from(b % 62)])));
    }
    text
}

fn checksum(body: &[u8]) -> [u8; CHECK_LEN] {
    let mut rest = crc32(body);
    let mut text = [b'0'; CHECK_LEN];
    for place in text.iter_mut().rev() {
        *place = BASE62[(rest % 62) as usize];
        rest /= 62;
    }
    text
}

/// CRC-32 (IEEE 802.3).
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn crc_matches_its_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn made_keys_have_the_form_and_differ() {
        let (one, two) = (generate(&mut rand::rng()), generate(&mut rand::rng()));
        assert_eq!(parse(one.text.expose().as_bytes()), Some(one.id.as_str()));
        assert!(is_id(&one.id));
        assert_ne!(one.id, two.id);
        assert_ne!(one.text, two.text);
    }

    proptest! {
        #[test]
        fn one_changed_byte_is_noticed(at in 0..KEY_LEN, byte: u8) {
            let key = generate(&mut rand::rng());
            let mut text = key.text.expose().clone().into_bytes();
            prop_assume!(text[at] != byte);
            text[at] = byte;
            prop_assert_eq!(parse(&text), None);
        }

        #[test]
        fn anything_may_be_parsed(text: Vec<u8>) {
            prop_assert_eq!(parse(&text), None);
        }
    }

    #[test]
    fn every_character_is_drawn_about_equally_often() {
        let text = base62_random(&mut rand::rng(), 62 * 1000);
        let mut counts = [0; 128];
        text.bytes().for_each(|b| counts[usize::from(b)] += 1);
        for b in BASE62 {
            let count = counts[usize::from(*b)];
            assert!((750..1250).contains(&count), "{}: {count}", char::from(*b));
        }
    }
}
