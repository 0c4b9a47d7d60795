//! What clients are told: `RateLimit-Policy`, `RateLimit` (draft-ietf-httpapi-ratelimit-headers) and `Retry-After`.
//!
//! The policy announces the sustained rate as written (`q` tokens in `w` seconds). A burst above it is not announced:
//! `r` is never more than `q`, so a client that trusts the headers is never refused. `t` is when the bucket is full.

use std::time::Duration;

use http::HeaderValue;

use super::definition::{Limit, Priced};
use super::rate::Rate;

const NS_PER_SECOND: u64 = 1_000_000_000;

/// The state of the tightest bucket after a request was granted.
#[derive(Clone, Copy, Debug)]
pub struct Quota<'a> {
    limit: &'a Limit,
    priced: &'a Priced,
    remaining: u64,
    reset_ns: u64,
}

/// A request was refused and nothing was taken.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    quota: Quota<'a>,
    wait_ns: u64,
}

impl<'a> Quota<'a> {
    pub(crate) fn new(limit: &'a Limit, priced: &'a Priced, full_at: u64, now: u64) -> Self {
        let reset_ns = full_at.saturating_sub(now);
        let remaining = priced.rate.fill_ns().saturating_sub(reset_ns) / priced.rate.token_ns();
        Self { limit, priced, remaining, reset_ns }
    }

    /// Which limit is tightest.
    pub fn limit(&self) -> &'a Limit {
        self.limit
    }

    /// Tokens per window, as configured: `q`.
    pub fn quota(&self) -> u64 {
        self.priced.rate.count()
    }

    /// The window in whole seconds, rounded up: `w`.
    pub fn window_secs(&self) -> u64 {
        self.priced.rate.per().as_nanos().div_ceil(u128::from(NS_PER_SECOND)) as u64
    }

    /// Whole tokens left, burst included.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Seconds until the bucket is full, rounded up: `t`.
    pub fn reset_secs(&self) -> u64 {
        self.reset_ns.div_ceil(NS_PER_SECOND)
    }

    /// The value of `RateLimit-Policy`. Cheap: the value was made when the limit was compiled.
    pub fn policy_header(&self) -> HeaderValue {
        self.priced.policy.clone()
    }

    /// The value of `RateLimit`. `buffer` is scratch space that the caller may keep.
    pub fn header(&self, buffer: &mut Vec<u8>) -> HeaderValue {
        buffer.clear();
        push_string(buffer, self.limit.name());
        buffer.extend_from_slice(b";r=");
        push_number(buffer, self.remaining.min(self.quota()));
        buffer.extend_from_slice(b";t=");
        push_number(buffer, self.reset_secs());
        to_header(buffer)
    }

    /// Whether the other one has more left.
    pub(crate) fn is_tighter(&self, other: &Self) -> bool {
        (self.remaining, other.reset_ns) < (other.remaining, self.reset_ns)
    }
}

impl<'a> Refusal<'a> {
    pub(crate) fn new(quota: Quota<'a>, wait_ns: u64) -> Self {
        Self { quota, wait_ns }
    }

    /// The limit that refused; of several, the one to wait longest for.
    pub fn limit(&self) -> &'a Limit {
        self.quota.limit
    }

    /// How long until the same request would be granted, if nothing else is.
    pub fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.wait_ns)
    }

    /// The value of `Retry-After`: whole seconds, rounded up, at least one.
    pub fn retry_after_header(&self) -> HeaderValue {
        HeaderValue::from(self.retry_after_secs())
    }

    /// The same in a number.
    pub fn retry_after_secs(&self) -> u64 {
        self.wait_ns.div_ceil(NS_PER_SECOND).max(1)
    }

    /// The state of the bucket that refused, for the `RateLimit` headers.
    pub fn quota(&self) -> &Quota<'a> {
        &self.quota
    }
}

/// `"name";q=1000;w=60`.
pub(crate) fn policy_header(name: &str, rate: &Rate) -> HeaderValue {
    let mut buffer = Vec::with_capacity(name.len() + 32);
    push_string(&mut buffer, name);
    buffer.extend_from_slice(b";q=");
    push_number(&mut buffer, rate.count());
    buffer.extend_from_slice(b";w=");
    push_number(&mut buffer, rate.per().as_nanos().div_ceil(u128::from(NS_PER_SECOND)) as u64);
    to_header(&buffer)
}

/// An RFC 9651 string.
fn push_string(buffer: &mut Vec<u8>, text: &str) {
    buffer.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            buffer.push(b'\\');
        }
        buffer.push(byte);
    }
    buffer.push(b'"');
}

/// Decimal digits without going through `fmt`.
fn push_number(buffer: &mut Vec<u8>, mut number: u64) {
    let start = buffer.len();
    loop {
        buffer.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer[start..].reverse();
}

fn to_header(buffer: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(buffer).expect("names are printable ASCII: checked by Limit::compile")
}
