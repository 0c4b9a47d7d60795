//! What an operator writes, and the checks that turn it into something the program may rely on.
//!
//! ```text
//! bytes ─parse→ tree ─expand ${…}→ tree ─check against schema→ Document ─rules→ Validated
//!          │                │                    │                        │
//!          └────────────────┴──── Diagnostics ───┴────────────────────────┘   all of them, with places
//! ```
//!
//! - [`model`] is the document as plain serde structs. Its JSON Schema ([`schema()`]) drives the checker and the
//!   reference page, so neither can disagree with the types.
//! - [`load()`] is the only way from text to a [`Validated`] document; [`Validated::new`] is for documents built by the
//!   program. What holds a `Validated` needs no further checks: every reference resolves, every combination works.
//! - [`canonical()`] is the form in which documents are stored, compared and shown; [`split`] takes a file apart into the
//!   platform's document and those of tenants, [`edit`] changes one object. [`load_tenant`] reads a stored document on the
//!   [`Terms`] of its tenant: what it may not say is refused there, and nowhere later.
//! - Nothing here keeps state, reads the environment or opens a socket. References to files and variables go through
//!   [`Sources`]; [`SystemSources`] is the one type that touches the disk, and only the command line makes one.
//! - Bad input of any kind ends in [`Diagnostics`], never in a panic; input, nesting and findings are bounded.

pub mod diagnostic;
pub mod model;

mod canonical;
mod check;
mod describe;
mod diff;
pub mod edit;
mod expand;
mod findings;
mod hosts;
mod load;
mod path;
mod places;
mod reference;
mod schema;
mod sources;
mod suggest;
mod terms;
mod tree;
mod unsupported;
mod uses;
mod validate;
mod validated;
mod yaml;

pub use canonical::{Canonical, Documents, canonical, split, split_file};
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use diff::{Change, diff, diff_documents};
pub use expand::{MAX_REFERENCED_FILE, SourceError, Sources};
pub use hosts::{AllowedOrigins, host_matches};
pub use load::{EMBEDDED, Loaded, LoadedPlatform, embedded, load, load_platform, load_tenant};
pub use places::Places;
pub use reference::reference;
pub use schema::schema;
pub use sources::{FixedSources, SystemSources};
pub use terms::Terms;
pub use tree::MAX_DOCUMENT;
pub use uses::{secrets_named, uses_of_secret};
pub use validate::{Hooks, RuleFinding};
pub use validated::{ResolvedRoute, Revision, Validated};

#[cfg(test)]
mod tests;
