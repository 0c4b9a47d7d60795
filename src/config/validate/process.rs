//! Rules about sessions, the end of the process, logs and traces.

use super::{Context, DAY, HOUR, SOME};
use crate::config::model::{HeaderName, Period};
use crate::config::path::Path;

/// The oldest a session may become: its sealing key must be kept as long.
const MAX_SESSION_AGE: Period = Period::from_secs(30 * 86_400);

/// The levels that a part may have.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn validate(context: &mut Context<'_>) {
    sessions(context);
    shutdown(context);
    telemetry(context);
}

fn sessions(context: &mut Context<'_>) {
    let sessions = &context.document.sessions;
    let base = Path::of("sessions");
    context.period(base.key("max_age"), sessions.max_age, Period::from_secs(60), MAX_SESSION_AGE);
    context.period(base.key("idle_ttl"), sessions.idle_ttl, Period::from_secs(10), MAX_SESSION_AGE);
    context.period(base.key("key_rotation"), sessions.key_rotation, HOUR, Period::from_secs(366 * 86_400));
    if sessions.idle_ttl > sessions.max_age {
        context
            .error("contradiction", &base.key("idle_ttl"), "a session would be idle for longer than it lives")
            .expected(format!("at most `max_age`, `{}`", sessions.max_age));
    }
    if sessions.max_per_tenant > sessions.max_total {
        context
            .error(
                "contradiction",
                &base.key("max_per_tenant"),
                "one tenant may have more sessions than all together",
            )
            .expected(format!("at most `max_total`, {}", sessions.max_total));
    }
}

fn shutdown(context: &mut Context<'_>) {
    let shutdown = &context.document.shutdown;
    let base = Path::of("shutdown");
    context.period(base.key("announce"), shutdown.announce, Period::from_secs(0), HOUR);
    context.period(base.key("drain"), shutdown.drain, Period::from_secs(0), DAY);
    if shutdown.streams > shutdown.drain {
        context
            .error(
                "contradiction",
                &base.key("streams"),
                "streams would get more time than everything together",
            )
            .expected(format!("at most `drain`, `{}`", shutdown.drain));
    }
}

fn telemetry(context: &mut Context<'_>) {
    let telemetry = &context.document.telemetry;
    let base = Path::of("telemetry");
    if !telemetry.access_log.enabled && telemetry.access_log.path.is_some() {
        context
            .warning("no-effect", &base.key("access_log.path"), "no access log is written")
            .hint("set `enabled: true`, or remove `path`");
    }
    for directive in telemetry.log.filter.iter().flat_map(|filter| filter.split(',')) {
        let level = directive.rsplit_once('=').filter(|(part, _)| !part.is_empty()).map(|(_, level)| level);
        if !level.is_some_and(|level| LOG_LEVELS.contains(&level)) {
            context
                .error(
                    "bad-value",
                    &base.key("log.filter"),
                    format!("`{directive}` does not set the level of a part"),
                )
                .expected("parts and levels, such as `tollgate::gateway=debug,tollgate::auth=trace`");
        }
    }
    let Some(otlp) = &telemetry.otlp else { return };
    let base = base.key("otlp");
    context.period(base.key("timeout"), otlp.timeout, SOME, HOUR);
    for name in otlp.headers.keys() {
        if let Err(bad) = name.parse::<HeaderName>() {
            context
                .error("bad-value", &base.key("headers").entry(name), "not the name of a header")
                .expected(bad.expected);
        }
    }
    if !otlp.headers.is_empty() && !otlp.endpoint.is_https() && !otlp.endpoint.is_loopback() {
        context
            .warning("plaintext", &base.key("endpoint"), "`headers` are sent over plain HTTP")
            .hint("use `https://`");
    }
}
