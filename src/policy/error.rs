//! Why a policy does not compile. Always the operator's fault; nothing changes until it is mended.

use std::fmt;

use super::rule::Field;
use crate::base::glob::GlobError;

/// One problem, and where it is.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}: {problem}", self.place())]
pub struct CompileError {
    /// The rule's position, counted from zero; `None` for the policy itself.
    pub rule: Option<usize>,
    /// The field of the rule.
    pub field: Option<Field>,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// A `when` expression.
    #[error("{message}")]
    Expression {
        /// What is wrong with it.
        message: String,
        /// Where in the expression, as a byte offset, if known.
        offset: Option<usize>,
    },
    /// A pattern.
    #[error("`{pattern}`: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: GlobError,
    },
    /// More entries than a field or a policy may have.
    #[error("more than {0} entries")]
    TooMany(usize),
}

/// All problems of one policy; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct CompileErrors(pub Vec<CompileError>);

impl CompileError {
    fn place(&self) -> String {
        match (self.rule, self.field) {
            (Some(rule), Some(field)) => format!("rules[{rule}].{}", field.as_str()),
            (Some(rule), None) => format!("rules[{rule}]"),
            (None, _) => "rules".to_owned(),
        }
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}
