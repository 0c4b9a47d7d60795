//! `tollgate audit`.

use std::io::BufReader;

use super::args::{AuditArgs, AuditCommand};
use super::counted;
use super::store::{author, existing, with};
use crate::app;
use crate::audit::{PublicKey, verify};
use crate::base::TenantId;
use crate::config::model;
use crate::control::actor::is_reserved;
use crate::store::{AuditFilter, ExportFormat, SigningKey, Store, Time, export};

/// What the audit calls this command.
const COMMAND: &str = "tollgate audit";

pub(super) fn run(args: &AuditArgs) -> Result<bool, String> {
    if let AuditCommand::Verify { file, key, since } = &args.command {
        return check(file, key, since.as_deref());
    }
    let (document, settings) = existing(&args.store)?;
    match &args.command {
        AuditCommand::Key => {
            let public = with(settings, async |store| {
                Ok(key(store, &document).await?.get().await.map_err(text)?.public())
            })?;
            println!("{public}");
            Ok(true)
        }
        AuditCommand::Checkpoint { tenant } => {
            let line = with(settings, async |store| {
                let key = key(store, &document).await?;
                let key = key.get().await.map_err(text)?;
                let horizon = app::audit_horizon(&document.audit.retention, store.now());
                let tenant = TenantId::new(tenant.as_str());
                app::checkpoint(store, key, &tenant, horizon).await.map_err(text)
            })?;
            println!("{line}");
            Ok(true)
        }
        AuditCommand::Erase { tenant, principal, reason } => {
            let tenant = TenantId::new(tenant.as_str());
            if is_reserved(principal) {
                return Err(format!(
                    "--principal: what `{principal}` did is not erased: that is who runs the installation, or a command of this program"
                ));
            }
            let done = with(settings, async |store| {
                store.prepare().await.map_err(|e| e.to_string())?;
                there(store, &document, &tenant).await?;
                let me = author(COMMAND);
                let done = app::audit_erase(store, &tenant, principal, &me, reason.as_deref());
                done.await.map_err(|e| e.to_string())
            })?;
            println!(
                "{principal}: {} and {} erased, {} of usage made nobody's",
                counted(done.events, "event"),
                counted(done.samples, "sample"),
                counted(done.usage, "row")
            );
            Ok(true)
        }
        AuditCommand::Export { tenant, format, from, to, principal, bodies, reason } => {
            let format = ExportFormat::parse(format).ok_or("--format: expected jsonl, csv or cef")?;
            if *bodies && format != ExportFormat::JsonLines {
                return Err("--bodies: only JSON lines have bodies".to_owned());
            }
            let time = |name: &str, text: &Option<String>| match text {
                None => Ok(None),
                Some(text) => Time::parse(text)
                    .map(Some)
                    .ok_or_else(|| format!("--{name}: expected a time such as 2026-01-31T00:00:00Z")),
            };
            let filter = AuditFilter {
                from: time("from", from)?,
                to: time("to", to)?,
                principal: principal.clone(),
                ..AuditFilter::default()
            };
            with(settings, async |store| {
                let tenant = TenantId::new(tenant.as_str());
                if *bodies {
                    store.prepare().await.map_err(|e| e.to_string())?;
                    there(store, &document, &tenant).await?;
                    app::audit_bodies_exported(store, &tenant, &author(COMMAND), reason.as_deref())
                        .await
                        .map_err(|e| e.to_string())?;
                }
                let key = key(store, &document).await?;
                there(store, &document, &tenant).await?;
                let key = key.get().await.map_err(text)?;
                let mut out = std::io::stdout();
                export(store, key, &tenant, &filter, format, *bodies, &mut out)
                    .await
                    .map_err(|e| e.to_string())
            })?;
            Ok(true)
        }
        AuditCommand::Verify { .. } => Ok(true),
    }
}

/// Fails if there is no such tenant, and there never was.
async fn there(store: &Store, document: &model::Document, tenant: &TenantId) -> Result<(), String> {
    let named = document.tenants.iter().any(|known| known.name.as_str() == tenant.as_str());
    if named || store.platform().has_traces(tenant).await.map_err(text)? {
        return Ok(());
    }
    Err(format!("--tenant: there is no tenant `{tenant}`, and there is nothing of one in the audit"))
}

/// The key of the document, in a store that was prepared unless the key is a file.
async fn key(store: &Store, document: &model::Document) -> Result<SigningKey, String> {
    if document.audit.key_file.is_none() {
        store.prepare().await.map_err(text)?;
    }
    app::signing_key(store, document).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Needs nothing but the file and the key: no configuration, no store.
fn check(file: &std::path::Path, keys: &[String], since: Option<&std::path::Path>) -> Result<bool, String> {
    let keys = keys
        .iter()
        .map(|key| key.parse::<PublicKey>().map_err(|e| format!("--key: {e}")))
        .collect::<Result<Vec<_>, _>>()?;
    let since = match since {
        None => None,
        Some(path) => {
            Some(std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?)
        }
    };
    let opened = std::fs::File::open(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
    let started = std::time::Instant::now();
    match verify(BufReader::with_capacity(1 << 20, opened), &keys, since.as_deref()) {
        Ok(report) => {
            let total = report.events + report.omitted + report.erased;
            println!(
                "sound: {} of tenant {} in {} ({} with payload, {} left out by the filter, {} erased), {}, verified in {:.2} s",
                counted(total, "event"),
                report.tenant,
                counted(report.chains as u64, "chain"),
                report.events,
                report.omitted,
                report.erased,
                counted(report.checkpoints, "checkpoint"),
                started.elapsed().as_secs_f64(),
            );
            if let Some(filter) = report.filter {
                println!("filter: {filter}");
            }
            Ok(true)
        }
        Err(finding) => {
            println!("NOT SOUND: {finding}");
            Ok(false)
        }
    }
}
