//! The listener for `/metrics` alone.
//!
//! A successor takes the other listeners' sockets over, but not this one: it waits until the process before it has let
//! the address go, which serves the metrics until then.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::app::StartError;
use crate::app::parts::{bind, listen_async, local};
use crate::config::model;
use crate::control::{self, ControlConfig, ControlState, Exposure};

/// How often a successor tries to bind.
const AGAIN: Duration = Duration::from_millis(250);

/// Starts the listener, if there is one. Returns its address, if it was free.
pub(super) fn start(
    model: &model::Document,
    runtime: &Handle,
    stop: &CancellationToken,
    state: Arc<dyn ControlState>,
    successor: bool,
) -> Result<Option<SocketAddr>, StartError> {
    let Some(metrics) = &model.listeners.metrics else { return Ok(None) };
    let asked = metrics.address.get();
    let config = ControlConfig {
        metrics_token: metrics.token.as_ref().map(|t| t.secret().clone()),
        ..ControlConfig::new(Exposure::of(&asked))
    };
    let bound = match bind("metrics", asked) {
        Ok(socket) => Some(socket),
        Err(_) if successor => None,
        Err(error) => return Err(error),
    };
    let address = bound.as_ref().map(|socket| local(socket, asked));
    let stop = stop.clone();
    runtime.spawn(async move {
        let socket = tokio::select! {
            socket = when_free("metrics", bound, asked) => socket,
            () = stop.cancelled() => return,
        };
        let limits = config.limits;
        match listen_async(socket) {
            Ok(socket) => {
                let router = control::metrics_router(config, state);
                control::server::serve(socket, router, limits, async move { stop.cancelled().await }).await;
            }
            Err(error) => tracing::error!(event = "metrics_listener_failed", %error),
        }
    });
    Ok(address)
}

/// The socket, or one that is bound as soon as the process before this one has let the address go.
pub(super) async fn when_free(
    listener: &'static str,
    bound: Option<TcpListener>,
    address: SocketAddr,
) -> TcpListener {
    if let Some(socket) = bound {
        return socket;
    }
    loop {
        if let Ok(socket) = bind(listener, address) {
            return socket;
        }
        tokio::time::sleep(AGAIN).await;
    }
}
