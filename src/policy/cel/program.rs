//! A compiled expression.

use cel::common::types::CelBool;
use cel::context::Context;
use cel::parser::Parser;
use cel::{ExecutionError, IdedExpr, ParseErrors, Value};
use regex::Regex;

use super::check::{Checked, check};
use super::meter::{self, PatternVal};
use super::scope::{Scope, Variables};
use crate::policy::error::Problem;
use crate::policy::facts::{ItemKind, ItemKinds};

/// The longest expression.
pub(crate) const MAX_SOURCE_BYTES: usize = 2 * 1024;

/// How deep brackets may nest; the parser gives up beyond.
const MAX_PARSE_DEPTH: u16 = 32;

/// The stack for parsing and checking. Long chains of operators make deep trees before their depth can be checked.
const COMPILE_STACK_BYTES: usize = 16 * 1024 * 1024;

/// A checked, metered expression.
#[derive(Debug)]
pub(crate) struct Program {
    source: Box<str>,
    expression: IdedExpr,
    patterns: Box<[PatternVal]>,
    items: ItemKinds,
    reads_arguments: bool,
    reads_claims: bool,
    unguarded: Box<[String]>,
    constant: Option<bool>,
}

/// The compiled pattern of a `matches`.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) regex: Regex,
    /// What searching sixteen bytes costs, in fuel.
    pub(crate) weight: u32,
}

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ExpressionError {
    pub(crate) message: String,
    /// Bytes into the expression.
    pub(crate) offset: Option<usize>,
}

/// Why an expression gave no answer. Says nothing about the data it was evaluated on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionFailure {
    /// The arguments are over a limit.
    #[error("the arguments are too large for a rule to read: {0}")]
    ArgumentsTooLarge(&'static str),
    /// The claims are over a limit.
    #[error("the claims are too large for a rule to read: {0}")]
    ClaimsTooLarge(&'static str),
    /// An operation failed: a missing key, the wrong type, an overflow.
    #[error("evaluation failed: {0}")]
    Evaluation(&'static str),
    /// The arguments are not JSON, or have a key twice.
    #[error("the arguments are not valid JSON")]
    InvalidArguments,
    /// The result is neither true nor false.
    #[error("the result is not a boolean")]
    NotBoolean,
    /// It used up its fuel.
    #[error("the expression takes too long on this request")]
    OutOfFuel,
}

impl Program {
    /// Parses, checks and rewrites an expression.
    pub(crate) fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!("the expression is longer than {MAX_SOURCE_BYTES} bytes");
            return Err(ExpressionError { message, offset: None });
        }
        let failed = |what: &str| ExpressionError { message: what.to_owned(), offset: None };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("compile-expression".to_owned())
                .stack_size(COMPILE_STACK_BYTES)
                .spawn_scoped(scope, || Self::compile_here(source))
                .map_err(|_| failed("no thread to compile the expression on"))?
                .join()
                .map_err(|_| failed("the expression cannot be compiled"))?
        })
    }

    fn compile_here(source: &str) -> Result<Self, ExpressionError> {
        let (tree, positions) = Parser::new()
            .max_recursion_depth(MAX_PARSE_DEPTH)
            .parse_with_source_info(source)
            .map_err(|errors| syntax_error(source, &errors))?;
        let Checked { expression, patterns, items, reads_arguments, reads_claims, reads_anything, unguarded } =
            check(tree).map_err(|refused| ExpressionError {
                message: refused.message,
                offset: positions.offset_for(refused.node).map(|(start, _)| start as usize),
            })?;
        let mut program = Self {
            source: source.into(),
            expression,
            patterns: patterns.into_iter().map(PatternVal).collect(),
            items,
            reads_arguments,
            reads_claims,
            unguarded: unguarded.into(),
            constant: None,
        };
        if !reads_anything {
            let result = program.run(None);
            program.constant = Some(result.map_err(|failure| ExpressionError {
                message: format!("without variables, and {failure}"),
                offset: None,
            })?);
        }
        Ok(program)
    }

    /// The expression as written.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The kinds of item it asks about, by reading `tool`, `prompt`, `resource` or else `arguments`.
    pub(crate) fn items(&self) -> ItemKinds {
        match self.items.is_empty() && self.reads_arguments {
            true => [ItemKind::Tool, ItemKind::Prompt].into_iter().collect(),
            false => self.items,
        }
    }

    /// Whether it reads the arguments of the call.
    pub(crate) fn reads_arguments(&self) -> bool {
        self.reads_arguments
    }

    /// Whether it reads the claims of the caller's token.
    pub(crate) fn reads_claims(&self) -> bool {
        self.reads_claims
    }

    /// Paths it reads that may be missing.
    pub(crate) fn unguarded(&self) -> &[String] {
        &self.unguarded
    }

    /// The result, if it is always the same.
    pub(crate) fn constant(&self) -> Option<bool> {
        self.constant
    }

    /// Evaluates it. Bounded in time and memory whatever the scope holds.
    pub(crate) fn evaluate(&self, scope: &Scope<'_>) -> Result<bool, ExpressionFailure> {
        if self.reads_arguments {
            scope.read_arguments()?;
        }
        if self.reads_claims {
            scope.read_claims()?;
        }
        self.run(Some(scope))
    }

    fn run(&self, scope: Option<&Scope<'_>>) -> Result<bool, ExpressionFailure> {
        let variables = Variables::new(scope, &self.patterns);
        let mut context = Context::with_env(meter::environment());
        context.set_variable_resolver(&variables);
        meter::refill();
        let result = Value::resolve_val(&self.expression, &context);
        // An error may have been absorbed on the way, as in `expensive || true`; running out never is.
        if meter::is_empty() {
            return Err(ExpressionFailure::OutOfFuel);
        }
        match result {
            Ok(value) => {
                value.downcast_ref::<CelBool>().map(|b| *b.inner()).ok_or(ExpressionFailure::NotBoolean)
            }
            Err(error) => Err(ExpressionFailure::Evaluation(kind_of(&error))),
        }
    }
}

impl From<ExpressionError> for Problem {
    fn from(error: ExpressionError) -> Self {
        Problem::Expression { message: error.message, offset: error.offset }
    }
}

/// What went wrong, without the values it went wrong with.
fn kind_of(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::NoSuchKey(_) => "a key is missing",
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds",
        ExecutionError::Overflow(..) => "a number is out of range",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "division by zero",
        ExecutionError::DuplicateKey(_) => "a map literal repeats a key",
        ExecutionError::FunctionError { .. } => "a function failed",
        ExecutionError::UndeclaredReference(_) => "something undeclared was used",
        _ => "a value has the wrong type",
    }
}

fn syntax_error(source: &str, errors: &ParseErrors) -> ExpressionError {
    let Some(first) = errors.errors.first() else {
        return ExpressionError { message: "syntax error".to_owned(), offset: None };
    };
    let (line, column) = first.pos;
    let offset = usize::try_from(line - 1).ok().and_then(|line| {
        let start: usize = source.split_inclusive('\n').take(line).map(str::len).sum();
        let rest = source.get(start..)?;
        let column = usize::try_from(column - 1).ok()?;
        Some(start + rest.chars().take(column).map(char::len_utf8).sum::<usize>())
    });
    // The parser's own recursion error dumps its state.
    let message = match first.msg.contains("Recursion limit") {
        true => format!("brackets nest deeper than {MAX_PARSE_DEPTH}"),
        false => first.msg.lines().next().unwrap_or("syntax error").to_owned(),
    };
    ExpressionError { message, offset }
}
