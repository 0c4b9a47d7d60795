//! Arithmetic for the `calculator` tool: a recursive-descent parser that evaluates as it goes.
//!
//! ```text
//! sum     = product { ("+" | "-") product }
//! product = unary   { ("*" | "/" | "%") unary }
//! unary   = { "-" | "+" } power
//! power   = atom [ "^" unary ]                      right to left: 2^3^2 = 2^9, -2^2 = -4
//! atom    = number | name | name "(" sum { "," sum } ")" | "(" sum ")"
//! ```
//!
//! Work is linear in the length of the text, which is bounded, and so is the depth of the recursion.

use std::fmt;

/// Longest expression, in bytes.
pub(super) const MAX_LENGTH: usize = 1024;
/// Deepest nesting of parentheses, signs and powers.
const MAX_DEPTH: usize = 64;

/// Why there is no result. Positions count bytes from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(super) enum CalcError {
    #[error("`{name}` takes {expected}, not {given} arguments")]
    Arguments { name: &'static str, expected: &'static str, given: usize },
    #[error("expected {expected} at position {at}")]
    Expected { expected: &'static str, at: usize },
    #[error("the expression is longer than {MAX_LENGTH} bytes")]
    TooLong,
    #[error("the expression is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the result is not a number that can be written: {0}")]
    Undefined(NotFinite),
    #[error("there is no `{name}`; known are {KNOWN}")]
    UnknownName { name: String },
}

const KNOWN: &str = "pi, e, abs, ceil, cos, exp, floor, ln, log10, max, min, round, sin, sqrt, tan";

/// A result that is infinite or undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotFinite {
    Infinite,
    Undefined,
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotFinite::Infinite => "too large, or a division by zero",
            NotFinite::Undefined => "undefined",
        })
    }
}

/// The value of an expression; always finite.
///
/// # Errors
///
/// See [`CalcError`].
pub(super) fn evaluate(expression: &str) -> Result<f64, CalcError> {
    if expression.len() > MAX_LENGTH {
        return Err(CalcError::TooLong);
    }
    let mut parser = Parser { text: expression.as_bytes(), at: 0, depth: 0 };
    let value = parser.sum()?;
    parser.skip_spaces();
    if parser.at < parser.text.len() {
        return Err(parser.expected("an operator or the end"));
    }
    Ok(value)
}

/// Checked after every step: an infinity or NaN on the way could end in a number that looks fine, as in `1 / (1 / 0)`.
fn finite(value: f64) -> Result<f64, CalcError> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(CalcError::Undefined(if value.is_nan() { NotFinite::Undefined } else { NotFinite::Infinite }))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<f64, CalcError> {
        let mut value = self.product()?;
        loop {
            match self.take(b"+-") {
                Some(b'+') => value = finite(value + self.product()?)?,
                Some(_) => value = finite(value - self.product()?)?,
                None => return Ok(value),
            }
        }
    }

    fn product(&mut self) -> Result<f64, CalcError> {
        let mut value = self.unary()?;
        loop {
            match self.take(b"*/%") {
                Some(b'*') => value = finite(value * self.unary()?)?,
                Some(b'/') => value = finite(value / self.unary()?)?,
                Some(_) => value = finite(value % self.unary()?)?,
                None => return Ok(value),
            }
        }
    }

    fn unary(&mut self) -> Result<f64, CalcError> {
        self.nested(|parser| match parser.take(b"+-") {
            Some(b'-') => Ok(-parser.unary()?),
            Some(_) => parser.unary(),
            None => parser.power(),
        })
    }

    fn power(&mut self) -> Result<f64, CalcError> {
        let base = self.atom()?;
        match self.take(b"^") {
            Some(_) => finite(base.powf(self.unary()?)),
            None => Ok(base),
        }
    }

    fn atom(&mut self) -> Result<f64, CalcError> {
        self.skip_spaces();
        match self.text.get(self.at) {
            Some(b'(') => {
                self.at += 1;
                let value = self.sum()?;
                self.close()?;
                Ok(value)
            }
            Some(b'0'..=b'9' | b'.') => self.number(),
            Some(b'a'..=b'z' | b'A'..=b'Z') => self.name(),
            _ => Err(self.expected("a number, a name or `(`")),
        }
    }

    fn number(&mut self) -> Result<f64, CalcError> {
        let start = self.at;
        self.skip_while(|b| b.is_ascii_digit() || b == b'.');
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            // `2e3` is a number; `2e` is followed by nothing a number could end with.
            let exponent = self.at;
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
                self.at = exponent;
            }
            self.skip_while(|b| b.is_ascii_digit());
        }
        let digits = std::str::from_utf8(&self.text[start..self.at]).unwrap_or_default();
        finite(digits.parse().map_err(|_| CalcError::Expected { expected: "a number", at: start + 1 })?)
    }

    fn name(&mut self) -> Result<f64, CalcError> {
        let start = self.at;
        self.skip_while(|b| b.is_ascii_alphanumeric());
        let name = String::from_utf8_lossy(&self.text[start..self.at]).to_ascii_lowercase();
        match name.as_str() {
            "pi" => return Ok(std::f64::consts::PI),
            "e" => return Ok(std::f64::consts::E),
            _ => {}
        }
        let function = Function::named(&name).ok_or(CalcError::UnknownName { name })?;
        if self.take(b"(").is_none() {
            return Err(self.expected("`(`"));
        }
        let mut arguments = vec![self.sum()?];
        while self.take(b",").is_some() {
            arguments.push(self.sum()?);
        }
        self.close()?;
        function.apply(&arguments)
    }

    fn nested(&mut self, parse: impl FnOnce(&mut Self) -> Result<f64, CalcError>) -> Result<f64, CalcError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(CalcError::TooDeep);
        }
        let value = parse(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn close(&mut self) -> Result<(), CalcError> {
        self.take(b")").map(drop).ok_or_else(|| self.expected("`)`"))
    }

    /// Takes the next byte that is no space, if it is one of these.
    fn take(&mut self, any_of: &[u8]) -> Option<u8> {
        self.skip_spaces();
        let next = *self.text.get(self.at)?;
        any_of.contains(&next).then(|| {
            self.at += 1;
            next
        })
    }

    fn skip_spaces(&mut self) {
        self.skip_while(|b| b.is_ascii_whitespace());
    }

    fn skip_while(&mut self, skip: impl Fn(u8) -> bool) {
        while self.text.get(self.at).is_some_and(|b| skip(*b)) {
            self.at += 1;
        }
    }

    fn expected(&self, expected: &'static str) -> CalcError {
        CalcError::Expected { expected, at: self.at + 1 }
    }
}

#[derive(Clone, Copy)]
enum Function {
    Many(&'static str, fn(f64, f64) -> f64),
    One(&'static str, fn(f64) -> f64),
}

impl Function {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "abs" => Function::One("abs", f64::abs),
            "ceil" => Function::One("ceil", f64::ceil),
            "cos" => Function::One("cos", f64::cos),
            "exp" => Function::One("exp", f64::exp),
            "floor" => Function::One("floor", f64::floor),
            "ln" => Function::One("ln", f64::ln),
            "log10" => Function::One("log10", f64::log10),
            "max" => Function::Many("max", f64::max),
            "min" => Function::Many("min", f64::min),
            "round" => Function::One("round", f64::round),
            "sin" => Function::One("sin", f64::sin),
            "sqrt" => Function::One("sqrt", f64::sqrt),
            "tan" => Function::One("tan", f64::tan),
            _ => return None,
        })
    }

    fn apply(self, arguments: &[f64]) -> Result<f64, CalcError> {
        let wrong = |name, expected| CalcError::Arguments { name, expected, given: arguments.len() };
        match (self, arguments) {
            (Function::One(_, apply), [only]) => finite(apply(*only)),
            (Function::One(name, _), _) => Err(wrong(name, "one")),
            (Function::Many(_, apply), [first, second, rest @ ..]) => {
                Ok(rest.iter().fold(apply(*first, *second), |value, next| apply(value, *next)))
            }
            (Function::Many(name, _), _) => Err(wrong(name, "two or more")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn precedence_and_associativity_are_those_of_mathematics() {
        for (expression, value) in [
            ("1 + 2 * 3", 7.0),
            ("(1 + 2) * 3", 9.0),
            ("10 - 4 - 3", 3.0),
            ("100 / 10 / 5", 2.0),
            ("2 ^ 3 ^ 2", 512.0),
            ("-2 ^ 2", -4.0),
            ("2 ^ -1", 0.5),
            ("--3", 3.0),
            ("7 % 4", 3.0),
            (".5 + 1.5e1", 15.5),
            ("2e3", 2000.0),
            ("sqrt(16) + max(1, 7, 3)", 11.0),
            ("PI - pi", 0.0),
            ("floor(e)", 2.0),
        ] {
            assert_eq!(evaluate(expression), Ok(value), "{expression}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        let at = |at| CalcError::Expected { expected: "a number, a name or `(`", at };
        assert_eq!(evaluate(""), Err(at(1)));
        assert_eq!(evaluate("1 +"), Err(at(4)));
        assert_eq!(evaluate("(1"), Err(CalcError::Expected { expected: "`)`", at: 3 }));
        assert_eq!(evaluate("1 2"), Err(CalcError::Expected { expected: "an operator or the end", at: 3 }));
        assert_eq!(evaluate("1.2.3"), Err(CalcError::Expected { expected: "a number", at: 1 }));
        assert_eq!(evaluate("2e"), Err(CalcError::Expected { expected: "an operator or the end", at: 2 }));
        assert_eq!(evaluate("rm(1)"), Err(CalcError::UnknownName { name: "rm".into() }));
        assert_eq!(
            evaluate("sqrt(1, 2)"),
            Err(CalcError::Arguments { name: "sqrt", expected: "one", given: 2 })
        );
        assert_eq!(
            evaluate("min(1)"),
            Err(CalcError::Arguments { name: "min", expected: "two or more", given: 1 })
        );
    }

    #[test]
    fn what_is_no_finite_number_is_an_error() {
        assert_eq!(evaluate("1 / 0"), Err(CalcError::Undefined(NotFinite::Infinite)));
        assert_eq!(evaluate("10 ^ 999"), Err(CalcError::Undefined(NotFinite::Infinite)));
        assert_eq!(evaluate("0 / 0"), Err(CalcError::Undefined(NotFinite::Undefined)));
        assert_eq!(evaluate("1 / (1 / 0)"), Err(CalcError::Undefined(NotFinite::Infinite)));
        assert_eq!(evaluate("1e999"), Err(CalcError::Undefined(NotFinite::Infinite)));
        assert_eq!(evaluate("sqrt(-1)"), Err(CalcError::Undefined(NotFinite::Undefined)));
    }

    #[test]
    fn length_and_depth_are_bounded() {
        assert_eq!(evaluate(&"1".repeat(MAX_LENGTH + 1)), Err(CalcError::TooLong));
        assert_eq!(evaluate(&"(".repeat(MAX_LENGTH)), Err(CalcError::TooDeep));
        assert_eq!(evaluate(&"-".repeat(MAX_LENGTH)), Err(CalcError::TooDeep));
        assert_eq!(evaluate(&"2^".repeat(MAX_LENGTH / 2)), Err(CalcError::TooDeep));
        let deep = format!("{}1{}", "(".repeat(MAX_DEPTH - 1), ")".repeat(MAX_DEPTH - 1));
        assert_eq!(evaluate(&deep), Ok(1.0));
        let wide = vec!["(1)"; 200].join("+");
        assert_eq!(evaluate(&wide), Ok(200.0), "breadth is not depth");
    }

    /// A tree beside its own value, to compare with.
    fn tree() -> impl Strategy<Value = (String, f64)> {
        let leaf = (0..1000_u32).prop_map(|n| (n.to_string(), f64::from(n)));
        leaf.prop_recursive(5, 32, 2, |inner| {
            (inner.clone(), inner, 0..4_u8).prop_map(|((left, a), (right, b), operator)| match operator {
                0 => (format!("({left} + {right})"), a + b),
                1 => (format!("({left}-{right})"), a - b),
                2 => (format!("({left} *{right})"), a * b),
                _ => (format!("-({left})"), -a),
            })
        })
    }

    proptest! {
        #[test]
        fn agrees_with_the_tree_it_was_written_from((expression, value) in tree()) {
            prop_assert_eq!(evaluate(&expression), Ok(value));
        }

        #[test]
        fn never_panics(expression in "[-+*/%^()., a-z0-9é]{0,80}") {
            let _ = evaluate(&expression);
        }
    }
}
