//! `tollgate health`: asks a running gateway whether it is well. An image without a shell has no other way.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::{Duration, Instant};

use super::args::HealthArgs;
use super::remote::authorities;

/// Most that is read of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// `Ok(false)`: it answered, and is not well.
pub(super) fn run(args: &HealthArgs) -> Result<bool, String> {
    let patience = Duration::from_secs(args.timeout);
    let place = Place::of(&args.url)?;
    let (status, body) = match place.tls {
        Some(false) => plain(&place, patience)?,
        Some(true) => tls(&place, args.ca.as_deref(), patience)?,
        // A listener with TLS closes on what is no handshake.
        None => match plain(&place, patience) {
            Ok(answer) => answer,
            Err(without) => tls(&place, args.ca.as_deref(), patience)
                .map_err(|with| format!("{without}; with TLS: {with}"))?,
        },
    };
    if status == 200 {
        println!("{body}");
    } else {
        eprintln!("{status} {body}");
    }
    Ok(status == 200)
}

/// What to ask.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// Whether with TLS, if that was said.
    tls: Option<bool>,
    /// Host with port.
    authority: &'a str,
    path: &'a str,
}

impl<'a> Place<'a> {
    fn of(url: &'a str) -> Result<Self, String> {
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (Some(false), rest),
            Some(("https", rest)) => (Some(true), rest),
            Some((other, _)) => return Err(format!("{url}: `{other}` is neither http nor https")),
            None => (None, url),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/healthz"),
        };
        Ok(Self { tls, authority, path })
    }

    /// Whether it is on this machine whatever it resolves to.
    fn is_here(&self) -> bool {
        let url = reqwest::Url::parse(&format!("https://{}/", self.authority));
        url.is_ok_and(|url| match url.host_str() {
            Some("localhost") => true,
            Some(host) => {
                let host = host.trim_start_matches('[').trim_end_matches(']');
                host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
            }
            None => false,
        })
    }
}

fn plain(place: &Place<'_>, patience: Duration) -> Result<(u16, String), String> {
    let url = format!("http://{}{}", place.authority, place.path);
    let answer = ask(place.authority, place.path, patience).map_err(|error| format!("{url}: {error}"))?;
    let status = status(&answer).ok_or_else(|| format!("{url}: no HTTP answer"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
    Ok((status, body.to_owned()))
}

fn tls(place: &Place<'_>, ca: Option<&Path>, patience: Duration) -> Result<(u16, String), String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("https://{}{}", place.authority, place.path);
    let mut client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().timeout(patience);
    if let Some(path) = ca {
        client = client.tls_certs_only(authorities(path)?);
    } else if place.is_here() {
        // Nothing secret is said, and the certificate is for the name that others dial.
        client = client.tls_danger_accept_invalid_certs(true);
    }
    let failed = |error: &dyn std::error::Error| {
        let mut text = format!("{url}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    };
    let client = client.build().map_err(|e| failed(&e))?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| failed(&e))?;
    runtime.block_on(async {
        let mut response = client.get(&url).send().await.map_err(|e| failed(&e))?;
        let (status, mut body) = (response.status().as_u16(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(|e| failed(&e))? {
            body.extend_from_slice(&chunk);
            if body.len() as u64 > MAX_ANSWER {
                break;
            }
        }
        Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
    })
}

fn ask(authority: &str, path: &str, patience: Duration) -> io::Result<String> {
    let until = Instant::now() + patience;
    let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let with_port = if authority.ends_with(']') || !authority.contains(':') {
        format!("{authority}:80")
    } else {
        authority.to_owned()
    };
    let address = with_port.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, left())?;
    stream.set_write_timeout(Some(left()))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    stream.set_read_timeout(Some(left()))?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The code of the status line.
fn status(answer: &str) -> Option<u16> {
    answer.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers once with these bytes.
    fn answering(bytes: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
        });
        format!("http://{address}/readyz")
    }

    fn health(url: String) -> Result<bool, String> {
        run(&HealthArgs { url, ca: None, timeout: 2 })
    }

    #[test]
    fn only_200_is_well() {
        assert_eq!(health(answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), Ok(true));
        let ill = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(health(answering(ill)), Ok(false));
        assert!(health(answering("not HTTP at all")).is_err());
    }

    #[test]
    fn a_listener_with_tls_is_asked_with_tls() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = rcgen::generate_simple_self_signed(vec!["gw.example.com".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = std::sync::Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut tls = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::Stream::new(&mut tls, &mut stream);
                // What is no handshake ends the connection.
                if stream.read(&mut [0; 1024]).is_ok() {
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
                    let _ = stream.write_all(answer).and_then(|()| stream.flush());
                }
            }
        });
        assert_eq!(health(format!("{address}/readyz")), Ok(true), "as it speaks");
        assert_eq!(health(format!("https://{address}/readyz")), Ok(true));
        assert!(health(format!("http://{address}/readyz")).is_err());
        let other = made.cert.pem();
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, other).unwrap();
        // It is for another name, and who gives authorities wants that to matter.
        let args = HealthArgs { url: format!("https://{address}/readyz"), ca: Some(ca), timeout: 2 };
        assert!(run(&args).is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(health(format!("http://{address}/healthz")).is_err());
        assert!(health("https://127.0.0.1:1/healthz".to_owned()).is_err());
        assert!(health("ftp://127.0.0.1:1/healthz".to_owned()).is_err());
    }

    #[test]
    fn a_url_may_leave_out_path_and_port() {
        let place = |tls, authority, path| Ok(Place { tls, authority, path });
        assert_eq!(Place::of("http://127.0.0.1:9090"), place(Some(false), "127.0.0.1:9090", "/healthz"));
        assert_eq!(Place::of("https://[::1]/readyz"), place(Some(true), "[::1]", "/readyz"));
        assert_eq!(Place::of("gw:9090/readyz"), place(None, "gw:9090", "/readyz"));
        for (authority, here) in [
            ("127.0.0.1:9090", true),
            ("[::1]:9090", true),
            ("localhost", true),
            ("10.0.0.1", false),
            ("gw:1", false),
        ] {
            assert_eq!(Place::of(authority).unwrap().is_here(), here, "{authority}");
        }
    }
}
