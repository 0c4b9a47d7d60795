//! CEL expressions in rules: `when: 'has(arguments.path) && arguments.path.startsWith("/etc/")'`.
//!
//! # The language
//!
//! Standard CEL operators, `has`, `in`, `all`, `exists`, `exists_one`, `map`, `filter`, and the functions `size`,
//! `contains`, `startsWith`, `endsWith`, `matches`, `type`, `bool`, `int`, `uint`, `double`, `string`. The pattern of
//! `matches` must be a literal: it is compiled with the policy. Anything else is an error when the policy compiles.
//!
//! # The variables
//!
//! | name | type | |
//! |---|---|---|
//! | `principal.id`, `principal.kind` | string | kind: `anonymous`, `key`, `service` or `user` |
//! | `principal.roles`, `principal.groups`, `principal.scopes` | list of string | |
//! | `principal.claims` | map | verified claims; empty for callers without a token |
//! | `principal.issuer` | string or null | |
//! | `tenant`, `route`, `server`, `method`, `ip` | string | `server` is empty if there is none |
//! | `tool`, `prompt`, `resource` | string | what the request reaches; the others are empty |
//! | `arguments` | map | `params.arguments`; empty if there are none |
//!
//! Whole numbers of JSON are `int` (`uint` beyond 2^63), others `double`; comparisons mix them, arithmetic does not.
//!
//! # Bounds
//!
//! The interpreter has no limit of its own, and authors of expressions as well as senders of arguments may be hostile.
//! When compiling: 2 KiB of text, nesting of 32 in the text and 40 in the tree, two levels of comprehensions, 128
//! elements per literal, parsed on a thread with a stack of its own (a parser that overflows aborts the process).
//! When running: arguments of 64 KiB, 4,096 values, 1,000 elements per list, and *fuel*: the tree is rewritten so
//! that everything whose cost depends on data pays first, in proportion to the data (see `meter`). An expression that
//! runs out stops, at once and for good: in the worst case found, after a few milliseconds.
//!
//! Failing in any way is an [`ExpressionFailure`], which denies. It holds no data of the request, so it can be logged.

mod check;
mod json;
mod meter;
mod program;
mod scope;

/// Whether an expression compiles.
///
/// # Errors
/// Why it does not.
pub fn check(source: &str) -> Result<(), String> {
    Program::compile(source).map(drop).map_err(|e| e.to_string())
}

pub use program::ExpressionFailure;
pub(crate) use program::Program;
pub(crate) use scope::Scope;

#[cfg(test)]
mod tests;
