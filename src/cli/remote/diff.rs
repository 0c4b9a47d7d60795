//! `tollgate diff`.

use std::path::Path;
use std::process::ExitCode;

use reqwest::Method;

use super::args::ScopeArgs;
use super::client::{Call, Client, Failure, Placing};
use super::file::{InFile, Part, read, split};
use super::{Page, address, connect, no_revision, scope_of};

/// `from` is a revision or a file. `exit_code`: it is a failure that something differs.
pub(super) async fn run(
    from: &str,
    to: Option<i64>,
    with: Option<i64>,
    exit_code: bool,
    args: &ScopeArgs,
) -> Result<ExitCode, Failure> {
    let client = connect(&args.api)?;
    let changes = match from.parse::<i64>() {
        Ok(revision) => revisions(&client, revision, to, with, args).await?,
        Err(_) => file(&client, from, to, with, args).await?,
    };
    changes.iter().for_each(|change| println!("{change}"));
    Ok(if exit_code && !changes.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn revisions(
    client: &Client,
    from: i64,
    to: Option<i64>,
    with: Option<i64>,
    args: &ScopeArgs,
) -> Result<Vec<String>, Failure> {
    if with.is_some() {
        return Err(Failure::Other("--with is for a file; two revisions are `diff FROM TO`".to_owned()));
    }
    let query = to.map(|to| format!("&to={to}")).unwrap_or_default();
    let path = address(scope_of(args), &format!("diff?from={from}{query}"));
    let changes: Result<Page<String>, Failure> = client.json(Call::get(&path)).await;
    // Of two, the gateway says which.
    let named = |failure: Failure| match to {
        None => failure.missing(&no_revision(args, from)),
        Some(_) => failure,
    };
    Ok(changes.map_err(named)?.items)
}

async fn file(
    client: &Client,
    file: &str,
    to: Option<i64>,
    with: Option<i64>,
    args: &ScopeArgs,
) -> Result<Vec<String>, Failure> {
    if to.is_some() {
        return Err(Failure::Other("a file is compared with the head, or with --with N".to_owned()));
    }
    let file = Path::new(file);
    let bytes = read(file)?;
    let (scope, places) = (scope_of(args), InFile::of(&bytes));
    // A whole configuration has the document in it; a document of a scope is one by itself.
    let found = split(&bytes, file).ok().and_then(|parts| parts.into_iter().find(|part| part.scope == scope));
    let Part { bytes, verbatim, base, .. } =
        found.unwrap_or_else(|| Part { scope: scope.to_owned(), bytes, verbatim: true, base: String::new() });
    let query = with.map(|n| format!("?with={n}")).unwrap_or_default();
    let path = address(scope, &format!("diff{query}"));
    let body = Some(("application/yaml", bytes));
    let placed = places.below(&base);
    let places = Some(&placed as &Placing<'_>);
    let call = Call { method: Method::POST, body, verbatim, places, ..Call::get(&path) };
    Ok(client.json::<Page<String>>(call).await?.items)
}
