//! Rules about sessions, the end of the process, logs and traces.

use super::{Context, DAY, HOUR, SOME};
use crate::config::model::{Encryption, HeaderName, Period, Size};
use crate::config::path::Path;

/// Longest time for which samples are kept.
const YEAR: Period = Period::from_secs(366 * 86_400);

/// The oldest a session may become: its sealing key must be kept as long.
const MAX_SESSION_AGE: Period = Period::from_secs(30 * 86_400);

/// The levels that a part may have.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn validate(context: &mut Context<'_>) {
    sessions(context);
    shutdown(context);
    store(context);
    telemetry(context);
    audit(context);
    retention(context);
    let kept = context.document.samples.retention;
    context.period(Path::of("samples").key("retention"), kept, Period::from_secs(60), YEAR);
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

fn audit(context: &mut Context<'_>) {
    let audit = &context.document.audit;
    let base = Path::of("audit");
    let spool = &audit.spool;
    if spool.segment_size < Size::from_mib(1) || spool.segment_size > Size::from_mib(1024) {
        context
            .error(
                "out-of-range",
                &base.key("spool.segment_size"),
                format!("`{}` is out of range", spool.segment_size),
            )
            .expected("a size from `1MiB` to `1GiB`");
    }
    if spool.max_size.bytes() < spool.segment_size.bytes().saturating_mul(3) {
        context
            .error("contradiction", &base.key("spool.max_size"), "the spool has no room for three segments")
            .expected(format!("at least three times `segment_size`, `{}`", spool.segment_size));
    }
    if audit.max_body == Size::from_bytes(0) || audit.max_body > super::policies::MAX_BODY {
        context
            .error("out-of-range", &base.key("max_body"), format!("`{}` is out of range", audit.max_body))
            .expected(format!("a size from `1B` to `{}`", super::policies::MAX_BODY))
            .hint("to record no bodies at all: `mask: [request_body, response_body]`");
    }
    context.period(base.key("checkpoint_every"), audit.checkpoint_every, Period::from_secs(60), DAY);
}

/// What is coarser is made of what is finer, and is asked for when that is gone: it must not go first.
fn retention(context: &mut Context<'_>) {
    let (audit, store) = (&context.document.audit.retention, context.document.store.retention);
    let minutes = [
        (
            "usage_hour_days",
            store.usage_hour_days,
            "audit.retention.usage_minute_days",
            audit.usage_minute_days,
        ),
        ("health_days", store.health_days, "store.retention.health_minute_days", store.health_minute_days),
    ];
    for (key, hours, finer, minutes) in minutes {
        // Zero is for ever.
        if hours == 0 || (minutes != 0 && minutes <= hours) {
            continue;
        }
        let kept = if minutes == 0 { "for ever".to_owned() } else { format!("{minutes} days") };
        context
            .error(
                "contradiction",
                &Path::of("store").key("retention").key(key),
                format!("hours would stay for {hours} days, and the minutes that they are made of {kept}"),
            )
            .expected(match minutes {
                0 => "`0`, which is for ever".to_owned(),
                _ => format!("at least `{finer}`, {minutes}, or `0` for ever"),
            })
            .hint(format!("or set `{finer}` to at most {hours}"));
    }
}

fn store(context: &mut Context<'_>) {
    let store = &context.document.store;
    let base = Path::of("store");
    context.period(base.key("connect_timeout"), store.connect_timeout, SOME, HOUR);
    context.period(base.key("statement_timeout"), store.statement_timeout, SOME, HOUR);
    context.period(base.key("poll"), store.poll, Period::from_millis(250), Period::from_secs(60));
    if let Some(url) = &store.url
        && !["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.expose().starts_with(scheme))
    {
        context
            .error("bad-value", &base.key("url"), "not the address of a database")
            .expected("`postgres://…` or `sqlite:…`");
    }
    let empty = match &store.encryption {
        Some(Encryption::KeyCommand(command)) => command.is_empty(),
        Some(Encryption::KeyEnv(name)) => name.is_empty(),
        Some(Encryption::KeyFile(path)) => path.as_os_str().is_empty(),
        None => false,
    };
    if empty {
        context.error("bad-value", &base.key("encryption"), "says nothing about where the keys are");
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
