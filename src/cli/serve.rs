//! `tollgate serve` and `tollgate upgrade`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::args::{Role, ServeArgs};
use super::env;
use crate::app::{self, Document, Options, Process};
use crate::base::Clock;
use crate::config::model::{Log, LogFormat};
use crate::telemetry::log::{Format, Log as LogSetup, LogConfig};
use crate::telemetry::{Counter, Output};

/// The route of the embedded default.
const DEMO: &str = "demo";
/// Addresses that are listed at most.
const LISTED: usize = 5;

pub(super) fn run(args: &ServeArgs, upgrade: bool) -> Result<bool, String> {
    let document = || match &args.config {
        Some(path) => Document::File(path.clone()),
        None => Document::Embedded,
    };
    let role = match args.role {
        Role::All => app::Role::All,
        Role::Data => app::Role::Data,
        Role::Control => app::Role::Control,
    };
    let mut options = Options {
        role,
        env: Arc::new(env),
        listen: args.listen,
        admin: args.admin,
        data_dir: args.data_dir.clone(),
        ..Options::new(document())
    };
    // The log is set up from the document, so it has to be read once before anything else.
    // If it has errors, starting reports them.
    let preview = app::preview(&options).ok();
    let log = preview.as_ref().map_or_else(Log::default, |p| p.telemetry.log.clone());
    let handle = start_log(&log)?;
    let successor = if upgrade {
        let folder = preview.map_or_else(|| PathBuf::from("./data"), |p| p.data_dir);
        let inherited = app::take_over(&folder).map_err(|e| e.to_string())?;
        let successor = inherited.successor().map_err(|e| e.to_string())?;
        options.inherited = Some(inherited);
        Some(successor)
    } else {
        None
    };
    let process = Process::start(options).map_err(|e| e.to_string())?;
    tracing::info!(
        event = "started",
        version = env!("CARGO_PKG_VERSION"),
        role = role.as_str(),
        mcp = process.mcp_address().map(tracing::field::display),
        admin = %process.admin_address(),
        pid = std::process::id(),
    );
    if let Some(successor) = successor {
        successor.serving().map_err(|e| format!("cannot tell the old process that we serve: {e}"))?;
    }
    if args.config.is_none() {
        eprint!("{}", welcome(&process));
    }
    let clean = app::run(process).map_err(|e| e.to_string())?;
    handle.flush(std::time::Duration::from_secs(1));
    Ok(clean)
}

fn start_log(log: &Log) -> Result<crate::telemetry::log::LogHandle, String> {
    let level = log.level.as_str();
    let filter = match (env("TOLLGATE_LOG"), &log.filter) {
        (Some(filter), _) => filter,
        (None, Some(filter)) => format!("{level},{filter}"),
        (None, None) => level.to_owned(),
    };
    let format = match log.format {
        LogFormat::Json => Format::Json,
        LogFormat::Text => Format::Text,
    };
    let config = LogConfig { format, filter, output: Output::Stderr };
    LogSetup::new(config, Counter::detached(), Clock::default())
        .and_then(LogSetup::install)
        .map_err(|e| e.to_string())
}

/// What a newcomer needs next.
fn welcome(process: &Process) -> String {
    let admin: SocketAddr = process.admin_address();
    let routes = process.routes();
    let [(name, url)] = &routes[..] else { return of_documents(&routes, admin) };
    if name != DEMO {
        return of_documents(&routes, admin);
    }
    format!(
        r#"
Tollgate is running with its embedded default: a demo MCP server behind one route, for this machine only.

  MCP endpoint   {url}
  metrics        http://{admin}/metrics
  readiness      http://{admin}/readyz

Try it:
  npx @modelcontextprotocol/inspector --cli {url} --transport http --method tools/list
  npx @modelcontextprotocol/inspector --cli {url} --transport http --method tools/call --tool-name echo --tool-arg text=hello

Claude Code:      claude mcp add --transport http tollgate-{name} {url}
VS Code:          {{"servers": {{"tollgate-{name}": {{"type": "http", "url": "{url}"}}}}}}     (.vscode/mcp.json)
Cursor:           {{"mcpServers": {{"tollgate-{name}": {{"url": "{url}"}}}}}}     (~/.cursor/mcp.json)
Claude Desktop:   {{"mcpServers": {{"tollgate-{name}": {{"command": "npx", "args": ["-y", "mcp-remote", "{url}"]}}}}}}

Your own servers: write a configuration (conf/minimal.yaml is one), then `tollgate serve --config FILE`. Ctrl-C ends this.

"#
    )
}

/// The same once the documents in the store are somebody's own.
fn of_documents(routes: &[(String, String)], admin: SocketAddr) -> String {
    let mut text = match routes.len() {
        0 => "\nTollgate is running on its embedded store, whose documents have no route.\n\n".to_owned(),
        1 => "\nTollgate is running on its embedded store, with one route.\n\n".to_owned(),
        n => format!("\nTollgate is running on its embedded store, with {n} routes.\n\n"),
    };
    for (_, url) in routes.iter().take(LISTED) {
        text += &format!("  MCP endpoint   {url}\n");
    }
    if routes.len() > LISTED {
        text += &format!("                 and {} more\n", routes.len() - LISTED);
    }
    text + &format!(
        "  metrics        http://{admin}/metrics\n  readiness      http://{admin}/readyz\n\n`tollgate status` says which \
         revisions are served. Ctrl-C ends this.\n\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_documents_are_not_called_a_demo() {
        let route = |n: usize| (format!("r{n}"), format!("http://127.0.0.1:8080/r{n}"));
        let admin = SocketAddr::from(([127, 0, 0, 1], 9090));
        let routes: Vec<_> = (0..7).map(route).collect();
        let text = of_documents(&routes, admin);
        assert!(
            text.contains("7 routes") && text.contains("8080/r4\n") && text.contains("and 2 more"),
            "{text}"
        );
        assert!(!text.contains("demo") && !text.contains("r5"), "{text}");
        assert!(of_documents(&routes[..1], admin).contains("one route"));
        assert!(of_documents(&[], admin).contains("no route"));
    }
}
