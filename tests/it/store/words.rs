//! What commands say of what was typed, without a gateway and with one.

use serde_json::Value;
use tollgate::base::TenantId;
use tollgate::store::{AuditFilter, Page};

use super::commands::{Done, Place, run};
use crate::support::{Folder, Gateway, Upstream};

#[test]
fn errors_of_a_check_are_there_if_and_only_if_it_is_not_ok() {
    let folder = Folder::new();
    let check = |text: &str, more: &[&str]| -> (Option<i32>, Value) {
        let file = folder.write("a.yaml", text);
        let Done(code, out, _) =
            run(&[&["check", file.to_str().unwrap(), "--format", "json"], more].concat(), "");
        (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}")))
    };
    let (code, bad) = check("version: 1\nruotes: []\n", &[]);
    assert_eq!((code, &bad["ok"]), (Some(1), &Value::Bool(false)), "{bad}");
    assert_eq!(bad["errors"][0]["path"], "ruotes", "{bad}");
    assert_eq!(
        (&bad["findings"][0]["line"], &bad["findings"][0]["path"]),
        (&2.into(), &"ruotes".into()),
        "{bad}"
    );
    let unused = "version: 1\nlimits: [{ name: unused, key: principal, rate: 10/s }]\n";
    let (code, fine) = check(unused, &[]);
    assert_eq!(
        (code, &fine["ok"], fine["errors"].as_array().map(Vec::len)),
        (Some(0), &true.into(), Some(0))
    );
    assert!(!fine["findings"].as_array().unwrap().is_empty(), "a warning: {fine}");
    let (code, strict) = check(unused, &["--strict"]);
    assert_eq!((code, &strict["ok"]), (Some(1), &false.into()), "{strict}");
    assert!(!strict["errors"].as_array().unwrap().is_empty(), "{strict}");
}

#[test]
fn a_reason_of_several_lines_is_refused_before_anything_is_asked() {
    for arguments in [
        &["apply", "nowhere.yaml", "--reason", "subject\n\nbody"][..],
        &["rollback", "1", "--reason", "a\u{7}b"],
        &["canary", "abort", "--reason", "a\nb"],
        &["audit", "erase", "--principal", "corp|x", "--reason", "a\nb"],
    ] {
        let Done(code, _, said) = run(arguments, "");
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("a reason is one line"), "{said}");
    }
}

#[test]
fn arguments_that_are_no_json_are_refused() {
    let call = ["explain", "demo", "--as", "developer", "--tool", "echo", "--arguments", "{bad"];
    let Done(code, _, said) = run(&call, "");
    assert!(
        code == Some(1) && said.contains("--arguments is not JSON") && said.contains("column 2"),
        "{said}"
    );
}

#[tokio::test]
async fn the_trail_of_commands_is_not_erased_by_one() {
    let place = Place::new();
    assert_eq!(place.give(&["secrets", "set", "token"], "hunter2\n").0, Some(0));
    assert_eq!(place.run(&["audit", "erase", "--principal", "corp|alice", "--reason", "4711"]).0, Some(0));
    let store = place.store().await;
    let log = async || {
        let own = TenantId::default();
        store.tenant(&own).audit_search(&AuditFilter::default(), None, Page::of(100)).await.unwrap()
    };
    let before = log().await;
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let me = format!("tollgate audit ({})", String::from_utf8(user).unwrap().trim());
    let by = |name: &str| before.iter().filter(|e| e.payload.as_deref().unwrap().contains(name)).count();
    assert_eq!((by(&format!("\"{me}\"")), before.len()), (2, 3), "{before:?}");
    let secrets = me.replace("audit", "secrets");
    for whose in [&*me, "tollgate audit", &*secrets, "operator|bootstrap_token", "Operator|x"] {
        let Done(code, _, said) = place.run(&["audit", "erase", "--principal", whose]);
        assert!(code == Some(1) && said.contains("is not erased"), "{whose}: {said}");
    }
    assert_eq!(format!("{:?}", log().await), format!("{before:?}"), "nothing was done, and nothing recorded");
}

#[tokio::test]
async fn the_log_of_a_tenant_that_never_was_is_an_error() {
    let place = Place::new();
    assert_eq!(place.give(&["secrets", "set", "token"], "x").0, Some(0));
    for command in [&["audit", "export"][..], &["audit", "erase", "--principal", "corp|x"]] {
        let Done(code, out, said) = place.run(&[command, &["--tenant", "nope"]].concat());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains("there is no tenant `nope`"), "{said}");
        assert_eq!(place.run(command).0, Some(0), "the operator's own");
    }
    // One that is there, and has no events yet.
    let store = place.store().await;
    store.platform().put_tenant(&TenantId::new("acme"), "").await.unwrap();
    assert_eq!(place.run(&["audit", "export", "--tenant", "acme"]).0, Some(0));
}

/// What answers 404 to everything is not the API.
#[tokio::test]
async fn what_is_no_admin_listener_has_no_opinion_on_revisions() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let api = format!("http://{}", gateway.process().mcp_address().expect("it has a data plane"));
    for command in [&["rollback", "1"][..], &["show", "1"], &["export"], &["history"], &["diff", "1"]] {
        let arguments: Vec<String> =
            command.iter().map(ToString::to_string).chain(["--api".to_owned(), api.clone()]).collect();
        let done = tokio::task::spawn_blocking(move || {
            run(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
        });
        let Done(code, _, said) = done.await.unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("404") && said.contains("no admin listener"), "{command:?}: {said}");
        assert!(!said.contains("has no "), "{command:?}: {said}");
    }
}
