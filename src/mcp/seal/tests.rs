use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;
const AAD: [&[u8]; 3] = [b"acme", b"weather", b"user:1"];

fn ring() -> KeyRing {
    KeyRing::generate(NOW).unwrap()
}

#[test]
fn a_sealed_token_opens_and_is_visible_ascii() {
    let ring = ring();
    for purpose in Purpose::ALL {
        for len in [0, 1, 2, 3, 100, purpose.max_plaintext()] {
            let plaintext = vec![7; len];
            let token = ring.seal(purpose, &AAD, &plaintext).unwrap();
            assert!(token.len() <= purpose.max_token(), "{purpose:?} {len}");
            assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')));
            assert_eq!(ring.open(purpose, &AAD, &token), Ok(plaintext));
        }
        let over = vec![0; purpose.max_plaintext() + 1];
        assert_eq!(ring.seal(purpose, &AAD, &over), Err(SealError::TooLong));
    }
}

#[test]
fn only_the_deterministic_seal_repeats_itself() {
    let ring = ring();
    let random = || ring.seal(Purpose::Task, &AAD, b"t1").unwrap();
    let fixed = |aad: Aad<'_>, text: &[u8]| ring.seal_deterministic(Purpose::Task, aad, text, None).unwrap();
    assert_ne!(random(), random());
    assert_eq!(fixed(&AAD, b"t1"), fixed(&AAD, b"t1"));
    assert_eq!(ring.open(Purpose::Task, &AAD, &fixed(&AAD, b"t1")), Ok(b"t1".to_vec()));
    // Where the input differs in anything, the nonce does too: no two messages share one.
    let nonce = |token: &str| token[token.len() - 32..].to_owned();
    assert_ne!(nonce(&fixed(&AAD, b"t1")), nonce(&fixed(&AAD, b"t2")));
    assert_ne!(nonce(&fixed(&AAD, b"t1")), nonce(&fixed(&[b"acme", b"weather", b"user:2"], b"t1")));
    assert_ne!(nonce(&fixed(&[b"a", b"bc"], b"")), nonce(&fixed(&[b"ab", b"c"], b"")));
}

#[test]
fn attack_another_tenant_route_or_principal() {
    let ring = ring();
    let token = ring.seal(Purpose::Session, &AAD, b"secret").unwrap();
    let foreign: [Aad<'_>; 7] = [
        &[b"evil", b"weather", b"user:1"],
        &[b"acme", b"files", b"user:1"],
        &[b"acme", b"weather", b"user:2"],
        &[b"weather", b"acme", b"user:1"],
        &[b"acm", b"eweather", b"user:1"],
        &[b"acme", b"weather"],
        &[b"acme", b"weather", b"user:1", b""],
    ];
    for aad in foreign {
        assert_eq!(ring.open(Purpose::Session, aad, &token), Err(SealError::Forged), "{aad:?}");
    }
}

#[test]
fn attack_a_token_of_another_purpose() {
    let ring = ring();
    for sealed in Purpose::ALL {
        let token = ring.seal_deterministic(sealed, &AAD, b"x", None).unwrap();
        for opened in Purpose::ALL.into_iter().filter(|p| *p != sealed) {
            assert_eq!(ring.open(opened, &AAD, &token), Err(SealError::Forged), "{sealed:?} as {opened:?}");
        }
    }
}

#[test]
fn attack_every_flipped_bit_and_every_cut() {
    let ring = ring();
    let token = ring.seal(Purpose::Session, &AAD, b"some session").unwrap();
    for at in 0..token.len() {
        for bit in 0..8 {
            let mut bytes = token.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                assert!(ring.open(Purpose::Session, &AAD, &changed).is_err(), "byte {at} bit {bit}");
            }
        }
        assert!(ring.open(Purpose::Session, &AAD, &token[..at]).is_err(), "cut at {at}");
    }
    for longer in [format!("{token}A"), format!("{token}="), format!(" {token}"), format!("{token}AAAA")] {
        assert!(ring.open(Purpose::Session, &AAD, &longer).is_err(), "{longer}");
    }
    let too_long = format!("{token}{}", "A".repeat(Purpose::Session.max_token()));
    assert_eq!(ring.open(Purpose::Session, &AAD, &too_long), Err(SealError::TooLong));
}

#[test]
fn attack_a_key_of_another_installation() {
    let token = ring().seal(Purpose::Session, &AAD, b"x").unwrap();
    let other = ring();
    assert_eq!(other.open(Purpose::Session, &AAD, &token), Err(SealError::UnknownKey));
    let renamed = format!("1{}{}", other.sealing(), &token[5..]);
    assert_eq!(other.open(Purpose::Session, &AAD, &renamed), Err(SealError::Forged));
}

#[test]
fn a_rotated_key_seals_once_its_time_has_come() {
    let first = ring();
    let second = first.rotate(NOW + 10, 60, 1000).unwrap();
    assert_eq!(second.sealing(), first.sealing(), "other replicas may not have the new key yet");
    let later = second.at(NOW + 70);
    assert_ne!(later.sealing(), first.sealing());
    let by_new = later.seal(Purpose::Task, &AAD, b"x").unwrap();
    assert_eq!(
        second.open(Purpose::Task, &AAD, &by_new),
        Ok(b"x".to_vec()),
        "a replica whose clock is behind opens"
    );
    let by_old = first.seal(Purpose::Task, &AAD, b"x").unwrap();
    assert_eq!(later.open(Purpose::Task, &AAD, &by_old), Ok(b"x".to_vec()));
}

#[test]
fn a_retired_key_lives_as_long_as_the_ids_it_sealed() {
    let max_age = 1000;
    let first = ring();
    let token = first.seal(Purpose::Session, &AAD, b"x").unwrap();
    let second = first.rotate(NOW + 100, 0, max_age).unwrap();
    // The last id of the first key was sealed at NOW + 100.
    let still = second.rotate(NOW + 100 + max_age, 0, max_age).unwrap();
    assert!(still.open(Purpose::Session, &AAD, &token).is_ok());
    let gone = still.rotate(NOW + 100 + max_age + 301, 0, max_age).unwrap();
    assert_eq!(gone.open(Purpose::Session, &AAD, &token), Err(SealError::UnknownKey));
    assert_eq!(gone.ids().count(), 3);
}

#[test]
fn rotation_keeps_the_ring_bounded_and_never_drops_the_sealing_key() {
    let mut ring = ring();
    let first = ring.sealing();
    for i in 0..(MAX_KEYS as u64 + 10) {
        ring = ring.rotate(NOW + i, 0, u64::MAX).unwrap();
    }
    assert_eq!(ring.ids().count(), MAX_KEYS);
    assert!(!ring.ids().any(|id| id == first));
    // Keys of the future only: the oldest goes on sealing.
    let lonely = KeyRing::generate(NOW).unwrap().rotate(NOW + 9_999, 1 << 40, 0).unwrap();
    assert_eq!(lonely.ids().count(), 2);
    assert_eq!(lonely.rotate(NOW + 10_000, 0, 0).unwrap().ids().count(), 2, "one key at a time waits");
}

#[test]
fn deterministic_tokens_stay_equal_over_a_rotation() {
    let first = ring();
    let token = first.seal_deterministic(Purpose::Task, &AAD, b"t1", None).unwrap();
    let second = first.rotate(NOW + 1, 0, 1000).unwrap();
    let again = |like| second.seal_deterministic(Purpose::Task, &AAD, b"t1", like).unwrap();
    assert_ne!(again(None), token);
    assert_eq!(again(KeyRing::key_of(&token)), token);
    assert_eq!(again(KeyId::parse(b"none")), again(None), "an unknown key is ignored");
}

#[test]
fn a_key_file_round_trips() {
    let ring = ring().rotate(NOW + 5, 60, 1000).unwrap();
    let text = ring.print();
    let read = KeyRing::parse(text.expose(), NOW).unwrap();
    assert_eq!(read.print().expose(), text.expose());
    assert_eq!(read.sealing(), ring.sealing());
    assert_eq!(read.newest(), NOW + 65);
    let token = ring.seal(Purpose::Cursor, &AAD, b"x").unwrap();
    assert_eq!(read.open(Purpose::Cursor, &AAD, &token), Ok(b"x".to_vec()));
    assert_eq!(format!("{text:?}"), "[redacted]");
    let secret = text.expose().lines().nth(1).unwrap().split(' ').nth(1).unwrap().to_owned();
    assert!(!format!("{ring:?}").contains(&secret));
}

#[test]
fn a_bad_key_file_is_refused_with_the_line_and_without_the_key() {
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let bad = |line| Err(KeyFileError::BadLine { line });
    let table = [
        (String::new(), Err(KeyFileError::NoKeys)),
        ("# only a comment\n\n".into(), Err(KeyFileError::NoKeys)),
        (format!("abcd {key}"), bad(1)),
        (format!("\nabcd {key} 1 more"), bad(2)),
        (format!("abc {key} 1"), bad(1)),
        (format!("ab.d {key} 1"), bad(1)),
        (format!("abcd {}AA 1", &key[..40]), bad(1)),
        (format!("abcd {key} -1"), bad(1)),
        (
            format!("abcd {key} 1\nabcd {key} 2"),
            Err(KeyFileError::DuplicateKey { line: 2, id: KeyId::parse(b"abcd").unwrap() }),
        ),
        ((0..=MAX_KEYS).map(|i| format!("k{i:03} {key} 1\n")).collect(), Err(KeyFileError::TooManyKeys)),
    ];
    for (text, expected) in table {
        let got = KeyRing::parse(&text, NOW).map(|_| ());
        assert!(!format!("{got:?}").contains(&key[..8]));
        assert_eq!(got, expected, "{text}");
    }
    assert!(KeyRing::parse(&format!("abcd  {key}\t1\r\n"), NOW).is_ok());
}

#[test]
fn opening_into_a_small_buffer_is_an_error() {
    let ring = ring();
    let token = ring.seal(Purpose::Session, &AAD, &[1; 30]).unwrap();
    assert_eq!(ring.open_in(Purpose::Session, &AAD, &token, &mut [0; 64]), Err(SealError::TooLong));
    assert_eq!(ring.open_in(Purpose::Session, &AAD, &token, &mut [0; 72]), Ok(&[1; 30][..]));
}

proptest! {
    #[test]
    fn whatever_is_sealed_opens_for_the_same_and_nobody_else(
        text in proptest::collection::vec(any::<u8>(), 0..200),
        parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..4),
        others in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3), 0..4),
    ) {
        let ring = ring();
        let aad: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let other: Vec<&[u8]> = others.iter().map(Vec::as_slice).collect();
        for token in [
            ring.seal(Purpose::Cursor, &aad, &text).unwrap(),
            ring.seal_deterministic(Purpose::Cursor, &aad, &text, None).unwrap(),
        ] {
            prop_assert_eq!(ring.open(Purpose::Cursor, &aad, &token), Ok(text.clone()));
            if aad != other {
                prop_assert_eq!(ring.open(Purpose::Cursor, &other, &token), Err(SealError::Forged));
            }
        }
    }

    #[test]
    fn opening_never_panics(token in "[ -~]{0,80}") {
        let ring = ring();
        let _ = ring.open(Purpose::Session, &AAD, &token);
        let known = format!("1{}{token}", ring.sealing());
        prop_assert!(ring.open(Purpose::Session, &AAD, &known).is_err());
    }
}
