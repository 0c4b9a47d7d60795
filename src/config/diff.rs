//! What changed between two documents, in words.
//!
//! Items of named lists are compared by name, targets by URL, everything else by key; defaults are filled in on both
//! sides, so writing a default out is no change. Secrets are compared, never shown. Whoever may read documents reads the other
//! values; the log has [`Change::place`] alone, for people put secrets where none belong.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use super::canonical::Canonical;
use super::model::{Credential, Document, SecretText};
use super::validated::Validated;

/// Most changes kept.
const MAX_CHANGES: usize = 1_000;

/// Lists whose items have names, and what an item is called.
const NAMED: [(&str, &str); 6] = [
    ("tenants", "tenant"),
    ("servers", "server"),
    ("routes", "route"),
    ("limits", "limit"),
    ("policies", "policy"),
    ("issuers", "issuer"),
];

/// Parts that take effect at the next start only.
const STATIC: [&str; 7] = ["listeners", "runtime", "data_dir", "store", "source", "samples", "valkey"];

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about: `server weather`, `listeners.mcp.limits`.
    pub subject: String,
    /// What happened to it: `added`, `balance peak_ewma → round_robin`.
    pub detail: String,
    /// Whether it takes effect at the next start only.
    pub needs_restart: bool,
    /// What happened, without values.
    #[serde(skip)]
    place: String,
}

impl Change {
    /// What changed, without what it was or is: `server weather: balance changed`.
    pub fn place(&self) -> String {
        let later = if self.needs_restart { " (at the next start)" } else { "" };
        format!("{}: {}{later}", self.subject, self.place)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.detail)?;
        if self.needs_restart { f.write_str(" (at the next start)") } else { Ok(()) }
    }
}

/// What changed from the first document to the second, in the order of the document. Empty if they behave the same. Changes
/// of a tenant's document of a file name the tenant: `tenant acme, route crm`.
pub fn diff(old: &Validated, new: &Validated) -> Vec<Change> {
    let first = ["listeners", "runtime", "data_dir", "store", "source", "sessions", "tenants"];
    let last = ["telemetry", "audit", "samples", "valkey", "shutdown", "insecure_options"];
    let own = DOCUMENT.into_iter().filter(|key| *key != "tenants");
    let mut out = Changes::default();
    // `Map` is sorted; the document's own order reads better.
    out.sections(old.document(), new.document(), first.into_iter().chain(own.clone()).chain(last));
    for tenant in new.tenants() {
        let Some(before) = old.tenants().iter().find(|other| other.tenant() == tenant.tenant()) else {
            continue;
        };
        let mut inner = Changes::default();
        inner.sections(before.document(), tenant.document(), own.clone());
        for change in inner.0 {
            let subject = format!("tenant {}, {}", tenant.tenant(), change.subject);
            out.add(subject, change.detail, change.place);
        }
    }
    out.0
}

/// What changed from one canonical document to another, in words: of what is written, references as they stand. Empty if
/// they are the same.
pub fn diff_documents(old: &Canonical, new: &Canonical) -> Vec<Change> {
    let mut out = Changes::default();
    if old == new {
        return out.0;
    }
    if let (Value::Object(old), Value::Object(new)) = (old.to_json(), new.to_json()) {
        // Not `map` at once: a section that is new or gone is told item by item.
        let none = Value::Null;
        for key in DOCUMENT {
            let (old, new) = (old.get(key).unwrap_or(&none), new.get(key).unwrap_or(&none));
            let list = old.is_array() || new.is_array();
            let empty = |value: &Value| match value {
                Value::Null if list => Value::Array(Vec::new()),
                Value::Null => Value::Object(Map::new()),
                other => other.clone(),
            };
            out.key(&Subject::default(), key, Some(&empty(old)), Some(&empty(new)));
        }
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            if !DOCUMENT.contains(&key.as_str()) {
                out.key(&Subject::default(), key, old.get(key), new.get(key));
            }
        }
    }
    out.0
}

/// The sections of stored documents, in the order in which changes are told.
const DOCUMENT: [&str; 6] = ["tenants", "servers", "routes", "limits", "policies", "identity"];

/// Every secret of a document, by what it belongs to.
fn secrets(document: &Document) -> BTreeMap<(String, &str), &SecretText> {
    let mut out = BTreeMap::new();
    if let Some(token) = &document.listeners.admin.token {
        out.insert(("listeners.admin".to_owned(), "token"), token);
    }
    if let Some(password) = document.valkey.as_ref().and_then(|valkey| valkey.password.as_ref()) {
        out.insert(("valkey".to_owned(), "password"), password);
    }
    if let Some(url) = &document.store.url {
        out.insert(("store".to_owned(), "url"), url);
    }
    if let Some(token) = document.listeners.metrics.as_ref().and_then(|metrics| metrics.token.as_ref()) {
        out.insert(("listeners.metrics".to_owned(), "token"), token);
    }
    if let Some(pepper) = document.identity.key_file().and_then(|keys| keys.pepper.as_ref()) {
        out.insert(("identity.api_keys".to_owned(), "pepper"), pepper);
    }
    for server in &document.servers {
        let secret = match &server.credential {
            Some(Credential::Basic(basic)) => &basic.password,
            Some(Credential::Bearer(token)) => token,
            Some(Credential::Header(header)) => &header.value,
            None => continue,
        };
        out.insert((format!("server {}", server.name), "credential"), secret);
    }
    for (name, value) in document.telemetry.otlp.iter().flat_map(|otlp| &otlp.headers) {
        out.insert((format!("telemetry.otlp.headers.{name}"), "value"), value);
    }
    out
}

/// The thing a change is about, and the keys inside it.
#[derive(Clone, Default)]
struct Subject {
    name: String,
    inner: String,
}

impl Subject {
    fn key(&self, key: &str) -> Self {
        let join = |base: &str| if base.is_empty() { key.to_owned() } else { format!("{base}.{key}") };
        // Outside of a named item, the path itself is the subject.
        if self.name.contains(' ') {
            Self { name: self.name.clone(), inner: join(&self.inner) }
        } else {
            Self { name: join(&self.name), inner: String::new() }
        }
    }

    /// The subject of a change of a leaf, and the leaf's name.
    fn leaf(&self) -> (String, String) {
        if !self.inner.is_empty() {
            return (self.name.clone(), self.inner.clone());
        }
        match self.name.rsplit_once('.') {
            Some((above, key)) => (above.to_owned(), key.to_owned()),
            None => ("document".to_owned(), self.name.clone()),
        }
    }
}

#[derive(Default)]
struct Changes(Vec<Change>);

impl Changes {
    /// Compares sections of two documents, secrets included.
    fn sections<'k>(&mut self, old: &Document, new: &Document, keys: impl Iterator<Item = &'k str>) {
        let value = |document: &Document| serde_json::to_value(document).unwrap_or(Value::Null);
        if let (Value::Object(mut before), Value::Object(mut after)) = (value(old), value(new)) {
            for map in [&mut before, &mut after] {
                // Told by themselves, object by object.
                let tenants = map.get_mut("tenants").and_then(Value::as_array_mut).into_iter().flatten();
                tenants.filter_map(Value::as_object_mut).for_each(|tenant| drop(tenant.remove("document")));
            }
            for key in keys {
                self.key(&Subject::default(), key, before.get(key), after.get(key));
            }
        }
        let (before, after) = (secrets(old), secrets(new));
        for ((subject, what), secret) in &before {
            if after.get(&(subject.clone(), what)).is_some_and(|other| other != secret) {
                self.push(
                    &Subject { name: subject.clone(), inner: String::new() },
                    format!("{what} changed"),
                );
            }
        }
    }

    fn add(&mut self, subject: String, detail: String, place: String) {
        if self.0.len() < MAX_CHANGES {
            let root = subject.split(['.', ' ']).next().unwrap_or_default();
            let needs_restart = STATIC.contains(&root);
            self.0.push(Change { subject, detail, needs_restart, place });
        }
    }

    /// What happened to the whole of something, in words that have no values.
    fn push(&mut self, subject: &Subject, detail: String) {
        self.add(subject.name.clone(), detail.clone(), detail);
    }

    fn leaf(&mut self, subject: &Subject, detail: impl FnOnce(&str) -> String) {
        let needs_restart = STATIC.contains(&subject.name.split(['.', ' ']).next().unwrap_or_default());
        let (name, key) = subject.leaf();
        if self.0.len() < MAX_CHANGES {
            let place = format!("{key} changed");
            self.0.push(Change { subject: name, detail: detail(&key), needs_restart, place });
        }
    }

    fn key(&mut self, above: &Subject, key: &str, old: Option<&Value>, new: Option<&Value>) {
        if old == new {
            return;
        }
        let null = Value::Null;
        let (old, new) = (old.unwrap_or(&null), new.unwrap_or(&null));
        let subject = above.key(key);
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => self.map(&subject, old, new),
            (Value::Array(old), Value::Array(new)) => {
                match NAMED.into_iter().find(|(list, _)| *list == key) {
                    Some((_, what)) if old.iter().chain(new).all(|item| item["name"].is_string()) => {
                        self.named(what, old, new);
                    }
                    _ if key == "targets" => self.targets(&subject, old, new),
                    _ => self.list(&subject, old, new),
                }
            }
            _ => self.leaf(&subject, |key| format!("{key} {} → {}", show(old), show(new))),
        }
    }

    fn map(&mut self, subject: &Subject, old: &Map<String, Value>, new: &Map<String, Value>) {
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            self.key(subject, key, old.get(key), new.get(key));
        }
    }

    fn named(&mut self, what: &str, old: &[Value], new: &[Value]) {
        let subject = |item: &Value| Subject {
            name: format!("{what} {}", item["name"].as_str().unwrap_or_default()),
            inner: String::new(),
        };
        let find =
            |list: &[Value], item: &Value| list.iter().find(|other| other["name"] == item["name"]).cloned();
        for item in old {
            match (item, find(new, item)) {
                (Value::Object(before), Some(Value::Object(after))) => {
                    self.map(&subject(item), before, &after)
                }
                _ => self.push(&subject(item), "removed".to_owned()),
            }
        }
        for item in new.iter().filter(|item| find(old, item).is_none()) {
            self.push(&subject(item), "added".to_owned());
        }
    }

    fn targets(&mut self, subject: &Subject, old: &[Value], new: &[Value]) {
        let parts = |target: &Value| match target {
            Value::Object(map) => {
                (map["url"].as_str().unwrap_or_default().to_owned(), map["weight"].as_u64())
            }
            other => (other.as_str().unwrap_or_default().to_owned(), Some(1)),
        };
        let (old, new): (BTreeMap<_, _>, BTreeMap<_, _>) =
            (old.iter().map(parts).collect(), new.iter().map(parts).collect());
        for (url, weight) in &old {
            match new.get(url) {
                None => self.leaf(subject, |_| format!("−1 target {url}")),
                Some(other) if other != weight => self.leaf(subject, |_| {
                    format!("target {url} weight {} → {}", weight.unwrap_or(1), other.unwrap_or(1))
                }),
                Some(_) => {}
            }
        }
        for url in new.keys().filter(|url| !old.contains_key(*url)) {
            self.leaf(subject, |_| format!("+1 target {url}"));
        }
    }

    fn list(&mut self, subject: &Subject, old: &[Value], new: &[Value]) {
        let gone: Vec<String> = old.iter().filter(|item| !new.contains(item)).map(show).collect();
        let come: Vec<String> = new.iter().filter(|item| !old.contains(item)).map(show).collect();
        self.leaf(subject, |key| {
            let mut parts = Vec::new();
            if !gone.is_empty() {
                parts.push(format!("−{}", gone.join(" −")));
            }
            if !come.is_empty() {
                parts.push(format!("+{}", come.join(" +")));
            }
            if parts.is_empty() {
                parts.push("in another order".to_owned());
            }
            format!("{key} {}", parts.join(" "))
        });
    }
}

/// A value on one line, as it could stand in a document; keys that are empty are left out.
fn show(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Null => "none".to_owned(),
        Value::Object(map) => {
            let empty = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
            let entries: Vec<String> =
                map.iter().filter(|(_, v)| !empty(v)).map(|(k, v)| format!("{k}: {}", show(v))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
