//! Policy: who may call what. Ordered rules, the first that matches decides, otherwise the default.
//!
//! A [`PolicySpec`] compiles into an immutable [`Policy`]; a [`Policy`] answers three questions about a request
//! described by [`Facts`]: may it go on ([`Policy::decide`]), should an item appear in a list ([`Policy::visible`]), and
//! why ([`Policy::explain`]). No I/O and no state; without expressions nothing is allocated.
//!
//! # What a rule matches
//!
//! All fields that are given must match; a field matches if any of its entries does. `roles`, `kinds`, `principals`,
//! `groups` and `scopes` are about the caller, `cidrs` about the client's address, `servers` and `methods` about the
//! request, and `tools`, `prompts`, `resources` about the [`Item`] it reaches:
//!
//! - a rule that names tools matches only requests for a tool (`tools/call`, and tools in lists); prompts: `prompts/get`
//!   and completions of a prompt; resources: `resources/read`, `subscribe`, `unsubscribe`, completions of a template, and
//!   each URI of a `subscriptions/listen` (the caller asks once per URI). A rule that names several kinds matches
//!   requests for any of them.
//! - a rule that names none of the three, but whose `when` reads `tool`, `prompt` or `resource`, matches requests for
//!   those kinds; if it reads only `arguments`, requests for tools and prompts, which are the ones that have arguments.
//! - any other rule matches every request, restricted by `methods` if given.
//!
//! Names are compared as the server says them, byte for byte (see [`crate::base::glob`]).
//!
//! `when` is a CEL expression, see [`cel`]. **An expression that fails, for whatever reason, denies the
//! request**, in an allow rule too: falling through to a later rule would let a caller choose which rule applies by
//! sending arguments of the wrong type.
//!
//! # What the default applies to
//!
//! `default: deny` denies what reaches an item and methods nobody knows. Requests that reach nothing by themselves,
//! [`is_open_method`] lists them, are denied only by a rule: handshake, pings, notifications, and lists, whose entries
//! are decided one by one. Otherwise no policy with `default: deny` could be connected to without a rule about the
//! protocol.
//!
//! # What is recorded
//!
//! A rule may ask that bodies of the requests it decides are recorded ([`Policy::recorded`]). Like its effect this follows
//! from the first rule that matches, one whose expression failed included; what the default decides is not recorded.
//!
//! # Lists and completions
//!
//! When an item is listed, the arguments of a later call are unknown. A rule that reads them is undecided then: an
//! undecided allow makes the item visible, an undecided deny is skipped (DESIGN §4.6). A completion is treated the same
//! way. For a resource template, an allow rule matches if some URI of the template could match, a deny rule only if all do.

mod analysis;
pub mod cel;
mod decision;
mod engine;
mod error;
mod facts;
mod rule;
mod spec;

pub use analysis::Finding;
pub use cel::ExpressionFailure;
#[cfg(test)]
pub(crate) use cel::Scope;
pub use decision::{Cause, Decision, Outcome, RuleRef, RuleTrace, Trace};
pub use engine::Policy;
pub use error::{CompileError, CompileErrors, Problem};
pub(crate) use facts::{COMPLETE, MAX_NAME_BYTES};
pub use facts::{Facts, Item, ItemKind, is_open_method};
pub use rule::Field;
pub(crate) use rule::{Patterns, Rule, When};
pub use spec::{Effect, PolicySpec, Record, RuleSpec};

#[cfg(test)]
mod tests;
