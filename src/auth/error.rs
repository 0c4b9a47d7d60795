//! Why a caller was refused, and whose fault it is (DESIGN §8, MCP.md §3.1).

use std::sync::Arc;

use http::StatusCode;

use crate::auth::{KeyRefusal, RefreshTicket};

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The caller's: the credential is missing, wrong or too old.
    Client,
    /// The issuer's, or the way to it: its keys cannot be had.
    Issuer,
}

/// A refused caller. `Display` is for logs; what the caller may read is [`AuthError::public_text`].
///
/// Texts never hold any part of a credential; values that a token chose are shortened and escaped.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The token's algorithm is not one the issuer may use, or none this gateway knows (`none`, HMAC).
    #[error("algorithm {alg:?} is not allowed")]
    AlgorithmRefused {
        /// What the token said, shortened.
        alg: String,
    },
    /// The API key is not good (any reason: the caller is not told which).
    #[error("API key refused: {0}")]
    ApiKey(#[from] KeyRefusal),
    /// The token is for somebody else.
    #[error("the token of issuer `{issuer}` is for another audience")]
    Audience {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// The token belongs to a client that proves itself with a certificate, and this client did not (RFC 8705 §3).
    #[error("the token of issuer `{issuer}` is bound to another client certificate")]
    Binding {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// A claim that must be there is missing, has another type or another value.
    #[error("a claim of issuer `{issuer}` is not acceptable: {reason}")]
    Claim {
        /// The issuer's configured name.
        issuer: Arc<str>,
        /// Which, and what is wrong with it.
        reason: &'static str,
    },
    /// The time in `exp` has passed.
    #[error("the token of issuer `{issuer}` has expired")]
    Expired {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// The token claims to have been issued later than now.
    #[error("the token of issuer `{issuer}` says that it was issued in the future")]
    IssuedInFuture {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// No configured issuer has this `iss`.
    #[error("no such issuer is configured")]
    IssuerUnknown,
    /// The issuer's JWKS has no key for this token.
    #[error("issuer `{issuer}` has no key {kid:?}")]
    KeyUnknown {
        /// The issuer's configured name.
        issuer: Arc<str>,
        /// What the token asked for, shortened.
        kid: Option<String>,
        /// A refresh that is under way and may bring the key.
        refresh: Option<RefreshTicket>,
    },
    /// The issuer's JWKS was never loaded, or is older than it may be.
    #[error("the keys of issuer `{issuer}` are not available")]
    KeysUnavailable {
        /// The issuer's configured name.
        issuer: Arc<str>,
        /// A refresh that is under way.
        refresh: Option<RefreshTicket>,
    },
    /// The request presents credentials in a way that cannot be understood: answered with 400.
    #[error("malformed request: {reason}")]
    MalformedRequest {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was presented is not a signed token.
    #[error("malformed token: {reason}")]
    MalformedToken {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Nothing was presented, and anonymous callers are not allowed.
    #[error("no credential was presented")]
    Missing,
    /// The token is good, but no role follows from it.
    #[error("no role is mapped for this token of issuer `{issuer}`")]
    NoRole {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// The time in `nbf` has not come.
    #[error("the token of issuer `{issuer}` is not valid yet")]
    NotYetValid {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// The token, its subject or its principal is on the list of revocations.
    #[error("the credential vouched for by `{issuer}` has been revoked")]
    Revoked {
        /// The issuer's configured name, or `key`.
        issuer: Arc<str>,
    },
    /// The authorization scheme is not `Bearer`.
    #[error("the authorization scheme is not supported")]
    Scheme,
    /// No key of the issuer made this signature.
    #[error("the signature is not one of issuer `{issuer}`")]
    Signature {
        /// The issuer's configured name.
        issuer: Arc<str>,
    },
    /// The store was not heard of for so long that its keys are not accepted by what is remembered.
    #[error("the store was not heard of for longer than identity.max_staleness")]
    Stale,
    /// This address failed too often of late; the credential was not looked at.
    #[error("too many failed attempts from this address")]
    TooManyFailures,
}

impl AuthError {
    /// The HTTP status of the answer: 400, 401 or 403.
    pub fn status(&self) -> StatusCode {
        match self {
            AuthError::MalformedRequest { .. } => StatusCode::BAD_REQUEST,
            AuthError::NoRole { .. } => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// What the caller may be told: nothing that helps to guess, nothing that was presented.
    pub fn public_text(&self) -> &'static str {
        match self {
            AuthError::AlgorithmRefused { .. }
            | AuthError::Claim { .. }
            | AuthError::IssuedInFuture { .. }
            | AuthError::IssuerUnknown
            | AuthError::KeyUnknown { .. }
            | AuthError::MalformedToken { .. }
            | AuthError::Signature { .. } => "the access token is not valid",
            AuthError::ApiKey(_) => "the API key is not valid",
            AuthError::Audience { .. } => "the access token is for another resource",
            AuthError::Binding { .. } => "the access token is bound to another client",
            AuthError::Expired { .. } => "the access token has expired",
            AuthError::KeysUnavailable { .. } => "the access token cannot be verified at the moment",
            AuthError::MalformedRequest { reason } => reason,
            AuthError::Missing => "authentication is required",
            AuthError::NoRole { .. } => "the access token gives no role here",
            AuthError::NotYetValid { .. } => "the access token is not valid yet",
            AuthError::Revoked { .. } => "the credential has been revoked",
            AuthError::Stale => "the API key cannot be verified at the moment",
            AuthError::Scheme => "only the Bearer scheme is supported",
            AuthError::TooManyFailures => "too many failed attempts, try again later",
        }
    }

    /// The `error` code of the challenge (RFC 6750 §3.1). None where the request presented nothing that could be
    /// judged, or where the credential itself is not at fault.
    pub fn challenge_code(&self) -> Option<&'static str> {
        match self {
            AuthError::KeysUnavailable { .. }
            | AuthError::Missing
            | AuthError::NoRole { .. }
            | AuthError::Scheme
            | AuthError::Stale
            | AuthError::TooManyFailures => None,
            AuthError::MalformedRequest { .. } => Some("invalid_request"),
            _ => Some("invalid_token"),
        }
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            AuthError::KeysUnavailable { .. } | AuthError::Stale => Blame::Issuer,
            _ => Blame::Client,
        }
    }

    /// Whether the same request may succeed later, unchanged.
    pub fn retry_may_help(&self) -> bool {
        matches!(
            self,
            AuthError::KeyUnknown { refresh: Some(_), .. }
                | AuthError::KeysUnavailable { .. }
                | AuthError::NotYetValid { .. }
                | AuthError::Stale
                | AuthError::TooManyFailures
        )
    }

    /// Whether this is an attempt that failed, in the sense of the limiter: something that is not authentic was
    /// presented. An authentic credential that is too old or meant for others is not a guess, and must not lock out the
    /// office behind the same address.
    pub fn counts_as_failure(&self) -> bool {
        match self {
            AuthError::AlgorithmRefused { .. }
            | AuthError::IssuerUnknown
            | AuthError::MalformedToken { .. }
            | AuthError::Signature { .. } => true,
            AuthError::ApiKey(refusal) => refusal.is_guess(),
            // While a refresh is under way the key may still turn out to be good.
            AuthError::KeyUnknown { refresh, .. } => refresh.is_none(),
            _ => false,
        }
    }

    /// A short, stable name for metrics and the access log.
    pub fn reason(&self) -> &'static str {
        match self {
            AuthError::AlgorithmRefused { .. } => "algorithm",
            AuthError::ApiKey(_) => "api_key",
            AuthError::Audience { .. } => "audience",
            AuthError::Binding { .. } => "binding",
            AuthError::Claim { .. } => "claim",
            AuthError::Expired { .. } => "expired",
            AuthError::IssuedInFuture { .. } => "issued_in_future",
            AuthError::IssuerUnknown => "issuer_unknown",
            AuthError::KeyUnknown { .. } => "key_unknown",
            AuthError::KeysUnavailable { .. } => "keys_unavailable",
            AuthError::MalformedRequest { .. } => "malformed_request",
            AuthError::MalformedToken { .. } => "malformed_token",
            AuthError::Missing => "missing",
            AuthError::NoRole { .. } => "no_role",
            AuthError::NotYetValid { .. } => "not_yet_valid",
            AuthError::Revoked { .. } => "revoked",
            AuthError::Scheme => "scheme",
            AuthError::Signature { .. } => "signature",
            AuthError::Stale => "stale",
            AuthError::TooManyFailures => "too_many_failures",
        }
    }

    /// Takes out the refresh that may make a second attempt succeed.
    pub fn take_refresh(&mut self) -> Option<RefreshTicket> {
        match self {
            AuthError::KeyUnknown { refresh, .. } | AuthError::KeysUnavailable { refresh, .. } => {
                refresh.take()
            }
            _ => None,
        }
    }
}

/// A configuration that does not compile. `field` is a path inside the [`AuthSpec`](crate::auth::AuthSpec).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct SpecError {
    /// Which field, for example `issuers.corp.leeway`.
    pub field: String,
    /// What is wrong with it and what is expected.
    pub problem: String,
}

impl SpecError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// Cuts a text chosen by a caller to what may appear in a log line.
pub(crate) fn shorten(text: &str) -> String {
    const MAX_CHARS: usize = 64;
    text.chars().take(MAX_CHARS).collect()
}
