//! Certificates of both listeners: read at start and again when their files change.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::StartError;
use crate::config::model;
use crate::gateway::tls::{self, ClientAuthorities, ServerCertificate, Settings};

/// Reads a file.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Certificates of both listeners.
pub(super) struct Certificates {
    mcp: Option<Pair>,
    admin: Option<Pair>,
}

struct Pair {
    certificate: Arc<ServerCertificate>,
    authorities: Option<Arc<ClientAuthorities>>,
    tls: model::ListenerTls,
    name: &'static str,
}

impl Certificates {
    pub(super) fn load(listeners: &model::Listeners, read: Read<'_>) -> Result<Self, StartError> {
        let load = |tls: &Option<model::ListenerTls>, name| {
            tls.as_ref().map(|tls| Pair::load(tls.clone(), name, read)).transpose()
        };
        Ok(Self {
            mcp: load(&listeners.mcp.tls, "listeners.mcp.tls")?,
            admin: load(&listeners.admin.tls, "listeners.admin.tls")?,
        })
    }

    pub(super) fn mcp_settings(&self, h2: bool) -> Result<Option<Settings>, StartError> {
        let Some(pair) = &self.mcp else { return Ok(None) };
        let settings = tls::settings(pair.certificate.clone(), pair.authorities.clone(), h2);
        settings.map(Some).map_err(|source| StartError::Certificate { listener: pair.name, source })
    }

    pub(super) fn admin(&self) -> Option<(Arc<ServerCertificate>, Option<Arc<ClientAuthorities>>)> {
        self.admin.as_ref().map(|pair| (pair.certificate.clone(), pair.authorities.clone()))
    }

    /// Files to watch.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let pairs = self.mcp.iter().chain(&self.admin);
        pairs
            .flat_map(|p| [Some(p.tls.cert.clone()), Some(p.tls.key.clone()), p.tls.client_ca.clone()])
            .flatten()
            .collect()
    }

    /// Reads the files again. What is wrong with one leaves it as it was.
    pub(super) fn reload(&self, read: Read<'_>) -> Vec<String> {
        let pairs = self.mcp.iter().chain(&self.admin);
        pairs.filter_map(|p| p.reload(read).err().map(|e| format!("{}: {e}", p.name))).collect()
    }
}

impl Pair {
    fn load(tls: model::ListenerTls, name: &'static str, read: Read<'_>) -> Result<Self, StartError> {
        let file = |path: &PathBuf| {
            read(path).map_err(|source| StartError::File { what: name, path: path.clone(), source })
        };
        let wrong = |source| StartError::Certificate { listener: name, source };
        let certificate = ServerCertificate::new(&file(&tls.cert)?, &file(&tls.key)?).map_err(wrong)?;
        let required = tls.client_auth() == Some(model::ClientAuth::Require);
        let authorities = match &tls.client_ca {
            Some(ca) => Some(ClientAuthorities::new(&file(ca)?, required).map_err(wrong)?),
            None => None,
        };
        Ok(Self { certificate, authorities, tls, name })
    }

    fn reload(&self, read: Read<'_>) -> Result<(), String> {
        let file = |path: &PathBuf| read(path).map_err(|e| format!("{}: {e}", path.display()));
        let replaced = self.certificate.replace(&file(&self.tls.cert)?, &file(&self.tls.key)?);
        replaced.map_err(|e| e.to_string())?;
        if let (Some(authorities), Some(ca)) = (&self.authorities, &self.tls.client_ca) {
            authorities.replace(&file(ca)?).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}
