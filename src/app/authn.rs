//! Who may use the control API: the keys of the store, and the token that is made at first start.

use std::sync::Arc;
use std::time::Duration;

use crate::app::core::Core;
use crate::app::runtimes::Runtimes;
use crate::config::model;
use crate::control::authn::{Authenticator, Keys};
use crate::control::bootstrap::{self, Made};
use crate::control::keys::StoreKeys;

/// How often answers that were kept for repeated requests are looked through for old ones.
const EXPIRE_EVERY: Duration = Duration::from_secs(600);

/// What knows the credentials: the keys of the store and the token of the installation. That is made in the background,
/// so that a start does not wait for a store that is away.
pub(super) fn start(core: &Core, runtimes: &Runtimes) -> Arc<Authenticator> {
    let (store, clock) = (core.store.clone(), core.clock.clone());
    let documents = core.model.source == model::SourceKind::Database;
    let keys: Arc<dyn Keys> = Arc::new(StoreKeys::new(store.clone(), clock.clone(), documents));
    let authenticator = Arc::new(Authenticator::new(Some(keys), clock));
    // Before anybody asks.
    authenticator.await_token(true);
    // A token that nobody asked for is one more that can be stolen.
    let make = core.model.listeners.admin.token.is_none();
    let (dir, accepting) = (core.data_dir.clone(), authenticator.clone());
    runtimes.control(bootstrap::keep(store.clone(), dir, accepting, make, tell));
    runtimes.control(async move {
        loop {
            tokio::time::sleep(EXPIRE_EVERY).await;
            if let Err(error) = store.platform().expire_idempotency().await {
                tracing::debug!(event = "idempotency_not_expired", %error);
            }
        }
    });
    authenticator
}

/// Shows a token that was made now, once, where whoever started the process looks.
fn tell(made: Made) {
    eprintln!("admin token (shown once, kept in {}): {}", made.path.display(), made.token.expose());
}
