//! `tollgate check`.

use std::sync::Arc;

use super::args::{CheckArgs, Output};
use super::env;
use crate::app::{self, Document, Options};
use crate::config::{Diagnostic, Severity};

/// `true`: the configuration can be used.
pub(super) fn run(args: &CheckArgs) -> Result<bool, String> {
    let document = match &args.config {
        Some(path) => Document::File(path.clone()),
        None => Document::Embedded,
    };
    let outcome = app::check(&Options { env: Arc::new(env), ..Options::new(document) });
    let good = outcome.errors.is_empty()
        && !outcome.diagnostics.has_errors()
        && !(args.strict && outcome.diagnostics.warnings() > 0);
    match args.format {
        Output::Json => {
            let findings = outcome.diagnostics.to_json();
            let said = |path: &str, message: &str| serde_json::json!({ "path": path, "message": message });
            // Whatever makes it unusable, wherever that was noticed: empty if and only if it is `ok`.
            let counts = |found: &&Diagnostic| args.strict || found.severity == Severity::Error;
            let found = outcome.diagnostics.iter().filter(counts).map(|f| said(&f.path, &f.message));
            let errors: Vec<_> =
                found.chain(outcome.errors.iter().map(|e| said(&e.path, &e.message))).collect();
            println!("{}", serde_json::json!({ "ok": good, "findings": findings, "errors": errors }));
        }
        Output::Text => {
            if !outcome.diagnostics.is_empty() {
                eprintln!("{}", outcome.diagnostics);
            }
            for error in &outcome.errors {
                eprintln!("error: {error}");
            }
            if let Some(summary) = outcome.summary.filter(|_| good) {
                println!("{summary}");
            }
        }
    }
    Ok(good)
}
