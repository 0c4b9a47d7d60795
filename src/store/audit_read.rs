//! Events as the store has them: what the API searches and what an export takes.

use sqlx::FromRow;
use sqlx::types::Uuid;

use super::audit::{class_of, hash, number, signed, unsigned, uuid};
use super::tx::q;
use super::{Page, StoreError, TenantScope, Time, Tx};
use crate::audit::{ChainId, Class, Hash, Head, WriterId};
use crate::base::TenantId;

/// Payloads of one answer, in bytes, that bodies are read with. One event is read however long it is.
const MOST_AT_ONCE: i64 = 4 << 20;

/// Columns of an event with all that it says. `$place` is the engine's function for the place of a text in another one.
///
/// Bodies come last in a payload (`audit::payload`), and a quotation mark inside of a text has a backslash before it: what
/// is looked for is found only where a field begins.
macro_rules! whole {
    ($place:literal) => {
        concat!(
            "tenant, class, writer, sequence, time, commitment, link, salt, payload, ",
            "coalesce(",
            $place,
            "(payload, ',\"request_body\":\"') > 0, false) AS has_request_body, coalesce(",
            $place,
            "(payload, ',\"response_body\":\"') > 0, false) AS has_response_body"
        )
    };
}

/// The same without bodies: what nobody is shown never leaves the database.
macro_rules! plain {
    ($place:literal) => {
        concat!(
            "tenant, class, writer, sequence, time, commitment, link, salt, CASE WHEN ",
            $place,
            "(payload, ',\"request_body\":\"') > 0 THEN substr(payload, 1, ",
            $place,
            "(payload, ',\"request_body\":\"') - 1) || '}' WHEN ",
            $place,
            "(payload, ',\"response_body\":\"') > 0 THEN substr(payload, 1, ",
            $place,
            "(payload, ',\"response_body\":\"') - 1) || '}' ELSE payload END AS payload, coalesce(",
            $place,
            "(payload, ',\"request_body\":\"') > 0, false) AS has_request_body, coalesce(",
            $place,
            "(payload, ',\"response_body\":\"') > 0, false) AS has_response_body"
        )
    };
}

/// An event as the store has it.
#[derive(Clone, Debug, FromRow)]
pub struct AuditEvent {
    /// Whose.
    pub tenant: String,
    class: i16,
    writer: Uuid,
    sequence: i64,
    /// When.
    pub time: Time,
    commitment: Vec<u8>,
    link: Vec<u8>,
    salt: Option<Vec<u8>>,
    /// The canonical JSON; `None` once it was erased. Without bodies unless they were asked for.
    pub payload: Option<String>,
    /// Whether the request's body was recorded.
    pub has_request_body: bool,
    /// Whether the response's body was recorded.
    pub has_response_body: bool,
}

impl AuditEvent {
    /// Which plane.
    pub fn class(&self) -> Class {
        class_of(self.class)
    }

    /// Who wrote it.
    pub fn writer(&self) -> WriterId {
        WriterId::from_bytes(self.writer.into_bytes())
    }

    /// Its number in its chain.
    pub fn sequence(&self) -> u64 {
        unsigned(self.sequence)
    }

    /// What the chain commits to.
    pub fn commitment(&self) -> Hash {
        hash(&self.commitment)
    }

    /// Its link.
    pub fn link(&self) -> Hash {
        hash(&self.link)
    }

    /// The salt of the commitment, unless it was erased.
    pub fn salt(&self) -> Option<[u8; 16]> {
        self.salt.as_deref()?.try_into().ok()
    }

    /// Whether there is anything that only auditors read.
    pub fn has_bodies(&self) -> bool {
        self.has_request_body || self.has_response_body
    }

    /// Which bodies were recorded: `request`, `response`.
    pub fn bodies(&self) -> Vec<&'static str> {
        let there = [("request", self.has_request_body), ("response", self.has_response_body)];
        there.into_iter().filter_map(|(name, there)| there.then_some(name)).collect()
    }

    /// Where a page that ends with it ends; the next one is asked for before this place.
    pub fn place(&self) -> AuditPlace {
        AuditPlace {
            time: self.time,
            class: self.class,
            writer: self.writer.into_bytes(),
            sequence: self.sequence,
        }
    }
}

/// A place in the order in which events are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AuditPlace {
    time: Time,
    class: i16,
    writer: [u8; 16],
    sequence: i64,
}

/// Which events are asked for. Fields that are `None` let everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuditFilter {
    /// From this time on.
    pub from: Option<Time>,
    /// Before this time.
    pub to: Option<Time>,
    /// `data` or `control`.
    pub class: Option<String>,
    /// The caller.
    pub principal: Option<String>,
    /// The route.
    pub route: Option<String>,
    /// The server.
    pub server: Option<String>,
    /// The tool, prompt, resource or object.
    pub name: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
}

/// A chain as the store has it.
#[derive(Clone, Debug)]
pub struct StoredChain {
    /// Which.
    pub id: ChainId,
    /// Behind which event it begins.
    pub from: Head,
    /// How far it is.
    pub head: Head,
}

#[derive(FromRow)]
pub(super) struct ChainRow {
    tenant: String,
    class: i16,
    writer: Uuid,
    sequence: i64,
    link: Vec<u8>,
    time: Time,
    from_sequence: i64,
    from_link: Vec<u8>,
}

impl From<ChainRow> for StoredChain {
    fn from(row: ChainRow) -> Self {
        let id = ChainId {
            tenant: row.tenant,
            writer: WriterId::from_bytes(row.writer.into_bytes()),
            class: class_of(row.class),
        };
        Self {
            from: Head { sequence: unsigned(row.from_sequence), link: hash(&row.from_link), time_us: 0 },
            head: Head {
                sequence: unsigned(row.sequence),
                link: hash(&row.link),
                time_us: unsigned(row.time.micros()),
            },
            id,
        }
    }
}

impl Tx {
    /// Events without their bodies, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_search(
        &mut self,
        tenant: &TenantId,
        filter: &AuditFilter,
        before: Option<AuditPlace>,
        page: Page,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        let from = filter.from.unwrap_or(Time::from_micros(0));
        let to = filter.to.unwrap_or(Time::from_micros(FOREVER));
        let place = before.unwrap_or(AuditPlace {
            time: to,
            class: i16::MAX,
            writer: [0xff; 16],
            sequence: i64::MAX,
        });
        let class = filter.class.as_deref().map(|name| Class::parse(name).map_or(0, number));
        let to = to.min(place.time.plus(std::time::Duration::from_micros(1)));
        macro_rules! search {
            (@ $place:literal, $caller:literal) => {
                    concat!(
                        "SELECT ", plain!($place), " FROM audit_events
                          WHERE tenant = $1 AND time >= $2 AND time < $3
                            AND (time, class, writer, sequence) < ($4, $5, $6, $7)
                            AND ($8 IS NULL OR class = $8)
                            AND ", $caller, "
                            AND ($10 IS NULL OR route = $10)
                            AND ($11 IS NULL OR server = $11)
                            AND ($12 IS NULL OR name = $12)
                            AND ($13 IS NULL OR outcome = $13)
                          ORDER BY time DESC, class DESC, writer DESC, sequence DESC LIMIT $14"
                    )
            };
            ($caller:literal) => {
                q!(
                    self, all as AuditEvent,
                    pg search!(@ "strpos", $caller),
                    lite search!(@ "instr", $caller),
                    tenant.as_str(),
                    from,
                    to,
                    place.time,
                    place.class,
                    Uuid::from_bytes(place.writer),
                    place.sequence,
                    class,
                    filter.principal.as_deref(),
                    filter.route.as_deref(),
                    filter.server.as_deref(),
                    filter.name.as_deref(),
                    filter.outcome.as_deref(),
                    page.limit()
                )
            };
        }
        // One statement for both would have one plan for both, and that one could not use the index of callers.
        if filter.principal.is_some() { search!("principal = $9") } else { search!("$9 IS NULL") }
    }

    /// The tenant's chains.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_chains(&mut self, tenant: &TenantId) -> Result<Vec<StoredChain>, StoreError> {
        let rows = q!(
            self,
            all as ChainRow,
            "SELECT tenant, class, writer, sequence, link, time, from_sequence, from_link FROM audit_heads
              WHERE tenant = $1 ORDER BY class, writer",
            tenant.as_str()
        )?;
        Ok(rows.into_iter().map(StoredChain::from).collect())
    }

    /// Events of one chain without their bodies, in its order, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_range(
        &mut self,
        id: &ChainId,
        after: u64,
        page: Page,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        q!(
            self, all as AuditEvent,
            pg concat!("SELECT ", plain!("strpos"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND sequence > $4 ORDER BY sequence LIMIT $5"),
            lite concat!("SELECT ", plain!("instr"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND sequence > $4 ORDER BY sequence LIMIT $5"),
            &*id.tenant,
            number(id.class),
            uuid(id.writer),
            signed(after),
            page.limit()
        )
    }

    /// The same with bodies, and so perhaps fewer of them: a few megabytes.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_range_whole(
        &mut self,
        id: &ChainId,
        after: u64,
        page: Page,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        macro_rules! range {
            ($place:literal) => {
                concat!(
                    "SELECT ",
                    whole!($place),
                    " FROM (SELECT e.*, sum(octet_length(coalesce(payload, ''))) OVER (ORDER BY sequence)
                                        - octet_length(coalesce(payload, '')) AS ahead
                              FROM (SELECT * FROM audit_events
                                     WHERE tenant = $1 AND class = $2 AND writer = $3 AND sequence > $4
                                     ORDER BY sequence LIMIT $5) e) w
                      WHERE ahead < $6 ORDER BY sequence"
                )
            };
        }
        q!(
            self, all as AuditEvent,
            pg range!("strpos"),
            lite range!("instr"),
            &*id.tenant,
            number(id.class),
            uuid(id.writer),
            signed(after),
            page.limit(),
            MOST_AT_ONCE
        )
    }

    /// One event with its bodies.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_event(
        &mut self,
        id: &ChainId,
        sequence: u64,
    ) -> Result<Option<AuditEvent>, StoreError> {
        q!(
            self, optional as AuditEvent,
            pg concat!("SELECT ", whole!("strpos"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND sequence = $4"),
            lite concat!("SELECT ", whole!("instr"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND sequence = $4"),
            &*id.tenant,
            number(id.class),
            uuid(id.writer),
            signed(sequence)
        )
    }

    /// The last event of a chain before a time, without its bodies.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_before(&mut self, id: &ChainId, time: Time) -> Result<Option<AuditEvent>, StoreError> {
        q!(
            self, optional as AuditEvent,
            pg concat!("SELECT ", plain!("strpos"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND time < $4 ORDER BY sequence DESC LIMIT 1"),
            lite concat!("SELECT ", plain!("instr"), " FROM audit_events
              WHERE tenant = $1 AND class = $2 AND writer = $3 AND time < $4 ORDER BY sequence DESC LIMIT 1"),
            &*id.tenant,
            number(id.class),
            uuid(id.writer),
            time
        )
    }

    /// Signed checkpoints of the tenant, in their order, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_checkpoints(
        &mut self,
        tenant: &TenantId,
        after: i64,
        page: Page,
    ) -> Result<Vec<(i64, String)>, StoreError> {
        q!(
            self,
            all as (i64, String),
            "SELECT number, statement FROM audit_checkpoints WHERE tenant = $1 AND number > $2 ORDER BY number LIMIT $3",
            tenant.as_str(),
            after,
            page.limit()
        )
    }

    /// The last signed checkpoint of the tenant.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_last_checkpoint(
        &mut self,
        tenant: &TenantId,
    ) -> Result<Option<(i64, String)>, StoreError> {
        q!(
            self,
            optional as (i64, String),
            "SELECT number, statement FROM audit_checkpoints WHERE tenant = $1 ORDER BY number DESC LIMIT 1",
            tenant.as_str()
        )
    }
}

impl TenantScope<'_> {
    /// The tenant's events without their bodies, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_search(
        &self,
        filter: &AuditFilter,
        before: Option<AuditPlace>,
        page: Page,
    ) -> Result<Vec<AuditEvent>, StoreError> {
        self.read().await?.audit_search(self.tenant(), filter, before, page).await
    }

    /// One event with its bodies, by its place in the tenant's chains.
    ///
    /// # Errors
    /// The database.
    pub async fn audit_event(
        &self,
        class: Class,
        writer: WriterId,
        sequence: u64,
    ) -> Result<Option<AuditEvent>, StoreError> {
        let id = ChainId { tenant: self.tenant().to_string(), writer, class };
        self.read().await?.audit_event(&id, sequence).await
    }
}

impl AuditFilter {
    /// Whether an event with these keys is asked for; times are not looked at.
    pub fn shows(&self, class: Class, payload: &serde_json::Value) -> bool {
        let text = |field: &str| payload.get(field).and_then(serde_json::Value::as_str).unwrap_or_default();
        let fits = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        let name = if text("name").is_empty() { text("object") } else { text("name") };
        self.class.as_deref().is_none_or(|c| c == class.as_str())
            && fits(&self.principal, text("principal"))
            && fits(&self.route, text("route"))
            && fits(&self.server, text("server"))
            && fits(&self.name, name)
            && fits(&self.outcome, text("outcome"))
    }

    /// Whether only times are asked for.
    pub fn shows_all(&self) -> bool {
        *self == Self { from: self.from, to: self.to, ..Self::default() }
    }
}

/// Later than every event, and still in the calendar of both engines: the year 9999.
const FOREVER: i64 = 253_370_764_800_000_000;
