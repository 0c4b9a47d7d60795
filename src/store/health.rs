//! Health in the store: what each replica saw of each target, by minute and hour, and every change of a target's state.
//!
//! A replica writes its own rows only, so replicas never wait for each other. A minute is written once; the hour it lies in
//! grows in the same transaction, and only by minutes that were not there yet, so that a batch whose commit nobody heard of
//! may be written again.

use sqlx::FromRow;

use super::tx::q;
use super::{Engine, Grain, Page, Platform, StoreError, TenantScope, Time};

/// What a replica saw of a target in one minute or hour. Sums, so that they add up.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct HealthSample {
    /// Whose.
    pub tenant: String,
    /// When the interval begins.
    pub at: Time,
    /// The server.
    pub server: String,
    /// The target and its address.
    pub target: String,
    /// Who saw it.
    pub replica: String,
    /// How often the target was looked at.
    pub observed: i64,
    /// How often it took new work then.
    pub available: i64,
    /// Active checks that ended.
    pub probes: i64,
    /// Those that failed.
    pub probes_failed: i64,
    /// How long all of them took together, in microseconds.
    pub probe_us: i64,
    /// How often there was a latency of requests.
    pub latency_count: i64,
    /// All of these added up, in microseconds.
    pub latency_us: i64,
    /// Most requests under way at once.
    pub in_flight_max: i64,
    /// How often live traffic took the target out.
    pub ejections: i64,
    /// How often its state changed.
    pub changes: i64,
    /// Its state in the end.
    pub state: String,
    /// What was wrong with it in the end.
    pub error: Option<String>,
}

/// A change of a target's state, as a replica saw it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct HealthChange {
    /// Whose.
    pub tenant: String,
    /// When.
    pub at: Time,
    /// The server.
    pub server: String,
    /// The target and its address.
    pub target: String,
    /// Who saw it.
    pub replica: String,
    /// The state before; none: the target was seen for the first time.
    pub was: Option<String>,
    /// The state from then on.
    pub state: String,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// How a target was when a replica last said so.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct HealthState {
    /// Whose.
    pub tenant: String,
    /// When it was so: at the end of a minute, or when it changed.
    pub at: Time,
    /// The server.
    pub server: String,
    /// The target and its address.
    pub target: String,
    /// Who saw it.
    pub replica: String,
    /// The state.
    pub state: String,
    /// What is wrong with it.
    pub error: Option<String>,
}

/// Rows that [`Platform::health_states`] reads of each table, at most.
const MAX_STATES: i64 = 50_000;

const MINUTE: std::time::Duration = std::time::Duration::from_secs(60);

/// The place of a row in a history: the next page begins behind it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HealthPlace {
    /// When.
    pub at: Time,
    /// Which target.
    pub target: String,
    /// Whose view.
    pub replica: String,
}

/// A server over a time, all of its targets and all replicas together.
#[derive(Clone, Debug, PartialEq, Eq, FromRow, serde::Serialize)]
pub struct HealthSummary {
    /// The server.
    pub server: String,
    /// How many targets were seen.
    pub targets: i64,
    /// How many replicas saw them.
    pub replicas: i64,
    /// How often targets were looked at.
    pub observed: i64,
    /// How often they took new work then.
    pub available: i64,
    /// Active checks that ended.
    pub probes: i64,
    /// Those that failed.
    pub probes_failed: i64,
    /// How long one took on average, in microseconds.
    pub probe_us: i64,
    /// Latency of requests on average, in microseconds; 0 if there was none.
    pub latency_us: i64,
    /// Most requests under way at one target at once.
    pub in_flight_max: i64,
    /// How often live traffic took a target out.
    pub ejections: i64,
    /// How often states changed.
    pub changes: i64,
    /// The last interval with anything in it.
    pub seen_at: Time,
}

/// Adds to hours what minutes have that are not there yet.
const ADD_TO_HOURS: &str = "
    INSERT INTO health_hour AS h (tenant, at, server, target, replica, observed, available, probes,
            probes_failed, probe_us, latency_count, latency_us, in_flight_max, ejections, changes, state, error)
    SELECT r.tenant, date_trunc('hour', 'epoch'::timestamptz + r.at * interval '1 microsecond', 'UTC'), r.server,
           r.target, r.replica, sum(r.observed), sum(r.available), sum(r.probes), sum(r.probes_failed),
           sum(r.probe_us), sum(r.latency_count), sum(r.latency_us), max(r.in_flight_max), sum(r.ejections),
           sum(r.changes), (array_agg(r.state ORDER BY r.at DESC))[1], (array_agg(r.error ORDER BY r.at DESC))[1]
      FROM jsonb_to_recordset($1) AS r(tenant text, at bigint, server text, target text, replica text,
           observed bigint, available bigint, probes bigint, probes_failed bigint, probe_us bigint,
           latency_count bigint, latency_us bigint, in_flight_max bigint, ejections bigint, changes bigint,
           state text, error text)
     WHERE NOT EXISTS (
           SELECT 1 FROM health_minute m WHERE m.tenant = r.tenant
              AND m.at = 'epoch'::timestamptz + r.at * interval '1 microsecond'
              AND m.server = r.server AND m.target = r.target AND m.replica = r.replica)
     GROUP BY 1, 2, 3, 4, 5
    ON CONFLICT (tenant, at, server, target, replica) DO UPDATE
       SET observed = h.observed + excluded.observed, available = h.available + excluded.available,
           probes = h.probes + excluded.probes, probes_failed = h.probes_failed + excluded.probes_failed,
           probe_us = h.probe_us + excluded.probe_us, latency_count = h.latency_count + excluded.latency_count,
           latency_us = h.latency_us + excluded.latency_us,
           in_flight_max = greatest(h.in_flight_max, excluded.in_flight_max),
           ejections = h.ejections + excluded.ejections, changes = h.changes + excluded.changes,
           state = excluded.state, error = excluded.error";

const ADD_TO_HOURS_LITE: &str = "
    INSERT INTO health_hour AS h (tenant, at, server, target, replica, observed, available, probes,
            probes_failed, probe_us, latency_count, latency_us, in_flight_max, ejections, changes, state, error)
    SELECT r.value ->> 'tenant', (r.value ->> 'at') / 3600000000 * 3600000000, r.value ->> 'server',
           r.value ->> 'target', r.value ->> 'replica', r.value ->> 'observed', r.value ->> 'available',
           r.value ->> 'probes', r.value ->> 'probes_failed', r.value ->> 'probe_us',
           r.value ->> 'latency_count', r.value ->> 'latency_us', r.value ->> 'in_flight_max',
           r.value ->> 'ejections', r.value ->> 'changes', r.value ->> 'state', r.value ->> 'error'
      FROM json_each($1) r
     WHERE NOT EXISTS (
           SELECT 1 FROM health_minute m WHERE m.tenant = r.value ->> 'tenant' AND m.at = r.value ->> 'at'
              AND m.server = r.value ->> 'server' AND m.target = r.value ->> 'target'
              AND m.replica = r.value ->> 'replica')
     ORDER BY r.value ->> 'at'
    ON CONFLICT (tenant, at, server, target, replica) DO UPDATE
       SET observed = h.observed + excluded.observed, available = h.available + excluded.available,
           probes = h.probes + excluded.probes, probes_failed = h.probes_failed + excluded.probes_failed,
           probe_us = h.probe_us + excluded.probe_us, latency_count = h.latency_count + excluded.latency_count,
           latency_us = h.latency_us + excluded.latency_us,
           in_flight_max = max(h.in_flight_max, excluded.in_flight_max),
           ejections = h.ejections + excluded.ejections, changes = h.changes + excluded.changes,
           state = excluded.state, error = excluded.error";

/// Adds minutes that are not there yet.
const ADD_MINUTES: &str = "
    INSERT INTO health_minute (tenant, at, server, target, replica, observed, available, probes, probes_failed,
            probe_us, latency_count, latency_us, in_flight_max, ejections, changes, state, error)
    SELECT tenant, 'epoch'::timestamptz + at * interval '1 microsecond', server, target, replica, observed,
           available, probes, probes_failed, probe_us, latency_count, latency_us, in_flight_max, ejections,
           changes, state, error
      FROM jsonb_to_recordset($1) AS r(tenant text, at bigint, server text, target text, replica text,
           observed bigint, available bigint, probes bigint, probes_failed bigint, probe_us bigint,
           latency_count bigint, latency_us bigint, in_flight_max bigint, ejections bigint, changes bigint,
           state text, error text)
    ON CONFLICT DO NOTHING";

const ADD_MINUTES_LITE: &str = "
    INSERT INTO health_minute (tenant, at, server, target, replica, observed, available, probes, probes_failed,
            probe_us, latency_count, latency_us, in_flight_max, ejections, changes, state, error)
    SELECT value ->> 'tenant', value ->> 'at', value ->> 'server', value ->> 'target', value ->> 'replica',
           value ->> 'observed', value ->> 'available', value ->> 'probes', value ->> 'probes_failed',
           value ->> 'probe_us', value ->> 'latency_count', value ->> 'latency_us',
           value ->> 'in_flight_max', value ->> 'ejections', value ->> 'changes', value ->> 'state',
           value ->> 'error'
      FROM json_each($1) WHERE true
    ON CONFLICT DO NOTHING";

macro_rules! states {
    ($tx:ident, $table:literal, $servers:expr, $since:expr) => {
        q!(
            $tx, all as HealthState,
            pg concat!(
                "SELECT h.tenant, h.at, h.server, h.target, h.replica, h.state, h.error
                   FROM jsonb_to_recordset($1) AS n(tenant text, server text)
                   JOIN ", $table, " h ON h.tenant = n.tenant AND h.server = n.server AND h.at >= $2
                  ORDER BY h.at DESC LIMIT $3"
            ),
            lite concat!(
                "SELECT h.tenant, h.at, h.server, h.target, h.replica, h.state, h.error
                   FROM json_each($1) n
                   JOIN ", $table, " h ON h.tenant = n.value ->> 'tenant' AND h.server = n.value ->> 'server' AND h.at >= $2
                  ORDER BY h.at DESC LIMIT $3"
            ),
            $servers,
            $since,
            MAX_STATES
        )
    };
}

impl Platform<'_> {
    /// How the targets of servers, each a tenant and a name, were when each replica last said so, unless that was before
    /// `since`.
    ///
    /// # Errors
    /// The database.
    pub async fn health_states(
        &self,
        servers: &[(String, String)],
        since: Time,
    ) -> Result<Vec<HealthState>, StoreError> {
        let pair =
            |(tenant, server): &(String, String)| serde_json::json!({ "tenant": tenant, "server": server });
        let servers = sqlx::types::Json(servers.iter().map(pair).collect::<Vec<_>>());
        let mut tx = self.read().await?;
        let now = tx.now();
        let mut states = states!(tx, "health_minute", &servers, since)?;
        // A minute tells how it ended.
        states.iter_mut().for_each(|state| state.at = state.at.plus(MINUTE).min(now));
        states.extend(states!(tx, "health_changes", &servers, since)?);
        states.sort_by(|a, b| {
            (&a.tenant, &a.server, &a.target, &a.replica, b.at)
                .cmp(&(&b.tenant, &b.server, &b.target, &b.replica, a.at))
        });
        states.dedup_by(|later, first| {
            (&later.tenant, &later.server, &later.target, &later.replica)
                == (&first.tenant, &first.server, &first.target, &first.replica)
        });
        Ok(states)
    }

    /// Keeps finished minutes and changes of states. What is there already stays as it is.
    ///
    /// # Errors
    /// The database; nothing is kept then, unless [`StoreError::CommitUnknown`].
    pub async fn put_health(
        &self,
        minutes: &[HealthSample],
        changes: &[HealthChange],
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        if !minutes.is_empty() {
            let rows = sqlx::types::Json(minutes);
            q!(tx, execute, pg ADD_TO_HOURS, lite ADD_TO_HOURS_LITE, rows)?;
            q!(tx, execute, pg ADD_MINUTES, lite ADD_MINUTES_LITE, rows)?;
        }
        if !changes.is_empty() {
            q!(
                tx, execute,
                pg "INSERT INTO health_changes (tenant, at, server, target, replica, was, state, error)
                    SELECT tenant, 'epoch'::timestamptz + at * interval '1 microsecond', server, target, replica, was, state, error
                      FROM jsonb_to_recordset($1) AS r(tenant text, at bigint, server text, target text, replica text,
                           was text, state text, error text)
                    ON CONFLICT DO NOTHING",
                lite "INSERT INTO health_changes (tenant, at, server, target, replica, was, state, error)
                      SELECT value ->> 'tenant', value ->> 'at', value ->> 'server', value ->> 'target',
                             value ->> 'replica', value ->> 'was', value ->> 'state', value ->> 'error'
                        FROM json_each($1) WHERE true
                      ON CONFLICT DO NOTHING",
                sqlx::types::Json(changes)
            )?;
        }
        tx.commit().await
    }
}

macro_rules! history {
    ($tx:ident, $table:literal, $($bind:expr),*) => {
        q!(
            $tx,
            all as HealthSample,
            concat!(
                "SELECT tenant, at, server, target, replica, observed, available, probes, probes_failed, probe_us,
                        latency_count, latency_us, in_flight_max, ejections, changes, state, error
                   FROM ", $table,
                " WHERE tenant = $1 AND server = $2 AND at >= $3 AND at < $4 AND (at, target, replica) < ($5, $6, $7)
                  ORDER BY at DESC, target DESC, replica DESC LIMIT $8"
            ),
            $($bind),*
        )
    };
}

macro_rules! summary_lite {
    ($tx:ident, $table:literal, $($bind:expr),*) => {
        q!(
            $tx,
            all as HealthSummary,
            concat!(
                "SELECT server, count(DISTINCT target) AS targets, count(DISTINCT replica) AS replicas,
                        sum(observed) AS observed, sum(available) AS available, sum(probes) AS probes,
                        sum(probes_failed) AS probes_failed, sum(probe_us) / max(sum(probes), 1) AS probe_us,
                        sum(latency_us) / max(sum(latency_count), 1) AS latency_us, max(in_flight_max) AS in_flight_max,
                        sum(ejections) AS ejections, sum(changes) AS changes, max(at) AS seen_at
                   FROM ", $table,
                " WHERE tenant = $1 AND at >= $2 AND at < $3 GROUP BY server ORDER BY server"
            ),
            $($bind),*
        )
    };
}

impl TenantScope<'_> {
    /// What replicas saw of a server's targets in a time, the newest first, what lies before `before`. There is none by
    /// day.
    ///
    /// # Errors
    /// The database.
    pub async fn health_history(
        &self,
        server: &str,
        grain: Grain,
        (from, to): (Time, Time),
        before: Option<&HealthPlace>,
        page: Page,
    ) -> Result<Vec<HealthSample>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        // Behind the last page's last row; without one, behind everything.
        let (at, target, replica) = before.map_or((to, "", ""), |p| (p.at, &*p.target, &*p.replica));
        let to = to.min(at.plus(std::time::Duration::from_micros(1)));
        let n = page.limit();
        match grain {
            Grain::Minute => history!(tx, "health_minute", tenant, server, from, to, at, target, replica, n),
            Grain::Hour => history!(tx, "health_hour", tenant, server, from, to, at, target, replica, n),
            Grain::Day => Ok(Vec::new()),
        }
    }

    /// Changes of the states of a server's targets in a time, the newest first, those before `before`.
    ///
    /// # Errors
    /// The database.
    pub async fn health_changes(
        &self,
        server: &str,
        (from, to): (Time, Time),
        before: Option<&HealthPlace>,
        page: Page,
    ) -> Result<Vec<HealthChange>, StoreError> {
        let mut tx = self.read().await?;
        let (at, target, replica) = before.map_or((to, "", ""), |p| (p.at, &*p.target, &*p.replica));
        let to = to.min(at.plus(std::time::Duration::from_micros(1)));
        q!(
            tx,
            all as HealthChange,
            "SELECT tenant, at, server, target, replica, was, state, error FROM health_changes
              WHERE tenant = $1 AND server = $2 AND at >= $3 AND at < $4 AND (at, target, replica) < ($5, $6, $7)
              ORDER BY at DESC, target DESC, replica DESC LIMIT $8",
            self.tenant().as_str(),
            server,
            from,
            to,
            at,
            target,
            replica,
            page.limit()
        )
    }

    /// Each server over a time, by name. There is none by day.
    ///
    /// # Errors
    /// The database.
    pub async fn server_health_summary(
        &self,
        grain: Grain,
        from: Time,
        to: Time,
    ) -> Result<Vec<HealthSummary>, StoreError> {
        let mut tx = self.read().await?;
        let tenant = self.tenant().as_str();
        if tx.store().engine() == Engine::Postgres {
            return q!(
                tx, all as HealthSummary,
                pg "SELECT server, targets, replicas, observed, available, probes, probes_failed, probe_us, latency_us,
                           in_flight_max, ejections, changes, seen_at
                      FROM server_health_summary($1, $2, $3, $4)",
                lite "SELECT $1, $2, $3, $4",
                tenant,
                from,
                to,
                grain.as_str()
            );
        }
        match grain {
            Grain::Minute => summary_lite!(tx, "health_minute", tenant, from, to),
            Grain::Hour => summary_lite!(tx, "health_hour", tenant, from, to),
            Grain::Day => Ok(Vec::new()),
        }
    }
}
