//! Named sets of permissions of the control API. Data planes know nothing of them: policies speak of the built-in roles.

use sqlx::FromRow;

use super::expect::{ATTEMPTS, Put, contended};
use super::tx::q;
use super::{IdentityKind, Page, StoreError, TenantScope, TenantTx, Time};

/// A named set of permissions.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct CustomRole {
    /// Its name in the tenant.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Names of permissions, joined by spaces.
    pub permissions: String,
    /// Who changed it last.
    pub author: String,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// One to be written, in place of the one of its name if there is one.
#[derive(Clone, Copy, Debug)]
pub struct NewCustomRole<'a> {
    /// Its name in the tenant.
    pub name: &'a str,
    /// What it is for.
    pub description: &'a str,
    /// Names of permissions, joined by spaces.
    pub permissions: &'a str,
    /// Who writes it.
    pub author: &'a str,
}

impl TenantScope<'_> {
    /// Writes a role if what there is, is as expected. It counts at once for whoever has it.
    ///
    /// # Errors
    /// What `expect` says; the database.
    pub async fn put_custom_role<E: From<StoreError>>(
        &self,
        role: NewCustomRole<'_>,
        mut expect: impl FnMut(Option<&CustomRole>) -> Result<(), E>,
    ) -> Result<Put<CustomRole>, E> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let now = tx.now();
        for _ in 0..ATTEMPTS {
            let found = locked(&mut tx, role.name).await?;
            expect(found.as_ref())?;
            let written = if found.is_some() {
                q!(
                    tx,
                    optional as CustomRole,
                    "UPDATE custom_roles SET description = $3, permissions = $4, author = $5, updated_at = $6
                      WHERE tenant = $1 AND name = $2
                     RETURNING name, description, permissions, author, created_at, updated_at",
                    tenant,
                    role.name,
                    role.description,
                    role.permissions,
                    role.author,
                    now
                )?
                .map(Put::Replaced)
            } else {
                q!(
                    tx,
                    optional as CustomRole,
                    "INSERT INTO custom_roles (tenant, name, description, permissions, author, created_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (tenant, name) DO NOTHING
                     RETURNING name, description, permissions, author, created_at, updated_at",
                    tenant,
                    role.name,
                    role.description,
                    role.permissions,
                    role.author,
                    now
                )?
                .map(Put::Created)
            };
            // Somebody else made one after we had looked.
            let Some(put) = written else { continue };
            tx.commit().await?;
            return Ok(put);
        }
        Err(contended("the role").into())
    }

    /// Takes a role away that is as expected, from everybody who has it, too.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; what `expect` says; the database.
    pub async fn remove_custom_role<E: From<StoreError>>(
        &self,
        name: &str,
        expect: impl FnOnce(Option<&CustomRole>) -> Result<(), E>,
    ) -> Result<(), E> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let found = locked(&mut tx, name).await?;
        let found = found.ok_or_else(|| StoreError::Missing(format!("role `{name}`")))?;
        expect(Some(&found))?;
        q!(tx, execute, "DELETE FROM custom_roles WHERE tenant = $1 AND name = $2", tenant, name)?;
        let subjects = q!(
            tx,
            scalar_all as String,
            "DELETE FROM role_bindings WHERE tenant = $1 AND role = $2 RETURNING subject",
            tenant,
            name
        )?;
        for subject in subjects {
            tx.tell(tenant, IdentityKind::Role, &format!("{name}:{subject}"), None).await?;
        }
        Ok(tx.commit().await?)
    }

    /// One role.
    ///
    /// # Errors
    /// The database.
    pub async fn custom_role(&self, name: &str) -> Result<Option<CustomRole>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            optional as CustomRole,
            "SELECT name, description, permissions, author, created_at, updated_at FROM custom_roles
              WHERE tenant = $1 AND name = $2",
            self.tenant().as_str(),
            name
        )
    }

    /// Roles by name, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn custom_roles(&self, after: Option<&str>, page: Page) -> Result<Vec<CustomRole>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as CustomRole,
            "SELECT name, description, permissions, author, created_at, updated_at FROM custom_roles
              WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3",
            self.tenant().as_str(),
            after.unwrap_or(""),
            page.limit()
        )
    }

    /// Gives somebody one of the tenant's own roles.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is no such role; the database.
    pub async fn bind_custom_role(&self, subject: &str, name: &str, author: &str) -> Result<(), StoreError> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        // Locked: a role that is being taken away is not given any more, and one that is being given is taken from who
        // gets it, too. Otherwise somebody would have what another role of this name says later.
        let there = q!(
            tx, scalar_optional as String,
            pg "SELECT name FROM custom_roles WHERE tenant = $1 AND name = $2 FOR KEY SHARE",
            lite "SELECT name FROM custom_roles WHERE tenant = $1 AND name = $2",
            tenant,
            name
        )?;
        if there.is_none() {
            return Err(StoreError::Missing(format!("role `{name}`")));
        }
        tx.bind(subject, name, author).await?;
        tx.commit().await
    }

    /// Takes one of the tenant's own roles back.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn unbind_custom_role(&self, subject: &str, name: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.unbind(subject, name).await?;
        tx.commit().await
    }
}

/// A role that nobody else changes, or gives to anybody, before the transaction has ended.
async fn locked(tx: &mut TenantTx, name: &str) -> Result<Option<CustomRole>, StoreError> {
    let tenant = tx.tenant().clone();
    q!(
        tx, optional as CustomRole,
        pg "SELECT name, description, permissions, author, created_at, updated_at FROM custom_roles
             WHERE tenant = $1 AND name = $2 FOR UPDATE",
        lite "SELECT name, description, permissions, author, created_at, updated_at FROM custom_roles
               WHERE tenant = $1 AND name = $2",
        tenant.as_str(),
        name
    )
}
