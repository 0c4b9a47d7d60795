//! Keys that replicas share, encrypted with the master key: what seals session ids, what signs checkpoints.

use sqlx::FromRow;

use super::keys::envelope;
use super::tx::q;
use super::{Platform, StoreError, Time, Tx};
use crate::base::Secret;
use crate::base::envelope::{MasterKeys, key_id};

/// A shared key.
#[derive(Clone, Debug)]
pub struct SealingKey {
    /// Its id; unique for its purpose.
    pub id: String,
    /// The key itself.
    pub secret: Secret<Vec<u8>>,
    /// When it begins to be used.
    pub active_from: Time,
}

#[derive(FromRow)]
struct Row {
    purpose: String,
    id: String,
    sealed: Vec<u8>,
    active_from: Time,
}

fn place<'a>(purpose: &'a str, id: &'a str) -> [&'a str; 3] {
    ["sealing_keys", purpose, id]
}

/// All of them with their places, as they are sealed. They are few.
pub(super) async fn sealed(tx: &mut Tx) -> Result<Vec<([String; 3], Vec<u8>)>, StoreError> {
    let rows = q!(tx, all as Row, "SELECT purpose, id, sealed, active_from FROM sealing_keys")?;
    Ok(rows
        .into_iter()
        .map(|row| (place(&row.purpose, &row.id).map(ToOwned::to_owned), row.sealed))
        .collect())
}

impl Platform<'_> {
    /// Adds a key. Of several processes that add the same id the first wins.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`]; the database.
    pub async fn add_sealing_key(&self, purpose: &str, key: &SealingKey) -> Result<(), StoreError> {
        self.add_first_sealing_key(purpose, key, None).await.map(drop)
    }

    /// Adds a key unless the purpose has one that is newer than `newest` (`None`: always adds). Under a lock, so that of
    /// several replicas that want to rotate one does. Returns whether it was added.
    ///
    /// # Errors
    /// The database.
    pub async fn add_first_sealing_key(
        &self,
        purpose: &str,
        key: &SealingKey,
        newest: Option<Time>,
    ) -> Result<bool, StoreError> {
        let sealed = self.0.seal(&place(purpose, &key.id), key.secret.expose())?;
        let master = key_id(&sealed).map_err(|e| envelope(purpose, e))?.to_owned();
        let mut tx = self.begin().await?;
        q!(
            tx, execute,
            pg "LOCK TABLE sealing_keys IN SHARE ROW EXCLUSIVE MODE",
            lite "SELECT 1"
        )?;
        if let Some(newest) = newest {
            let later = q!(
                tx,
                scalar as i64,
                "SELECT count(*) FROM sealing_keys WHERE purpose = $1 AND active_from > $2",
                purpose,
                newest
            )?;
            if later > 0 {
                return Ok(false);
            }
        }
        let now = tx.now();
        q!(
            tx,
            execute,
            "INSERT INTO sealing_keys (purpose, id, key_id, sealed, active_from, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            purpose,
            &key.id,
            &master,
            &sealed,
            key.active_from,
            now
        )?;
        tx.commit().await?;
        Ok(true)
    }

    /// All keys of a purpose, oldest first.
    ///
    /// # Errors
    /// One does not open; the database.
    pub async fn sealing_keys(&self, purpose: &str) -> Result<Vec<SealingKey>, StoreError> {
        let mut tx = self.read().await?;
        let rows = q!(
            tx,
            all as Row,
            "SELECT purpose, id, sealed, active_from FROM sealing_keys WHERE purpose = $1 ORDER BY active_from, id",
            purpose
        )?;
        rows.into_iter()
            .map(|row| {
                let secret = self.0.unseal(&place(&row.purpose, &row.id), &row.sealed)?;
                Ok(SealingKey { id: row.id, secret, active_from: row.active_from })
            })
            .collect()
    }

    /// Forgets a key.
    ///
    /// # Errors
    /// The database.
    pub async fn remove_sealing_key(&self, purpose: &str, id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        q!(tx, execute, "DELETE FROM sealing_keys WHERE purpose = $1 AND id = $2", purpose, id)?;
        tx.commit().await
    }

    pub(super) async fn rewrap_sealing_keys(&self, keys: &MasterKeys) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let rows = q!(
            tx,
            all as Row,
            "SELECT purpose, id, sealed, active_from FROM sealing_keys WHERE key_id <> $1",
            keys.sealing()
        )?;
        let mut moved = 0;
        for row in rows {
            let wrapped = keys
                .rewrap(&place(&row.purpose, &row.id), &row.sealed)
                .map_err(|e| envelope(&row.purpose, e))?;
            moved += q!(
                tx,
                execute,
                "UPDATE sealing_keys SET sealed = $3, key_id = $4 WHERE purpose = $1 AND id = $2",
                &row.purpose,
                &row.id,
                wrapped.as_ref().unwrap_or(&row.sealed),
                keys.sealing()
            )?;
        }
        tx.commit().await?;
        Ok(moved)
    }
}
