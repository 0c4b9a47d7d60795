//! The keys of one tenant, found by id.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::auth::LineError;
use crate::auth::api_key::format::parse;
use crate::auth::api_key::record::RawRecord;
use crate::auth::api_key::{KeyHash, KeyPepper, KeyRecord, Restriction};
use crate::auth::records;
use crate::base::{Principal, PrincipalId, PrincipalKind, TenantId};

/// The most keys of one tenant.
const MAX_KEYS: usize = 1_000_000;
/// The issuer of principals that a key stands for.
const ISSUER: &str = "key";

/// Why a key was refused. For logs: the caller learns only that it is not valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// The right key, from a network that may not use it.
    #[error("not from this address")]
    Address,
    /// Switched off.
    #[error("disabled")]
    Disabled,
    /// Its time is over.
    #[error("expired")]
    Expired,
    /// Not the form of a key, or its checksum is wrong.
    #[error("malformed")]
    Malformed,
    /// API keys are not accepted by this tenant.
    #[error("keys are not accepted here")]
    NotAccepted,
    /// The id exists, the rest is wrong.
    #[error("wrong secret")]
    Secret,
    /// There is no key with this id.
    #[error("unknown id")]
    Unknown,
}

impl KeyRefusal {
    /// Whether what was presented was no genuine key.
    pub(crate) fn is_guess(self) -> bool {
        !matches!(self, KeyRefusal::Address | KeyRefusal::Disabled | KeyRefusal::Expired)
    }
}

/// When a key was last used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUse {
    /// The key's id.
    pub id: String,
    /// Seconds since the Unix epoch.
    pub last_used: u64,
}

/// An immutable list of keys.
#[derive(Clone, Debug, Default)]
pub struct KeyTable {
    keys: HashMap<Box<str>, Arc<KeyEntry>>,
}

#[derive(Debug)]
pub(crate) struct KeyEntry {
    pub(crate) principal: Arc<Principal>,
    pub(crate) restriction: Option<Arc<Restriction>>,
    pub(crate) created: Option<u64>,
    hash: KeyHash,
    cidr: Vec<IpNet>,
    disabled: bool,
    use_: Arc<Use>,
}

/// Survives a replaced table as long as the hash is the same.
#[derive(Debug, Default)]
struct Use {
    /// Whether the right secret has been presented in the life of this process.
    verified: AtomicBool,
    last_used: AtomicU64,
}

impl KeyTable {
    /// Parses a list (YAML sequence or JSON lines; see [`KeyRecord`] for the fields) and compiles it. All errors are
    /// reported, each with its line.
    pub fn parse(text: &str, tenant: &TenantId, pepper: Option<&KeyPepper>) -> Result<Self, Vec<LineError>> {
        let records = records::build(records::parse::<RawRecord>(text)?, RawRecord::check)?;
        Self::compile(records, tenant, pepper)
    }

    /// Compiles records that come from elsewhere; in errors `line` is the position in the list, from 1.
    pub fn build(
        records: Vec<KeyRecord>,
        tenant: &TenantId,
        pepper: Option<&KeyPepper>,
    ) -> Result<Self, Vec<LineError>> {
        Self::compile(records.into_iter().enumerate().map(|(i, r)| (i + 1, r)).collect(), tenant, pepper)
    }

    /// Compiles what of these records can be taken, and says which cannot and why. For records that come one by one from
    /// elsewhere: one that is wrong must not keep the others out.
    fn sound(
        records: Vec<KeyRecord>,
        tenant: &TenantId,
        pepper: Option<&KeyPepper>,
    ) -> (Self, Vec<(String, String)>) {
        let (mut keys, mut refused) = (HashMap::with_capacity(records.len()), Vec::new());
        for record in records {
            let id = record.id.clone();
            let entry = match keys.len() < MAX_KEYS {
                true => KeyEntry::compile(record, tenant, pepper),
                false => Err(format!("more than {MAX_KEYS} keys")),
            };
            match entry {
                Ok(entry) => drop(keys.insert(id.into(), Arc::new(entry))),
                Err(problem) => refused.push((id, problem)),
            }
        }
        (Self { keys }, refused)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    fn compile(
        records: Vec<(usize, KeyRecord)>,
        tenant: &TenantId,
        pepper: Option<&KeyPepper>,
    ) -> Result<Self, Vec<LineError>> {
        if records.len() > MAX_KEYS {
            return Err(vec![LineError { line: MAX_KEYS, problem: format!("more than {MAX_KEYS} keys") }]);
        }
        let mut keys = HashMap::with_capacity(records.len());
        records::build(records, |record| {
            let id: Box<str> = record.id.as_str().into();
            let entry = Arc::new(KeyEntry::compile(record, tenant, pepper)?);
            match keys.insert(id, entry) {
                Some(_) => Err("`id` appears twice".to_owned()),
                None => Ok(()),
            }
        })?;
        Ok(Self { keys })
    }
}

impl KeyEntry {
    fn compile(record: KeyRecord, tenant: &TenantId, pepper: Option<&KeyPepper>) -> Result<Self, String> {
        record.check()?;
        if record.hash.is_peppered() && pepper.is_none() {
            return Err("the hash needs the pepper, and none is configured".to_owned());
        }
        let restriction = Restriction::compile(&record.scopes)?.map(Arc::new);
        let scopes = record.scopes.lists().into_iter();
        let scopes =
            scopes.flat_map(|(kind, list)| list.iter().map(move |name| format!("{kind}:{name}").into()));
        let principal = Principal {
            tenant: tenant.clone(),
            id: match record.principal {
                Some(id) => PrincipalId::new(id),
                None => PrincipalId::new(format!("{ISSUER}|{}", record.id)),
            },
            kind: PrincipalKind::Key,
            roles: record.roles.into_iter().collect(),
            groups: Vec::new(),
            scopes: scopes.collect(),
            claims: serde_json::Value::Null,
            issuer: Some(ISSUER.into()),
            credential_id: Some(record.id.into()),
            expires_at: record.expires.map(|at| at.0),
        };
        Ok(Self {
            principal: Arc::new(principal),
            restriction,
            created: record.created.map(|at| at.0),
            hash: record.hash,
            cidr: record.cidr,
            disabled: record.disabled,
            use_: Arc::default(),
        })
    }
}

/// The current keys of one tenant. Lives beside the snapshot; replaced as a whole or changed key by key.
#[derive(Debug)]
pub struct KeyStore {
    tenant: TenantId,
    pepper: Option<KeyPepper>,
    table: ArcSwap<KeyTable>,
}

impl KeyStore {
    /// A store without keys.
    pub fn new(tenant: TenantId, pepper: Option<KeyPepper>) -> Self {
        Self { tenant, pepper, table: ArcSwap::default() }
    }

    /// The tenant whose keys these are.
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Reads a text as this tenant's keys, without putting them in force.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(&self, text: &str) -> Result<KeyTable, Vec<LineError>> {
        KeyTable::parse(text, &self.tenant, self.pepper.as_ref())
    }

    /// Replaces all keys by those of a table that was made for this tenant.
    pub fn install(&self, table: KeyTable) {
        self.swap(table);
    }

    /// Replaces all keys by those of a text; with an error in it, nothing changes.
    pub fn replace_text(&self, text: &str) -> Result<(), Vec<LineError>> {
        self.swap(KeyTable::parse(text, &self.tenant, self.pepper.as_ref())?);
        Ok(())
    }

    /// Replaces all keys; with an error in one, nothing changes.
    pub fn replace(&self, records: Vec<KeyRecord>) -> Result<(), Vec<LineError>> {
        self.swap(KeyTable::build(records, &self.tenant, self.pepper.as_ref())?);
        Ok(())
    }

    /// Replaces all keys by those of these records that can be taken. Gives the others, by id, with what is wrong.
    pub fn replace_sound(&self, records: Vec<KeyRecord>) -> Vec<(String, String)> {
        let (table, refused) = KeyTable::sound(records, &self.tenant, self.pepper.as_ref());
        self.swap(table);
        refused
    }

    /// Adds or replaces some keys and removes others, as a feed of changes brings them. A record that cannot be taken counts
    /// as removed (what it allowed before, it must not go on to allow) and is given back, by id, with what is wrong. Costs
    /// a copy of the table's pointers, so changes should come in batches.
    pub fn change(&self, upsert: Vec<KeyRecord>, remove: &[String]) -> Vec<(String, String)> {
        let (changed, refused) = KeyTable::sound(upsert, &self.tenant, self.pepper.as_ref());
        self.table.rcu(|current| {
            let mut keys = current.keys.clone();
            for id in remove.iter().chain(refused.iter().map(|(id, _)| id)) {
                keys.remove(id.as_str());
            }
            keys.extend(changed.keys.iter().map(|(id, entry)| (id.clone(), entry.clone())));
            KeyTable { keys }.inherit(current)
        });
        refused
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.load().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.load().is_empty()
    }

    /// The keys used since `since` (Unix seconds), for the record of last use.
    pub fn used_since(&self, since: u64) -> Vec<KeyUse> {
        let table = self.table.load();
        let uses = table.keys.iter().map(|(id, e)| (id, e.use_.last_used.load(Ordering::Relaxed)));
        uses.filter(|(_, at)| *at > 0 && *at >= since)
            .map(|(id, last_used)| KeyUse { id: id.to_string(), last_used })
            .collect()
    }

    /// Hot: finds and verifies a key: one lookup, one SHA-256 of 65 bytes, no allocation.
    ///
    /// `may_guess` says whether the address may still fail. It is asked only about keys that have not been verified in
    /// the life of this process; if it may not, they are refused without a look at their secret, and `None` says so.
    pub(crate) fn verify(
        &self,
        text: &[u8],
        address: IpAddr,
        now_unix: u64,
        may_guess: impl Fn() -> bool,
    ) -> Result<Option<Arc<KeyEntry>>, KeyRefusal> {
        let guess = |refusal| if may_guess() { Err(refusal) } else { Ok(None) };
        let Some(id) = parse(text) else { return guess(KeyRefusal::Malformed) };
        let entry = self.table.load().keys.get(id).cloned();
        let known = entry.as_ref().is_some_and(|e| e.use_.verified.load(Ordering::Relaxed));
        if !known && !may_guess() {
            return Ok(None);
        }
        let Some(entry) = entry else {
            // Ids are public, but whether one exists need not be measurable.
            let _ = std::hint::black_box(KeyHash::of(text, self.pepper.as_ref()));
            return Err(KeyRefusal::Unknown);
        };
        if !entry.hash.matches(text, self.pepper.as_ref()) {
            return guess(KeyRefusal::Secret);
        }
        if entry.disabled {
            return Err(KeyRefusal::Disabled);
        }
        if entry.principal.expires_at.is_some_and(|at| now_unix >= at) {
            return Err(KeyRefusal::Expired);
        }
        let address = address.to_canonical();
        if !entry.cidr.is_empty() && !entry.cidr.iter().any(|net| net.contains(&address)) {
            return Err(KeyRefusal::Address);
        }
        entry.use_.touch(now_unix);
        Ok(Some(entry))
    }

    fn swap(&self, table: KeyTable) {
        // May run more than once if another writer comes first, so it must not consume.
        self.table.rcu(|current| KeyTable { keys: table.keys.clone() }.inherit(current));
    }
}

impl KeyTable {
    /// Takes over what is known of keys that did not change.
    fn inherit(mut self, earlier: &KeyTable) -> Self {
        for (id, entry) in &mut self.keys {
            if let Some(old) = earlier.keys.get(id)
                && old.hash == entry.hash
                && !Arc::ptr_eq(old, entry)
            {
                *entry = Arc::new(KeyEntry {
                    principal: entry.principal.clone(),
                    restriction: entry.restriction.clone(),
                    created: entry.created,
                    hash: entry.hash.clone(),
                    cidr: entry.cidr.clone(),
                    disabled: entry.disabled,
                    use_: old.use_.clone(),
                });
            }
        }
        self
    }
}

impl Use {
    fn touch(&self, now_unix: u64) {
        // Written only when it changes: at most once a second, so that cores do not fight over the line.
        if self.last_used.load(Ordering::Relaxed) < now_unix {
            self.last_used.store(now_unix, Ordering::Relaxed);
        }
        if !self.verified.load(Ordering::Relaxed) {
            self.verified.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::key_record;
    use crate::auth::{Timestamp, generate_api_key};
    use crate::base::{Role, Secret};

    const NOW: u64 = 1_000;
    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

    fn store(records: Vec<KeyRecord>) -> KeyStore {
        let store = KeyStore::new(TenantId::default(), None);
        store.replace(records).unwrap();
        store
    }

    fn verify(store: &KeyStore, text: &str, address: IpAddr, now: u64) -> Result<Arc<KeyEntry>, KeyRefusal> {
        store.verify(text.as_bytes(), address, now, || true).map(|entry| entry.expect("not limited"))
    }

    #[test]
    fn only_the_exact_key_is_accepted() {
        let (text, record) = key_record(Role::Developer);
        let (other, _) = key_record(Role::Admin);
        let store = store(vec![record.clone()]);
        let entry = verify(&store, &text, HOME, NOW).unwrap();
        assert_eq!(entry.principal.id.as_str(), format!("key|{}", record.id));
        assert_eq!((entry.principal.kind, entry.principal.role()), (PrincipalKind::Key, Role::Developer));
        assert_eq!(verify(&store, &other, HOME, NOW).unwrap_err(), KeyRefusal::Unknown);
        assert_eq!(verify(&store, &text[..60], HOME, NOW).unwrap_err(), KeyRefusal::Malformed);
    }

    #[test]
    fn a_well_formed_key_with_anothers_id_is_refused() {
        let (text, record) = key_record(Role::Developer);
        let (other, mut foreign) = key_record(Role::Developer);
        foreign.id = record.id;
        let store = store(vec![foreign]);
        assert_eq!(verify(&store, &text, HOME, NOW).unwrap_err(), KeyRefusal::Secret);
        assert_eq!(verify(&store, &other, HOME, NOW).unwrap_err(), KeyRefusal::Unknown);
    }

    #[test]
    fn disabled_expired_and_foreign_addresses_are_refused() {
        let (text, record) = key_record(Role::Developer);
        let with = |change: &dyn Fn(&mut KeyRecord)| {
            let mut record = record.clone();
            change(&mut record);
            store(vec![record])
        };
        let disabled = with(&|r| r.disabled = true);
        assert_eq!(verify(&disabled, &text, HOME, NOW).unwrap_err(), KeyRefusal::Disabled);
        let expiring = with(&|r| r.expires = Some(Timestamp(NOW)));
        assert_eq!(verify(&expiring, &text, HOME, NOW).unwrap_err(), KeyRefusal::Expired);
        assert!(verify(&expiring, &text, HOME, NOW - 1).is_ok());
        let bound = with(&|r| r.cidr = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()]);
        assert!(verify(&bound, &text, HOME, NOW).is_ok());
        assert!(verify(&bound, &text, "::ffff:10.9.9.9".parse().unwrap(), NOW).is_ok(), "mapped IPv4");
        assert!(verify(&bound, &text, "2001:db8::1".parse().unwrap(), NOW).is_ok());
        let stranger = verify(&bound, &text, "11.0.0.1".parse().unwrap(), NOW);
        assert_eq!(stranger.unwrap_err(), KeyRefusal::Address);
    }

    #[test]
    fn over_the_limit_only_keys_seen_before_are_looked_at() {
        let (text, record) = key_record(Role::Developer);
        let (wrong, mut same_id) = key_record(Role::Developer);
        same_id.id = record.id.clone();
        let store = store(vec![record]);
        let limited = |text: &str| store.verify(text.as_bytes(), HOME, NOW, || false).unwrap();
        assert!(limited(&text).is_none(), "not verified yet");
        verify(&store, &text, HOME, NOW).unwrap();
        assert!(limited(&text).is_some());
        assert!(limited(&wrong).is_none());
        assert!(limited("junk").is_none());
    }

    #[test]
    fn what_is_known_of_a_key_survives_a_new_table() {
        let (text, record) = key_record(Role::Developer);
        let store = store(vec![record.clone()]);
        verify(&store, &text, HOME, NOW).unwrap();
        store.replace(vec![KeyRecord { note: Some("x".into()), ..record.clone() }]).unwrap();
        assert_eq!(store.used_since(0), [KeyUse { id: record.id.clone(), last_used: NOW }]);
        assert!(store.verify(text.as_bytes(), HOME, NOW, || false).unwrap().is_some());
        let replaced = KeyRecord { hash: KeyHash::of(b"other", None), ..record };
        store.replace(vec![replaced]).unwrap();
        assert_eq!(store.used_since(0), [], "another secret is another key");
    }

    #[test]
    fn changes_touch_only_what_they_name() {
        let (one_text, one) = key_record(Role::Developer);
        let (two_text, two) = key_record(Role::Developer);
        let store = store(vec![one.clone()]);
        verify(&store, &one_text, HOME, NOW).unwrap();
        assert_eq!(store.change(vec![two], &[]), []);
        assert!(verify(&store, &one_text, HOME, NOW).is_ok() && verify(&store, &two_text, HOME, NOW).is_ok());
        assert_eq!(store.change(vec![KeyRecord { disabled: true, ..one.clone() }], &[]), []);
        assert_eq!(verify(&store, &one_text, HOME, NOW).unwrap_err(), KeyRefusal::Disabled);
        assert_eq!(store.used_since(0).len(), 2);
        assert_eq!(store.change(vec![], std::slice::from_ref(&one.id)), []);
        assert_eq!(verify(&store, &one_text, HOME, NOW).unwrap_err(), KeyRefusal::Unknown);
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_record_that_cannot_be_taken_keeps_no_other_from_counting() {
        let (good_text, good) = key_record(Role::Developer);
        let (gone_text, gone) = key_record(Role::Developer);
        let (odd_text, odd) = key_record(Role::Developer);
        let store = store(vec![gone.clone(), odd.clone()]);
        let broken =
            KeyRecord { hash: KeyHash::of(b"x", KeyPepper::new(&Secret::new(vec![7; 32])).as_ref()), ..odd };
        let refused = store.change(vec![broken.clone(), good.clone()], std::slice::from_ref(&gone.id));
        assert_eq!(refused.iter().map(|(id, _)| id).collect::<Vec<_>>(), [&broken.id]);
        let check = |store: &KeyStore| {
            assert!(verify(store, &good_text, HOME, NOW).is_ok());
            assert_eq!(
                verify(store, &gone_text, HOME, NOW).unwrap_err(),
                KeyRefusal::Unknown,
                "it was deleted"
            );
            assert_eq!(
                verify(store, &odd_text, HOME, NOW).unwrap_err(),
                KeyRefusal::Unknown,
                "nor as it was"
            );
        };
        check(&store);
        let fresh = KeyStore::new(TenantId::default(), None);
        assert_eq!(fresh.replace_sound(vec![broken, good.clone()]).len(), 1);
        check(&fresh);
        // What would be refused there is refused where it is made.
        let scopes = crate::auth::KeyScopes { tools: vec!["a".repeat(5_000)], ..Default::default() };
        assert!(KeyRecord { scopes, ..good }.check().is_err());
    }

    #[test]
    fn files_are_read_and_a_broken_one_changes_nothing() {
        let key = generate_api_key(&mut rand::rng());
        let hash = KeyHash::of(key.text.expose().as_bytes(), None);
        let yaml = format!(
            "- id: {}\n  hash: {hash}\n  principal: corp|alice\n  roles: [developer, viewer]\n  scopes: {{ tools: [\"get_*\"], routes: [weather] }}\n  cidr: [10.0.0.0/8, 192.0.2.7]\n  expires: 2027-01-31T00:00:00Z\n  note: laptop\n",
            key.id
        );
        let store = KeyStore::new(TenantId::default(), None);
        store.replace_text(&yaml).unwrap();
        let entry = verify(&store, key.text.expose(), HOME, NOW).unwrap();
        assert_eq!(entry.principal.id.as_str(), "corp|alice");
        assert_eq!(entry.principal.expires_at, Some(1_801_353_600));
        let scopes: Vec<_> = entry.principal.scopes.iter().map(|s| &**s).collect();
        assert_eq!(scopes, ["route:weather", "tool:get_*"]);
        assert!(!entry.restriction.as_ref().unwrap().allows_tool("delete"));

        let json = |extra: &str| {
            format!("{{\"id\":\"{}\",\"hash\":\"{hash}\",\"roles\":[\"viewer\"]{extra}}}\n", key.id)
        };
        store.replace_text(&json("")).unwrap();
        for (bad, line) in [
            (format!("{}{}", json(""), json("")), 2),
            (format!("\n{}", json(",\"cidr\":[\"10.0.0.0/40\"]")), 2),
            (json(",\"scope\":{}"), 1),
            (json(",\"scopes\":{\"tool\":[]}"), 1),
            (json(",\"expires\":\"soon\""), 1),
            (json(",\"principal\":\"\""), 1),
            (json("").replace("viewer", "root"), 1),
            (json("").replace("[\"viewer\"]", "[]"), 1),
            (json("").replace("sha256:", "hmac-sha256:"), 1),
            (json("").replace(&hash.to_string(), key.text.expose()), 1),
            (json("").replace(&key.id, "short"), 1),
        ] {
            let errors = store.replace_text(&bad).unwrap_err();
            assert_eq!(errors[0].line, line, "{bad}: {errors:?}");
            assert!(!errors[0].problem.contains(key.text.expose().as_str()), "the key is not repeated");
        }
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn peppered_hashes_need_the_pepper() {
        let pepper = KeyPepper::new(&Secret::new(vec![7; 32])).unwrap();
        let (text, record) = key_record(Role::Viewer);
        let record = KeyRecord { hash: KeyHash::of(text.as_bytes(), Some(&pepper)), ..record };
        let store = KeyStore::new(TenantId::default(), Some(pepper));
        store.replace(vec![record.clone()]).unwrap();
        assert!(verify(&store, &text, HOME, NOW).is_ok());
        assert!(KeyStore::new(TenantId::default(), None).replace(vec![record]).is_err());
    }
}
