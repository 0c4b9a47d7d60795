//! `Idempotency-Key`: a change that is sent twice is made once, and both get the same answer.
//!
//! A key belongs to one actor. The first request with it runs; its answer is kept for a day. The same request again gets
//! that answer with `idempotency-replayed: true`, another request with the same key is an error, and one that comes
//! while the first is running is told to wait. Answers of failures on this side are not kept: repeating is right then, unless
//! the store was lost while it committed. Such a key is not free before it counts as dead, in two minutes: time to look
//! whether it was done.
//!
//! Answers may hold what is shown only once, such as a new API key. They are sealed with a key derived from the
//! caller's own credential, of which the store has no more than a digest: what is in the store opens for nobody else.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::{
    AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LOCATION,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{Key, KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::actor::Actor;
use super::api::Api;
use super::extract;
use super::failure::OUTCOME_UNKNOWN;
use super::problem::{FieldError, Pending, Problem};
use super::trail::note;
use crate::base::TenantId;
use crate::store::Idempotency;

/// The header of the request.
pub const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is an earlier one.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longest key, in bytes.
const MAX_KEY: usize = 255;
/// Longest answer that is kept, in bytes.
const MAX_ANSWER: usize = 4 << 20;
/// How long answers are kept.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Headers that belong to an answer.
const KEPT: [HeaderName; 3] = [CONTENT_TYPE, ETAG, LOCATION];
const NONCE: usize = 24;

/// The key that a request carries.
///
/// # Errors
///
/// 400 if it is too long or no text.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(KEY) else { return Ok(None) };
    match value.to_str() {
        Ok(text) if (1..=MAX_KEY).contains(&text.len()) => Ok(Some(text.to_owned())),
        _ => Err(Problem::bad_request(format!("`{KEY}` must be 1 to {MAX_KEY} printable characters"))),
    }
}

/// Runs a request once.
///
/// # Errors
///
/// 409 while it runs, 422 if the key was used for another, 503 without a store.
pub(super) async fn once(
    api: &Api,
    actor: &Actor,
    key: &str,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let store = api.store()?.clone();
    let scope = store.tenant(&actor.tenant);
    let (parts, body) = request.into_parts();
    let token = parts.headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let seal = Seal::new(token.unwrap_or_default(), key);
    let body = extract::bytes(Request::from_parts(parts.clone(), body), &()).await?;
    let asked = digest(&[
        parts.method.as_str().as_bytes(),
        parts.uri.path().as_bytes(),
        parts.uri.query().unwrap_or_default().as_bytes(),
        // What the change builds on: on another state it is another change.
        stated(&parts.headers, &IF_MATCH),
        stated(&parts.headers, &IF_NONE_MATCH),
        &body,
    ]);
    let name = digest(&[actor.id.as_bytes(), key.as_bytes()]);
    match scope.begin_idempotent(&name, &asked, KEEP).await? {
        Idempotency::Answered { status, sealed } => {
            note(|notes| notes.replayed = true);
            seal.open(status, &sealed)
        }
        Idempotency::Mismatch => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "this idempotency key was used for another request",
        )
        .with_errors([FieldError::new("", "the request differs from the first one with this key")])),
        Idempotency::Running => {
            Err(Problem::conflict("still_running", "the first request with this key is still running"))
        }
        Idempotency::Fresh => {
            let mut guard = Unfinished { tenant: actor.tenant.clone(), armed: true };
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            let (response, sealed) = seal.close(response).await?;
            let problem = response.extensions().get::<Pending>();
            let kept = match sealed {
                _ if problem.is_some_and(|problem| problem.is(OUTCOME_UNKNOWN)) => Ok(()),
                Some(sealed) if !response.status().is_server_error() => {
                    scope.finish_idempotent(&name, response.status().as_u16(), &sealed).await
                }
                _ => scope.forget_idempotent(&name).await,
            };
            guard.armed = false;
            if let Err(error) = kept {
                // It is done, and says so. Sent again it is told to wait until the mark counts as dead.
                tracing::warn!(event = "idempotent_answer_not_kept", tenant = scope.tenant().as_str(), %error);
            }
            Ok(response)
        }
    }
}

/// Says so if a request is given up, for instance because it took too long. Whether it changed something is unknown then,
/// so the mark stays until it counts as dead: nobody may run it again meanwhile.
struct Unfinished {
    tenant: TenantId,
    armed: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.armed {
            tracing::warn!(
                event = "idempotent_request_unfinished",
                tenant = self.tenant.as_str(),
                "a request with an idempotency key was given up before it was answered"
            );
        }
    }
}

/// A header as it was sent.
fn stated<'h>(headers: &'h HeaderMap, name: &HeaderName) -> &'h [u8] {
    headers.get(name).map_or(b"", HeaderValue::as_bytes)
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct Answer {
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Opens and closes what only this caller may read.
struct Seal(XChaCha20Poly1305);

impl Seal {
    fn new(credential: &[u8], key: &str) -> Self {
        let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(credential)
            .expect("HMAC takes keys of any length");
        mac.update(b"tollgate idempotency\0");
        mac.update(key.as_bytes());
        let key: [u8; 32] = mac.finalize().into_bytes().into();
        Self(XChaCha20Poly1305::new(&Key::from(key)))
    }

    /// The answer for the caller, and sealed unless it is too long.
    async fn close(&self, response: Response) -> Result<(Response, Option<Vec<u8>>), Problem> {
        let (parts, body) = response.into_parts();
        #[allow(clippy::disallowed_methods, reason = "the limit is given")]
        let body = to_bytes(body, MAX_ANSWER).await.map_err(Problem::internal)?;
        let headers = KEPT.iter().filter_map(|name| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        let answer = Answer { headers: headers.collect(), body: body.to_vec() };
        let plain = serde_json::to_vec(&answer).expect("texts and bytes always serialize");
        let nonce: [u8; NONCE] = rand::random();
        let payload = Payload { msg: &plain, aad: &parts.status.as_u16().to_be_bytes() };
        let sealed = self.0.encrypt(&XNonce::from(nonce), payload).ok().map(|rest| {
            let mut sealed = nonce.to_vec();
            sealed.extend(rest);
            sealed
        });
        Ok((Response::from_parts(parts, Body::from(body)), sealed))
    }

    fn open(&self, status: u16, sealed: &[u8]) -> Result<Response, Problem> {
        let odd = || Problem::internal("a kept answer does not open");
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>().ok_or_else(odd)?;
        let payload = Payload { msg: rest, aad: &status.to_be_bytes() };
        // The same actor with another credential: it is theirs, but it does not open for them.
        let plain = self.0.decrypt(&XNonce::from(*nonce), payload).map_err(|_| {
            Problem::conflict("answered_before", "this was answered before, to another credential of yours")
        })?;
        let answer: Answer = serde_json::from_slice(&plain).map_err(|_| odd())?;
        let mut response = Response::new(Body::from(Bytes::from(answer.body)));
        *response.status_mut() = StatusCode::from_u16(status).map_err(|_| odd())?;
        for (name, value) in answer.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::middleware::from_fn;
    use axum::response::IntoResponse as _;
    use axum::routing::post;
    use tower::ServiceExt as _;

    use super::super::actor::Proof;
    use super::super::api::tests::Nothing;
    use super::super::{ControlConfig, Exposure};
    use super::*;
    use crate::base::Clock;
    use crate::store::{Store, StoreSettings};

    #[tokio::test]
    async fn what_may_have_been_done_is_not_done_again_and_what_was_not_is() {
        let folder = tempfile::tempdir().unwrap();
        let settings = StoreSettings::embedded(folder.path());
        let store = Store::open(settings, Clock::manual(1_796_000_000), Arc::new(|_| None)).unwrap();
        store.prepare().await.unwrap();
        let config = ControlConfig { store: Some(store), ..ControlConfig::new(Exposure::Loopback) };
        let api = Api::new(&config, Arc::new(Nothing));
        let actor = Actor::operator(Proof::Bootstrap);
        let through = async |key: &str, code: &'static str| {
            let (api, actor, key) = (api.clone(), actor.clone(), key.to_owned());
            let gate = from_fn(move |request: Request, next: Next| {
                let (api, actor, key) = (api.clone(), actor.clone(), key.clone());
                async move { once(&api, &actor, &key, request, next).await }
            });
            let failing = move || async move { Problem::unavailable(code, "lost") };
            let router = axum::Router::new().route("/x", post(failing)).layer(gate);
            let request = http::Request::post("/x").body(Body::empty()).unwrap();
            router.oneshot(request).await.unwrap().status().as_u16()
        };
        assert_eq!(through("a", OUTCOME_UNKNOWN).await, 503);
        assert_eq!(through("a", OUTCOME_UNKNOWN).await, 409, "it may have been done");
        assert_eq!(through("b", "store_unavailable").await, 503);
        assert_eq!(through("b", "store_unavailable").await, 503, "it was not");
    }

    #[tokio::test]
    async fn answers_open_for_their_caller_only() {
        let seal = Seal::new(b"Bearer a", "k");
        let answer = (StatusCode::CREATED, [(ETAG, "\"r1\"")], "{\"key\":\"tg_x\"}").into_response();
        let (shown, sealed) = seal.close(answer).await.unwrap();
        let sealed = sealed.unwrap();
        assert_eq!(shown.status(), 201);
        assert!(!sealed.windows(4).any(|w| w == b"tg_x"), "the store cannot read it");
        let again = seal.open(201, &sealed).unwrap();
        assert_eq!((again.status().as_u16(), &again.headers()[ETAG]), (201, &"\"r1\"".parse().unwrap()));
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        #[allow(clippy::disallowed_methods, reason = "the limit is given")]
        let body = to_bytes(again.into_body(), 100).await.unwrap();
        assert_eq!(&body[..], b"{\"key\":\"tg_x\"}");
        assert!(Seal::new(b"Bearer b", "k").open(201, &sealed).is_err());
        assert!(Seal::new(b"Bearer a", "l").open(201, &sealed).is_err());
        assert!(seal.open(200, &sealed).is_err(), "the status belongs to it");
    }
}
