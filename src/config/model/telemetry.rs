//! Logs, traces, metrics.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::HttpUrl;
use super::text::SecretText;
use super::units::{Percent, Period};

/// Logs, traces, metrics.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// What the process says about itself, on standard error.
    pub log: Log,
    /// One line per request.
    pub access_log: AccessLog,
    /// Traces over OTLP. Without it none are sent.
    pub otlp: Option<Otlp>,
    /// Bounds on label values. What is past them counts as `other`.
    pub metrics: MetricsCaps,
}

/// What the process says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Least severe level written.
    pub level: LogLevel,
    /// Levels of single parts, such as `tollgate::gateway=debug,tollgate::auth=trace`; they win over `level`.
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: LogLevel::Info, filter: None, format: LogFormat::Text }
    }
}

/// A log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// Failures that need a person.
    Error,
    /// And what may become one.
    Warn,
    /// And what happens in normal operation.
    Info,
    /// And why.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// The name that log filters take.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Off => "off",
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// One JSON line per request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// Whether it is written.
    pub enabled: bool,
    /// File to append to; opened again on SIGHUP. Default: standard output.
    pub path: Option<PathBuf>,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { enabled: true, path: None }
    }
}

/// Traces over OTLP/HTTP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// URL of the collector's trace endpoint, such as `http://127.0.0.1:4318/v1/traces`.
    pub endpoint: HttpUrl,
    /// Headers sent to the collector, such as an API key.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretText>,
    /// `service.name` of the spans.
    #[serde(default = "service_name")]
    #[schemars(length(min = 1, max = 256))]
    pub service_name: String,
    /// Share of traces recorded when the caller has not decided.
    #[serde(default = "sample")]
    pub sample: Percent,
    /// How long one export may take.
    #[serde(default = "timeout")]
    pub timeout: Period,
}

fn service_name() -> String {
    "tollgate".to_owned()
}

fn sample() -> Percent {
    Percent::new(10.0)
}

fn timeout() -> Period {
    Period::from_secs(10)
}

/// Bounds on label values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsCaps {
    /// Tenants with series of their own.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_tenants: u32,
    /// Routes of a tenant with series of their own.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_routes: u32,
    /// Servers of a tenant with series of their own.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_servers: u32,
    /// Tools of a server with series of their own.
    #[schemars(range(min = 0, max = 100_000))]
    pub max_tools: u32,
}

impl Default for MetricsCaps {
    fn default() -> Self {
        Self { max_tenants: 1_000, max_routes: 1_000, max_servers: 1_000, max_tools: 200 }
    }
}
