//! From the document's listener and session sections to what the gateway takes.

use std::net::SocketAddr;

use crate::app::StartError;
use crate::app::certificates::Read;
use crate::base::net::TrustedProxies;
use crate::config::{Validated, model};
use crate::control::{ControlConfig, Exposure, default_rate};
use crate::gateway::{CorsSettings, ListenerSettings};
use crate::limit::Rate;
use crate::mcp::session::Limits as SessionLimits;
use crate::shared;

/// The static settings of the MCP listener.
pub(super) fn listener(document: &Validated) -> ListenerSettings {
    let mcp = &document.document().listeners.mcp;
    let limits = &mcp.limits;
    let size = |size: model::Size| usize::try_from(size.bytes()).unwrap_or(usize::MAX);
    ListenerSettings {
        allowed_hosts: document.allowed_hosts().to_vec(),
        allowed_origins: document.allowed_origins().clone(),
        cors: match &mcp.cors {
            // Whoever may call may read the answer: without that a browser's client cannot work.
            None => CorsSettings { max_age: std::time::Duration::from_secs(600), ..CorsSettings::default() },
            Some(cors) => CorsSettings {
                headers: cors.headers.iter().map(|h| h.as_str().to_owned()).collect(),
                expose: cors.expose_headers.iter().map(|h| h.as_str().to_owned()).collect(),
                credentials: cors.credentials,
                max_age: cors.max_age.get(),
            },
        },
        trusted_proxies: TrustedProxies::new(mcp.trusted_proxies.iter().map(|c| c.get()).collect()),
        forwarded_header: mcp.forwarded_header,
        https: mcp.tls.is_some(),
        max_connections: limits.max_connections as usize,
        max_connections_per_address: limits.max_connections_per_address as usize,
        header_timeout: limits.header_timeout.get(),
        body_timeout: limits.body_timeout.get(),
        keepalive_timeout: limits.keepalive_timeout.get(),
        keepalive_requests: limits.keepalive_requests,
        max_body: size(limits.max_body),
        max_header_size: size(limits.max_header_size),
        max_headers: limits.max_headers as usize,
        write_timeout: limits.write_timeout.get(),
        min_send_rate: limits.min_send_rate.map(size),
        max_streams_per_principal: limits.max_streams_per_principal,
        h2_max_streams: limits.h2_max_streams,
    }
}

/// Where the server of shared limits is.
pub(super) fn valkey(document: &Validated, read: Read<'_>) -> Result<Option<shared::Settings>, StartError> {
    let Some(valkey) = &document.document().valkey else { return Ok(None) };
    let ca = valkey.ca.as_ref().map(|path| {
        read(path).map_err(|source| StartError::File { what: "valkey.ca", path: path.clone(), source })
    });
    Ok(Some(shared::Settings {
        urls: valkey.urls.clone(),
        cluster: valkey.cluster,
        ca: ca.transpose()?,
        username: valkey.username.clone(),
        password: valkey.password.as_ref().map(|p| p.secret().clone()),
        timeout: valkey.timeout.get(),
        prefix: valkey.prefix.clone(),
    }))
}

/// How the admin listener answers.
pub(super) fn control(model: &model::Document, exposure: Exposure) -> ControlConfig {
    let admin = &model.listeners.admin;
    let token = admin.token.as_ref().map(|t| t.secret().clone());
    let (count, per) = (admin.rate.count(), admin.rate.per());
    ControlConfig {
        api_token: token.clone(),
        metrics: model.listeners.metrics.is_none(),
        metrics_token: token,
        cors_origins: admin.allowed_origins.iter().map(|o| o.origin().to_owned()).collect(),
        rate: Rate::new(count, per, count.div_ceil(2)).unwrap_or_else(|_| default_rate()),
        ..ControlConfig::new(exposure)
    }
}

/// Bounds on sessions.
pub(super) fn sessions(document: &Validated) -> SessionLimits {
    let sessions = &document.document().sessions;
    SessionLimits {
        max_age: sessions.max_age.get().as_secs(),
        idle: sessions.idle_ttl.get().as_secs(),
        per_tenant: sessions.max_per_tenant as usize,
        total: sessions.max_total as usize,
        ..SessionLimits::default()
    }
}

/// The two addresses to listen on.
pub(super) fn addresses(document: &Validated) -> (SocketAddr, SocketAddr) {
    let listeners = &document.document().listeners;
    (listeners.mcp.address.get(), listeners.admin.address.get())
}
