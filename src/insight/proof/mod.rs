//! Proof: what a configuration allows, over every request there could be.
//!
//! # How
//!
//! A request differs in seven dimensions: what it asks for (method, kind and name of the item), and the caller's
//! kind, roles, id, groups, scopes and address. Each dimension is divided into the classes that the rules tell apart,
//! patterns by running them as automata (`words`), networks by their edges (`space`). A rule is then a product of
//! sets of classes, and going through the rules in order, as [`Policy`] does, cuts the space of
//! requests into pieces that are decided alike (`table`). Nothing is sampled: a class that exists is found, and what
//! no request can have is not.
//!
//! # What is left open
//!
//! - `when` expressions. An answer that depends on some is `if`, and names them.
//! - Who holds which credential: every key and every token that an issuer could sign is thought of, within what its
//!   role mapping can give. Claims are taken as independent of each other, so a class of callers may be wider than the
//!   issuer's directory, never narrower. A key's own restrictions and revocations narrow further.
//! - Limits, which refuse for a while and not for good; lists, whose entries are seen if a call could be allowed;
//!   completions of resource templates.
//!
//! # Failure
//!
//! The number of states, classes and pieces is bounded; beyond, the answer is [`Error::TooComplex`], never a guess.
//! Every witness that depends on no expression is put to the policy itself before it is shown.

mod answer;
mod bits;
mod describe;
mod newly;
mod region;
mod space;
mod table;
mod words;

use std::sync::Arc;

pub use answer::{Answer, Class, Condition, RouteAnswer, Verdict, Witness, unauthenticated, who_can_call};
pub use newly::newly_allowed;

use crate::auth::Source;
use crate::base::glob::{Glob, GlobError};
use crate::policy::Policy;
use crate::snapshot::Route;

/// The most states of the patterns of one dimension.
pub(crate) const MAX_STATES: usize = 100_000;
/// The most classes of one dimension.
pub(crate) const MAX_CLASSES: usize = 8_192;
/// The most pieces that the requests of one route are cut into.
pub(crate) const MAX_PIECES: usize = 20_000;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A witness is decided in another way than it should be: a mistake of this module.
    #[error("the proof contradicts the policy on route `{route}`: {witness}; please report this")]
    Contradiction {
        /// The route.
        route: String,
        /// The request.
        witness: String,
    },
    /// The pattern of the question.
    #[error("`{0}`: {1}")]
    Pattern(String, GlobError),
    /// The policies are too large to answer for all requests.
    #[error("the policies are too complex to be exact about: more than {1} {0}")]
    TooComplex(&'static str, usize),
}

/// Everything that decides whether a request on one route goes on, as far as a document says.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// The route's name.
    pub route: Arc<str>,
    /// What clients dial.
    pub url: Arc<str>,
    /// The server behind it.
    pub server: Arc<str>,
    /// The policy; none allows everything.
    pub policy: Option<Arc<Policy>>,
    /// Methods that exist; empty = all.
    pub methods: Vec<Glob>,
    /// Scopes that callers must have, all of them.
    pub scopes: Vec<Box<str>>,
    /// Audiences of tokens.
    pub audiences: Vec<Box<str>>,
    /// The callers there can be.
    pub sources: Vec<Source>,
}

impl Gate {
    /// The gate of a compiled route.
    pub fn of(route: &Route) -> Self {
        Self {
            tenant: route.tenant.as_str().into(),
            route: route.id.as_str().into(),
            url: (&*route.url).into(),
            server: route.server_id.as_str().into(),
            policy: route.policy.clone(),
            methods: route.methods.to_vec(),
            scopes: route.scopes.to_vec(),
            audiences: route.audiences.to_vec(),
            sources: route.authenticator.sources(),
        }
    }
}

#[cfg(test)]
mod tests;
