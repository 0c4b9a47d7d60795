//! Users, and roles that they have whatever their token says.

use sqlx::FromRow;

use super::feed::IdentityKind;
use crate::base::Role;
use crate::store::expect::{ATTEMPTS, Put, contended};
use crate::store::tx::q;
use crate::store::{Page, StoreError, TenantScope, TenantTx, Time};

/// A user. Callers need not be one: a user is made to be named, given roles or shut out.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct User {
    /// The whole principal id, for example `corp|alice`.
    pub id: String,
    /// Name for people.
    pub display_name: String,
    /// Address for people; empty if unknown.
    pub email: String,
    /// Whether every credential of theirs is refused.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
}

/// A user to be written, in place of the one with its id if there is one.
#[derive(Clone, Copy, Debug)]
pub struct NewUser<'a> {
    /// The whole principal id.
    pub id: &'a str,
    /// Name for people.
    pub display_name: &'a str,
    /// Address for people.
    pub email: &'a str,
    /// Whether every credential of theirs is refused.
    pub disabled: bool,
}

/// A role that somebody has in addition to those of their credential.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub struct RoleBinding {
    /// The whole principal id.
    pub subject: String,
    /// Name of the role.
    pub role: String,
    /// Who gave it.
    pub author: String,
    /// When.
    pub created_at: Time,
}

impl TenantTx {
    /// Gives somebody a role, whatever kind of role it is.
    pub(in crate::store) async fn bind(
        &mut self,
        subject: &str,
        role: &str,
        author: &str,
    ) -> Result<(), StoreError> {
        let (tenant, now) = (self.tenant().clone(), self.now());
        q!(
            self,
            execute,
            "INSERT INTO role_bindings (tenant, subject, role, author, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant, subject, role) DO NOTHING",
            tenant.as_str(),
            subject,
            role,
            author,
            now
        )?;
        let id = format!("{role}:{subject}");
        self.tell(tenant.as_str(), IdentityKind::Role, &id, Some(&id)).await
    }

    /// Takes it away.
    pub(in crate::store) async fn unbind(&mut self, subject: &str, role: &str) -> Result<(), StoreError> {
        let tenant = self.tenant().clone();
        let gone = q!(
            self,
            execute,
            "DELETE FROM role_bindings WHERE tenant = $1 AND subject = $2 AND role = $3",
            tenant.as_str(),
            subject,
            role
        )?;
        if gone == 0 {
            return Err(StoreError::Missing(format!("role `{role}` of `{subject}`")));
        }
        self.tell(tenant.as_str(), IdentityKind::Role, &format!("{role}:{subject}"), None).await
    }
}

impl TenantScope<'_> {
    /// Writes a user if what there is, is as expected. Replicas take it up.
    ///
    /// # Errors
    /// What `expect` says; the database.
    pub async fn put_user<E: From<StoreError>>(
        &self,
        user: NewUser<'_>,
        mut expect: impl FnMut(Option<&User>) -> Result<(), E>,
    ) -> Result<Put<User>, E> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let now = tx.now();
        for _ in 0..ATTEMPTS {
            let found = locked(&mut tx, user.id).await?;
            expect(found.as_ref())?;
            let written = if found.is_some() {
                q!(
                    tx,
                    optional as User,
                    "UPDATE users SET display_name = $3, email = $4, disabled = $5, updated_at = $6
                      WHERE tenant = $1 AND id = $2
                     RETURNING id, display_name, email, disabled, created_at, updated_at",
                    tenant,
                    user.id,
                    user.display_name,
                    user.email,
                    user.disabled,
                    now
                )?
                .map(Put::Replaced)
            } else {
                q!(
                    tx,
                    optional as User,
                    "INSERT INTO users (tenant, id, display_name, email, disabled, created_at, updated_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT (tenant, id) DO NOTHING
                     RETURNING id, display_name, email, disabled, created_at, updated_at",
                    tenant,
                    user.id,
                    user.display_name,
                    user.email,
                    user.disabled,
                    now
                )?
                .map(Put::Created)
            };
            // Somebody else made one after we had looked.
            let Some(put) = written else { continue };
            let state = if user.disabled { "disabled" } else { "active" };
            tx.tell(tenant, IdentityKind::User, user.id, Some(state)).await?;
            tx.commit().await?;
            return Ok(put);
        }
        Err(contended("the user").into())
    }

    /// Takes a user away that is as expected, with the roles that were given to them. Their credentials count again if they
    /// were disabled.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; what `expect` says; the database.
    pub async fn remove_user<E: From<StoreError>>(
        &self,
        id: &str,
        expect: impl FnOnce(Option<&User>) -> Result<(), E>,
    ) -> Result<(), E> {
        let tenant = self.tenant().as_str();
        let mut tx = self.begin().await?;
        let found = locked(&mut tx, id).await?;
        let found = found.ok_or_else(|| StoreError::Missing(format!("user `{id}`")))?;
        expect(Some(&found))?;
        q!(tx, execute, "DELETE FROM users WHERE tenant = $1 AND id = $2", tenant, id)?;
        let roles = q!(
            tx,
            scalar_all as String,
            "DELETE FROM role_bindings WHERE tenant = $1 AND subject = $2 RETURNING role",
            tenant,
            id
        )?;
        for role in roles {
            tx.tell(tenant, IdentityKind::Role, &format!("{role}:{id}"), None).await?;
        }
        tx.tell(tenant, IdentityKind::User, id, None).await?;
        Ok(tx.commit().await?)
    }

    /// One user.
    ///
    /// # Errors
    /// The database.
    pub async fn user(&self, id: &str) -> Result<Option<User>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            optional as User,
            "SELECT id, display_name, email, disabled, created_at, updated_at FROM users
              WHERE tenant = $1 AND id = $2",
            self.tenant().as_str(),
            id
        )
    }

    /// Users by id, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn users(&self, after: Option<&str>, page: Page) -> Result<Vec<User>, StoreError> {
        let mut tx = self.read().await?;
        q!(
            tx,
            all as User,
            "SELECT id, display_name, email, disabled, created_at, updated_at FROM users
              WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3",
            self.tenant().as_str(),
            after.unwrap_or(""),
            page.limit()
        )
    }

    /// Gives somebody a role. Replicas take it up.
    ///
    /// # Errors
    /// The database.
    pub async fn bind_role(&self, subject: &str, role: Role, author: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.bind(subject, role.as_str(), author).await?;
        tx.commit().await
    }

    /// Takes a role away that was given.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; the database.
    pub async fn unbind_role(&self, subject: &str, role: Role) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        tx.unbind(subject, role.as_str()).await?;
        tx.commit().await
    }

    /// The roles that were given, by whom they were given to, those after `after`.
    ///
    /// # Errors
    /// The database.
    pub async fn role_bindings(
        &self,
        after: Option<(&str, &str)>,
        page: Page,
    ) -> Result<Vec<RoleBinding>, StoreError> {
        let (subject, role) = after.unwrap_or(("", ""));
        let mut tx = self.read().await?;
        q!(
            tx,
            all as RoleBinding,
            "SELECT subject, role, author, created_at FROM role_bindings
              WHERE tenant = $1 AND (subject, role) > ($2, $3) ORDER BY subject, role LIMIT $4",
            self.tenant().as_str(),
            subject,
            role,
            page.limit()
        )
    }
}

/// A user that nobody else changes before the transaction has ended.
async fn locked(tx: &mut TenantTx, id: &str) -> Result<Option<User>, StoreError> {
    let tenant = tx.tenant().clone();
    q!(
        tx, optional as User,
        pg "SELECT id, display_name, email, disabled, created_at, updated_at FROM users
             WHERE tenant = $1 AND id = $2 FOR UPDATE",
        lite "SELECT id, display_name, email, disabled, created_at, updated_at FROM users
               WHERE tenant = $1 AND id = $2",
        tenant.as_str(),
        id
    )
}
