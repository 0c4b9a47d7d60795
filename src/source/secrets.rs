//! The secrets that documents name: from the store or, while it is away, as they were, from disk.

use crate::base::{Scope, Secret, TenantId};
use crate::source::cache::Cache;
use crate::source::stored::{SecretValues, Stored};
use crate::store::{Store, StoreError};

/// A tenant's secrets, as texts.
pub(super) async fn of_tenant(store: &Store, tenant: &TenantId) -> Result<SecretValues, StoreError> {
    store.tenant(tenant).secret_values().await.map(texts)
}

/// The secrets that a document names. If the store cannot be asked: those that it had, from disk. Without them the document
/// is refused.
pub(super) async fn named_by(store: &Store, cache: &Cache, document: &Stored) -> SecretValues {
    let Scope::Tenant(tenant) = &document.scope else { return SecretValues::new() };
    if !document.names_secrets() {
        return SecretValues::new();
    }
    let own = store.tenant(tenant);
    let (cache, scope) = (cache.clone(), document.scope.clone());
    let sealed = match own.sealed_secrets().await {
        Ok(sealed) => {
            let kept = sealed.clone();
            let work = move || cache.keep_sealed(&scope, &kept);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(work).await {
                tracing::error!(event = "secrets_not_cached", %tenant, %error);
            }
            sealed
        }
        Err(error) => {
            tracing::warn!(event = "secrets_from_cache", %tenant, %error);
            match tokio::task::spawn_blocking(move || cache.sealed(&scope)).await {
                Ok(Ok(sealed)) => sealed,
                Ok(Err(error)) => {
                    tracing::error!(event = "cached_secrets_unusable", %tenant, %error);
                    Vec::new()
                }
                Err(_) => Vec::new(),
            }
        }
    };
    own.open_secrets(&sealed).map(texts).unwrap_or_else(|error| {
        tracing::warn!(event = "secrets_unavailable", %tenant, %error);
        SecretValues::unusable(error.to_string())
    })
}

/// Of a value, so much has to stand in a text for it to be found there: texts may be cut.
const ENOUGH: usize = 24;
/// Shorter values are not looked for: they stand everywhere.
const SHORTEST: usize = 4;

/// A text in which values of secrets stand, with their names instead. A value may have come into a place that is shown, such as
/// a path, by whoever may write documents and not read secrets.
pub(super) fn hidden(text: &str, secrets: &SecretValues) -> Option<String> {
    let mut shown: Option<String> = None;
    for (name, value) in secrets.iter() {
        let value = value.expose().to_ascii_lowercase();
        if value.len() < SHORTEST {
            continue;
        }
        let enough = (0..=value.len().min(ENOUGH)).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
        let mut from = 0;
        loop {
            let text = shown.as_deref().unwrap_or(text);
            let lower = text.to_ascii_lowercase();
            let Some(at) = lower[from..].find(&value[..enough]).map(|at| at + from) else { break };
            let whole = lower[at..].chars().zip(value.chars()).take_while(|(a, b)| a == b);
            let end = at + whole.map(|(c, _)| c.len_utf8()).sum::<usize>();
            let name = format!("${{secret:{name}}}");
            from = at + name.len();
            shown = Some(format!("{}{name}{}", &text[..at], &text[end..]));
        }
    }
    shown
}

/// The same of all of them.
pub(super) fn hide(texts: &mut [String], secrets: &SecretValues) {
    for text in texts {
        if let Some(hidden) = hidden(text, secrets) {
            *text = hidden;
        }
    }
}

/// What is not text cannot stand in a document.
fn texts(values: Vec<(String, Secret<Vec<u8>>)>) -> SecretValues {
    let text = |bytes: &Secret<Vec<u8>>| String::from_utf8(bytes.expose().clone()).ok().map(Secret::new);
    values.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_whole_cut_and_in_other_letters() {
        let long = "Abcdefghijklmnopqrstuvwxyz-0123456789";
        let secrets: SecretValues =
            [("short", "abc"), ("token", "hunter2"), ("long", long), ("odd", "naïve-ä")]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), Secret::new(value.to_owned())))
                .collect();
        for (text, expected) in [
            ("`/mcp/hunter2` is no path", Some("`/mcp/${secret:token}` is no path")),
            ("HUNTER2, hunter2", Some("${secret:token}, ${secret:token}")),
            ("Abcdefghijklmnopqrstuvwxyz…", Some("${secret:long}…")),
            (long, Some("${secret:long}")),
            ("naïve-ä!", Some("${secret:odd}!")),
            ("abc and hunter", None),
            ("", None),
        ] {
            assert_eq!(hidden(text, &secrets).as_deref(), expected, "{text}");
        }
    }
}
