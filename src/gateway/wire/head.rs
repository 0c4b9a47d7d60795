//! Parses a response header and decides how its body is framed (RFC 9112 §6.3).

use std::mem::MaybeUninit;

use bytes::{Buf, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::body::Body;
use super::{Head, WireError};

/// Bytes of a response header.
const MAX_HEAD: usize = 64 * 1024;
/// Fields of a response header.
const MAX_FIELDS: usize = 128;

pub(super) struct Framing {
    pub(super) body: Body,
    pub(super) keep_alive: bool,
}

/// Takes a header off the front of `received`; `None` = not all of it is there yet.
pub(super) fn parse(received: &mut BytesMut) -> Result<Option<(Head, Framing)>, WireError> {
    if received.is_empty() {
        return Ok(None);
    }
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut response, received, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if received.len() < MAX_HEAD => return Ok(None),
        Ok(_) => return Err(WireError::Invalid("header too long")),
        Err(httparse::Error::TooManyHeaders) => return Err(WireError::Invalid("too many header fields")),
        Err(_) => return Err(WireError::Invalid("malformed header")),
    };
    let status = response
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(WireError::Invalid("no status code"))?;
    let http_1_0 = response.version == Some(0);
    let mut headers = HeaderMap::with_capacity(response.headers.len());
    for field in response.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| WireError::Invalid("header name"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| WireError::Invalid("header value"))?;
        headers.append(name, value);
    }
    let framing = framing(status, &headers, http_1_0)?;
    received.advance(length);
    Ok(Some((Head { status, headers }, framing)))
}

fn framing(status: StatusCode, headers: &HeaderMap, http_1_0: bool) -> Result<Framing, WireError> {
    let mut keep_alive = match headers.get(CONNECTION) {
        Some(value) if has_token(value, "close") => false,
        Some(value) if http_1_0 => has_token(value, "keep-alive"),
        _ => !http_1_0,
    };
    if status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing { body: Body::Done, keep_alive });
    }
    let length = content_length(headers)?;
    if headers.contains_key(TRANSFER_ENCODING) {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let only = codings.next().is_some_and(|v| v.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"));
        if !only || codings.next().is_some() || http_1_0 {
            return Err(WireError::Invalid("transfer coding other than chunked"));
        }
        // Both lengths: somebody between us and the server may have believed the other one.
        keep_alive &= length.is_none();
        return Ok(Framing { body: Body::chunked(), keep_alive });
    }
    Ok(match length {
        Some(0) => Framing { body: Body::Done, keep_alive },
        Some(length) => Framing { body: Body::Length(length), keep_alive },
        None => Framing { body: Body::UntilClose, keep_alive: false },
    })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, WireError> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let valid = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let length = value.to_str().ok().filter(|_| valid).and_then(|v| v.parse().ok());
        let length = length.ok_or(WireError::Invalid("content length"))?;
        if found.is_some_and(|other| other != length) {
            return Err(WireError::Invalid("several content lengths"));
        }
        found = Some(length);
    }
    Ok(found)
}

fn has_token(value: &HeaderValue, token: &str) -> bool {
    value.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
}
