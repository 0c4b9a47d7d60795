//! `tollgate health`: asks a running gateway whether it is well. An image without a shell has no other way.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::args::HealthArgs;

/// Most that is read of an answer.
const MAX_ANSWER: u64 = 64 * 1024;

/// `Ok(false)`: it answered, and is not well.
pub(super) fn run(args: &HealthArgs) -> Result<bool, String> {
    let (authority, path) = parts(&args.url)?;
    let answer = ask(authority, path, Duration::from_secs(args.timeout))
        .map_err(|error| format!("{}: {error}", args.url))?;
    let status = status(&answer).ok_or_else(|| format!("{}: no HTTP answer", args.url))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body.trim_end());
    if status == 200 {
        println!("{body}");
    } else {
        eprintln!("{status} {body}");
    }
    Ok(status == 200)
}

/// Host with port, and path.
fn parts(url: &str) -> Result<(&str, &str), String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| {
        format!(
            "{url}: only http:// can be asked; with TLS on the admin listener ask the MCP listener's /healthz"
        )
    })?;
    Ok(match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/healthz"),
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
        run(&HealthArgs { url, timeout: 2 })
    }

    #[test]
    fn only_200_is_well() {
        assert_eq!(health(answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")), Ok(true));
        let ill = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(health(answering(ill)), Ok(false));
        assert!(health(answering("not HTTP at all")).is_err());
    }

    #[test]
    fn nobody_there_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(health(format!("http://{address}/healthz")).is_err());
        assert!(health("https://127.0.0.1:1/healthz".to_owned()).is_err());
    }

    #[test]
    fn a_url_may_leave_out_path_and_port() {
        assert_eq!(parts("http://127.0.0.1:9090"), Ok(("127.0.0.1:9090", "/healthz")));
        assert_eq!(parts("http://[::1]/readyz"), Ok(("[::1]", "/readyz")));
    }
}
