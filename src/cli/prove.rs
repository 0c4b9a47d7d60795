//! `tollgate prove`.

use std::path::PathBuf;
use std::sync::Arc;

use super::args::{Output, ProveArgs, Question};
use super::env;
use crate::app::{self, Document, Options};
use crate::base::{Role, RoleSet};
use crate::insight::proof::{self, Answer, Class, Gate, Verdict};
use crate::snapshot::Snapshot;

/// `true`: the answer is as expected, or nothing was expected.
pub(super) fn run(args: &ProveArgs) -> Result<bool, String> {
    let (answer, expect, format) = match &args.question {
        Question::NewlyAllowed { old, new, expect, format } => {
            let (old, new) = (gates(Some(old), None)?, gates(Some(new), None)?);
            (proof::newly_allowed(&old, &new), expect, *format)
        }
        Question::Unauthenticated { config, route, expect, format } => {
            let gates = gates(config.as_ref(), route.as_deref())?;
            (proof::unauthenticated(&gates), expect, *format)
        }
        Question::WhoCanCall { tools, config, route, expect, format } => {
            let gates = gates(config.as_ref(), route.as_deref())?;
            (proof::who_can_call(&gates, tools), expect, *format)
        }
    };
    let answer = answer.map_err(|e| e.to_string())?;
    let expected = expect.as_deref().map(|expect| is_so(&answer, expect)).transpose()?;
    match format {
        Output::Json => {
            let mut json = serde_json::to_value(&answer).map_err(|e| e.to_string())?;
            if let (Some(expected), Some(object)) = (expected, json.as_object_mut()) {
                object.insert("as_expected".to_owned(), expected.into());
            }
            println!("{json}");
        }
        Output::Text => {
            print(&answer);
            if let (Some(false), Some(expect)) = (expected, expect) {
                println!("expected {expect}: no");
            }
        }
    }
    Ok(expected.unwrap_or(true))
}

/// Compiles a configuration apart from everything that is served.
pub(super) fn compiled(config: Option<&PathBuf>) -> Result<Snapshot, String> {
    let document = config.map_or(Document::Embedded, |path| Document::File(path.clone()));
    app::compile_only(&Options { env: Arc::new(env), ..Options::new(document) })
}

fn gates(config: Option<&PathBuf>, route: Option<&str>) -> Result<Vec<Gate>, String> {
    let snapshot = compiled(config)?;
    let all = snapshot.routes();
    let gates: Vec<Gate> =
        all.iter().filter(|r| route.is_none_or(|name| r.id.as_str() == name)).map(|r| Gate::of(r)).collect();
    if let (true, Some(route)) = (gates.is_empty(), route) {
        let names: Vec<&str> = all.iter().map(|r| r.id.as_str()).collect();
        return Err(format!("there is no route `{route}`; there are: {}", names.join(", ")));
    }
    Ok(gates)
}

fn is_so(answer: &Answer, expect: &str) -> Result<bool, String> {
    if let Some(names) = expect.strip_prefix("roles:") {
        let roles = names.split(',').map(|name| name.parse::<Role>().map_err(|e| e.to_string()));
        let roles = roles.collect::<Result<RoleSet, _>>()?;
        return Ok(!answer.any(|class| !class.all_have_one_of(roles)));
    }
    match expect {
        "nobody" | "nothing" => Ok(answer.verdict == Verdict::Never),
        "somebody" => Ok(answer.verdict == Verdict::Always),
        "authenticated" => Ok(!answer.any(|class| !class.authenticated)),
        other => Err(format!("--expect {other}: expected nobody, somebody, authenticated or roles:<role>,…")),
    }
}

fn print(answer: &Answer) {
    println!("{}: {}", answer.question, summary(answer));
    for route in &answer.routes {
        let tenant = if route.tenant == "default" { String::new() } else { format!("{}/", route.tenant) };
        println!("route {tenant}{} → {} (server {})", route.route, route.url, route.server);
        for class in &route.classes {
            print_class(class);
        }
    }
    for change in &answer.identity_changes {
        println!("cannot be compared: {change}");
    }
}

fn summary(answer: &Answer) -> &'static str {
    let newly = answer.question.starts_with("what") || answer.question.starts_with("which");
    match (answer.verdict, newly) {
        (Verdict::Never, true) => "nothing",
        (Verdict::Never, false) => "nobody",
        (Verdict::If, _) if answer.routes.is_empty() => "nothing that can be compared",
        (Verdict::If, _) => "depends on the conditions below",
        (Verdict::Always, _) => "the following",
    }
}

fn print_class(class: &Class) {
    let only: Vec<String> = class.only.iter().map(|(field, text)| format!("{field}: {text}")).collect();
    let only = if only.is_empty() { "all of them".to_owned() } else { only.join("; ") };
    let verdict = if class.verdict == Verdict::Always { "always" } else { "if    " };
    println!("  {verdict}  callers: {}; {only}", class.callers);
    for condition in &class.conditions {
        let name = condition.name.as_deref().map(|n| format!(" `{n}`")).unwrap_or_default();
        let of = condition.of.map(|of| format!("{of} ")).unwrap_or_default();
        let says = condition.says.map(|says| format!(" (for example: {says})")).unwrap_or_default();
        println!(
            "          {of}rule {}{name} would {} when {}{says}",
            condition.rule, condition.effect, condition.when
        );
    }
    if let Some(otherwise) = class.otherwise {
        println!("          otherwise {otherwise}; an expression that fails denies");
    }
    let witness = serde_json::to_string(&class.witness).unwrap_or_default();
    println!("          for example {witness}");
}
