//! The request path up to the body: admit, match, identify.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{HOST, ORIGIN};
use http::response::Parts;
use http::{HeaderValue, Method, StatusCode};
use pingora::protocols::http::ServerSession;

use crate::auth::{AuthError, Blame, Credential, Identity, challenge};
use crate::base::Principal;
use crate::canary::Side;
use crate::gateway::observe::{Observation, RawId};
use crate::gateway::respond::{self, Failure};
use crate::gateway::step::admit::Origin;
use crate::gateway::tls::ClientCertificate;
use crate::gateway::{After, Gateway, Stop, body, headers, wellknown};
use crate::mcp::session::Binding;
use crate::snapshot::{Canary, Route};
use crate::telemetry::{AuthFailure, Outcome};

/// How long a request may wait for keys that its token needs and that are being fetched.
const KEY_WAIT: Duration = Duration::from_secs(1);

/// A request that has been let in.
pub(crate) struct Caller {
    pub(crate) route: Arc<Route>,
    pub(crate) identity: Identity,
}

impl Caller {
    pub(crate) fn principal(&self) -> &Principal {
        &self.identity.principal
    }

    pub(crate) fn binding(&self) -> Binding<'_> {
        Binding { tenant: &self.route.tenant, route: &self.route.id, principal: &self.identity.principal.id }
    }
}

impl Gateway {
    /// Answers one request, and says what becomes of its connection.
    pub(super) async fn serve(&self, session: &mut ServerSession, peer: Option<IpAddr>) -> After {
        let mut seen = Observation::begin(self, session, peer);
        let mut common = headers::Common {
            request_id: seen.request_id,
            origin: None,
            cors: &self.cors,
            rate: Vec::new(),
            revision: None,
        };
        match self.answer(session, &mut seen, &mut common).await {
            Ok(()) => After::Keep,
            Err(Stop::Client(detail)) => {
                seen.outcome = Outcome::ClientGone;
                seen.error = Some(detail);
                After::Close
            }
            Err(Stop::Cut(detail)) => {
                seen.error = Some(detail);
                After::Close
            }
            Err(Stop::Failure(failure)) => self.fail(session, &mut seen, &common, &failure).await,
            Err(Stop::Broken(detail)) => {
                let failure = Failure::upstream_failed(server_name(&seen), detail);
                self.fail(session, &mut seen, &common, &failure).await
            }
            Err(Stop::Unreadable(detail)) => {
                let failure = Failure::upstream_response(server_name(&seen), detail);
                self.fail(session, &mut seen, &common, &failure).await
            }
        }
    }

    async fn fail(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
        failure: &Failure,
    ) -> After {
        seen.failed(failure);
        let mut body = respond::body(failure, seen.id.as_ref().map(RawId::as_str));
        if let Some(recording) = &mut seen.recording {
            recording.answered_with(&body);
        }
        // A refusal that cannot be recorded is refused as well, in words that say so.
        let unrecorded = seen.settled(failure.outcome).await.is_err().then(Failure::audit_full);
        let failure = match &unrecorded {
            Some(full) => {
                seen.failed(full);
                body = respond::body(full, seen.id.as_ref().map(RawId::as_str));
                full
            }
            None => failure,
        };
        let answering = Instant::now();
        let written = respond::write(session, failure, body, common).await;
        if written.is_ok() && failure.close {
            respond::linger(session).await;
        }
        // The client's pace is not our cost.
        seen.upstream += answering.elapsed();
        match written {
            Ok(()) if !failure.close => After::Keep,
            Ok(()) => After::Close,
            Err(_) => {
                seen.outcome = Outcome::ClientGone;
                After::Close
            }
        }
    }

    async fn answer(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &mut headers::Common<'_>,
    ) -> Result<(), Stop> {
        // 1 admit
        if body::framing_is_ambiguous(session) {
            return Err(Failure::ambiguous_framing().into());
        }
        self.check_header_size(session)?;
        let head = session.req_header();
        let host: Cow<'_, str> = match head.uri.authority() {
            Some(authority) => Cow::Borrowed(authority.as_str()),
            None => Cow::Borrowed(headers::single(&head.headers, &HOST).unwrap_or_default()),
        };
        let snapshot = self.parts.snapshot.load();
        if !self.admission.host(&host) && !snapshot.has_host(&host) {
            return Err(Failure::bad_host().into());
        }
        let mut origins = head.headers.get_all(ORIGIN).iter();
        let origin = origins.next();
        match self.admission.origin(origin) {
            // Two of them leave open which page sent it.
            _ if origins.next().is_some() => return Err(Failure::bad_origin().into()),
            Origin::Absent => {}
            Origin::Allowed => common.origin = origin.cloned(),
            Origin::Refused => return Err(Failure::bad_origin().into()),
        }
        // 2 match
        let path = head.uri.path();
        if let Some(answer) = wellknown::answer(&head.method, &host, path, &snapshot) {
            let answer = answer?;
            seen.exempt();
            return self.send_own(session, seen, common, answer).await;
        }
        let Some(route) = snapshot.find(&host, path).cloned() else {
            // 404 is final for clients and balancers.
            let failure =
                if snapshot.is_unusable(&host, path) { Failure::unusable() } else { Failure::no_route() };
            return Err(failure.into());
        };
        common.revision = Some(route.revision.clone());
        seen.route = Some(route.clone());
        match head.method {
            Method::OPTIONS => {
                seen.exempt();
                return self.preflight(session, seen, common).await;
            }
            Method::POST | Method::GET | Method::DELETE => {}
            _ => return Err(Failure::method_not_allowed("GET, POST, DELETE, OPTIONS").into()),
        }
        // 3 identify
        let identity = self.identify(session, seen, &route).await?;
        seen.principal = Some(identity.principal.clone());
        // Nothing is begun whose event would find no room. Only now: strangers are given none.
        seen.credit = self.parts.audit.admit().await.map_err(|_| Failure::audit_full())?;
        let route = match snapshot.canary(&route.tenant) {
            None => route,
            Some(canary) => tried(canary, route, &identity, seen, common, (&host, path))?,
        };
        let caller = Caller { route, identity };
        Self::check_reach(&caller)?;
        if session.req_header().method == Method::POST {
            self.post(session, seen, common, &caller).await
        } else {
            self.without_body(session, seen, common, &caller).await
        }
    }

    fn check_header_size(&self, session: &ServerSession) -> Result<(), Stop> {
        let fields = session.req_header().headers.len();
        if fields > self.settings.max_headers {
            let limit = self.settings.max_headers;
            return Err(
                Failure::header_too_large(format!("the request has over {limit} header fields")).into()
            );
        }
        let size = session.as_http1().map_or(0, |h1| h1.get_headers_raw_bytes().len());
        if size > self.settings.max_header_size {
            let limit = self.settings.max_header_size;
            return Err(Failure::header_too_large(format!("the request header is over {limit} bytes")).into());
        }
        Ok(())
    }

    /// Sends an answer of our own that is no error.
    pub(super) async fn send_own(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
        (mut header, bytes): (Parts, Bytes),
    ) -> Result<(), Stop> {
        common.apply(&mut header);
        seen.status = header.status.as_u16();
        seen.bytes_out = bytes.len() as u64;
        if let Some(recording) = &mut seen.recording {
            recording.answered_with(&bytes);
        }
        seen.settled(Outcome::Ok).await.map_err(|_| Failure::audit_full())?;
        respond::send(session, header, bytes).await.map_err(Stop::client)?;
        seen.outcome = Outcome::Ok;
        Ok(())
    }

    async fn preflight(
        &self,
        session: &mut ServerSession,
        seen: &mut Observation<'_>,
        common: &headers::Common<'_>,
    ) -> Result<(), Stop> {
        let mut header = headers::response(StatusCode::NO_CONTENT, 8);
        let requested = session.req_header().headers.get("access-control-request-headers");
        match &common.origin {
            Some(origin) => self.cors.preflight(&mut header, origin, requested),
            None => {
                let allow = HeaderValue::from_static("GET, POST, DELETE, OPTIONS");
                header.headers.insert(http::header::ALLOW, allow);
            }
        }
        let common = headers::Common { origin: None, ..common.clone() };
        self.send_own(session, seen, &common, (header, Bytes::new())).await
    }

    /// Step 3. Never anonymous when a credential was presented that does not hold.
    async fn identify(
        &self,
        session: &ServerSession,
        seen: &mut Observation<'_>,
        route: &Route,
    ) -> Result<Identity, Stop> {
        let mut credential =
            Credential::from_headers(&session.req_header().headers, seen.client, seen.is_loopback);
        credential.client_certificate = certificate_digest(session);
        route
            .authenticator
            .authenticate_waiting(&credential, &route.audiences, &self.parts.clock, KEY_WAIT)
            .await
            .map_err(|error| {
                let label = failure_label(&error);
                seen.stranger = Some(label.as_str());
                route.tenant_metrics.auth_failed(label);
                refuse(route, &error).into()
            })
    }

    /// Scopes of the route, and what an API key is restricted to.
    fn check_reach(caller: &Caller) -> Result<(), Stop> {
        let route = &caller.route;
        if let Some(restriction) = &caller.identity.restriction
            && !(restriction.allows_route(route.id.as_str())
                && restriction.allows_server(route.server_id.as_str()))
        {
            return Err(Failure::forbidden(None, "this API key is not for this endpoint").into());
        }
        let has = |scope: &str| caller.principal().scopes.iter().any(|s| **s == *scope);
        if !route.scopes.iter().all(|scope| has(scope)) {
            route.tenant_metrics.auth_failed(AuthFailure::Scope);
            let value = challenge::insufficient_scope(&route.metadata_url, &route.scopes.join(" "));
            return Err(Failure::forbidden(
                Some(value),
                "the access token lacks a scope that this endpoint needs",
            )
            .into());
        }
        Ok(())
    }
}

/// The route of the side that a caller is on. What came before (hosts, paths, metadata, identity) was the base's; what a
/// candidate does not have is not there for those who are served it.
fn tried(
    canary: &Canary,
    route: Arc<Route>,
    identity: &Identity,
    seen: &mut Observation<'_>,
    common: &mut headers::Common<'_>,
    (host, path): (&str, &str),
) -> Result<Arc<Route>, Stop> {
    let side = canary.side(&identity.principal.id, seen.started_ms);
    seen.canary = Some((canary.counts().clone(), side));
    if side == Side::Base {
        return Ok(route);
    }
    let Some(route) = canary.candidate().find(host, path).cloned() else {
        return Err(Failure::no_route().into());
    };
    common.revision = Some(route.revision.clone());
    seen.route = Some(route.clone());
    Ok(route)
}

fn server_name<'a>(seen: &'a Observation<'_>) -> &'a str {
    seen.route.as_ref().map_or("", |r| r.server_id.as_str())
}

/// The digest of the client's certificate, if the connection has shown one: what certificate-bound tokens name.
fn certificate_digest(session: &ServerSession) -> Option<[u8; 32]> {
    Some(session.digest()?.ssl_digest.as_ref()?.extension.get::<ClientCertificate>()?.sha256)
}

/// The answer to a caller who could not be identified. The fault of an issuer that cannot be reached is not the
/// caller's: 503, because a 401 would send clients into an authorization that cannot help.
fn refuse(route: &Route, error: &AuthError) -> Failure {
    let text = error.public_text();
    let failure = match (error.blame(), error.status()) {
        (Blame::Issuer, _) => Failure::identity_unavailable(text),
        (_, StatusCode::BAD_REQUEST) => Failure::malformed_credential(text),
        (_, StatusCode::FORBIDDEN) => Failure::forbidden(None, text),
        _ => {
            let scopes = route.scopes.join(" ");
            let scope = (!scopes.is_empty()).then_some(scopes.as_str());
            Failure::unauthenticated(challenge::for_error(error, &route.metadata_url, scope), text)
        }
    };
    failure.detail(error.to_string())
}

fn failure_label(error: &AuthError) -> AuthFailure {
    match error {
        AuthError::AlgorithmRefused { .. } | AuthError::Signature { .. } => AuthFailure::Signature,
        AuthError::ApiKey(_) | AuthError::KeyUnknown { .. } => AuthFailure::UnknownKey,
        AuthError::Audience { .. } => AuthFailure::Audience,
        AuthError::Binding { .. } => AuthFailure::Binding,
        AuthError::Expired { .. } => AuthFailure::Expired,
        AuthError::IssuedInFuture { .. } | AuthError::NotYetValid { .. } => AuthFailure::NotYetValid,
        AuthError::IssuerUnknown => AuthFailure::UnknownIssuer,
        AuthError::KeysUnavailable { .. } | AuthError::Stale => AuthFailure::Unavailable,
        AuthError::MalformedRequest { .. } | AuthError::MalformedToken { .. } => AuthFailure::Malformed,
        AuthError::Missing => AuthFailure::Missing,
        AuthError::Revoked { .. } => AuthFailure::Revoked,
        AuthError::TooManyFailures => AuthFailure::Throttled,
        AuthError::Claim { .. } | AuthError::NoRole { .. } | AuthError::Scheme => AuthFailure::Other,
    }
}
