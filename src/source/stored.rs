//! Documents as the store has them, and who compiles them.
//!
//! This layer knows neither how a document is compiled nor what is done with the result: [`Serve`] does, which the
//! process supplies. So what happens to a document that does not compile, and in which order documents are taken, is
//! decided in one place whatever they hold.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use uuid::Uuid;

use crate::base::{Scope, Secret, TenantId};
use crate::config::Diagnostics;
use crate::snapshot::Snapshot;
use crate::source::canary::Beside;
use crate::source::secrets;

/// One revision of a scope's document.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// Whose.
    pub scope: Scope,
    /// Its number in the store.
    pub revision: i64,
    /// The generation of the store when it became the head.
    pub generation: i64,
    /// The canonical bytes.
    pub content: Arc<[u8]>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} ({} bytes)", self.scope, self.revision, self.content.len())
    }
}

impl Stored {
    /// Whether compiling it needs secrets of the store.
    pub(super) fn names_secrets(&self) -> bool {
        const REFERENCE: &[u8] = b"${secret:";
        self.content.windows(REFERENCE.len()).any(|window| window == REFERENCE)
    }
}

/// What `${secret:name}` stands for in one tenant's document.
#[derive(Clone, Debug, Default)]
pub struct SecretValues {
    values: BTreeMap<String, Secret<String>>,
    /// Why there are none although the store has some.
    pub unusable: Option<String>,
}

impl SecretValues {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// None, because they cannot be opened.
    pub fn unusable(why: String) -> Self {
        Self { values: BTreeMap::new(), unusable: Some(why) }
    }
}

impl Deref for SecretValues {
    type Target = BTreeMap<String, Secret<String>>;

    fn deref(&self) -> &Self::Target {
        &self.values
    }
}

impl FromIterator<(String, Secret<String>)> for SecretValues {
    fn from_iter<I: IntoIterator<Item = (String, Secret<String>)>>(values: I) -> Self {
        Self { values: values.into_iter().collect(), unusable: None }
    }
}

/// Why a document was not taken. Nothing has changed then.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refusal {
    /// The document has errors.
    #[error("{0}")]
    Document(Box<Diagnostics>),
    /// It is right in itself, but something it names is not, on this replica or at all.
    #[error("{}", .0.iter().map(|(path, message)| format!("{path}: {message}")).collect::<Vec<_>>().join("; "))]
    Compile(Vec<(String, String)>),
}

impl Refusal {
    /// The same with places of the text that was sent, where `canonical` is what was looked at: whoever sent it has not seen
    /// that. `look` looks at a text in the same way; both are asked only of what is refused.
    pub(super) fn in_terms_of<T>(
        self,
        sent: &[u8],
        canonical: &[u8],
        look: impl Fn(&[u8]) -> Result<T, Refusal>,
    ) -> Self {
        if sent == canonical || !matches!(self, Self::Document(_)) {
            return self;
        }
        match look(sent) {
            Err(placed @ Self::Document(_)) => placed,
            _ => self,
        }
    }

    /// The same without values of secrets.
    pub(super) fn hiding(self, secrets: &SecretValues) -> Self {
        match self {
            Self::Document(mut found) => {
                found.reword(|text| secrets::hidden(text, secrets));
                Self::Document(found)
            }
            Self::Compile(mut found) => {
                for (path, message) in &mut found {
                    secrets::hide(std::slice::from_mut(path), secrets);
                    secrets::hide(std::slice::from_mut(message), secrets);
                }
                Self::Compile(found)
            }
        }
    }
}

/// Compiles documents and puts them in force. Called on threads for blocking work, one call that changes something at a
/// time.
pub trait Serve: Send + Sync + 'static {
    /// Puts a revision in force in place of the one of its scope. Gives the tenants whose documents mean something else
    /// now and have to be served again: those whose terms a platform document changed.
    ///
    /// # Errors
    /// [`Refusal`]; what was in force stays in force.
    fn serve(&self, document: &Stored, secrets: &SecretValues) -> Result<Vec<TenantId>, Refusal>;

    /// Whether the platform's document in force names the tenant; `default` is always there.
    fn has_tenant(&self, _tenant: &TenantId) -> bool {
        true
    }

    /// Whether a document that was served still is, after a later look at it failed: what goes beyond what the platform gives
    /// a tenant now is withdrawn.
    fn is_in_force(&self, _document: &Stored) -> bool {
        true
    }

    /// Everything that [`Serve::serve`] does, short of putting it in force. Gives the warnings.
    ///
    /// # Errors
    /// [`Refusal`].
    fn check(&self, scope: &Scope, content: &[u8], secrets: &SecretValues) -> Result<Vec<String>, Refusal>;

    /// Serves a candidate to some callers beside the head. The one of the same tenant before it gives way.
    ///
    /// # Errors
    /// [`Refusal`]; then the base is served to everybody.
    fn serve_beside(&self, beside: &Beside, secrets: &SecretValues) -> Result<(), Refusal>;

    /// Serves the head to everybody again, if it is this canary that some are served.
    fn end_beside(&self, tenant: &TenantId, canary: Uuid);

    /// Compiles a tenant's document apart from everything that is served.
    ///
    /// # Errors
    /// [`Refusal`].
    fn trial(&self, tenant: &TenantId, content: &[u8], secrets: &SecretValues) -> Result<Snapshot, Refusal>;

    /// What differs between two documents of a scope, in words, one line per change.
    fn diff(&self, scope: &Scope, old: &[u8], new: &[u8], secrets: &SecretValues) -> Vec<String>;

    /// As [`Serve::check`], on the terms of this document of the platform instead of those in force: it may be published
    /// in the same moment, or not have come here yet.
    ///
    /// # Errors
    /// [`Refusal`].
    fn check_under(
        &self,
        _platform: &[u8],
        scope: &Scope,
        content: &[u8],
        secrets: &SecretValues,
    ) -> Result<Vec<String>, Refusal> {
        self.check(scope, content, secrets)
    }

    /// As [`Serve::diff`], on the terms of this document of the platform.
    fn diff_under(
        &self,
        _platform: &[u8],
        scope: &Scope,
        old: &[u8],
        new: &[u8],
        secrets: &SecretValues,
    ) -> Vec<String> {
        self.diff(scope, old, new, secrets)
    }
}
