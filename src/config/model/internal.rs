//! Where replicas reach each other.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::Address;

/// The listener for other replicas: they list and end sessions and streams that are at home here. Mutual TLS only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InternalListener {
    /// Address and port to listen on.
    pub address: Address,
    /// Host and port by which other replicas reach it. Default: `address`.
    #[serde(default)]
    pub advertise: Option<String>,
    /// Certificates.
    pub tls: InternalTls,
}

/// What replicas prove themselves to each other with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InternalTls {
    /// PEM file with this replica's certificate, for server and client use.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that signs replicas' certificates, and nobody else's: whoever has one is a replica.
    pub ca: PathBuf,
    /// The name that all replicas' certificates are for. Default: the address by which each is dialled.
    #[serde(default)]
    pub name: Option<String>,
}
