//! The listeners of a process: their sockets, bound or taken over, and what answers on them.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::app::admin::Admin;
use crate::app::canaries::Herald;
use crate::app::certificates::Certificates;
use crate::app::core::Core;
use crate::app::handover::{self, Inherited};
use crate::app::options::Role;
use crate::app::parts::{bind, listen_async, local};
use crate::app::runtimes::Runtimes;
use crate::app::{StartError, authn, metrics, settings};
use crate::config::Validated;
use crate::control::events::Hub;
use crate::control::fleet::Fleet;
use crate::control::trail::Ledger;
use crate::control::{AdminSocket, ControlConfig, Exposure};
use crate::gateway::{Gateway, Listener};
use crate::source::Publisher;
use crate::source::canary::Canaries;
use crate::store::SigningKey;
use crate::upstream::client_connector;

/// Threads that accept, at most.
const ACCEPTORS: usize = 4;

/// Bound sockets, before anything answers on them.
pub(super) struct Sockets {
    /// None without a data plane.
    mcp: Option<TcpListener>,
    admin: TcpListener,
    /// Where clients connect; without a data plane, what the document says.
    pub(super) mcp_address: SocketAddr,
    pub(super) admin_address: SocketAddr,
    /// Tells when we, a successor, have said that we serve.
    serving: Option<watch::Receiver<bool>>,
}

impl Sockets {
    /// Binds, or takes those of the process before this one. A bad address is an error now.
    pub(super) fn open(
        document: &Validated,
        inherited: Option<Inherited>,
        role: Role,
    ) -> Result<Self, StartError> {
        let (mcp_address, admin_address) = settings::addresses(document);
        let (mcp, admin, serving) = match inherited {
            Some(inherited) => {
                let (mcp, admin, serving) = inherited.into_parts();
                (mcp, admin, Some(serving))
            }
            None => (None, bind("admin", admin_address)?, None),
        };
        // The process before this one may have had another role.
        let mcp = match mcp.filter(|_| role.has_data_plane()) {
            None if role.has_data_plane() => Some(bind("mcp", mcp_address)?),
            mcp => mcp,
        };
        Ok(Self {
            mcp_address: mcp.as_ref().map_or(mcp_address, |mcp| local(mcp, mcp_address)),
            admin_address: local(&admin, admin_address),
            mcp,
            admin,
            serving,
        })
    }
}

impl Sockets {
    /// Whether they were another process's.
    pub(super) fn is_successor(&self) -> bool {
        self.serving.is_some()
    }
}

/// Starts the data plane on the MCP listener, if this process has one.
pub(super) fn mcp(
    core: &Core,
    runtimes: &Runtimes,
    sockets: &Sockets,
    document: &Validated,
    certificates: &Certificates,
) -> Result<Option<(Arc<Gateway>, Listener)>, StartError> {
    let Some(socket) = &sockets.mcp else { return Ok(None) };
    let failed =
        |source: io::Error| StartError::Listen { listener: "mcp", address: sockets.mcp_address, source };
    // Connectors pick up the runtime they are made on.
    let _on_data = runtimes.data.enter();
    let parts = core.gateway(runtimes.phase.subscribe());
    let gateway = Gateway::new(parts, settings::listener(document), client_connector(runtimes.data_threads));
    let tls = certificates.mcp_settings(document.offers_h2())?;
    let socket = socket.try_clone().map_err(failed)?;
    let acceptors = runtimes.data_threads.min(ACCEPTORS);
    let listener = gateway.listen(&runtimes.data, socket, tls, acceptors).map_err(failed)?;
    Ok(Some((gateway, listener)))
}

/// What only a control plane has.
pub(super) struct Operators {
    /// Publishes documents, if they come from a store.
    pub(super) publisher: Option<Publisher>,
    /// Canaries of those documents, and who tells of them.
    pub(super) canaries: Option<(Canaries, Arc<Herald>)>,
    /// Records uses of the API.
    pub(super) ledger: Arc<dyn Ledger>,
    /// Sessions and streams, here and elsewhere.
    pub(super) fleet: Fleet,
    /// What happens, for whoever follows it.
    pub(super) events: Arc<Hub>,
    /// What exports of the audit are signed with.
    pub(super) audit_key: Option<Arc<SigningKey>>,
}

/// Starts the admin listener, and that for metrics alone if there is one. Gives the address of the latter.
pub(super) fn admin(
    runtimes: &Runtimes,
    sockets: &Sockets,
    certificates: &Certificates,
    state: Arc<Admin>,
    core: &Core,
    operators: Option<Operators>,
) -> Result<Option<SocketAddr>, StartError> {
    let address = sockets.admin_address;
    let failed = |source: io::Error| StartError::Listen { listener: "admin", address, source };
    let successor = sockets.serving.is_some();
    let metrics =
        metrics::start(&core.model, &runtimes.control, &runtimes.background, state.clone(), successor)?;
    let config = settings::control(&core.model, Exposure::of(&address));
    let config = match operators {
        Some(operators) => {
            if let Some((_, herald)) = &operators.canaries {
                herald.publish_in(&operators.events);
            }
            ControlConfig {
                store: Some(core.store.clone()),
                publisher: operators.publisher,
                canaries: operators.canaries.map(|(canaries, _)| canaries),
                authenticator: authn::start(core, runtimes),
                ledger: Some(operators.ledger),
                fleet: Some(operators.fleet),
                events: operators.events,
                audit_key: operators.audit_key,
                audit_is_followed: core.audit.is_enabled(),
                ..config
            }
        }
        None => ControlConfig { api: false, ..config },
    };
    let _on_control = runtimes.control.enter();
    let ours = sockets.admin.try_clone().map_err(failed)?;
    let socket =
        listen_async(ours).and_then(|s| AdminSocket::new(s, certificates.admin())).map_err(failed)?;
    let stop = runtimes.background.clone();
    // It lets open requests finish, so it is told and not cut off.
    runtimes.control.spawn(crate::control::serve(
        socket,
        config,
        state,
        async move { stop.cancelled().await },
    ));
    Ok(metrics)
}

/// The sockets while they may be handed to a successor.
pub(super) type Held = Arc<Mutex<Option<handover::Sockets>>>;

/// Opens the door for a successor. What is returned tells when one has taken over.
pub(super) fn door(
    data_dir: PathBuf,
    runtimes: &Runtimes,
    sockets: Sockets,
) -> (Held, watch::Receiver<bool>) {
    let held: Held = Arc::new(Mutex::new(Some((sockets.mcp, sockets.admin))));
    let (handed, receiver) = watch::channel(false);
    runtimes.control(handover::serve(data_dir, held.clone(), handed, sockets.serving));
    (held, receiver)
}
