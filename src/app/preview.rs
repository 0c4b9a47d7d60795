//! Looks at a configuration without running it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::app::certificates::Certificates;
use crate::app::internal::Internal;
use crate::app::options::{Document, Options};
use crate::app::reload::{Loader, Places};
use crate::base::Clock;
use crate::config::{Diagnostics, Validated, model};
use crate::snapshot::{CompileError, Snapshot};

/// What a check found.
pub struct Checked {
    /// Findings with their places in the text.
    pub diagnostics: Diagnostics,
    /// What is wrong with the files that the document names.
    pub errors: Vec<CompileError>,
    /// What the document is, in a line, if it can be used.
    pub summary: Option<String>,
}

fn loader(options: &Options) -> Loader {
    let document = match &options.document {
        Document::Embedded => Document::Embedded,
        Document::File(path) => Document::File(path.clone()),
        Document::Text(text) => Document::Text(text.clone()),
    };
    let places =
        Places { demo: None, mcp: options.listen, admin: options.admin, data_dir: options.data_dir.clone() };
    Loader::new(document, options.env.clone(), places)
}

/// The document that would be served.
///
/// # Errors
/// What is wrong with it, with the places.
pub fn preview(options: &Options) -> Result<model::Document, Diagnostics> {
    loader(options).load().into_result().map(|v| v.document().clone())
}

/// Everything that can be found out about a configuration without serving it.
pub fn check(options: &Options) -> Checked {
    let loader = loader(options).looking();
    let loaded = loader.load();
    let diagnostics = loaded.diagnostics;
    let Some(document) = loaded.validated else {
        return Checked { diagnostics, errors: Vec::new(), summary: None };
    };
    match compile(&loader, &document) {
        Ok(_) => {
            let all = || std::iter::once(&document).chain(document.tenants().iter().map(|tenant| &**tenant));
            let of = |count: fn(&model::Document) -> usize| all().map(|one| count(one.document())).sum();
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let summary = format!(
                "ok: {}, {}, {} (revision {})",
                count(of(|m| m.routes.len()), "route"),
                count(of(|m| m.servers.len()), "server"),
                count(of(|m| m.policies.len()), "polic")
                    .replace("polics", "policies")
                    .replace("1 polic", "1 policy"),
                document.revision()
            );
            Checked { diagnostics, errors: Vec::new(), summary: Some(summary) }
        }
        Err(errors) => Checked { diagnostics, errors, summary: None },
    }
}

/// Compiles without serving.
///
/// # Errors
/// What is wrong, ready to be printed.
pub fn compile_only(options: &Options) -> Result<Snapshot, String> {
    let loader = loader(options).looking();
    let document = loader.load().into_result().map_err(|d| d.to_string())?;
    compile(&loader, &document).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        lines.join("\nerror: ")
    })
}

/// Files that listeners name, and where.
fn certificates(listeners: &model::Listeners) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    for (name, tls) in [("mcp", &listeners.mcp.tls), ("admin", &listeners.admin.tls)] {
        let Some(tls) = tls else { continue };
        let all = [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()];
        files.extend(all.into_iter().flatten().map(|file| (format!("listeners.{name}.tls"), file.clone())));
    }
    if let Some(internal) = &listeners.internal {
        let all = [&internal.tls.cert, &internal.tls.key, &internal.tls.ca];
        files.extend(all.map(|file| ("listeners.internal.tls".to_owned(), file.clone())));
    }
    files
}

fn compile(loader: &Loader, document: &Validated) -> Result<Snapshot, Vec<CompileError>> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let state = crate::app::state::state(document.document(), &Clock::default());
    let listeners = &document.document().listeners;
    let address: SocketAddr = listeners.mcp.address.get();
    let origin = document.public_origin(address);
    let read = loader.files();
    let mut errors = Vec::new();
    for (path, file) in certificates(listeners) {
        if let Err(e) = read(&file) {
            errors.push(CompileError { path, message: format!("cannot read {}: {e}", file.display()) });
        }
    }
    if errors.is_empty() {
        // All of them can be read; now whether they are what they should be.
        let whole = Certificates::load(listeners, &*read).map(drop);
        let whole = whole.and_then(|()| Internal::check(listeners, &*read));
        if let Err(e) = whole {
            errors.push(CompileError { path: "listeners".to_owned(), message: e.to_string() });
        }
    }
    match crate::snapshot::compile(document, &origin, &state, &*read) {
        Ok(compiled) if errors.is_empty() => Ok(compiled.snapshot),
        Ok(_) => Err(errors),
        Err(found) => {
            errors.extend(found);
            Err(errors)
        }
    }
}
