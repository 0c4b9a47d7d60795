//! Collects findings while a document is read, and turns them into diagnostics with their source lines.

use std::sync::Arc;

use super::diagnostic::{At, Diagnostic, Diagnostics, MAX_DIAGNOSTICS, Severity};
use super::path::Path;

/// Most findings kept of each severity while a document is read; more than are shown, because they are sorted first.
const MAX_KEPT: usize = MAX_DIAGNOSTICS * 4;

/// A finding before it is given its source line.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) at: Option<At>,
    pub(crate) path: Path,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Finding {
    pub(crate) fn at(&mut self, at: At) -> &mut Self {
        self.at = Some(at);
        self
    }

    pub(crate) fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = Some(expected.into());
        self
    }

    pub(crate) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What has been found so far. Bounded, errors and warnings each: what is past the bound is counted, not kept.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    errors: usize,
    warnings: usize,
    /// Takes what is said about a finding past the bound.
    spare: Option<Box<Finding>>,
}

impl Findings {
    pub(crate) fn error(
        &mut self,
        code: &'static str,
        path: &Path,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(Severity::Error, code, path, message.into())
    }

    pub(crate) fn warning(
        &mut self,
        code: &'static str,
        path: &Path,
        message: impl Into<String>,
    ) -> &mut Finding {
        self.push(Severity::Warning, code, path, message.into())
    }

    fn push(&mut self, severity: Severity, code: &'static str, path: &Path, message: String) -> &mut Finding {
        let path = path.clone();
        self.add(Finding { severity, code, at: None, path, message, expected: None, hint: None })
    }

    /// Adds a finding that was made elsewhere.
    pub(crate) fn add(&mut self, finding: Finding) -> &mut Finding {
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count > MAX_KEPT {
            return self.spare.insert(Box::new(finding));
        }
        self.list.push(finding);
        self.list.last_mut().expect("a finding has just been pushed")
    }

    /// Whether there is room for another error: if not, nothing costly need be done for it.
    pub(crate) fn has_room(&self) -> bool {
        self.errors < MAX_KEPT
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.errors > 0
    }

    pub(crate) fn has_code(&self, code: &str) -> bool {
        self.list.iter().any(|finding| finding.code == code)
    }

    /// Drops the warnings of a code.
    pub(crate) fn drop_warnings(&mut self, code: &str) {
        self.list.retain(|finding| finding.severity == Severity::Error || finding.code != code);
    }

    pub(crate) fn into_list(self) -> Vec<Finding> {
        self.list
    }

    pub(crate) fn into_diagnostics(self, source: &Source<'_>) -> Diagnostics {
        let list = self.list.into_iter().map(|finding| source.diagnostic(finding)).collect();
        Diagnostics::new(list)
    }
}

/// The text a document was read from, and which parts of it must not be shown.
pub(crate) struct Source<'a> {
    file: Arc<str>,
    lines: Vec<&'a str>,
    secrets: Vec<At>,
}

impl<'a> Source<'a> {
    pub(crate) fn new(file: &str, text: &'a str) -> Self {
        Self { file: file.into(), lines: text.lines().collect(), secrets: Vec::new() }
    }

    /// Marks literal secrets: from their place to the end of the line, and the lines they go on over.
    pub(crate) fn hide(&mut self, secrets: Vec<At>) {
        self.secrets = secrets;
    }

    fn diagnostic(&self, finding: Finding) -> Diagnostic {
        let at = finding.at.unwrap_or(At::NOWHERE);
        Diagnostic {
            severity: finding.severity,
            code: finding.code,
            file: Arc::clone(&self.file),
            line: at.line,
            column: at.column,
            length: at.length,
            path: finding.path.to_string(),
            message: finding.message,
            expected: finding.expected,
            hint: finding.hint,
            source: self.line(at.line),
        }
    }

    fn line(&self, number: u32) -> Option<String> {
        let line = *self.lines.get((number as usize).checked_sub(1)?)?;
        for secret in &self.secrets {
            if secret.line == number {
                let kept: String = line.chars().take(secret.column as usize - 1).collect();
                return Some(kept + "[redacted]");
            }
            // A block scalar goes on over lines; its length tells how far.
            if secret.line < number && number < secret.line + self.lines_of(secret) {
                return Some("[redacted]".to_owned());
            }
        }
        Some(hide_by_name(line))
    }

    fn lines_of(&self, secret: &At) -> u32 {
        let mut left = secret.length as usize;
        let mut count = 0;
        for (i, line) in self.lines.iter().enumerate().skip(secret.line as usize - 1) {
            let first = i + 1 == secret.line as usize;
            let length = line.chars().count() + 1 - if first { secret.column as usize - 1 } else { 0 };
            count += 1;
            if length >= left {
                break;
            }
            left -= length;
        }
        count
    }
}

/// Blanks what follows a key that usually holds a secret, for text that could not be parsed.
fn hide_by_name(line: &str) -> String {
    for key in ["bearer:", "password:", "secret:", "token:", "value:"] {
        // Not the name of a secret, as in `${secret:name}`.
        let named = |at: &usize| !line[..*at].ends_with("${");
        let Some(start) = line.match_indices(key).map(|(at, _)| at).find(named) else { continue };
        let (kept, rest) = line.split_at(start + key.len());
        let value = rest.trim().trim_start_matches(['"', '\'']);
        if !value.is_empty() && !value.starts_with("${") && !value.starts_with('{') && !value.starts_with('#')
        {
            return format!("{kept} [redacted]");
        }
    }
    line.to_owned()
}

#[cfg(test)]
mod tests {
    use super::hide_by_name;

    #[test]
    fn a_value_is_hidden_and_a_name_is_not() {
        for kept in [
            "bearer: ${secret:weather-token}",
            "  credential: { bearer: \"${secret:t}\" }",
            "token: ${env:T}",
            "secret: # none",
        ] {
            assert_eq!(hide_by_name(kept), kept);
        }
        assert_eq!(hide_by_name("bearer: abc"), "bearer: [redacted]");
        assert_eq!(hide_by_name("x: ${secret:n}, secret: abc"), "x: ${secret:n}, secret: [redacted]");
    }
}
