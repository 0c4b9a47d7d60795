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
    let preview = app::preview(&options);
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
    let Some((name, url)) = process.routes().into_iter().next() else { return String::new() };
    let admin: SocketAddr = process.admin_address();
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
