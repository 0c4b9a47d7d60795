//! Servers.

use std::num::NonZeroU32;
use std::time::Duration;

use base64::Engine as _;
use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue};

use super::{CompileError, Files};
use crate::base::ServerId;
use crate::config::Terms;
use crate::config::model::{self, Credential, Period, Probe};
use crate::upstream::{
    Balance, BreakerSpec, CaBundle, ClientIdentity, EraHint, HealthSpec, OutlierSpec, ProbeKind, RetrySpec,
    ServerSpec, TargetSpec, Timeouts, TlsSpec,
};

/// What the registry of servers takes.
pub(super) fn spec(
    terms: &Terms,
    server: &model::Server,
    files: &mut Files<'_>,
) -> Result<ServerSpec, CompileError> {
    let at = format!("servers.{}", server.name);
    let wrong = |field: &str, e: &dyn std::fmt::Display| CompileError::new(format!("{at}.{field}"), e);
    let targets = server
        .http
        .targets
        .iter()
        .map(|t| TargetSpec::parse(t.url().as_str(), t.weight()).map_err(|e| wrong("http.targets", &e)))
        .collect::<Result<Vec<_>, _>>()?;
    let tls = &server.http.tls;
    let roots = match &tls.ca {
        Some(path) => {
            let pem = files.read(path, &format!("{at}.http.tls.ca"))?;
            Some(CaBundle::from_pem(&pem).map_err(|e| wrong("http.tls.ca", &e))?)
        }
        None => None,
    };
    let identity = match (&tls.client_cert, &tls.client_key) {
        (Some(cert), Some(key)) => {
            let chain = files.read(cert, &format!("{at}.http.tls.client_cert"))?;
            let key = files.read(key, &format!("{at}.http.tls.client_key"))?;
            Some(ClientIdentity::from_pem(&chain, &key).map_err(|e| wrong("http.tls.client_cert", &e))?)
        }
        _ => None,
    };
    let spec = ServerSpec {
        tls: TlsSpec { roots, identity, sni: tls.sni.clone() },
        h2: server.http.h2,
        era: match server.era {
            model::Era::Auto => EraHint::Auto,
            model::Era::Legacy => EraHint::Legacy,
            model::Era::Modern => EraHint::Modern,
        },
        balance: match server.balance {
            model::Balance::Hash => Balance::Hash,
            model::Balance::LeastRequest => Balance::LeastRequest,
            model::Balance::PeakEwma => Balance::PeakEwma,
            model::Balance::RoundRobin => Balance::RoundRobin,
            model::Balance::Weighted => Balance::Weighted,
        },
        health: health(&server.health).map_err(|e| wrong("health.probe", &e))?,
        outlier: outlier(&server.outlier),
        breaker: breaker(&server.breaker),
        slow_start: positive(server.slow_start),
        timeouts: timeouts(&server.timeouts),
        max_in_flight: NonZeroU32::new(server.max_in_flight),
        dns_refresh: server.dns.refresh.get(),
        discover_refresh: server.catalogue.refresh.get(),
        credentials: credentials(server.credential.as_ref()).map_err(|e| wrong("credential", &e))?,
        pool_idle: server.pool.idle_timeout.get(),
        retry: RetrySpec {
            percent: (server.retry.budget.fraction() * 100.0).round() as u32,
            min_per_second: server.retry.min_per_second,
        },
        guard: terms.guard(),
        ..ServerSpec::new(terms.tenant().clone(), ServerId::new(server.name.as_str()), targets)
    };
    spec.validate().map_err(|e| CompileError::new(&at, e))?;
    Ok(spec)
}

fn positive(period: Period) -> Option<Duration> {
    (!period.is_zero()).then(|| period.get())
}

fn health(health: &model::Health) -> Result<Option<HealthSpec>, String> {
    if health.interval.is_zero() {
        return Ok(None);
    }
    let probe = match &health.probe {
        Probe::Http(path) => ProbeKind::Http {
            path: path.parse().map_err(|_| format!("`{path}` is not a path"))?,
            expect: (200, 299),
        },
        Probe::Mcp => ProbeKind::Mcp,
        Probe::Tcp => ProbeKind::Tcp,
    };
    Ok(Some(HealthSpec {
        probe,
        interval: health.interval.get(),
        timeout: health.timeout.get(),
        unhealthy_after: health.unhealthy_after,
        healthy_after: health.healthy_after,
    }))
}

fn outlier(outlier: &model::Outlier) -> Option<OutlierSpec> {
    let percent = |p: model::Percent| (p.fraction() * 100.0).round() as u8;
    let off = outlier.consecutive_failures == 0 && percent(outlier.error_ratio) == 0;
    (!off).then(|| OutlierSpec {
        consecutive_failures: outlier.consecutive_failures,
        error_percent: percent(outlier.error_ratio),
        window: outlier.window.get(),
        min_requests: outlier.min_requests,
        base_ejection: outlier.base_ejection.get(),
        max_ejection: outlier.max_ejection.get(),
        max_ejected_percent: percent(outlier.max_ejected),
    })
}

fn breaker(breaker: &model::Breaker) -> Option<BreakerSpec> {
    (breaker.failures > 0).then(|| BreakerSpec {
        failures: breaker.failures,
        open_for: breaker.open_for.get(),
        max_open: breaker.max_open.get(),
        probes: breaker.half_open_requests,
        successes: breaker.half_open_requests,
    })
}

fn timeouts(timeouts: &model::Timeouts) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.get(),
        first_byte: positive(timeouts.first_byte),
        request: positive(timeouts.request),
        idle: positive(timeouts.idle),
        stream_idle: positive(timeouts.stream_idle),
    }
}

fn credentials(credential: Option<&Credential>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let sensitive = |text: String| {
        let mut value =
            HeaderValue::try_from(text).map_err(|_| "the secret has characters that no header may hold")?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    };
    Ok(match credential {
        None => Vec::new(),
        Some(Credential::Bearer(token)) => {
            vec![(AUTHORIZATION, sensitive(format!("Bearer {}", token.expose()))?)]
        }
        Some(Credential::Basic(basic)) => {
            let pair = format!("{}:{}", basic.username, basic.password.expose());
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            vec![(AUTHORIZATION, sensitive(format!("Basic {encoded}"))?)]
        }
        Some(Credential::Header(header)) => {
            let name = HeaderName::from_bytes(header.name.as_str().as_bytes()).map_err(|e| e.to_string())?;
            vec![(name, sensitive(header.value.expose().to_owned())?)]
        }
    })
}
