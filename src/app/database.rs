//! `source: database`: the store, who follows it, and who publishes into it.

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::app::StartError;
use crate::app::canaries::Herald;
use crate::app::documents::DocumentServer;
use crate::app::options::{Environment, Role};
use crate::app::runtimes::Runtimes;
use crate::base::{Clock, Scope, TenantId};
use crate::config::{self, Validated, model};
use crate::mcp::session::BootId;
use crate::snapshot::State;
use crate::source::canary::{Canaries, Holder, Watcher};
use crate::source::{
    Begun, Cache, Change, Feed, FeedSettings, Follower, Identity, Member, PublishError, Publisher,
    Registries, Serve,
};
use crate::store::{Store, Time};

/// Who publishes the embedded default.
const OURSELVES: &str = "tollgate";
/// Why.
const SEEDED: &str = "embedded default";

/// Everything about the store that a process has.
pub(super) struct Database {
    pub(super) store: Store,
    pub(super) documents: Arc<DocumentServer>,
    pub(super) follower: Arc<Follower>,
    pub(super) publisher: Publisher,
    pub(super) member: Arc<Member>,
    pub(super) feed: Arc<Feed>,
    pub(super) canaries: Canaries,
    pub(super) herald: Arc<Herald>,
    holder: Arc<Holder>,
}

/// What the database is opened with.
pub(super) struct Opening<'a> {
    pub(super) store: &'a Store,
    pub(super) document: &'a Validated,
    pub(super) env: &'a Environment,
    pub(super) origin: &'a str,
    pub(super) state: &'a State,
    /// The document to begin with if the store has none.
    pub(super) seed: Option<&'static str>,
    pub(super) boot: BootId,
    /// Where other replicas reach this one.
    pub(super) address: Option<String>,
    /// Which planes this process runs.
    pub(super) role: Role,
}

impl Database {
    /// Opens the store and puts in force what it has, or, if it is away, what it had the last time.
    pub(super) fn begin(runtimes: &Runtimes, opening: &Opening<'_>) -> Result<Self, StartError> {
        runtimes.control.block_on(Self::open(opening))
    }

    async fn open(opening: &Opening<'_>) -> Result<Self, StartError> {
        let model = opening.document.document();
        let clock = opening.state.clock.clone();
        let store = opening.store.clone();
        let env = opening.env.clone();
        let documents = Arc::new(DocumentServer::new(opening.document, env, opening.origin, opening.state));
        let serve: Arc<dyn Serve> = documents.clone();
        let cache = Cache::open(&model.data_dir).map_err(|source| StartError::File {
            what: "cache",
            path: model.data_dir.join("cache"),
            source,
        })?;
        let herald = Herald::new(clock.clone(), opening.state.metrics.clone());
        let replica = replica_name(&model.data_dir);
        let holder = Arc::new(Holder::new(
            store.clone(),
            serve.clone(),
            cache.clone(),
            replica.clone(),
            herald.tell(),
        ));
        let follower =
            Follower::new(store.clone(), serve.clone(), cache, holder.clone(), model.store.poll.get());
        let follower = Arc::new(follower);
        let publisher = Publisher::new(store.clone(), serve);
        let canaries = Canaries::new(store.clone(), publisher.clone(), herald.tell(), model.store.poll.get());
        if let Some(text) = opening.seed {
            seed(&follower, &publisher, text).await?;
        }
        match follower.begin().await? {
            Begun::Nothing => tracing::warn!(
                event = "no_documents",
                "the store has no document yet, so nothing is served: `tollgate apply FILE` brings one there"
            ),
            begun => tracing::info!(event = "documents_served", from = ?begun),
        }
        let feed = Arc::new(feed(&store, opening.state, model, &clock));
        feed.begin().await;
        let identity = Identity {
            boot: Uuid::from_u128(opening.boot.0),
            replica,
            role: opening.role.as_str(),
            address: opening.address.clone(),
            started_at: Time::now(&clock),
        };
        let member = Arc::new(Member::new(store.clone(), identity, follower.clone(), feed.clone()));
        Ok(Self { store, documents, follower, publisher, member, feed, canaries, herald, holder })
    }

    /// Follows the store and tells it of us until the process ends.
    pub(super) fn spawn(&self, runtimes: &Runtimes) {
        let follower = self.follower.clone();
        runtimes.control(async move { follower.run().await });
        let member = self.member.clone();
        runtimes.control(async move { member.run().await });
        let feed = self.feed.clone();
        runtimes.control(async move { feed.run().await });
        let (holder, boot) = (self.holder.clone(), self.member.identity().boot);
        runtimes.control(async move { holder.run(boot).await });
        let watcher = Watcher::new(self.store.clone(), self.publisher.clone(), boot, self.herald.tell());
        runtimes.control(watcher.run());
    }
}

/// Publishes the embedded default if nothing ever was.
async fn seed(follower: &Follower, publisher: &Publisher, text: &str) -> Result<(), StartError> {
    follower.prepare().await?;
    let scope = Scope::Tenant(TenantId::default());
    if publisher.head(&scope).await?.is_some() {
        return Ok(());
    }
    let parts = config::split(text.as_bytes()).map_err(|d| StartError::Document(Box::new(d)))?;
    for (tenant, document) in parts.tenants {
        let change = Change {
            scope: Scope::Tenant(tenant),
            content: document.as_bytes().to_vec(),
            author: OURSELVES.to_owned(),
            reason: SEEDED.to_owned(),
            if_revision: Some(0),
        };
        match publisher.publish(change).await {
            // Somebody published meanwhile: theirs counts.
            Ok(_) | Err(PublishError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn feed(store: &Store, state: &State, model: &model::Document, clock: &Clock) -> Feed {
    // Tenants that are not served have registries too, so that what is known of them is there when they are.
    let identities = state.identities.clone();
    let find = move |tenant: &TenantId| {
        let own = identities.of(tenant);
        Registries { keys: own.store_keys, revocations: own.revocations, bindings: own.bindings }
    };
    let settings = FeedSettings { poll: model.store.poll.get() };
    Feed::new(store.clone(), Arc::new(find), &model.data_dir, clock.clone(), settings)
}

/// Stays the same over restarts: the data folder's own name for itself.
pub(super) fn replica_name(data_dir: &Path) -> String {
    let path = data_dir.join("replica");
    if let Ok(name) = std::fs::read_to_string(&path)
        && !name.trim().is_empty()
    {
        return name.trim().to_owned();
    }
    let name = Uuid::now_v7().simple().to_string();
    if let Err(error) = std::fs::write(&path, &name) {
        tracing::warn!(event = "replica_name_not_kept", path = %path.display(), %error);
    }
    name
}
