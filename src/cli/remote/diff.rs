//! `tollgate diff`.

use std::path::Path;
use std::process::ExitCode;

use reqwest::Method;

use super::args::ScopeArgs;
use super::client::{Call, Client, Failure};
use super::file::{Part, read, split};
use super::{Page, address, connect, no_revision, scope_of};

/// `from` is a revision or a file.
pub(super) async fn run(
    from: &str,
    to: Option<i64>,
    with: Option<i64>,
    args: &ScopeArgs,
) -> Result<ExitCode, Failure> {
    let client = connect(&args.api)?;
    let Ok(revision) = from.parse::<i64>() else {
        return file(&client, from, to, with, args).await;
    };
    if with.is_some() {
        return Err(Failure::Other("--with is for a file; two revisions are `diff FROM TO`".to_owned()));
    }
    let to = to.map(|to| format!("&to={to}")).unwrap_or_default();
    let path = address(scope_of(args), &format!("diff?from={revision}{to}"));
    let changes: Result<Page<String>, Failure> = client.json(Call::get(&path)).await;
    let none = no_revision(args, revision);
    let changes = changes.map_err(|failure| failure.missing(&none))?;
    changes.items.iter().for_each(|change| println!("{change}"));
    Ok(ExitCode::SUCCESS)
}

async fn file(
    client: &Client,
    file: &str,
    to: Option<i64>,
    with: Option<i64>,
    args: &ScopeArgs,
) -> Result<ExitCode, Failure> {
    if to.is_some() {
        return Err(Failure::Other("a file is compared with the head, or with --with N".to_owned()));
    }
    let file = Path::new(file);
    let bytes = read(file)?;
    let scope = scope_of(args);
    // A whole configuration has the document in it; a document of a scope is one by itself.
    let found = split(&bytes, file).ok().and_then(|parts| parts.into_iter().find(|part| part.scope == scope));
    let Part { bytes, verbatim, .. } =
        found.unwrap_or_else(|| Part { scope: scope.to_owned(), bytes, verbatim: true });
    let query = with.map(|n| format!("?with={n}")).unwrap_or_default();
    let path = address(scope, &format!("diff{query}"));
    let body = Some(("application/yaml", bytes));
    let call = Call { method: Method::POST, body, verbatim, ..Call::get(&path) };
    let changes: Page<String> = client.json(call).await?;
    changes.items.iter().for_each(|change| println!("{change}"));
    Ok(ExitCode::SUCCESS)
}
