//! `tollgate whatif`.

use std::path::Path;

use super::args::{Output, WhatifArgs};
use super::prove::compiled;
use super::store::{existing, with};
use crate::base::TenantId;
use crate::insight::whatif::{self, Example, Fate, Report};

/// The largest file of samples, in bytes.
const MAX_SAMPLES_BYTES: u64 = 1 << 30;

/// `true`: the answer is as expected, or nothing was expected.
pub(super) fn run(args: &WhatifArgs) -> Result<bool, String> {
    let (path, text) = match &args.samples {
        Some(path) => (path.display().to_string(), file(path)?),
        None => ("the store".to_owned(), stored(args)?),
    };
    let samples = whatif::read(&text).map_err(|e| format!("{path}: {e}"))?;
    if samples.is_empty() {
        return Err(match &args.samples {
            Some(_) => format!("{path} holds no requests"),
            None => format!(
                "the store holds no requests of the last {} hours of tenant {}: sampling may be off (`samples`), or nobody \
                 called; --samples FILE takes them from a file",
                args.hours, args.tenant
            ),
        });
    }
    let candidate = compiled(Some(&args.candidate))?;
    let baseline = args.baseline.as_ref().map(|path| compiled(Some(path))).transpose()?;
    let report =
        whatif::replay(&samples, baseline.as_ref(), &candidate).map_err(|e| format!("{path}: {e}"))?;
    let expected = args.expect.as_ref().map(|_| !report.changes_anything() && report.undecided == 0);
    match args.format {
        Output::Json => println!("{}", serde_json::to_string(&report).map_err(|e| e.to_string())?),
        Output::Text => print(&report),
    }
    Ok(expected.unwrap_or(true))
}

fn file(path: &Path) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > MAX_SAMPLES_BYTES {
        return Err(format!("{} is larger than {MAX_SAMPLES_BYTES} bytes", path.display()));
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn stored(args: &WhatifArgs) -> Result<String, String> {
    let tenant = TenantId::new(args.tenant.as_str());
    with(existing(&args.store)?.1, async |store| {
        store.recent_samples(&tenant, args.hours).await.map_err(|e| e.to_string())
    })
}

fn print(report: &Report) {
    println!(
        "{} for {}: {} unchanged, {} undecided, {}",
        counted(report.samples, "sample", "samples"),
        counted(report.requests, "request", "requests"),
        report.unchanged,
        report.undecided,
        counted(report.changes.len() as u64, "kind of change", "kinds of change")
    );
    if report.thinned {
        println!("the sample is thinned: limits saw fewer requests than there were");
    }
    if !report.has_baseline {
        println!("compared with what was recorded (no --baseline)");
    }
    for change in report.changes.iter().chain(&report.left_open) {
        let requests = counted(change.requests, "request", "requests");
        println!("{}  {} ({requests})", change.change, change.method);
        println!("    before  {}", fate(&change.before));
        println!("    after   {}", fate(&change.after));
        change.examples.iter().for_each(print_example);
    }
    if report.disagreeing > 0 {
        println!(
            "{} samples did not end as the baseline says; the sample or the baseline is not what was served:",
            report.disagreeing
        );
    }
    for one in &report.disagreements {
        println!("  {} × recorded {}, baseline {}", one.samples, fate(&one.recorded), fate(&one.baseline));
        one.examples.iter().take(1).for_each(print_example);
    }
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn fate(fate: &Fate) -> String {
    let mut text = fate.verdict.as_str().to_owned();
    for (what, value) in [("route", &fate.route), ("server", &fate.server), ("targets", &fate.targets)] {
        if let Some(value) = value {
            text.push_str(&format!(", {what} {value}"));
        }
    }
    if let Some(by) = &fate.by {
        text.push_str(&format!(" ({by})"));
    }
    text
}

fn print_example(example: &Example) {
    let who = example.principal.as_deref().unwrap_or("nobody known");
    let name = example.name.as_deref().unwrap_or("");
    println!("    e.g.    {who} ({}) {} {name}", example.roles.join(", "), example.method);
}
