//! Rows of events on SQLite.
//!
//! They are written for every call, in the process that relays it, and so with as little as possible: numbers for tenants
//! and chains, looked up once for a batch, and statements that are prepared once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::LazyLock;

use sqlx::SqliteConnection;
use sqlx::types::Uuid;

use super::audit::{NewEvent, number, signed};
use crate::audit::Class;

/// Rows of one statement. A batch is cut into the largest that fit, so that few statements are ever prepared, and each
/// stays so.
const CHUNKS: [usize; 5] = [256, 64, 16, 4, 1];
/// Columns of a row.
const COLUMNS: usize = 13;

static INSERTS: LazyLock<[String; CHUNKS.len()]> = LazyLock::new(|| CHUNKS.map(insert_of));

/// A tenant and one of its chains, by number.
type Numbers = (i64, i64);

/// Writes events of one writer.
pub(super) async fn insert(
    conn: &mut SqliteConnection,
    writer: Uuid,
    events: &[&NewEvent],
) -> Result<(), sqlx::Error> {
    let mut numbers: HashMap<(&str, Class), Numbers, ahash::RandomState> = HashMap::default();
    for event in events {
        let chain = (&*event.keys.tenant, event.class);
        if let Entry::Vacant(place) = numbers.entry(chain) {
            place.insert(numbers_of(conn, writer, chain).await?);
        }
    }
    let mut rest = events;
    while let Some(at) = CHUNKS.iter().position(|size| *size <= rest.len()) {
        let (chunk, others) = rest.split_at(CHUNKS[at]);
        rest = others;
        let mut query = sqlx::query(INSERTS[at].as_str());
        for e in chunk {
            let (tenant, chain) = numbers[&(&*e.keys.tenant, e.class)];
            query = query
                .bind(tenant)
                .bind(chain)
                .bind(signed(e.sequence))
                .bind(e.time)
                .bind(&e.commitment[..])
                .bind(&e.link[..])
                .bind(&e.salt[..])
                .bind(e.payload.clone())
                .bind(e.keys.principal.clone())
                .bind(e.keys.route.clone())
                .bind(e.keys.server.clone())
                .bind(e.keys.name.clone())
                .bind(e.keys.outcome.clone());
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

/// The numbers of a chain, given now if it has none.
async fn numbers_of(
    conn: &mut SqliteConnection,
    writer: Uuid,
    (tenant, class): (&str, Class),
) -> Result<Numbers, sqlx::Error> {
    let found = sqlx::query_as(
        "SELECT t.id, c.id FROM audit_event_tenants t JOIN audit_event_chains c ON c.tenant = t.id
          WHERE t.tenant = $1 AND c.class = $2 AND c.writer = $3",
    )
    .bind(tenant)
    .bind(number(class))
    .bind(writer)
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(numbers) = found {
        return Ok(numbers);
    }
    sqlx::query("INSERT INTO audit_event_tenants (tenant) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(tenant)
        .execute(&mut *conn)
        .await?;
    sqlx::query_as(
        "INSERT INTO audit_event_chains (tenant, class, writer)
         SELECT id, $2, $3 FROM audit_event_tenants WHERE tenant = $1 RETURNING tenant, id",
    )
    .bind(tenant)
    .bind(number(class))
    .bind(writer)
    .fetch_one(conn)
    .await
}

fn insert_of(rows: usize) -> String {
    let row = format!("({})", ["?"; COLUMNS].join(","));
    format!(
        "INSERT INTO audit_event_rows (tenant, chain, sequence, time, commitment, link, salt, payload, principal, route,
                                       server, name, outcome) VALUES {}",
        vec![row; rows].join(",")
    )
}
