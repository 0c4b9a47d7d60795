//! The internal listener of this process, and what it shows.

use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use crate::app::certificates::Read;
use crate::app::core::Core;
use crate::app::database::Database;
use crate::app::options::Role;
use crate::app::parts::{bind, listen_async, local};
use crate::app::runtimes::Runtimes;
use crate::app::{StartError, admin, metrics};
use crate::base::{Clock, TenantId};
use crate::config::model;
use crate::control::fleet::{Fleet, Home};
use crate::control::internal::{
    Health, InternalState, Listing, SessionView, StreamView, TombstoneView, TrafficView, router,
};
use crate::control::peers::Peers;
use crate::control::{AdminSocket, Limits, ServerStatus, server};
use crate::gateway::tls::{ClientAuthorities, ServerCertificate};
use crate::mcp::session::{BootId, OpenStream, Record, Serial, Sessions, Streams, Tombstone};
use crate::snapshot::State;
use crate::telemetry::Traffic;

/// A replica's side of what replicas ask each other.
pub(super) struct Internal {
    /// Where others dial it.
    pub(super) address: String,
    peers: Peers,
    socket: Option<std::net::TcpListener>,
    asked: SocketAddr,
    certificate: Arc<ServerCertificate>,
    authorities: Arc<ClientAuthorities>,
}

impl Internal {
    /// Reads the files and binds the socket, if the document has the listener.
    /// A successor waits until the process before it has let the address go.
    pub(super) fn open(
        listeners: &model::Listeners,
        read: Read<'_>,
        successor: bool,
    ) -> Result<Option<Self>, StartError> {
        let Some(listener) = &listeners.internal else { return Ok(None) };
        let (certificate, authorities, peers) = Self::load(&listener.tls, read)?;
        let asked = listener.address.get();
        let socket = match bind("internal", asked) {
            Ok(socket) => Some(socket),
            Err(_) if successor => None,
            Err(error) => return Err(error),
        };
        let bound = socket.as_ref().map_or(asked, |socket| local(socket, asked));
        let address = listener.advertise.clone().unwrap_or_else(|| bound.to_string());
        Ok(Some(Self { address, peers, socket, asked, certificate, authorities }))
    }

    /// Reads the files and does nothing with them.
    pub(super) fn check(listeners: &model::Listeners, read: Read<'_>) -> Result<(), StartError> {
        let Some(listener) = &listeners.internal else { return Ok(()) };
        Self::load(&listener.tls, read).map(drop)
    }

    fn load(
        tls: &model::InternalTls,
        read: Read<'_>,
    ) -> Result<(Arc<ServerCertificate>, Arc<ClientAuthorities>, Peers), StartError> {
        let file = |path: &std::path::PathBuf| {
            let failed =
                |source| StartError::File { what: "listeners.internal.tls", path: path.clone(), source };
            read(path).map_err(failed)
        };
        let (cert, key, ca) = (file(&tls.cert)?, file(&tls.key)?, file(&tls.ca)?);
        let wrong = |source| StartError::Certificate { listener: "listeners.internal.tls", source };
        let certificate = ServerCertificate::new(&cert, &key).map_err(wrong)?;
        let authorities = ClientAuthorities::new(&ca, true).map_err(wrong)?;
        // Checked now: what replicas cannot use shall not be found out when one is asked.
        let peers = Peers::new(&cert, &key, &ca, tls.name.clone())?;
        Ok((certificate, authorities, peers))
    }

    /// Serves on the control runtime until background work ends.
    pub(super) fn serve(self, runtimes: &Runtimes, state: Arc<dyn InternalState>) {
        let stop = runtimes.background.clone();
        let tls = Some((self.certificate, Some(self.authorities)));
        runtimes.control(async move {
            let socket = metrics::when_free("internal", self.socket, self.asked).await;
            match listen_async(socket).and_then(|socket| AdminSocket::new(socket, tls)) {
                Ok(socket) => server::serve(socket, router(state), Limits::default(), stop.cancelled()).await,
                Err(error) => tracing::error!(event = "internal_listener_failed", %error),
            }
        });
    }
}

/// All sessions and streams: of this process, and of others if they can be asked.
pub(super) fn fleet(
    core: &Core,
    database: Option<&Database>,
    internal: Option<&Internal>,
    role: Role,
) -> Fleet {
    let serves = role.has_data_plane();
    let own: Arc<dyn InternalState> = Arc::new(AtHome::of(core, serves));
    let boot = Uuid::from_u128(core.boot_id.0);
    let replica = match database {
        Some(database) => database.member.identity().replica.clone(),
        None => boot.to_string(),
    };
    let peers = internal.map(|internal| internal.peers.clone());
    Fleet::new(own, Home::new(boot, replica), serves, database.map(|d| d.store.clone()), peers)
}

/// What is at home in this process.
pub(super) struct AtHome {
    pub(super) boot: BootId,
    pub(super) sessions: Arc<Sessions>,
    pub(super) streams: Streams,
    pub(super) state: State,
    pub(super) clock: Clock,
    /// Whether clients are served here.
    pub(super) serves: bool,
}

impl AtHome {
    pub(super) fn of(core: &Core, serves: bool) -> Self {
        Self {
            boot: core.boot_id,
            sessions: core.sessions.clone(),
            streams: core.streams.clone(),
            state: core.state.clone(),
            clock: core.clock.clone(),
            serves,
        }
    }
}

impl InternalState for AtHome {
    fn health(&self) -> Health {
        Health {
            boot: self.boot.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: self.sessions.counts().live,
            streams: self.streams.len(),
        }
    }

    fn servers(&self, tenant: Option<&str>) -> Vec<ServerStatus> {
        let mut servers = admin::servers(&self.state.upstreams, self.serves);
        servers.retain(|server| tenant.is_none_or(|tenant| server.tenant == tenant));
        servers
    }

    fn traffic(&self) -> Vec<TrafficView> {
        let of = |(tenant, sum): (Box<str>, Traffic)| TrafficView {
            tenant: tenant.into(),
            calls: sum.calls,
            errors: sum.errors,
            streams: sum.streams,
        };
        self.state.metrics.traffic().into_iter().map(of).collect()
    }

    fn sessions(&self, query: &Listing) -> Vec<SessionView> {
        let after = query.after.as_deref().and_then(serial);
        let chosen = |record: &Record| {
            query.tenant.as_ref().is_none_or(|t| record.tenant().as_str() == t)
                && query.principal.as_ref().is_none_or(|p| record.principal().as_str() == p)
                && after.is_none_or(|after| record.serial().0 > after.0)
        };
        let mut found = self.sessions.list(usize::MAX, chosen);
        found.sort_by_key(|record| record.serial().0);
        found.truncate(query.limit());
        found.iter().map(|record| session_view(record)).collect()
    }

    fn streams(&self, query: &Listing) -> Vec<StreamView> {
        let after = query.after.as_deref().and_then(|after| after.parse().ok());
        let page = self.streams.page(after, query.limit(), |info| {
            query.tenant.as_ref().is_none_or(|t| info.tenant.as_str() == t)
                && query.principal.as_ref().is_none_or(|p| info.principal.as_str() == p)
        });
        page.iter().map(|stream| stream_view(stream)).collect()
    }

    fn close_session(&self, tenant: &str, id: &str) -> Option<TombstoneView> {
        let record = self.sessions.close(&TenantId::new(tenant), serial(id)?)?;
        tracing::info!(event = "session_closed", tenant, serial = id, by = "replica");
        Some(TombstoneView {
            tenant: tenant.to_owned(),
            serial: record.serial().to_string(),
            issued_at: record.created(),
        })
    }

    fn close_stream(&self, tenant: &str, id: u64) -> bool {
        self.streams.close(&TenantId::new(tenant), id)
    }

    fn bury(&self, tombstones: &[TombstoneView]) {
        let latest = self.clock.unix_secs().saturating_add(MAX_SKEW);
        for tomb in tombstones {
            let Some(serial) = serial(&tomb.serial) else { continue };
            // One from the future would be kept for longer than any id lives.
            let issued_at = tomb.issued_at.min(latest);
            self.sessions.bury(&Tombstone { tenant: TenantId::new(tomb.tenant.as_str()), serial, issued_at });
        }
    }
}

/// How far clocks of replicas may differ, in seconds.
const MAX_SKEW: u64 = 300;

fn serial(text: &str) -> Option<Serial> {
    if text.len() != 32 { None } else { u128::from_str_radix(text, 16).ok().map(Serial) }
}

fn session_view(record: &Record) -> SessionView {
    SessionView {
        serial: record.serial().to_string(),
        tenant: record.tenant().to_string(),
        route: record.route().to_string(),
        principal: record.principal().as_str().to_owned(),
        version: record.version().as_str().to_owned(),
        created: record.created(),
        last_seen: record.last_seen(),
        streams: record.streams(),
    }
}

fn stream_view(stream: &OpenStream) -> StreamView {
    let info = stream.info();
    StreamView {
        id: stream.id(),
        tenant: info.tenant.to_string(),
        route: info.route.to_string(),
        principal: info.principal.as_str().to_owned(),
        session: info.session.map(|serial| serial.to_string()),
        since: info.since,
    }
}
