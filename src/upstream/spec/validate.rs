//! What makes a spec a server, and why one is not.

use http::{HeaderName, header};
use rustls_pki_types::ServerName;

use crate::base::TargetId;
use crate::base::guard::RefusedAddress;
use crate::upstream::spec::{
    EraHint, HealthSpec, MAX_TARGETS, MAX_WEIGHT, MIN_INTERVAL, ProbeKind, ServerSpec,
};

/// Why a spec is not a server. The document's fault; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// An address literal that the guard refuses.
    #[error("target `{target}`")]
    Address {
        /// Which target.
        target: TargetId,
        /// What is wrong with the address.
        #[source]
        source: RefusedAddress,
    },
    /// Two targets have one id.
    #[error("target `{0}` is listed twice")]
    DuplicateTarget(TargetId),
    /// Health settings that contradict themselves.
    #[error("health: {0}")]
    Health(&'static str),
    /// A credential header that would break the request.
    #[error("header `{0}` cannot carry a credential")]
    Header(HeaderName),
    /// Not a host name.
    #[error("target `{target}`: `{host}` is not a host name or address")]
    Host {
        /// Which target.
        target: TargetId,
        /// What it gives as host.
        host: String,
    },
    /// No target.
    #[error("a server needs at least one target")]
    NoTargets,
    /// Outlier or breaker settings out of range.
    #[error("{0}")]
    Range(&'static str),
    /// Two targets at one address: they would share connections, health and statistics.
    #[error("targets `{first}` and `{second}` have the same host and port")]
    SameAddress {
        /// The earlier one.
        first: TargetId,
        /// The later one.
        second: TargetId,
    },
    /// The name for TLS is not one.
    #[error("`{0}` is not a name that TLS can verify")]
    Sni(String),
    /// More than [`MAX_TARGETS`].
    #[error("{0} targets: at most {MAX_TARGETS} are allowed")]
    TooManyTargets(usize),
    /// A URL that is not one, or not one we can dial.
    #[error("`{url}` is not a target URL: {reason}")]
    Url {
        /// As given.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// Weight 0 or above [`MAX_WEIGHT`].
    #[error("target `{target}`: weight {weight} is not between 1 and {MAX_WEIGHT}")]
    Weight {
        /// Which target.
        target: TargetId,
        /// As given.
        weight: u32,
    },
}

impl ServerSpec {
    /// Checks everything that can be known without a network.
    ///
    /// # Errors
    ///
    /// The first [`SpecError`] found.
    pub fn validate(&self) -> Result<(), SpecError> {
        self.validate_targets()?;
        if let Some(sni) = &self.tls.sni
            && ServerName::try_from(sni.as_str()).is_err()
        {
            return Err(SpecError::Sni(sni.clone()));
        }
        for (name, _) in &self.credentials {
            if FRAMING.contains(name) {
                return Err(SpecError::Header(name.clone()));
            }
        }
        if let Some(health) = &self.health {
            health.validate(self.era)?;
        }
        if let Some(o) = &self.outlier {
            range(o.error_percent <= 100, "outlier: error_percent is a percentage")?;
            range(o.max_ejected_percent <= 100, "outlier: max_ejected_percent is a percentage")?;
            range(o.window >= MIN_INTERVAL, "outlier: window is too short")?;
            range(!o.base_ejection.is_zero(), "outlier: base_ejection must not be zero")?;
            range(o.max_ejection >= o.base_ejection, "outlier: max_ejection is below base_ejection")?;
        }
        if let Some(b) = &self.breaker {
            range(b.failures > 0, "breaker: failures must be at least 1")?;
            range(b.probes > 0, "breaker: probes must be at least 1")?;
            range(b.successes > 0, "breaker: successes must be at least 1")?;
            range(!b.open_for.is_zero(), "breaker: open_for must not be zero")?;
            range(b.max_open >= b.open_for, "breaker: max_open is below open_for")?;
        }
        range(self.retry.percent <= 1000, "retry: percent is at most 1000")?;
        range(!self.timeouts.connect.is_zero(), "timeouts: connect must not be zero")?;
        range(self.dns_refresh >= MIN_INTERVAL, "dns_refresh is too short")?;
        range(self.discover_refresh >= MIN_INTERVAL, "discover_refresh is too short")
    }

    fn validate_targets(&self) -> Result<(), SpecError> {
        match self.targets.len() {
            0 => return Err(SpecError::NoTargets),
            n if n > MAX_TARGETS => return Err(SpecError::TooManyTargets(n)),
            _ => {}
        }
        for (index, target) in self.targets.iter().enumerate() {
            if target.weight == 0 || target.weight > MAX_WEIGHT {
                return Err(SpecError::Weight { target: target.id.clone(), weight: target.weight });
            }
            if ServerName::try_from(target.host.as_str()).is_err() {
                return Err(SpecError::Host { target: target.id.clone(), host: target.host.clone() });
            }
            if let Some(ip) = target.literal() {
                self.guard
                    .check(ip)
                    .map_err(|source| SpecError::Address { target: target.id.clone(), source })?;
            }
            for earlier in &self.targets[..index] {
                if earlier.id == target.id {
                    return Err(SpecError::DuplicateTarget(target.id.clone()));
                }
                if earlier.port == target.port && earlier.host.eq_ignore_ascii_case(&target.host) {
                    return Err(SpecError::SameAddress {
                        first: earlier.id.clone(),
                        second: target.id.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}

impl HealthSpec {
    fn validate(&self, era: EraHint) -> Result<(), SpecError> {
        let fault = |holds: bool, text| if holds { Ok(()) } else { Err(SpecError::Health(text)) };
        fault(self.interval >= MIN_INTERVAL, "interval is too short")?;
        fault(!self.timeout.is_zero(), "timeout must not be zero")?;
        fault(self.unhealthy_after > 0 && self.healthy_after > 0, "thresholds must be at least 1")?;
        match &self.probe {
            ProbeKind::Http { expect: (low, high), .. } => {
                fault((100..=599).contains(low) && low <= high && *high <= 599, "expected status is no range")
            }
            ProbeKind::Mcp => fault(era != EraHint::Foreign, "the server does not speak MCP over HTTP"),
            ProbeKind::Tcp => Ok(()),
        }
    }
}

/// Headers that frame a request or name its host: a credential there would change what is sent.
static FRAMING: [HeaderName; 6] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
];

fn range(holds: bool, otherwise: &'static str) -> Result<(), SpecError> {
    if holds { Ok(()) } else { Err(SpecError::Range(otherwise)) }
}
