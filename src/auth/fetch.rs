//! The real [`JwksFetch`]: HTTP through reqwest, files through tokio.
//!
//! Never follows a redirect: whoever can make the issuer's host redirect must not choose the keys. Bodies are cut off at
//! 1 MiB, whatever the length header says. A system proxy is not used unless the process is set up for one by reqwest's
//! own rules.

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::auth::jwks::check_url;
use crate::auth::{FetchError, JwksFetch, JwksLocation, JwksSpec, MAX_JWKS_BYTES};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(9);

/// Fetches over HTTP and from files. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpFetch {
    client: reqwest::Client,
}

/// The part of an OpenID configuration that is used (OpenID Connect Discovery §3).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl HttpFetch {
    /// A client with the platform's root certificates. The process must have installed a rustls provider before.
    pub fn new() -> Result<Self, FetchError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(FetchError("no rustls provider is installed in this process".to_owned()));
        }
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| FetchError(format!("the HTTP client cannot be built: {e}")))?;
        Ok(Self { client })
    }

    async fn get(&self, url: &str, allow_http: bool) -> Result<Vec<u8>, FetchError> {
        check_url(url, allow_http).map_err(|e| FetchError(e.to_string()))?;
        let request = self.client.get(url).header(http::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(describe)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError(format!("answered with status {}", response.status().as_u16())));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(describe)? {
            if body.len() + chunk.len() > MAX_JWKS_BYTES {
                return Err(FetchError("the document is larger than 1 MiB".to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    async fn discover(&self, issuer: &str, allow_http: bool) -> Result<Vec<u8>, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovered = serde_json::from_slice(&self.get(&url, allow_http).await?)
            .map_err(|e| FetchError(format!("the OpenID configuration cannot be read: {e}")))?;
        // Otherwise one issuer could hand out another's keys (OpenID Connect Discovery §4.3).
        if found.issuer != issuer {
            return Err(FetchError("the OpenID configuration is that of another issuer".to_owned()));
        }
        self.get(&found.jwks_uri, allow_http).await
    }
}

#[async_trait]
impl JwksFetch for HttpFetch {
    async fn fetch(&self, spec: &JwksSpec) -> Result<Vec<u8>, FetchError> {
        match &spec.location {
            JwksLocation::Discovery(issuer) => self.discover(issuer, spec.allow_http).await,
            JwksLocation::File(path) => {
                let fail = |e: std::io::Error| FetchError(format!("the file cannot be read: {e}"));
                let file = tokio::fs::File::open(path).await.map_err(fail)?;
                let mut body = Vec::new();
                file.take(MAX_JWKS_BYTES as u64 + 1).read_to_end(&mut body).await.map_err(fail)?;
                Ok(body)
            }
            JwksLocation::Inline(document) => Ok(document.clone().into_bytes()),
            JwksLocation::Url(url) => self.get(url, spec.allow_http).await,
        }
    }
}

/// The chain of causes, without the URL, whose query may hold a secret.
fn describe(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    FetchError(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Serves fixed answers by path; returns its origin and the count of connections.
    async fn server(answer: impl Fn(&str, &str) -> String + Send + 'static) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let hits = Arc::new(AtomicUsize::new(0));
        let (counted, own) = (hits.clone(), origin.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; 4096];
                let read = socket.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                let _ = socket.write_all(answer(&path, &own).as_bytes()).await;
            }
        });
        (origin, hits)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    }

    fn fetch() -> HttpFetch {
        // Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        HttpFetch::new().unwrap()
    }

    async fn get(location: JwksLocation) -> Result<String, FetchError> {
        let bytes = fetch().fetch(&JwksSpec::new(location)).await?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[tokio::test]
    async fn documents_are_fetched_and_statuses_are_errors() {
        let (origin, _) = server(|path, _| match path {
            "/keys" => ok("{\"keys\":[]}"),
            _ => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        })
        .await;
        assert_eq!(get(JwksLocation::Url(format!("{origin}/keys"))).await.unwrap(), "{\"keys\":[]}");
        let error = get(JwksLocation::Url(format!("{origin}/no?key=s3cret"))).await.unwrap_err();
        assert_eq!(error.to_string(), "answered with status 503");
    }

    #[tokio::test]
    async fn redirects_are_never_followed() {
        let (target, hits) = server(|_, _| ok("{\"keys\":[]}")).await;
        let (origin, _) = server(move |_, _| {
            format!("HTTP/1.1 302 Found\r\nlocation: {target}/keys\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        })
        .await;
        assert!(get(JwksLocation::Url(format!("{origin}/keys"))).await.unwrap_err().0.contains("302"));
        assert_eq!(hits.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn large_bodies_are_cut_off() {
        let (origin, _) = server(|path, _| match path {
            "/declared" => ok(&"x".repeat(MAX_JWKS_BYTES + 1)),
            _ => format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(MAX_JWKS_BYTES + 1)),
        })
        .await;
        for path in ["declared", "endless"] {
            let error = get(JwksLocation::Url(format!("{origin}/{path}"))).await.unwrap_err();
            assert!(error.0.contains("1 MiB"), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn discovery_uses_the_uri_of_the_right_issuer_only() {
        let (origin, _) = server(|path, own| match path {
            "/a/.well-known/openid-configuration" => {
                ok(&format!("{{\"issuer\":\"{own}/a\",\"jwks_uri\":\"{own}/keys\"}}"))
            }
            "/b/.well-known/openid-configuration" => {
                ok(&format!("{{\"issuer\":\"{own}/a\",\"jwks_uri\":\"{own}/keys\"}}"))
            }
            "/c/.well-known/openid-configuration" => {
                ok(&format!("{{\"issuer\":\"{own}/c\",\"jwks_uri\":\"http://issuer.example/keys\"}}"))
            }
            _ => ok("{\"keys\":[]}"),
        })
        .await;
        let discover = |name: &str| get(JwksLocation::Discovery(format!("{origin}/{name}")));
        assert_eq!(discover("a").await.unwrap(), "{\"keys\":[]}");
        assert!(discover("b").await.unwrap_err().0.contains("another issuer"));
        assert!(discover("c").await.unwrap_err().0.contains("https"));
    }

    #[tokio::test]
    async fn files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        assert!(get(JwksLocation::File(path.clone())).await.is_err());
        std::fs::write(&path, "{\"keys\":[]}").unwrap();
        assert_eq!(get(JwksLocation::File(path)).await.unwrap(), "{\"keys\":[]}");
    }

    #[tokio::test]
    async fn other_schemes_are_refused() {
        assert!(fetch().get("file:///etc/passwd", true).await.is_err());
        assert!(fetch().get("http://issuer.example/keys", false).await.is_err());
    }
}
