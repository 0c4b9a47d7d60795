//! Sends spans to an OTLP collector over HTTP, in batches.
//!
//! The queue between the data plane and the exporter is bounded, and so are a batch, the wait for a batch, and the
//! time an export may take with its retries. Spans that find no room or are not taken are lost and counted. The
//! exporter runs on the control runtime; the SDK's own batch processor is not used, because it drives the client from
//! a plain thread, which an asynchronous client does not survive.

use std::pin::pin;
use std::time::Duration;

use opentelemetry_otlp::{
    Protocol, SpanExporter as OtlpExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::Tracer;
use crate::base::Secret;
use crate::telemetry::family::Counter;

/// Spans still queued at shutdown are sent for at most this long.
pub const DRAIN: Duration = Duration::from_secs(5);

/// Failed exports are logged at most this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Where and how to export.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// The full URL of the collector's trace endpoint, with `/v1/traces`.
    pub endpoint: String,
    /// Headers for the collector, such as `authorization`.
    pub headers: Vec<(String, Secret<String>)>,
    /// How long one export may take, with its retries.
    pub timeout: Duration,
    /// The share of traces begun here that is sampled, from 0 to 1.
    pub sample_ratio: f64,
    /// `service.name`.
    pub service_name: String,
    /// `service.instance.id`, for telling replicas apart.
    pub instance_id: Option<String>,
    /// Spans that may wait.
    pub queue: usize,
    /// Most spans in one export.
    pub batch: usize,
    /// How long a batch waits for more spans.
    pub delay: Duration,
}

impl TraceConfig {
    /// The defaults for a collector at this URL.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            headers: Vec::new(),
            timeout: Duration::from_secs(10),
            sample_ratio: 1.0,
            service_name: "tollgate".to_owned(),
            instance_id: None,
            queue: 4096,
            batch: 512,
            delay: Duration::from_secs(2),
        }
    }
}

/// The exporter cannot be built as configured.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The HTTP client cannot be built.
    #[error("cannot build the trace exporter's HTTP client")]
    Client(#[source] reqwest::Error),
    /// The exporter refuses the configuration.
    #[error("cannot build the trace exporter")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// A header name or value is not valid. The value is not shown.
    #[error("the trace exporter's header `{0}` is not valid")]
    Header(String),
    /// No TLS provider was installed before.
    #[error("no TLS provider is installed in this process")]
    NoTlsProvider,
}

/// Takes spans from the queue and sends them. Drive it with [`Exporter::run`].
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Receiver<SpanData>,
    otlp: OtlpExporter,
    batch: usize,
    delay: Duration,
    timeout: Duration,
    dropped: Counter,
    complained: Option<Instant>,
}

/// Makes a tracer and the exporter behind it. A TLS provider must be installed in the process. Lost spans are added
/// to `dropped`.
pub fn exporter(config: &TraceConfig, dropped: Counter) -> Result<(Tracer, Exporter), TraceError> {
    let client = client(config)?;
    let mut otlp = OtlpExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(&config.endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(config.timeout)
        .build()
        .map_err(TraceError::Exporter)?;
    otlp.set_resource(&resource(config));
    let (sender, spans) = mpsc::channel(config.queue.max(1));
    let tracer = Tracer::recording(sender, dropped.clone(), config.sample_ratio);
    let exporter = Exporter {
        spans,
        otlp,
        batch: config.batch.max(1),
        delay: config.delay,
        timeout: config.timeout,
        dropped,
        complained: None,
    };
    Ok((tracer, exporter))
}

fn resource(config: &TraceConfig) -> Resource {
    use opentelemetry::KeyValue;
    let mut resource = Resource::builder_empty()
        .with_service_name(config.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if let Some(id) = &config.instance_id {
        resource = resource.with_attribute(KeyValue::new("service.instance.id", id.clone()));
    }
    resource.build()
}

/// Headers go on the client: the exporter's own option decodes percent signs in values.
fn client(config: &TraceConfig) -> Result<reqwest::Client, TraceError> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        return Err(TraceError::NoTlsProvider);
    }
    let mut headers = HeaderMap::new();
    for (name, value) in &config.headers {
        let bad = || TraceError::Header(name.clone());
        let key = HeaderName::try_from(name).map_err(|_| bad())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| bad())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    reqwest::Client::builder()
        .default_headers(headers)
        .timeout(config.timeout)
        // A redirect would carry the credentials elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(TraceError::Client)
}

impl Exporter {
    /// Exports until `shutdown` completes or every [`Tracer`] is gone, then sends what is queued, for at most
    /// [`DRAIN`].
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut batch = Vec::with_capacity(self.batch);
        loop {
            let more = tokio::select! {
                more = collect(&mut self.spans, &mut batch, self.batch, self.delay) => more,
                () = &mut shutdown => break,
            };
            if !batch.is_empty() {
                self.export(&mut batch).await;
            }
            if !more {
                return;
            }
        }
        self.spans.close();
        let deadline = Instant::now() + DRAIN;
        loop {
            while batch.len() < self.batch
                && let Ok(span) = self.spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            let count = batch.len() as u64;
            if timeout_at(deadline, self.export(&mut batch)).await.is_err() {
                self.dropped.add(count + self.spans.len() as u64);
                return;
            }
        }
    }

    async fn export(&mut self, batch: &mut Vec<SpanData>) {
        let count = batch.len() as u64;
        let spans = std::mem::replace(batch, Vec::with_capacity(self.batch));
        let problem = match timeout(self.timeout, self.otlp.export(spans)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "timed out".to_owned(),
        };
        self.dropped.add(count);
        let now = Instant::now();
        if self.complained.is_none_or(|at| now - at >= COMPLAIN_EVERY) {
            self.complained = Some(now);
            tracing::warn!(
                event = "trace_export_failed",
                spans = count,
                error = problem,
                "spans were not exported"
            );
        }
    }
}

/// Fills a batch: waits for a first span as long as it takes, then for more until the batch is full or `delay` has
/// passed. `false` when no more will come. Safe to cancel: what was received stays in the batch.
async fn collect(
    spans: &mut mpsc::Receiver<SpanData>,
    batch: &mut Vec<SpanData>,
    max: usize,
    delay: Duration,
) -> bool {
    if batch.is_empty() && spans.recv_many(batch, max).await == 0 {
        return false;
    }
    let deadline = Instant::now() + delay;
    while batch.len() < max {
        let room = max - batch.len();
        match timeout_at(deadline, spans.recv_many(batch, room)).await {
            Ok(0) => return false,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    true
}
