//! Every metric of the gateway: name, type, labels and help, in one place.
//!
//! This table is the contract with dashboards and alerts. `metrics.golden` lists it and a test compares the two, so
//! that no name or label changes by accident.

/// What a family measures.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes both ways.
    Gauge,
    /// Seconds, sorted into these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word that Prometheus uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

/// One metric family.
#[derive(Debug)]
pub struct Spec {
    /// The full name.
    pub name: &'static str,
    /// One sentence for `# HELP`.
    pub help: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// The label names, in the order in which children are asked for.
    pub labels: &'static [&'static str],
}

/// Counts as this label value what exceeds a cap.
pub const OTHER: &str = "other";

/// Upper bounds, in seconds, for what a client or an upstream waits for.
pub const LATENCY_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds, in seconds, for the gateway's own share: fine below a millisecond, coarse above.
pub const OWN_COST_BUCKETS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_075, 0.000_1, 0.000_15, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025,
    0.05, 0.1, 0.25, 1.0,
];

const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Spec {
    Spec { name, help, kind: Kind::Counter, labels }
}

const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Spec {
    Spec { name, help, kind: Kind::Gauge, labels }
}

const fn seconds(
    name: &'static str,
    help: &'static str,
    buckets: &'static [f64],
    labels: &'static [&'static str],
) -> Spec {
    Spec { name, help, kind: Kind::Histogram(buckets), labels }
}

macro_rules! specs {
    ($($(#[$doc:meta])* $name:ident = $make:expr;)*) => {
        $($(#[$doc])* pub static $name: Spec = $make;)*

        /// All families, by name.
        pub static ALL: &[&Spec] = &[$(&$name),*];
    };
}

specs! {
    /// Lines that the access log lost.
    ACCESS_LOG_DROPPED = counter(
        "tollgate_access_log_dropped_total",
        "Access log lines lost because the queue was full or the output failed.",
        &[],
    );
    /// Audit records not yet handed to the store.
    AUDIT_BACKLOG = gauge(
        "tollgate_audit_backlog",
        "Audit records in the spool that have not reached the store.",
        &[],
    );
    /// Bodies that were lost.
    AUDIT_BODIES_LOST = counter(
        "tollgate_audit_bodies_lost_total",
        "Requests whose bodies a policy wants recorded and whose audit event has none, because the spool had no room.",
        &[],
    );
    /// Events that were lost.
    AUDIT_DROPPED = counter(
        "tollgate_audit_dropped_total",
        "Audit events lost because the spool was full and `audit.on_full` is `drop`.",
        &[],
    );
    /// Requests refused for want of room.
    AUDIT_REFUSED = counter(
        "tollgate_audit_refused_total",
        "Requests refused because the audit spool was full and `audit.on_full` is `refuse`.",
        &[],
    );
    /// Size of the spool.
    AUDIT_SPOOL_BYTES = gauge("tollgate_audit_spool_bytes", "Bytes of all files of the audit spool.", &[]);
    /// Refusals without events of their own.
    AUDIT_SUMMARISED = counter(
        "tollgate_audit_summarised_total",
        "Requests that ended before it was known who asks and have no audit event of their own: events with a `count` tell of them.",
        &[],
    );
    /// Refused credentials.
    AUTH_FAILURES = counter(
        "tollgate_auth_failures_total",
        "Requests refused for their credentials, by reason.",
        &["tenant", "reason"],
    );
    /// Always 1.
    BUILD_INFO = gauge("tollgate_build_info", "Always 1; the labels say what runs.", &["version"]);
    /// Ended canaries.
    CANARIES_ENDED = counter(
        "tollgate_canaries_ended_total",
        "Canaries that this process has ended, by how.",
        &["outcome"],
    );
    /// Calls of both sides.
    CANARY_CALLS = counter(
        "tollgate_canary_calls_total",
        "Calls while a canary runs, by the side that the caller is on and how they ended.",
        &["tenant", "side", "outcome"],
    );
    /// Documents that do not compile here.
    CONFIG_REFUSED = gauge(
        "tollgate_config_refused",
        "Documents of the store that do not compile on this replica now; an earlier one, or what compiled before, is served.",
        &[],
    );
    /// Whether the last attempt was applied.
    CONFIG_RELOAD_SUCCESS = gauge(
        "tollgate_config_reload_success",
        "1 if the last attempt to load a configuration left the newest one in force, else 0.",
        &[],
    );
    /// Reload attempts.
    CONFIG_RELOADS = counter(
        "tollgate_config_reloads_total",
        "Attempts to load a configuration, by outcome.",
        &["outcome"],
    );
    /// What is served.
    CONFIG_REVISION = gauge(
        "tollgate_config_revision",
        "Revision of the configuration in force.",
        &[],
    );
    /// Open client connections.
    CONNECTIONS = gauge("tollgate_connections", "Open client connections.", &[]);
    /// The gateway's own share of a request.
    GATEWAY_SECONDS = seconds(
        "tollgate_gateway_seconds",
        "The gateway's own share of a request, with the time spent waiting for upstreams taken out.",
        OWN_COST_BUCKETS,
        &["tenant", "route"],
    );
    /// Health that was seen and not kept.
    HEALTH_HISTORY_DROPPED = counter(
        "tollgate_health_history_dropped_total",
        "Minutes and changes of targets' health lost because the store was away for too long.",
        &[],
    );
    /// How old what is known of callers is.
    IDENTITY_STALENESS = gauge(
        "tollgate_identity_staleness_seconds",
        "Time since the store was last heard of about users, keys, revocations and roles; 0 without `source: database`.",
        &[],
    );
    /// Age of each issuer's keys.
    JWKS_AGE = gauge(
        "tollgate_jwks_age_seconds",
        "Time since the keys of a token issuer were last fetched.",
        &["issuer"],
    );
    /// Label values counted as `other`.
    LABEL_OVERFLOW = counter(
        "tollgate_label_overflow_total",
        "Times a label value was counted as `other` because its cap was reached.",
        &["label"],
    );
    /// Requests decided without the shared server.
    LIMIT_FALLBACKS = counter(
        "tollgate_limit_fallbacks_total",
        "Requests for which a shared limit did what its `fail` says, because its server did not answer.",
        &["tenant", "route", "limit"],
    );
    /// Requests over a limit.
    LIMIT_REFUSALS = counter(
        "tollgate_limit_refusals_total",
        "Requests refused by a limit.",
        &["tenant", "route", "limit"],
    );
    /// Whether the server of shared limits answers.
    LIMIT_SERVER_UP = gauge(
        "tollgate_limit_server_up",
        "Whether the server of shared limits answers: 1, or 0.",
        &[],
    );
    /// Trips to the server of shared limits.
    LIMIT_TRIPS = counter(
        "tollgate_limit_trips_total",
        "Requests to the server of shared limits, each for a batch of tokens.",
        &["outcome"],
    );
    /// Log lines withheld or lost.
    LOG_SUPPRESSED = counter(
        "tollgate_log_lines_suppressed_total",
        "Log lines not written: repeated too fast, too detailed, or lost to a full queue.",
        &[],
    );
    /// Requests refused by policy.
    POLICY_DENIALS = counter(
        "tollgate_policy_denials_total",
        "Requests refused by policy.",
        &["tenant", "route"],
    );
    /// Processor time.
    PROCESS_CPU = counter("tollgate_process_cpu_seconds_total", "Processor time, user and system.", &[]);
    /// Descriptor limit.
    PROCESS_MAX_FDS = gauge("tollgate_process_max_fds", "Most file descriptors the process may open.", &[]);
    /// Descriptors.
    PROCESS_OPEN_FDS = gauge("tollgate_process_open_fds", "Open file descriptors.", &[]);
    /// Resident memory.
    PROCESS_RESIDENT = gauge("tollgate_process_resident_memory_bytes", "Resident memory.", &[]);
    /// When the process began.
    PROCESS_START = gauge(
        "tollgate_process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch.",
        &[],
    );
    /// Threads.
    PROCESS_THREADS = gauge("tollgate_process_threads", "Threads of the process.", &[]);
    /// Mapped memory.
    PROCESS_VIRTUAL = gauge("tollgate_process_virtual_memory_bytes", "Mapped memory.", &[]);
    /// How long clients wait.
    REQUEST_SECONDS = seconds(
        "tollgate_request_seconds",
        "Time from the head of a request to the end of its response; streams that stay open are left out.",
        LATENCY_BUCKETS,
        &["tenant", "route", "server"],
    );
    /// Every request once.
    REQUESTS = counter(
        "tollgate_requests_total",
        "Requests by how they ended; an empty server means the gateway answered by itself.",
        &["tenant", "route", "server", "method", "outcome"],
    );
    /// Second attempts.
    RETRIES = counter("tollgate_retries_total", "Upstream attempts after the first.", &["tenant", "server"]);
    /// Sampled requests that were not kept.
    SAMPLES_DROPPED = counter(
        "tollgate_samples_dropped_total",
        "Minutes of routes whose sampled requests were lost because the store was away for too long.",
        &[],
    );
    /// Live MCP sessions.
    SESSIONS = gauge("tollgate_sessions", "MCP sessions at home on this replica.", &[]);
    /// Open streams.
    STREAMS = gauge("tollgate_streams", "Open event streams to clients.", &["tenant", "route"]);
    /// Ejections.
    TARGET_EJECTIONS = counter(
        "tollgate_target_ejections_total",
        "Times a target was taken out of balancing.",
        &["tenant", "server", "target"],
    );
    /// Health.
    TARGET_HEALTHY = gauge(
        "tollgate_target_healthy",
        "1 if a target takes traffic, else 0.",
        &["tenant", "server", "target"],
    );
    /// Load.
    TARGET_IN_FLIGHT = gauge(
        "tollgate_target_in_flight",
        "Exchanges that a target has not finished.",
        &["tenant", "server", "target"],
    );
    /// How long tools take.
    TOOL_SECONDS = seconds(
        "tollgate_tool_seconds",
        "Time a server took for a call of one of its tools.",
        LATENCY_BUCKETS,
        &["tenant", "server", "tool"],
    );
    /// Lost spans.
    TRACE_DROPPED = counter(
        "tollgate_trace_spans_dropped_total",
        "Spans lost because the queue was full or the collector did not take them.",
        &[],
    );
    /// Failed exchanges.
    UPSTREAM_ERRORS = counter(
        "tollgate_upstream_errors_total",
        "Exchanges with an upstream that failed, by kind; retried ones count, too.",
        &["tenant", "server", "kind"],
    );
}
