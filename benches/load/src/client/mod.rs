//! An MCP client that costs little: requests are built once, answers are looked at only as far as they must be.

mod connection;
mod message;
mod session;

pub use connection::{Answer, Connection};
pub use message::{Call, Endpoint, Request, Shape};
pub use session::Session;

/// Nanoseconds since the Unix epoch: a clock that all processes of a machine share.
pub fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// The number after `key` in `text`, such as that of `"n":`.
pub fn number_after(text: &[u8], key: &str) -> Option<u64> {
    let at = memchr::memmem::find(text, key.as_bytes())? + key.len();
    let digits = text[at..].iter().take_while(|b| b.is_ascii_digit());
    let mut number = None;
    for digit in digits {
        number = Some(number.unwrap_or(0u64).checked_mul(10)?.checked_add(u64::from(digit - b'0'))?);
    }
    number
}
