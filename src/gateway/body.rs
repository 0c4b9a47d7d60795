//! Reads a request body into memory, within a size and a time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use pingora::protocols::http::ServerSession;

use crate::gateway::Stop;
use crate::gateway::respond::Failure;

/// What a declared length may make us reserve before a byte has come.
const RESERVE_LIMIT: usize = 64 * 1024;

/// Reads the whole body of a POST.
///
/// # Errors
/// Too large, too slow, not JSON by its own declaration, or the client is gone.
pub(crate) async fn read(session: &mut ServerSession, limit: usize, within: Duration) -> Result<Bytes, Stop> {
    let headers = &session.req_header().headers;
    if headers.get(CONTENT_ENCODING).is_some_and(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"))
        || !headers.get(CONTENT_TYPE).is_none_or(|v| is_json(v.as_bytes()))
    {
        return Err(Failure::unsupported_media_type().into());
    }
    let declared = match headers.get(CONTENT_LENGTH) {
        Some(value) => value.to_str().ok().and_then(|v| v.parse::<u64>().ok()),
        None => None,
    };
    if declared.is_some_and(|n| n > limit as u64) {
        return Err(Failure::body_too_large(limit).into());
    }
    if headers.get(EXPECT).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        session.write_continue_response().await.map_err(Stop::client)?;
    }
    match tokio::time::timeout(within, collect(session, declared, limit)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::body_too_slow().into()),
    }
}

async fn collect(session: &mut ServerSession, declared: Option<u64>, limit: usize) -> Result<Bytes, Stop> {
    let Some(first) = next(session).await? else { return Ok(Bytes::new()) };
    if first.len() > limit {
        return Err(Failure::body_too_large(limit).into());
    }
    // The usual small body has come whole with its first read: no copy.
    if declared == Some(first.len() as u64) {
        // Reading on marks the body as done for the connection's next request.
        return match next(session).await? {
            None => Ok(first),
            Some(_) => Err(Failure::ambiguous_framing().into()),
        };
    }
    let reserve = declared
        .map_or(first.len() * 2, |n| n as usize)
        .clamp(first.len(), limit.min(RESERVE_LIMIT).max(first.len()));
    let mut body = BytesMut::with_capacity(reserve);
    body.extend_from_slice(&first);
    while let Some(chunk) = next(session).await? {
        if body.len() + chunk.len() > limit {
            return Err(Failure::body_too_large(limit).into());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

async fn next(session: &mut ServerSession) -> Result<Option<Bytes>, Stop> {
    session.read_request_body().await.map_err(|e| match e.etype() {
        pingora::ErrorType::ReadTimedout => Failure::body_too_slow().into(),
        _ => Stop::client(e),
    })
}

/// Whether a proxy in front of us may have read another length than Pingora does: the message carries both lengths
/// (Pingora lets `Transfer-Encoding` win), or its transfer coding is not exactly `chunked` once (Pingora looks at the
/// last one; RFC 9112 §6.1 has servers refuse codings that they do not know).
pub(crate) fn framing_is_ambiguous(session: &ServerSession) -> bool {
    let Some(h1) = session.as_http1() else { return false };
    let headers = &session.req_header().headers;
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return false };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return true;
    }
    // Pingora has dropped Content-Length from the parsed header by now: look at what came over the wire.
    headers.contains_key(CONTENT_LENGTH) || has_header_line(&h1.get_headers_raw_bytes(), b"content-length")
}

fn has_header_line(raw: &[u8], name: &[u8]) -> bool {
    raw.split(|b| *b == b'\n').any(|line| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && matches!(line.get(name.len()), Some(b':' | b' ' | b'\t'))
    })
}

fn is_json(content_type: &[u8]) -> bool {
    const JSON: &[u8] = b"application/json";
    let Some(rest) = content_type.get(JSON.len()..) else { return false };
    content_type[..JSON.len()].eq_ignore_ascii_case(JSON) && matches!(rest.first(), None | Some(b';' | b' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_with_and_without_parameters_is_json() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/json ;x=y"] {
            assert!(is_json(yes.as_bytes()), "{yes}");
        }
        for no in ["text/plain", "application/jsonl", "application/json-patch+json", ""] {
            assert!(!is_json(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn a_second_length_is_found_in_the_raw_header() {
        let raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-LENGTH : 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(has_header_line(raw, b"content-length"));
        assert!(!has_header_line(b"POST / HTTP/1.1\r\nX-Content-Length: 5\r\n\r\n", b"content-length"));
    }
}
