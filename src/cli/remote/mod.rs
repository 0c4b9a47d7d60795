//! Commands that speak to a running gateway: `apply`, `canary`, `diff`, `drift`, `export`, `history`, `rollback`, `show`, `status`.

mod args;
mod canary;
mod client;
mod database;
mod diff;
mod file;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

pub(super) use args::{ApiArgs, Remote};
use args::{ApplyArgs, PublishArgs, ScopeArgs};
pub(super) use client::authorities;
use client::{Call, Client, Failure, Placing};
use file::{InFile, Part};

use crate::base::PLATFORM_SCOPE;

/// The head was not at the expected revision.
const CONFLICT: u8 = 3;
/// Not every replica serves what it should.
const NOT_CONVERGED: u8 = 4;
/// The longest that one call waits for replicas, in seconds.
const LONGEST_WAIT: u64 = 25;

/// What a publication did, as the API tells it.
#[derive(Debug, Deserialize)]
struct Published {
    revision: i64,
    parent: i64,
    changed: bool,
    changes: Vec<String>,
    warnings: Vec<String>,
    hash: String,
}

#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Summary {
    revision: i64,
    parent: i64,
    author: String,
    reason: String,
    created_at: String,
    hash: String,
}

#[derive(Debug, Deserialize)]
struct Convergence {
    scope: String,
    revision: i64,
    replicas: Vec<Position>,
}

#[derive(Debug, Deserialize)]
struct Position {
    replica: String,
    role: String,
    version: String,
    served: i64,
    refused: Option<i64>,
    reason: Option<String>,
}

/// Runs one of the commands.
pub(super) fn run(command: &Remote) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    match runtime.block_on(dispatch(command)) {
        Ok(code) => code,
        Err(Failure::Conflict(text)) => {
            eprintln!("error: {text}");
            ExitCode::from(CONFLICT)
        }
        // As the compiler of configurations says it.
        Err(Failure::Findings(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
        Err(failure) => fail(&failure.into_text()),
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::FAILURE
}

/// Has the gateway make another admin token, and keeps it where the old one was.
pub(super) fn rotate_admin_token(api: &ApiArgs) -> Result<bool, String> {
    #[derive(Deserialize)]
    struct Answer {
        token: String,
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| format!("cannot start: {e}"))?;
    let answer: Result<Answer, Failure> = runtime.block_on(async {
        let path = "/api/v1/platform/admin-token/rotate";
        connect(api)?.json(Call { method: Method::POST, ..Call::get(path) }).await
    });
    let token = match answer {
        Ok(answer) => answer.token,
        Err(failure) => return Err(failure.into_text()),
    };
    let Some(path) = client::token_path(api, super::env("TOLLGATE_TOKEN").is_some()) else {
        println!("{token}");
        return Ok(true);
    };
    match crate::control::bootstrap::keep_in(&path, crate::base::Secret::new(token.clone())) {
        Ok(made) => println!("the new admin token is in {}", made.path.display()),
        // It is in force: whoever asked must have it.
        Err(error) => println!("{token}\nwarning: {error}: {}", path.display()),
    }
    Ok(true)
}

async fn dispatch(command: &Remote) -> Result<ExitCode, Failure> {
    match command {
        Remote::Apply(args) => apply(args).await,
        Remote::Canary(args) => canary::run(args).await,
        Remote::Diff { from, to, with, exit_code, scope } => {
            diff::run(from, *to, *with, *exit_code, scope).await
        }
        Remote::Drift { file, api } => drift(file, api).await,
        Remote::Export { scope } => print(scope, "document")
            .await
            .map_err(|e| e.missing(&format!("{} has no document", scope_of(scope)))),
        Remote::History { limit, scope } => history(*limit, scope).await,
        Remote::Rollback { revision, how, scope } => {
            rollback(*revision, how, scope).await.map_err(|e| e.missing(&no_revision(scope, *revision)))
        }
        Remote::Show { revision, scope } => {
            let shown = print(scope, &format!("revisions/{revision}")).await;
            shown.map_err(|e| e.missing(&no_revision(scope, *revision)))
        }
        Remote::Status { database: true, api } => database::run(api).await,
        Remote::Status { database: false, api } => status(api).await,
    }
}

fn connect(api: &ApiArgs) -> Result<Client, Failure> {
    Ok(Client::new(api, super::env("TOLLGATE_TOKEN"))?)
}

/// The address of what belongs to a scope.
fn address(scope: &str, rest: &str) -> String {
    match scope {
        PLATFORM_SCOPE => format!("/api/v1/platform/{rest}"),
        tenant => format!("/api/v1/tenants/{tenant}/{rest}"),
    }
}

fn no_revision(scope: &ScopeArgs, revision: i64) -> String {
    format!("{} has no revision {revision}; `tollgate history` lists what there is", scope_of(scope))
}

fn scope_of(args: &ScopeArgs) -> &str {
    if args.platform { PLATFORM_SCOPE } else { &args.tenant }
}

async fn apply(args: &ApplyArgs) -> Result<ExitCode, Failure> {
    let bytes = file::read(&args.file)?;
    let places = InFile::of(&bytes);
    let one = |scope: &str, bytes| {
        vec![Part { scope: scope.to_owned(), bytes, verbatim: true, base: String::new() }]
    };
    let mut parts = match (&args.tenant, args.platform) {
        (Some(tenant), _) => one(tenant, bytes),
        (None, true) => one(PLATFORM_SCOPE, bytes),
        (None, false) => file::split(&bytes, &args.file)?,
    };
    if parts.len() != 1 && args.how.if_revision.is_some() {
        let names: Vec<&str> = parts.iter().map(|part| part.scope.as_str()).collect();
        return Err(Failure::Other(format!(
            "--if-revision is about one document, and the file has several ({}); use --tenant or --platform",
            names.join(", ")
        )));
    }
    let client = connect(&args.api)?;
    let scopes: Vec<String> = parts.iter().map(|part| part.scope.clone()).collect();
    let published = match parts.len() {
        1 => {
            let (part, scope) = (parts.remove(0), &scopes[0]);
            let done = publish(&client, part, &places, args).await;
            vec![done.map_err(|failure| failure.about(scope))?]
        }
        _ => publish_all(&client, parts, &places, args).await?,
    };
    for (scope, published) in scopes.iter().zip(&published) {
        tell(scope, published, args.dry_run);
    }
    let mut code = ExitCode::SUCCESS;
    if let Some(seconds) = args.how.wait.filter(|_| !args.dry_run) {
        let until = Instant::now() + Duration::from_secs(seconds);
        for (scope, published) in scopes.iter().zip(&published) {
            if !wait(&client, scope, published.revision, until).await? {
                code = ExitCode::from(NOT_CONVERGED);
            }
        }
    }
    Ok(code)
}

async fn publish(
    client: &Client,
    part: Part,
    places: &InFile,
    args: &ApplyArgs,
) -> Result<Published, Failure> {
    let Part { scope, bytes, verbatim, base } = part;
    let placed = places.below(&base);
    let query = if args.dry_run { "?dry_run=true" } else { "" };
    let path = address(&scope, &format!("document{query}"));
    let mut headers = conditions(&args.how);
    if args.how.if_revision.is_none() && !args.dry_run {
        // Whatever there is, but it has to be said.
        let there = client.exists(&address(&scope, "document")).await?;
        headers.push((if there { "if-match" } else { "if-none-match" }, "*".to_owned()));
    }
    let body = Some(("application/yaml", bytes));
    let places = Some(&placed as &Placing<'_>);
    client.json(Call { method: Method::PUT, headers, body, verbatim, places, ..Call::get(&path) }).await
}

/// Several documents at once: all or none.
async fn publish_all(
    client: &Client,
    parts: Vec<Part>,
    places: &InFile,
    args: &ApplyArgs,
) -> Result<Vec<Published>, Failure> {
    let bases: Vec<String> = parts.iter().map(|part| part.base.clone()).collect();
    let placed = places.among(&bases);
    let document = |part: Part| serde_json::json!({ "scope": part.scope, "document": String::from_utf8_lossy(&part.bytes) });
    let documents: Vec<serde_json::Value> = parts.into_iter().map(document).collect();
    let body = serde_json::json!({ "documents": documents }).to_string().into_bytes();
    let query = if args.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/api/v1/platform/apply{query}");
    let call = Call {
        method: Method::POST,
        headers: conditions(&args.how),
        body: Some(("application/json", body)),
        verbatim: false,
        places: Some(&placed as &Placing<'_>),
        ..Call::get(&path)
    };
    let done: Page<Published> = client.json(call).await?;
    Ok(done.items)
}

fn conditions(how: &PublishArgs) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    match how.if_revision {
        Some(0) => headers.push(("if-none-match", "*".to_owned())),
        Some(revision) => headers.push(("if-match", format!("\"r{revision}\""))),
        None => {}
    }
    if !how.reason.is_empty() {
        headers.push(("x-tollgate-reason", how.reason.clone()));
    }
    headers
}

fn tell(scope: &str, published: &Published, dry_run: bool) {
    for warning in &published.warnings {
        eprintln!("warning: {scope}: {warning}");
    }
    if !published.changed {
        println!("{scope}: no change, revision {} stands", published.revision);
        return;
    }
    match (dry_run, published.parent) {
        (true, parent) => println!("{scope}: would replace revision {parent}"),
        (false, 0) => println!("{scope}: revision {} ({})", published.revision, &short(&published.hash)),
        (false, parent) => {
            println!("{scope}: revision {parent} → {} ({})", published.revision, short(&published.hash));
        }
    }
    for change in &published.changes {
        println!("  {change}");
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// Waits for the replicas. `true`: all of them serve it.
async fn wait(client: &Client, scope: &str, revision: i64, until: Instant) -> Result<bool, Failure> {
    loop {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let some = left.min(LONGEST_WAIT);
        let path = address(scope, &format!("convergence?revision={revision}&wait={some}"));
        let call = Call { patience: Duration::from_secs(some), ..Call::get(&path) };
        let state: Convergence = client.json(call).await?;
        let settled =
            state.replicas.iter().all(|r| r.served >= revision || r.refused.is_some_and(|n| n >= revision));
        if (settled && !state.replicas.is_empty()) || left <= LONGEST_WAIT {
            return Ok(show(&state));
        }
    }
}

/// Prints who serves what. `true`: all serve it, and it would compile again at each of them.
fn show(state: &Convergence) -> bool {
    let serving = state.replicas.iter().filter(|r| r.served >= state.revision).count();
    let mut all = serving == state.replicas.len();
    println!(
        "{}: revision {} is served by {serving} of {} replicas",
        state.scope,
        state.revision,
        state.replicas.len()
    );
    for position in state.replicas.iter().filter(|r| r.served < state.revision) {
        let why = match (position.refused, &position.reason) {
            (Some(refused), Some(reason)) => format!("refused {refused}: {reason}"),
            _ => "not yet".to_owned(),
        };
        println!("  {} serves {} ({why})", position.replica, position.served);
    }
    // From before: what it names has changed.
    let again = |r: &&Position| r.served >= state.revision && r.refused.is_some_and(|n| n >= state.revision);
    for position in state.replicas.iter().filter(again) {
        all = false;
        println!(
            "  {} serves {}, which would not compile now: {}",
            position.replica,
            position.served,
            position.reason.as_deref().unwrap_or("no reason was given")
        );
    }
    all
}

async fn rollback(revision: i64, how: &PublishArgs, args: &ScopeArgs) -> Result<ExitCode, Failure> {
    let client = connect(&args.api)?;
    let scope = scope_of(args);
    let path = address(scope, "rollback");
    let body = serde_json::json!({ "revision": revision }).to_string().into_bytes();
    let mut headers = conditions(how);
    if how.if_revision.is_none() {
        // Whatever there is, but it has to be said.
        headers.push(("if-match", "*".to_owned()));
    }
    let call =
        Call { method: Method::POST, headers, body: Some(("application/json", body)), ..Call::get(&path) };
    let published: Published = client.json(call).await?;
    tell(scope, &published, false);
    match how.wait {
        Some(seconds) => {
            let until = Instant::now() + Duration::from_secs(seconds);
            let all = wait(&client, scope, published.revision, until).await?;
            Ok(if all { ExitCode::SUCCESS } else { ExitCode::from(NOT_CONVERGED) })
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn drift(file: &Path, api: &ApiArgs) -> Result<ExitCode, Failure> {
    let client = connect(api)?;
    let mut differs = false;
    let whole = file::read(file)?;
    let places = InFile::of(&whole);
    for Part { scope, bytes, verbatim, base } in file::split(&whole, file)? {
        let path = address(&scope, "document?dry_run=true");
        let body = Some(("application/yaml", bytes));
        let placed = places.below(&base);
        let places = Some(&placed as &Placing<'_>);
        let call = Call { method: Method::PUT, body, verbatim, places, ..Call::get(&path) };
        let would: Published = client.json(call).await.map_err(|failure| failure.about(&scope))?;
        if would.changed {
            differs = true;
            println!("{scope}: the file differs from revision {}", would.parent);
            would.changes.iter().for_each(|change| println!("  {change}"));
        } else {
            println!("{scope}: as revision {}", would.revision);
        }
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn print(args: &ScopeArgs, what: &str) -> Result<ExitCode, Failure> {
    let client = connect(&args.api)?;
    let (_, bytes) = client.document(&address(scope_of(args), what)).await?;
    // Exactly the bytes: `println!` would add one.
    std::io::stdout().write_all(&bytes).map_err(|e| Failure::Other(e.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

async fn history(limit: u32, args: &ScopeArgs) -> Result<ExitCode, Failure> {
    let client = connect(&args.api)?;
    let path = address(scope_of(args), &format!("revisions?limit={limit}"));
    let page: Page<Summary> = client.json(Call::get(&path)).await?;
    if page.items.is_empty() {
        return Err(Failure::Missing(format!("{} has no document, and never had one", scope_of(args))));
    }
    print!("{}", table(&page.items));
    Ok(ExitCode::SUCCESS)
}

/// Columns as wide as the widest of what is in them; numbers to the right.
fn table(revisions: &[Summary]) -> String {
    let head = ["REVISION", "PARENT", "SHA-256", "TIME", "AUTHOR", "REASON"].map(ToOwned::to_owned);
    let rows = revisions.iter().map(|r| {
        let hash = short(&r.hash).to_owned();
        let [number, parent] = [r.revision, r.parent].map(|n| n.to_string());
        [number, parent, hash, r.created_at.clone(), r.author.clone(), r.reason.clone()]
    });
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let [number, parent, hash, time, author] = [0, 1, 2, 3, 4].map(width);
    let mut out = String::new();
    for [n, p, h, t, a, reason] in &rows {
        let line = format!("{n:>number$}  {p:>parent$}  {h:hash$}  {t:time$}  {a:author$}  {reason}");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

async fn status(api: &ApiArgs) -> Result<ExitCode, Failure> {
    let client = connect(api)?;
    let mut scopes: Vec<Convergence> = Vec::new();
    let mut path = "/api/v1/convergence?limit=500".to_owned();
    loop {
        let page: Page<Convergence> = client.json(Call::get(&path)).await?;
        scopes.extend(page.items);
        match page.next_cursor {
            Some(cursor) => path = format!("/api/v1/convergence?limit=500&cursor={cursor}"),
            None => break,
        }
    }
    if scopes.is_empty() {
        println!("there are no documents yet: `tollgate apply FILE` publishes some");
    }
    if let Some(first) = scopes.first() {
        println!(
            "{} live {}",
            first.replicas.len(),
            if first.replicas.len() == 1 { "replica" } else { "replicas" }
        );
        for replica in &first.replicas {
            println!("  {}  role {}  version {}", replica.replica, replica.role, replica.version);
        }
    }
    // Each is shown, also after one that has not converged.
    let behind = scopes.iter().filter(|scope| !show(scope)).count();
    Ok(if behind == 0 { ExitCode::SUCCESS } else { ExitCode::from(NOT_CONVERGED) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_history_stand_below_each_other_however_long_they_are() {
        let one = |revision: i64, author: &str, reason: &str| Summary {
            revision,
            parent: revision - 1,
            author: author.to_owned(),
            reason: reason.to_owned(),
            created_at: "2026-11-29T15:55:21.209Z".to_owned(),
            hash: "ed1a679a73ec0123".to_owned(),
        };
        let text = table(&[
            one(1_234_567_890, "a", "x"),
            one(2, "corp|ünïcödé-and-quite-long", "y"),
            one(3, "b", ""),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        let at = |line: &str, what: &str| line[..line.find(what).unwrap()].chars().count();
        assert_eq!(at(lines[0], "REASON"), at(lines[1], "x"));
        assert_eq!(at(lines[0], "REASON"), at(lines[2], "y"));
        assert_eq!(at(lines[0], "AUTHOR"), at(lines[2], "corp|"));
        assert_eq!(at(lines[1], "1234567890"), 0, "numbers end below each other: {text}");
        assert!(lines.iter().all(|line| !line.ends_with(' ')), "{text}");
    }
}
