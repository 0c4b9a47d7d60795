//! The answer to `initialize`: the client gets a session id of ours in place of the server's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::response::Parts;
use sha2::{Digest as _, Sha256};

use crate::gateway::exchange::{Exchange, Whole};
use crate::gateway::observe::Observation;
use crate::gateway::respond::Failure;
use crate::gateway::send::FOREVER;
use crate::gateway::serve::Caller;
use crate::gateway::{Gateway, Stop, headers};
use crate::mcp::session::{Serial, SessionToken};
use crate::mcp::sse::Events;
use crate::mcp::version::Version;
use crate::telemetry::SessionHash;
use crate::upstream::Lease;

/// An answer to `initialize` is collected up to this size, because the session id depends on it.
const HANDSHAKE_LIMIT: usize = 1024 * 1024;

impl Gateway {
    /// Reads the answer to `initialize` and puts a session id of ours in place of the server's. Returns what was read.
    pub(crate) async fn handshake(
        &self,
        seen: &mut Observation<'_>,
        caller: &Caller,
        lease: &Lease,
        exchange: &mut Exchange,
        header: &mut Parts,
        is_stream: bool,
    ) -> Result<Bytes, Stop> {
        let Some(upstream) = headers::single(exchange.headers(), &headers::MCP_SESSION_ID).map(str::to_owned)
        else {
            // A server without sessions: every request finds its own target.
            return Ok(Bytes::new());
        };
        let (body, agreed) =
            read_handshake(exchange, is_stream, lease.timeouts().request.unwrap_or(FOREVER)).await?;
        // A refused handshake makes no session.
        let Some(agreed) = agreed else { return Ok(body) };
        let version = Version::parse(&agreed).unwrap_or(Version::LATEST_LEGACY);
        seen.version = Some(version);
        let now = self.parts.clock.unix_secs();
        let token = SessionToken {
            target: Some(lease.target_ref().as_str()),
            upstream: Some(&upstream),
            version,
            issued_at: now,
            home: self.parts.boot_id,
            serial: Serial::fresh(),
        };
        let ring = self.parts.keys.load_full();
        let id = token
            .mint(&ring, caller.binding())
            .map_err(|e| Failure::upstream_response(caller.route.server_id.as_str(), e.to_string()))?;
        self.parts
            .sessions
            .touch(&token, caller.binding())
            .map_err(|e| Failure::overloaded(e.to_string()))?;
        let digest = Sha256::digest(&id).into();
        seen.session = Some(SessionHash::of_digest(&digest));
        // The next request will bring it.
        self.opened.insert(digest, ring, caller.binding(), &token);
        let id = HeaderValue::try_from(id).map_err(|e| Failure::internal(e.to_string()))?;
        header.headers.insert(headers::MCP_SESSION_ID, id);
        Ok(body)
    }
}

/// Reads until the answer to `initialize` is there. Returns all that was read, and the revision if it was accepted.
async fn read_handshake(
    exchange: &mut Exchange,
    is_stream: bool,
    within: Duration,
) -> Result<(Bytes, Option<String>), Stop> {
    let read = async {
        if !is_stream {
            let (body, whole) = exchange.collect(HANDSHAKE_LIMIT, within).await.map_err(Stop::Broken)?;
            if whole == Whole::No {
                return Err(Stop::Unreadable(format!("answer to initialize over {HANDSHAKE_LIMIT} bytes")));
            }
            let agreed = agreed_version(&body);
            return Ok((body, agreed));
        }
        let mut all = BytesMut::new();
        let mut events = Events::new(HANDSHAKE_LIMIT);
        while let Some(chunk) = exchange.chunk().await.map_err(Stop::Broken)? {
            all.extend_from_slice(&chunk);
            if all.len() > HANDSHAKE_LIMIT {
                return Err(Stop::Unreadable(format!("answer to initialize over {HANDSHAKE_LIMIT} bytes")));
            }
            events.feed(&chunk);
            while let Some(event) = events.next().map_err(|e| Stop::Unreadable(e.to_string()))? {
                if let Some(agreed) = event.data().and_then(|data| agreed_version(&data)) {
                    return Ok((all.freeze(), Some(agreed)));
                }
            }
        }
        Ok((all.freeze(), None))
    };
    match tokio::time::timeout(within, read).await {
        Ok(result) => result,
        Err(_) => Err(Stop::Broken(format!("no answer to initialize within {within:?}"))),
    }
}

fn agreed_version(message: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Response {
        result: Agreed,
    }
    #[derive(serde::Deserialize)]
    struct Agreed {
        #[serde(rename = "protocolVersion")]
        version: String,
    }
    serde_json::from_slice::<Response>(message).ok().map(|r| r.result.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agreed_version_is_read_from_a_result_only() {
        let ok = br#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
        assert_eq!(agreed_version(ok).as_deref(), Some("2025-06-18"));
        assert_eq!(agreed_version(br#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":""}}"#), None);
        assert_eq!(agreed_version(b""), None);
    }
}
