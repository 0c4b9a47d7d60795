//! Commands that work on the store itself, as an operator types them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use tollgate::app::{Document, Options, Process};
use tollgate::base::{Clock, Scope, TenantId};
use tollgate::store::{
    AuditFilter, CandidateSource, Engine, Heartbeat, NewCanary, NewRevision, Page, Store, StoreSettings,
};

use super::{Fixture, open, tenant};
use crate::support::{Folder, Gateway, Upstream};

/// What a command did: its exit code, and what it printed.
pub(super) struct Done(pub(super) Option<i32>, pub(super) String, pub(super) String);

/// Runs the binary; `input` is its standard input.
pub(super) fn run(arguments: &[&str], input: &str) -> Done {
    run_on("", arguments, input)
}

/// The same with a database for configurations that name `${env:DB}`.
fn run_on(url: &str, arguments: &[&str], input: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env("DB", url);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // One that refuses before it reads closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Done(status.code(), text(stdout), text(stderr))
}

/// An installation that is operated by commands, on SQLite.
pub(super) struct Place {
    folder: Folder,
}

impl Place {
    pub(super) fn new() -> Self {
        Self { folder: Folder::new() }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("above/data")
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Done {
        self.give(arguments, "")
    }

    pub(super) fn give(&self, arguments: &[&str], input: &str) -> Done {
        run(&[arguments, &["--data-dir", self.data().to_str().unwrap()]].concat(), input)
    }

    pub(super) async fn store(&self) -> Store {
        let store = open(&StoreSettings::embedded(&self.data()), &Clock::default());
        store.prepare().await.unwrap();
        store
    }
}

async fn publish(store: &Store, scope: Scope, content: &str) {
    let content = content.as_bytes();
    let new = NewRevision { content, schema_version: 1, author: "ada", reason: "", if_revision: None };
    store.platform().publish(&scope, new).await.unwrap();
}

/// The audit of a tenant: action, object and who of each event.
async fn recorded(store: &Store, whose: &TenantId) -> Vec<[String; 3]> {
    let found = store.tenant(whose).audit_search(&AuditFilter::default(), None, Page::of(100)).await.unwrap();
    let text = |event: &serde_json::Value, name: &str| event[name].as_str().unwrap_or_default().to_owned();
    let mut events: Vec<_> = found
        .iter()
        .map(|event| serde_json::from_str(event.payload.as_deref().unwrap()).unwrap())
        .map(|event: serde_json::Value| {
            [text(&event, "action"), text(&event, "object"), text(&event, "principal")]
        })
        .collect();
    events.sort();
    events
}

#[tokio::test]
async fn what_operators_do_on_the_store_is_in_the_audit_without_values() {
    let place = Place::new();
    assert_eq!(place.give(&["secrets", "set", "token"], "hunter2\n").0, Some(0));
    let Done(code, out, _) = place.run(&["secrets", "rotate"]);
    assert!(code == Some(0) && out.ends_with("; 1 value moved to it\n"), "{out}");
    assert_eq!(place.run(&["secrets", "rewrap"]).1, "0 values moved\n");
    assert_eq!(place.run(&["secrets", "remove", "token"]).1, "token removed\n");
    assert_eq!(place.run(&["admin-token", "reset"]).0, Some(0));
    let store = place.store().await;
    let events = recorded(&store, &TenantId::default()).await;
    let said: Vec<(&str, &str)> = events.iter().map(|[action, object, _]| (&**action, &**object)).collect();
    let rotated = said.iter().find(|(action, _)| *action == "rotate_master_key").unwrap().1;
    assert_eq!(
        said,
        [
            ("delete_secret", "secrets/token"),
            ("put_secret", "secrets/token"),
            ("reset_admin_token", "admin-token"),
            ("rewrap_secrets", "secrets"),
            ("rotate_master_key", rotated),
        ]
    );
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    for [action, _, who] in &events {
        let command = if action == "reset_admin_token" { "admin-token" } else { "secrets" };
        assert_eq!(*who, format!("tollgate {command} ({})", user.trim()));
    }
    let text = format!("{events:?}");
    assert!(!text.contains("hunter2") && !text.contains("tga_"), "{text}");
}

#[tokio::test]
async fn a_secret_that_a_document_names_is_not_removed_unless_told() {
    let place = Place::new();
    for tenant in [&["--tenant", "acme"][..], &[]] {
        assert_eq!(place.give(&[&["secrets", "set", "token"], tenant].concat(), "x").0, Some(0));
    }
    let store = place.store().await;
    publish(&store, Scope::Tenant(tenant("acme")), "version: 1\nx: \"a ${secret:token}\"\n").await;
    publish(&store, Scope::Platform, "version: 1\ny: ${secret:other}\n").await;
    store.platform().put_tenant(&tenant("acme"), "").await.unwrap();
    let Done(code, out, error) = place.run(&["secrets", "remove", "token", "--tenant", "acme"]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    for part in ["revision 1 of the document of tenant `acme` names it at `x`", "--force"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(place.run(&["secrets", "remove", "token"]).0, Some(0), "another tenant's");
    assert_eq!(place.run(&["secrets", "remove", "token", "--tenant", "acme", "--force"]).0, Some(0));
    let Done(code, _, error) = place.run(&["secrets", "remove", "token", "--tenant", "acme"]);
    assert!(code == Some(1) && error.contains("no secret `token`"), "{error}");
    // What a canary tries counts as well.
    assert_eq!(place.give(&["secrets", "set", "tried", "--tenant", "acme"], "x").0, Some(0));
    let (acme, now) = (tenant("acme"), store.now());
    let content = b"version: 1\nx: \"${secret:tried}\"\n";
    let candidate = NewRevision { content, schema_version: 1, author: "ada", reason: "", if_revision: None };
    let canary = NewCanary {
        id: uuid::Uuid::from_u128(1),
        base: 1,
        candidate: CandidateSource::New(candidate),
        kind: "principals",
        share: 1000,
        share_at: now,
        rules: "{}",
        started_by: "ada",
        reason: "",
        deadline: now.plus(std::time::Duration::from_secs(60)),
    };
    store.tenant(&acme).start_canary(canary).await.unwrap();
    let Done(code, _, error) = place.run(&["secrets", "remove", "tried", "--tenant", "acme"]);
    assert!(code == Some(1) && error.contains("which its canary tries"), "{error}");
}

/// A mistyped folder is not taken for an empty installation, or every backup after that would be one of nothing.
#[test]
fn nothing_is_no_backup() {
    let place = Place::new();
    let file = place.folder.path().join("backup");
    let name = file.to_str().unwrap();
    let Done(code, out, error) = place.run(&["backup", name]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{error}");
    assert!(error.contains("there is no store yet: "), "{error}");
    assert!(!place.folder.path().join("above").exists(), "nothing was made");
    std::fs::create_dir_all(place.data()).unwrap();
    std::fs::write(place.data().join(tollgate::store::DATABASE_FILE), "").unwrap();
    let Done(code, _, error) = place.run(&["backup", name]);
    assert!(code == Some(1) && error.contains("nothing to back up"), "{error}");
    let left: Vec<_> =
        std::fs::read_dir(place.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["above"], "no file, whole or not");
}

#[tokio::test]
async fn names_are_those_of_the_api_and_tenants_those_that_are_there() {
    let place = Place::new();
    for (name, tenant, says) in [
        ("bad name!", "acme", "the name `bad name!`: expected a name"),
        ("", "acme", "the name ``: expected a name"),
        ("token", "no such/tenant", "--tenant `no such/tenant`: expected a name"),
        ("token", "platform", "there is no tenant `platform`"),
    ] {
        let Done(code, _, error) = place.give(&["secrets", "set", name, "--tenant", tenant], "x");
        assert!(code == Some(1) && error.contains(says), "{error}");
    }
    let store = place.store().await;
    assert_eq!(
        place.give(&["secrets", "set", "token", "--tenant", "acme"], "x").0,
        Some(0),
        "nobody says who is"
    );
    publish(&store, Scope::Platform, "version: 1\n").await;
    let Done(code, _, error) = place.give(&["secrets", "set", "token", "--tenant", "acme"], "x");
    assert!(code == Some(1) && error.contains("there is no tenant `acme`"), "{error}");
    for command in ["rotate", "rewrap"] {
        let Done(code, _, error) = place.run(&["secrets", command, "--tenant", "acme"]);
        assert!(code == Some(2) && error.contains("that of all tenants"), "{error}");
    }
}

#[tokio::test]
async fn looking_at_migrations_makes_nothing_and_undoing_says_when_there_is_nothing() {
    let place = Place::new();
    for command in [&["migrate", "status"][..], &["migrate", "down", "--to", "4"]] {
        let Done(code, out, error) = place.run(command);
        assert!(code == Some(1) && out.starts_with("there is no store yet: "), "{out}{error}");
    }
    // A wrong folder is not an empty store.
    let backup = place.folder.path().join("backup");
    for command in [
        &["backup", backup.to_str().unwrap()][..],
        &["secrets", "list"],
        &["secrets", "rotate"],
        &["audit", "export"],
        &["audit", "key"],
    ] {
        let Done(code, _, error) = place.run(command);
        assert!(code == Some(1) && error.contains("there is no store yet: "), "{command:?}: {error}");
    }
    assert!(!backup.exists());
    assert!(!place.folder.path().join("above").exists(), "nothing was made");
    assert_eq!(place.run(&["migrate", "up"]).0, Some(0));
    // Events of strangers have no caller, which is none to be erased.
    let Done(code, _, error) = place.run(&["audit", "erase", "--principal", ""]);
    assert!(code == Some(2) && error.contains("--principal"), "{error}");
    let erased = place.store().await.platform().audit_erase(&TenantId::default(), "").await;
    assert!(erased.unwrap_err().to_string().contains("without a name"));
    for made in [place.data(), place.data().parent().unwrap().to_owned()] {
        assert_eq!(
            std::fs::metadata(&made).unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            made.display()
        );
    }
    assert_eq!(place.run(&["migrate", "status"]).0, Some(0));
    for number in ["99", "8", "-1"] {
        let Done(code, _, error) = place.run(&["migrate", "down", &format!("--to={number}")]);
        assert!(
            code == Some(1) && error.contains(&format!("--to {number}: there is no such migration")),
            "{error}"
        );
    }
    let Done(code, out, _) = place.run(&["migrate", "down", "--to", "50"]);
    assert!(code == Some(0) && out.contains("undone 0051_"), "{out}");
    assert_eq!(place.run(&["migrate", "status"]).0, Some(1), "some are pending");
    let Done(code, out, _) = place.run(&["migrate", "down", "--to", "50"]);
    assert_eq!((code, out.as_str()), (Some(0), "nothing to undo: no later migration is applied\n"));
    assert_eq!(place.run(&["migrate", "up"]).0, Some(0));
    let events = recorded(&place.store().await, &TenantId::default()).await;
    let said: Vec<(&str, &str)> = events.iter().map(|[action, object, _]| (&**action, &**object)).collect();
    assert_eq!(said[0], ("migrate_down", "migrations after 50"));
    assert!(said[1].0 == "migrate_up" && said[1].1.starts_with("0051_"), "{said:?}");
    assert_eq!(said.len(), 2, "not the first time");
}

/// A configuration for commands on a fixture.
fn configuration(fixture: &Fixture, folder: &Folder) -> PathBuf {
    let store = fixture.database.as_ref().map_or("{}", |_| "{ url: \"${env:DB}\" }");
    let text = format!(
        "version: 1\ndata_dir: {}\nlisteners: {{ mcp: {{ address: 127.0.0.1:0 }} }}\nstore: {store}\n",
        fixture.settings.data_dir.display()
    );
    folder.write("tollgate.yaml", text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_replicas_use_is_not_taken_apart_unless_told() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let fixture = Fixture::new(engine).await;
        let folder = Folder::new();
        let config = configuration(&fixture, &folder);
        let file = folder.path().join("backup");
        let (config, file) = (config.to_str().unwrap(), file.to_str().unwrap());
        let url = fixture.database.as_ref().map_or_else(String::new, |database| database.url());
        let run = |arguments: &[&str]| run_on(&url, &[arguments, &["--config", config]].concat(), "");
        let Done(code, _, error) = run(&["backup", file]);
        assert_eq!(code, Some(0), "{error}");
        let present = open(&fixture.settings, &Clock::default());
        let beat = Heartbeat {
            boot: uuid::Uuid::from_u128(1),
            replica: "gateway-7".into(),
            role: "data".into(),
            version: "0.1.0".into(),
            address: None,
            started_at: present.now(),
            identity_seq: 0,
        };
        present.platform().heartbeat(&beat).await.unwrap();
        let before = fixture.store.fingerprint().await.unwrap();
        for command in
            [&["migrate", "down", "--to", "50"][..], &["restore", file, "--erase"], &["restore", file]]
        {
            let Done(code, out, error) = run(command);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{engine} {command:?} {error}");
            assert!(error.contains("replica `gateway-7`") && error.contains("--force"), "{error}");
        }
        assert_eq!(fixture.store.fingerprint().await.unwrap(), before, "{engine}");
        let Done(code, _, error) = run(&["restore", file, "--erase", "--force"]);
        assert_eq!(code, Some(0), "{engine} {error}");
        let events = recorded(&fixture.another(), &TenantId::default()).await;
        assert_eq!(
            (events.len(), &*events[0][0], &*events[0][1]),
            (1, "erase_and_restore", "backup"),
            "{engine}"
        );
        assert!(events[0][2].starts_with("tollgate restore ("), "{events:?}");
        // One that has ended is in nobody's way.
        present.platform().heartbeat(&beat).await.unwrap();
        present.platform().retire_replica(beat.boot).await.unwrap();
        let Done(code, out, error) = run(&["migrate", "down", "--to", "50"]);
        assert!(code == Some(0) && out.contains("undone 0051_"), "{engine} {error}");
    }
}

#[tokio::test]
async fn a_gateway_on_the_data_folder_is_noticed() {
    let up = Upstream::modern().await;
    let gateway = Gateway::relay(&[&up]).server("era: modern").start().await;
    let data = gateway.data_dir();
    let down = ["migrate", "down", "--to", "50", "--data-dir", data.to_str().unwrap()];
    let Done(code, _, error) = run(&down, "");
    assert_eq!(code, Some(1), "{error}");
    let process = format!("(process {})", std::process::id());
    assert!(error.contains("a gateway runs on the data folder") && error.contains(&process), "{error}");
}

#[tokio::test]
async fn a_refused_restore_says_so_and_leaves_everything() {
    let place = Place::new();
    assert_eq!(place.give(&["secrets", "set", "token"], "x").0, Some(0));
    let file = place.folder.path().join("backup");
    let name = file.to_str().unwrap();
    assert_eq!(place.run(&["backup", name]).0, Some(0));
    let mut bytes = std::fs::read(&file).unwrap();
    let before = place.store().await.fingerprint().await.unwrap();
    for at in (40..bytes.len()).step_by(bytes.len() / 12) {
        bytes[at] ^= 0x10;
        std::fs::write(&file, &bytes).unwrap();
        let Done(code, out, error) = place.run(&["restore", name, "--erase"]);
        assert_eq!((code, out.as_str()), (Some(1), ""), "byte {at}: {error}");
        assert!(error.contains("the backup cannot be used: "), "byte {at}: {error}");
        assert!(error.ends_with("; nothing was changed\n"), "byte {at}: {error}");
        bytes[at] ^= 0x10;
    }
    assert_eq!(place.store().await.fingerprint().await.unwrap(), before);
    std::fs::write(&file, &bytes).unwrap();
    let Done(code, _, error) = place.run(&["restore", name]);
    assert!(
        code == Some(1) && error.contains("the database is in use: ") && error.contains("has 1 row"),
        "{error}"
    );
}

#[test]
fn a_pipe_that_nobody_reads_ends_a_command_quietly() {
    let pipe = |line: &str| {
        let program = env!("CARGO_BIN_EXE_tollgate");
        let script = format!("{} {line} | head -n 1 >/dev/null; echo ${{PIPESTATUS[0]}}", program);
        let done = Command::new("bash").args(["-c", &script]).output().unwrap();
        (String::from_utf8(done.stdout).unwrap(), String::from_utf8(done.stderr).unwrap())
    };
    for line in ["schema", "schema --reference", "schema --openapi"] {
        assert_eq!(pipe(line), ("141\n".to_owned(), String::new()), "{line}");
    }
}

/// As after a restore into an installation that has not the keys.
#[tokio::test]
async fn a_gateway_does_not_start_without_the_keys_of_its_store() {
    let place = Place::new();
    assert_eq!(place.give(&["secrets", "set", "token"], "x").0, Some(0));
    let key = place.data().join("master.key");
    let old = std::fs::read_to_string(&key).unwrap();
    let id = old.lines().last().unwrap().split(' ').next().unwrap().to_owned();
    std::fs::remove_file(&key).unwrap();
    for source in ["file", "database"] {
        let error = start(&place.data(), source).await.expect_err("it starts");
        assert!(error.contains(&id) && error.contains(key.to_str().unwrap()), "{source}: {error}");
        assert!(!key.exists(), "{source}: no key was made");
    }
    let Done(code, _, error) = place.run(&["secrets", "list"]);
    assert!(code == Some(1) && error.contains(&id), "{error}");
    std::fs::write(&key, old).unwrap();
    let error = start(&place.data(), "file").await.err();
    assert!(error.is_some_and(|e| e.contains("chmod 600")), "what others may read is no key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(start(&place.data(), "file").await.err(), None);
}

/// Starts a gateway, and ends it; why it does not start.
async fn start(data: &Path, source: &str) -> Result<(), String> {
    let text = format!(
        "version: 1\nlisteners: {{ mcp: {{ address: 127.0.0.1:0 }}, admin: {{ address: 127.0.0.1:0 }} }}\nsource: {source}\n\
         telemetry: {{ access_log: {{ enabled: false }} }}\nruntime: {{ data_threads: 1, control_threads: 1 }}\n"
    );
    let options = Options {
        data_dir: Some(data.to_owned()),
        env: Arc::new(|_| None),
        ..Options::new(Document::Text(text))
    };
    let started = crate::database::off_runtime(move || {
        Process::start(options).map(|process| assert!(process.shutdown(false))).map_err(|e| e.to_string())
    });
    started.await
}
