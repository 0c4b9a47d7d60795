//! Which era and revision one HTTP request speaks, and whether its headers say what its body says (MCP.md §2.1, §2.2).
//!
//! The body decides, the headers are checked against it. A request whose `_meta` names a revision is modern; whatever
//! makes no such claim is legacy, unless its version header names a modern revision: then it is an incomplete modern
//! request. The order of the checks is that of the official Rust SDK, so that a peer gets the same answer through us as
//! directly: version header, then `Mcp-Method` and `Mcp-Name`, then whether the revision is served, then the rest of
//! `_meta`.
//!
//! **Invariants.** [`classify`] is a pure function and allocates only to refuse. In the legacy era `Mcp-Method` and
//! `Mcp-Name` are neither checked nor to be trusted: nothing obliges old servers to compare them with the body. A
//! request that is classified modern has exactly one version header (a notification: at most one), equal to its `_meta`.
//!
//! **Failure.** A [`Refusal`] carries status, code, message and data; the one place that writes responses adds the id.

mod refusal;
#[cfg(test)]
mod tests;

use http::{HeaderMap, Method};

pub use self::refusal::{
    HEADER_MISMATCH, INVALID_PARAMS, INVALID_REQUEST, Refusal, Rule, UNSUPPORTED_VERSION,
};
use crate::mcp::header::{self, BadValue, Field, NameSource};
use crate::mcp::version::{Era, Version, Versions, is_future, names_modern};

/// What is known of a request once its body was scanned. Everything is borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The HTTP method.
    pub http: &'a Method,
    /// The headers that mirror the body.
    pub headers: Headers<'a>,
    /// The body of a POST; `None` for every other method.
    pub body: Option<Body<'a>>,
    /// The revision agreed for the session, if the request carries a session id that opened. An id that does not open
    /// leaves this `None`; it matters only if the request turns out to be legacy, because modern requests ignore ids.
    pub session: Option<Version>,
}

/// The headers that say again what the body says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    /// `MCP-Protocol-Version`.
    pub protocol_version: Field<'a>,
    /// `Mcp-Method`.
    pub method: Field<'a>,
    /// `Mcp-Name`.
    pub name: Field<'a>,
}

impl<'a> Headers<'a> {
    /// Picks them out of a request's headers.
    pub fn read(headers: &'a HeaderMap) -> Self {
        Self {
            protocol_version: Field::read(headers, &header::PROTOCOL_VERSION),
            method: Field::read(headers, &header::METHOD),
            name: Field::read(headers, &header::NAME),
        }
    }
}

/// What the body is.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A JSON array.
    Batch,
    /// One JSON-RPC message.
    Message(Message<'a>),
}

/// The members of one JSON-RPC message that decide its era, decoded (escapes undone).
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Request, notification or response.
    pub kind: Kind,
    /// `method`; empty for responses.
    pub method: &'a str,
    /// `params.name`, if it is a string.
    pub name: Option<&'a str>,
    /// `params.uri`, if it is a string.
    pub uri: Option<&'a str>,
    /// `params.taskId`, if it is a string.
    pub task_id: Option<&'a str>,
    /// `params._meta["io.modelcontextprotocol/protocolVersion"]`, if it is a string.
    pub meta_version: Option<&'a str>,
    /// Whether `params._meta["io.modelcontextprotocol/clientCapabilities"]` is there and an object.
    pub client_capabilities: bool,
    /// `params.protocolVersion` of `initialize`, if it is a string; only echoed in a refusal.
    pub init_version: Option<&'a str>,
}

impl<'a> Message<'a> {
    /// A message of which nothing but kind and method is known yet.
    pub fn new(kind: Kind, method: &'a str) -> Self {
        Self {
            kind,
            method,
            name: None,
            uri: None,
            task_id: None,
            meta_version: None,
            client_capabilities: false,
            init_version: None,
        }
    }

    /// The value that `Mcp-Name` mirrors, for methods that have one.
    pub fn named(&self) -> Option<(NameSource, Option<&'a str>)> {
        let source = NameSource::of(self.method)?;
        Some((
            source,
            match source {
                NameSource::Name => self.name,
                NameSource::TaskId => self.task_id,
                NameSource::Uri => self.uri,
            },
        ))
    }
}

/// The three shapes of a JSON-RPC message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Has a method and no id.
    Notification,
    /// Has a method and an id.
    Request,
    /// Has a result or an error.
    Response,
}

/// How a request is to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Classified {
    /// Decides about sessions, cancellation, and which headers may be trusted.
    pub era: Era,
    /// Modern: the revision the request names. Legacy: the session's, else the header's, else
    /// [`Version::ASSUMED`]. For `initialize` it says nothing; the handshake agrees on one.
    pub version: Version,
}

/// Decides the era of a request for a route that serves `served`.
///
/// # Errors
/// A [`Refusal`] that says which rule was broken, with the answer that MCP prescribes.
pub fn classify(facts: &Facts<'_>, served: Versions) -> Result<Classified, Refusal> {
    let request = Inbound { facts, served, version: Seen::of(facts.headers.protocol_version) };
    match *facts.http {
        Method::POST => match facts.body {
            None => Err(Refusal::no_message()),
            Some(Body::Batch) => request.batch(),
            Some(Body::Message(ref message)) => match message.kind {
                Kind::Notification => request.notification(message),
                Kind::Request => request.request(message),
                Kind::Response => request.response(),
            },
        },
        Method::GET | Method::DELETE => request.without_body(),
        _ => Err(Refusal::method_not_allowed(served)),
    }
}

/// A header as far as it can be read.
#[derive(Clone, Copy, Debug)]
enum Seen<'a> {
    Absent,
    Bad(BadValue),
    Many,
    Text(&'a str),
}

impl<'a> Seen<'a> {
    fn of(field: Field<'a>) -> Self {
        match field {
            Field::Absent => Seen::Absent,
            Field::Many => Seen::Many,
            Field::One(value) => match header::text(value) {
                Ok(text) => Seen::Text(text),
                Err(bad) => Seen::Bad(bad),
            },
        }
    }

    /// The header must be there once and say `expected`.
    fn must_be(self, name: &'static str, member: &str, expected: &str) -> Result<(), Refusal> {
        match self {
            Seen::Absent => Err(Refusal::header_missing(name)),
            other => other.may_be(name, member, expected),
        }
    }

    /// The header may be left out; if it is there it must be there once and say `expected`.
    fn may_be(self, name: &'static str, member: &str, expected: &str) -> Result<(), Refusal> {
        match self {
            Seen::Absent => Ok(()),
            Seen::Bad(bad) => Err(Refusal::header_unreadable(name, bad)),
            Seen::Many => Err(Refusal::header_duplicate(name)),
            Seen::Text(text) if text == expected => Ok(()),
            Seen::Text(text) => Err(Refusal::header_mismatch(name, text, member, expected)),
        }
    }
}

struct Inbound<'a> {
    facts: &'a Facts<'a>,
    served: Versions,
    version: Seen<'a>,
}

impl<'a> Inbound<'a> {
    /// MCP.md §2.1 rules 3 to 6.
    fn request(&self, message: &Message<'a>) -> Result<Classified, Refusal> {
        let handshake = message.method == "initialize";
        match message.meta_version {
            // The era of a known legacy revision is legacy wherever it is named. A handshake stays one unless its
            // `_meta` is modern: then `initialize` is a method which that era does not have.
            Some(claim) if is_known_legacy(claim) || (handshake && !names_modern(claim)) => {
                self.version.may_be(VERSION, META_VERSION, claim)?;
                self.legacy(Version::parse(claim), Some(claim))
            }
            Some(claim) => self.modern(message, claim),
            None => match self.version {
                Seen::Text(text) if handshake && names_modern(text) => {
                    Err(Refusal::handshake_with_header(text))
                }
                Seen::Text(text) if is_future(text) => Err(Refusal::unsupported(self.served, Some(text))),
                Seen::Text(text) if Version::parse(text).is_some_and(|v| v.era() == Era::Modern) => {
                    Err(if self.served.speaks(Era::Modern) {
                        Refusal::meta_missing(message)
                    } else {
                        Refusal::unsupported(self.served, Some(text))
                    })
                }
                // The method exists in no legacy revision: who calls it is modern and forgot `_meta`.
                _ if message.method == "server/discover" && self.served.speaks(Era::Modern) => {
                    Err(Refusal::meta_missing(message))
                }
                _ => self.legacy_by_header(message.init_version),
            },
        }
    }

    /// MCP.md §2.2 "Required headers", "Validation", "Version error" and "`_meta`", in this order.
    fn modern(&self, message: &Message<'a>, claim: &str) -> Result<Classified, Refusal> {
        self.version.must_be(VERSION, META_VERSION, claim)?;
        // A name before 2026-07-28 that is no revision obliges to nothing but an honest version header.
        if names_modern(claim) {
            Seen::of(self.facts.headers.method).must_be(METHOD, "method", message.method)?;
            self.name(message)?;
        }
        let version = self.served_modern(claim)?;
        if !message.client_capabilities {
            return Err(Refusal::meta_missing(message));
        }
        Ok(Classified { era: Era::Modern, version })
    }

    /// A method that has a name must carry it; a body without it is left to the method's own parameter check.
    fn name(&self, message: &Message<'a>) -> Result<(), Refusal> {
        let Some((source, Some(expected))) = message.named() else { return Ok(()) };
        match self.facts.headers.name {
            Field::Absent => Err(Refusal::header_missing(NAME)),
            Field::Many => Err(Refusal::header_duplicate(NAME)),
            Field::One(value) => match header::decode(value) {
                Err(bad) => Err(Refusal::header_unreadable(NAME, bad)),
                Ok(name) if name == expected => Ok(()),
                Ok(name) => Err(Refusal::header_mismatch(NAME, &name, source.as_str(), expected)),
            },
        }
    }

    /// MCP.md §2.2 "Body": the revision defines no headers for notifications, so what is sent must agree and what is
    /// left out is not missed (streamable-http §Sending Messages, note).
    fn notification(&self, message: &Message<'a>) -> Result<Classified, Refusal> {
        let claim = match (message.meta_version, self.version) {
            (Some(claim), _) if is_known_legacy(claim) => {
                self.version.may_be(VERSION, META_VERSION, claim)?;
                return self.legacy(Version::parse(claim), Some(claim));
            }
            (Some(claim), version) => {
                version.may_be(VERSION, META_VERSION, claim)?;
                claim
            }
            (None, Seen::Text(text))
                if is_future(text) || Version::parse(text) >= Some(Version::FIRST_MODERN) =>
            {
                text
            }
            (None, _) => return self.legacy_by_header(None),
        };
        Seen::of(self.facts.headers.method).may_be(METHOD, "method", message.method)?;
        Ok(Classified { era: Era::Modern, version: self.served_modern(claim)? })
    }

    /// MCP.md §2.1 rule 2: only legacy clients answer requests of the server.
    fn response(&self) -> Result<Classified, Refusal> {
        if self.header_is_modern() || !self.served.speaks(Era::Legacy) {
            return Err(Refusal::response_not_accepted());
        }
        self.legacy_by_header(None)
    }

    /// MCP.md §2.1 rule 2: only 2025-03-26 has batches.
    fn batch(&self) -> Result<Classified, Refusal> {
        if self.header_is_modern() || !self.served.speaks(Era::Legacy) {
            return Err(Refusal::batch_not_accepted());
        }
        let classified = self.legacy_by_header(None)?;
        if !classified.version.allows_batches() {
            return Err(Refusal::batch_not_accepted());
        }
        Ok(classified)
    }

    /// MCP.md §2.1 rule 1.
    fn without_body(&self) -> Result<Classified, Refusal> {
        if !self.served.speaks(Era::Legacy) {
            return Err(Refusal::method_not_allowed(self.served));
        }
        if self.header_is_modern() {
            return Err(Refusal::method_not_allowed(Versions::MODERN));
        }
        self.legacy_by_header(None)
    }

    /// MCP.md §2.1 rule 6, and §2.3: a version header that is there must be valid.
    fn legacy_by_header(&self, requested: Option<&str>) -> Result<Classified, Refusal> {
        match self.version {
            Seen::Absent => self.legacy(None, requested),
            Seen::Text(text) => match Version::parse(text) {
                Some(version) if version.era() == Era::Legacy => {
                    self.legacy(Some(version), requested.or(Some(text)))
                }
                _ => Err(Refusal::invalid_version_header(text, self.served)),
            },
            Seen::Many => Err(Refusal::invalid_version_header("sent more than once", self.served)),
            Seen::Bad(_) => Err(Refusal::invalid_version_header("unreadable", self.served)),
        }
    }

    fn legacy(&self, named: Option<Version>, requested: Option<&str>) -> Result<Classified, Refusal> {
        if !self.served.speaks(Era::Legacy) {
            return Err(Refusal::unsupported(self.served, requested));
        }
        let version = self.facts.session.or(named).unwrap_or(Version::ASSUMED);
        Ok(Classified { era: Era::Legacy, version })
    }

    fn served_modern(&self, claim: &str) -> Result<Version, Refusal> {
        Version::parse(claim)
            .filter(|v| self.served.contains(*v))
            .ok_or_else(|| Refusal::unsupported(self.served, Some(claim)))
    }

    fn header_is_modern(&self) -> bool {
        match self.version {
            Seen::Text(text) => {
                is_future(text) || Version::parse(text).is_some_and(|v| v.era() == Era::Modern)
            }
            _ => false,
        }
    }
}

fn is_known_legacy(name: &str) -> bool {
    Version::parse(name).is_some_and(|v| v.era() == Era::Legacy)
}

const VERSION: &str = "MCP-Protocol-Version";
const METHOD: &str = "Mcp-Method";
const NAME: &str = "Mcp-Name";
const META_VERSION: &str = "_meta protocolVersion";
