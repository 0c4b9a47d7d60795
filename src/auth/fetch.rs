//! The real [`JwksFetch`]: HTTP through reqwest, files through tokio.
//!
//! Never follows a redirect: whoever can make the issuer's host redirect must not choose the keys. Bodies are cut off at
//! 1 MiB, whatever the length header says. What a tenant's document names is fetched under that tenant's guard: every
//! address of every look-up is checked, only checked ones are dialled, and no proxy dials for us. Otherwise a system proxy is not used unless the process is set up for one by reqwest's
//! own rules.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::io::AsyncReadExt;

use crate::auth::jwks::check_url;
use crate::auth::{FetchError, JwksFetch, JwksLocation, JwksSpec, MAX_JWKS_BYTES};
use crate::base::guard::AddressGuard;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(5);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(9);

/// Most guards for which a client is kept.
const MAX_CLIENTS: usize = 256;

/// Looks a host name up.
pub type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Fetches over HTTP and from files. Cheap to clone.
#[derive(Clone)]
pub struct HttpFetch {
    lookup: Lookup,
    /// One for each guard: connections that are kept were dialled under it.
    clients: Arc<Mutex<HashMap<AddressGuard, reqwest::Client>>>,
}

/// Gives reqwest checked addresses only.
struct Guarded {
    guard: AddressGuard,
    lookup: Lookup,
}

impl reqwest::dns::Resolve for Guarded {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let (guard, found) = (self.guard.clone(), (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let mut refused = None;
            let checked: Vec<SocketAddr> = found
                .await?
                .into_iter()
                .filter(|ip| guard.check(*ip).inspect_err(|e| refused = Some(e.clone())).is_ok())
                .map(|ip| SocketAddr::new(ip, 0))
                .collect();
            match refused {
                Some(refused) if checked.is_empty() => Err(refused.into()),
                _ => Ok(Box::new(checked.into_iter()) as reqwest::dns::Addrs),
            }
        })
    }
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
        let lookup: Lookup = Arc::new(|host| {
            Box::pin(async move {
                Ok(tokio::net::lookup_host((host, 0)).await?.map(|found| found.ip()).collect())
            })
        });
        Self::with_lookup(lookup)
    }

    /// The same with another way to look names up.
    pub fn with_lookup(lookup: Lookup) -> Result<Self, FetchError> {
        let fetch = Self { lookup, clients: Arc::default() };
        fetch.client(&AddressGuard::AllowAll)?;
        Ok(fetch)
    }

    fn client(&self, guard: &AddressGuard) -> Result<reqwest::Client, FetchError> {
        if let Some(client) = self.clients.lock().get(guard) {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        if *guard != AddressGuard::AllowAll {
            let resolver = Guarded { guard: guard.clone(), lookup: self.lookup.clone() };
            builder = builder.no_proxy().dns_resolver(Arc::new(resolver));
        }
        let client =
            builder.build().map_err(|e| FetchError(format!("the HTTP client cannot be built: {e}")))?;
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(guard.clone(), client.clone());
        Ok(client)
    }

    async fn get(&self, url: &str, spec: &JwksSpec) -> Result<Vec<u8>, FetchError> {
        check_url(url, spec.allow_http).map_err(|e| FetchError(e.to_string()))?;
        if spec.guard != AddressGuard::AllowAll {
            check_literal(url, &spec.guard)?;
        }
        let client = self.client(&spec.guard)?;
        let request = client.get(url).header(http::header::ACCEPT, "application/json");
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

    async fn discover(&self, issuer: &str, spec: &JwksSpec) -> Result<Vec<u8>, FetchError> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovered = serde_json::from_slice(&self.get(&url, spec).await?)
            .map_err(|e| FetchError(format!("the OpenID configuration cannot be read: {e}")))?;
        // Otherwise one issuer could hand out another's keys (OpenID Connect Discovery §4.3).
        if found.issuer != issuer {
            return Err(FetchError("the OpenID configuration is that of another issuer".to_owned()));
        }
        if spec.same_origin && origin(&found.jwks_uri) != origin(issuer) {
            return Err(FetchError(
                "the issuer's keys are at another host, which was not granted".to_owned(),
            ));
        }
        self.get(&found.jwks_uri, spec).await
    }
}

#[async_trait]
impl JwksFetch for HttpFetch {
    async fn fetch(&self, spec: &JwksSpec) -> Result<Vec<u8>, FetchError> {
        match &spec.location {
            JwksLocation::Discovery(issuer) => self.discover(issuer, spec).await,
            JwksLocation::File(path) => {
                let fail = |e: io::Error| FetchError(format!("the file cannot be read: {e}"));
                let file = tokio::fs::File::open(path).await.map_err(fail)?;
                let mut body = Vec::new();
                file.take(MAX_JWKS_BYTES as u64 + 1).read_to_end(&mut body).await.map_err(fail)?;
                Ok(body)
            }
            JwksLocation::Inline(document) => Ok(document.clone().into_bytes()),
            JwksLocation::Url(url) => self.get(url, spec).await,
        }
    }
}

/// An address that is written out is not looked up, so it is checked here: as the client will read it, which takes
/// `0x7f.1` for an address as well.
fn check_literal(url: &str, guard: &AddressGuard) -> Result<(), FetchError> {
    let url = reqwest::Url::parse(url).map_err(|_| FetchError("not a URL".to_owned()))?;
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => guard.check(ip).map_err(|e| FetchError(e.to_string())),
        Err(_) => Ok(()),
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> Option<String> {
    reqwest::Url::parse(url).ok().map(|url| url.origin().ascii_serialization())
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
    async fn a_tenants_fetches_dial_checked_addresses_only() {
        let (origin, hits) = server(|_, own| match own.len() {
            0 => String::new(),
            _ => ok("{\"keys\":[]}"),
        })
        .await;
        let port = origin.rsplit(':').next().unwrap().to_owned();
        let answers = Arc::new(Mutex::new(vec![IpAddr::from([127, 0, 0, 1])]));
        let looked_up = answers.clone();
        fetch();
        let fetch = HttpFetch::with_lookup(Arc::new(move |_| {
            let found = looked_up.lock().clone();
            Box::pin(async move { Ok(found) })
        }))
        .unwrap();
        let spec = |url: &str, guard: &AddressGuard| JwksSpec {
            guard: guard.clone(),
            allow_http: true,
            ..JwksSpec::new(JwksLocation::Url(url.to_owned()))
        };
        let public = AddressGuard::PublicOnly { except: Vec::new() };
        let name = format!("http://keys.example:{port}/");
        let refused = fetch.fetch(&spec(&name, &public)).await.unwrap_err();
        assert!(refused.0.contains("loopback"), "{refused}");
        for literal in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433", "0177.0.0.1"] {
            let url = format!("http://{literal}:{port}/");
            assert!(fetch.fetch(&spec(&url, &public)).await.is_err(), "{literal}");
        }
        let granted = AddressGuard::PublicOnly { except: vec!["127.0.0.0/8".parse().unwrap()] };
        // One good answer does not let the bad one through.
        *answers.lock() = vec!["169.254.169.254".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert_eq!(hits.load(Ordering::SeqCst), 0, "nothing was dialled");
        assert!(fetch.fetch(&spec(&name, &granted)).await.is_ok());
        // The name is bound to another address: what was good before says nothing.
        *answers.lock() = vec!["169.254.169.254".parse().unwrap()];
        let refused = fetch.fetch(&spec(&name, &granted)).await.unwrap_err();
        assert!(refused.0.contains("link-local"), "{refused}");
    }

    #[tokio::test]
    async fn the_keys_of_a_granted_issuer_are_at_the_issuer() {
        let (elsewhere, hits) = server(|_, _| ok("{\"keys\":[]}")).await;
        let (origin, _) =
            server(move |_, own| ok(&format!("{{\"issuer\":\"{own}\",\"jwks_uri\":\"{elsewhere}/keys\"}}")))
                .await;
        let spec = JwksSpec::new(JwksLocation::Discovery(origin));
        assert!(fetch().fetch(&spec).await.is_ok());
        let seen = hits.load(Ordering::SeqCst);
        let strict = JwksSpec { same_origin: true, ..spec };
        assert!(fetch().fetch(&strict).await.unwrap_err().0.contains("another host"));
        assert_eq!(hits.load(Ordering::SeqCst), seen);
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
        let strict = JwksSpec::new(JwksLocation::Inline(String::new()));
        let loose = JwksSpec { allow_http: true, ..strict.clone() };
        assert!(fetch().get("file:///etc/passwd", &loose).await.is_err());
        assert!(fetch().get("http://issuer.example/keys", &strict).await.is_err());
    }
}
