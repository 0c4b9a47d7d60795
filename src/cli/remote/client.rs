//! Asks the API of a running gateway, and says clearly what it answered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::args::ApiArgs;

/// Longest wait for an answer, besides what the call itself waits for.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The name of the token's file in the data folder.
const TOKEN_FILE: &str = "admin.token";

/// Why there is no answer to go on with.
#[derive(Debug)]
pub(super) enum Failure {
    /// The head is not where the caller thought.
    Conflict(String),
    /// There is nothing at the address.
    Missing(String),
    /// A file is wrong, as findings tell it.
    Findings(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    /// The same, with what it is about in front.
    pub(super) fn about(self, what: &str) -> Self {
        match self {
            Self::Conflict(text) => Self::Conflict(format!("{what}: {text}")),
            Self::Missing(text) => Self::Missing(format!("{what}: {text}")),
            Self::Findings(text) => Self::Findings(text),
            Self::Other(text) => Self::Other(format!("{what}: {text}")),
        }
    }

    /// What it means that there is nothing at the address.
    pub(super) fn missing(self, what: &str) -> Self {
        match self {
            Self::Missing(_) => Self::Missing(what.to_owned()),
            other => other,
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Self::Conflict(text) | Self::Missing(text) | Self::Findings(text) | Self::Other(text) => text,
        }
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

/// A problem (RFC 9457) as the API gives it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: String,
    code: String,
    instance: Option<String>,
    errors: Vec<FieldError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldError {
    pointer: String,
    line: Option<u32>,
    column: Option<u32>,
    detail: String,
    expected: Option<String>,
    hint: Option<String>,
}

/// Speaks to one gateway.
pub(super) struct Client {
    base: Url,
    token: Option<String>,
    http: reqwest::Client,
}

impl Client {
    pub(super) fn new(args: &ApiArgs, env_token: Option<String>) -> Result<Self, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = Url::parse(&args.api).map_err(|e| format!("--api {}: {e}", args.api))?;
        let token = match (&args.token_file, env_token) {
            (Some(path), _) => Some(read_token(path)?),
            // A variable that is set to nothing is none.
            (None, Some(token)) if !token.trim().is_empty() => Some(token.trim().to_owned()),
            (None, _) => {
                let path = args.data_dir.join(TOKEN_FILE);
                // That none was left there is for the gateway to say; that it cannot be read is not.
                let found = path.try_exists().map_err(|e| format!("{}: {e}", path.display()))?;
                if found { Some(read_token(&path)?) } else { None }
            }
        };
        let mut builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &args.ca {
            builder = builder.tls_certs_only(authorities(path)?);
        }
        let http = builder.build().map_err(|e| e.to_string())?;
        Ok(Self { base, token, http })
    }

    /// A call whose answer is JSON.
    pub(super) async fn json<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, Failure> {
        let response = self.send(call).await?;
        let bytes = response.bytes().await.map_err(|e| format!("the answer breaks off: {e}"))?;
        serde_json::from_slice(&bytes)
            .map_err(|e| Failure::Other(format!("the answer is not what this version understands: {e}")))
    }

    /// A call whose answer is a document. Gives its revision, too.
    pub(super) async fn document(&self, path: &str) -> Result<(i64, Vec<u8>), Failure> {
        let response = self.send(Call::get(path)).await?;
        let tag = response.headers().get("etag").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let revision = tag.trim_matches('"').trim_start_matches('r').parse().unwrap_or(0);
        let bytes = response.bytes().await.map_err(|e| format!("the answer breaks off: {e}"))?;
        Ok((revision, bytes.to_vec()))
    }

    /// Whether there is something at this address.
    pub(super) async fn exists(&self, path: &str) -> Result<bool, Failure> {
        match self.send(Call::get(path)).await {
            Ok(_) => Ok(true),
            Err(Failure::Missing(_)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn send(&self, call: Call<'_>) -> Result<Response, Failure> {
        let url = self.base.join(call.path).map_err(|e| format!("{}: {e}", call.path))?;
        let mut request = self.http.request(call.method, url.clone()).timeout(TIMEOUT + call.patience);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in &call.headers {
            request = request.header(*name, value);
        }
        let (verbatim, places) = (call.verbatim, call.places);
        if let Some((kind, body)) = call.body {
            request = request.header("content-type", kind).body(body);
        }
        let response = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
        let problem = problem.placed(verbatim, places);
        let text = problem.render(status, self.token.is_some());
        Err(match status {
            StatusCode::PRECONDITION_FAILED => Failure::Conflict(text),
            StatusCode::NOT_FOUND if problem.says_what_is_missing() => Failure::Missing(text),
            StatusCode::NOT_FOUND if problem.code.is_empty() => Failure::Other(format!(
                "{text} on {}: that is no admin listener; --api says where it is",
                self.base
            )),
            _ => Failure::Other(text),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        // Nothing was sent: an address or a header that cannot be.
        if error.is_builder() {
            return format!("the request to {} cannot be made: {cause}", self.base);
        }
        format!("no gateway answers on {}: {cause}; is it running? --api says where it is", self.base)
    }
}

/// One call.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    /// How long the call itself waits.
    pub(super) patience: Duration,
    /// Whether the document in the body is as whoever wrote it knows it. If not, lines and columns in it would mislead.
    pub(super) verbatim: bool,
    /// Where what a pointer leads to is in what they wrote: for what the gateway has no place of.
    pub(super) places: Option<&'a Placing<'a>>,
}

/// Line and column of what a pointer leads to.
pub(super) type Placing<'a> = dyn Fn(&str) -> Option<(u32, u32)> + 'a;

impl<'a> Call<'a> {
    pub(super) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            headers: Vec::new(),
            body: None,
            patience: Duration::ZERO,
            verbatim: true,
            places: None,
        }
    }
}

impl Problem {
    /// Whether it is the API that has not got what was asked for: not some other listener, and not a process without an API.
    fn says_what_is_missing(&self) -> bool {
        !self.code.is_empty() && self.code != "no_api_here"
    }

    /// With places in the text as whoever wrote it knows it, and no others.
    fn placed(mut self, verbatim: bool, places: Option<&Placing<'_>>) -> Self {
        for error in self.errors.iter_mut().filter(|error| !verbatim || error.line.is_none()) {
            (error.line, error.column) = places.and_then(|at| at(&error.pointer)).unzip();
        }
        self
    }

    /// In the form of compiler messages: what is wrong, then each place.
    fn render(&self, status: StatusCode, with_token: bool) -> String {
        let mut text = match (self.detail.is_empty(), self.title.is_empty()) {
            (false, _) => self.detail.clone(),
            (true, false) => self.title.clone(),
            (true, true) => format!("the gateway answers {status}"),
        };
        if !self.code.is_empty() {
            text = format!("{text} ({})", self.code);
        }
        if status == StatusCode::UNAUTHORIZED {
            text += match with_token {
                true => "\n  the token is not the one of this gateway",
                false => "\n  no token was found: give --token-file, TOLLGATE_TOKEN, or --data-dir",
            };
        }
        for error in &self.errors {
            let place = match (error.line, error.column) {
                (Some(line), Some(column)) => format!("{line}:{column} "),
                (Some(line), None) => format!("{line} "),
                _ => String::new(),
            };
            // What is about no field is about all of it.
            let place = match (place.trim_end(), error.pointer.as_str()) {
                ("", "") => String::new(),
                (place, "") => format!("{place}: "),
                ("", pointer) => format!("{pointer}: "),
                (place, pointer) => format!("{place} {pointer}: "),
            };
            text += &format!("\n  {place}{}", error.detail);
            if let Some(expected) = &error.expected {
                text += &format!("\n    expected {expected}");
            }
            if let Some(hint) = &error.hint {
                text += &format!("\n    help: {hint}");
            }
        }
        if let Some(instance) = self.instance.as_ref().filter(|_| status.is_server_error()) {
            text += &format!("\n  request id {}", instance.trim_start_matches("urn:uuid:"));
        }
        text
    }
}

/// The file that the token is read from, if it is.
pub(super) fn token_path(args: &ApiArgs, from_env: bool) -> Option<PathBuf> {
    match &args.token_file {
        Some(path) => Some(path.clone()),
        None if from_env => None,
        None => Some(args.data_dir.join(TOKEN_FILE)),
    }
}

/// The certificates of a file.
pub(crate) fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("--ca {}: {e}", path.display());
    let pem = std::fs::read(path).map_err(|e| failed(&e))?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err(failed(&"there is no certificate in it, expected PEM")),
        Ok(found) => Ok(found),
        Err(e) => Err(failed(&e)),
    }
}

fn read_token(path: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_rendered_with_the_place_of_each_error() {
        let read = || -> Problem {
            serde_json::from_str(
            r#"{"title":"Unprocessable Content","detail":"the document has errors","code":"invalid","errors":[
                {"pointer":"/routes/0/server","line":4,"column":7,"detail":"unknown key","expected":"one of `servers`"},
                {"pointer":"/limits","detail":"too many"},{"detail":"all of it"}]}"#,
        )
        .unwrap()
        };
        let problem = read().placed(true, None);
        assert_eq!(
            problem.render(StatusCode::UNPROCESSABLE_ENTITY, true),
            "the document has errors (invalid)\n  4:7 /routes/0/server: unknown key\n    expected one of `servers`\n  \
             /limits: too many\n  all of it"
        );
        let rewritten = read().placed(false, None).render(StatusCode::UNPROCESSABLE_ENTITY, true);
        assert!(rewritten.contains("\n  /routes/0/server: unknown key\n"), "{rewritten}");
        let at = |pointer: &str| (pointer == "/limits").then_some((9, 1));
        let known = read().placed(true, Some(&at)).render(StatusCode::UNPROCESSABLE_ENTITY, true);
        assert!(known.contains("\n  4:7 /routes/0/server:") && known.contains("\n  9:1 /limits:"), "{known}");
        let mine = read().placed(false, Some(&at)).render(StatusCode::UNPROCESSABLE_ENTITY, true);
        assert!(mine.contains("\n  /routes/0/server:") && mine.contains("\n  9:1 /limits:"), "{mine}");
    }

    #[test]
    fn only_the_api_says_that_something_is_missing() {
        let of = |code: &str| Problem { code: code.to_owned(), ..Problem::default() };
        assert!(of("not_found").says_what_is_missing() && of("no_tenant").says_what_is_missing());
        assert!(!of("").says_what_is_missing(), "no problem of this API");
        assert!(!of("no_api_here").says_what_is_missing(), "a data plane");
    }

    #[test]
    fn a_hint_is_no_expectation() {
        let problem: Problem = serde_json::from_str(
            r#"{"detail":"x","code":"invalid","errors":[{"pointer":"/a","detail":"no secret","hint":"set it"}]}"#,
        )
        .unwrap();
        let text = problem.render(StatusCode::UNPROCESSABLE_ENTITY, true);
        assert_eq!(text, "x (invalid)\n  /a: no secret\n    help: set it");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let args = |ca: Option<PathBuf>| ApiArgs {
            api: "https://127.0.0.1:9090".to_owned(),
            ca,
            token_file: None,
            data_dir: folder.path().to_owned(),
        };
        assert!(Client::new(&args(None), None).is_ok_and(|client| client.token.is_none()));
        let client = Client::new(&args(None), Some(" tga_x\n".to_owned())).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(client.token.as_deref(), Some("tga_x"));
        let refused = |args: &ApiArgs| Client::new(args, None).err().unwrap_or_default();
        let odd = folder.path().join("ca.pem");
        assert!(refused(&args(Some(odd.clone()))).starts_with("--ca "), "not there");
        std::fs::write(&odd, "no certificate").unwrap();
        assert!(refused(&args(Some(odd))).contains("expected PEM"));
        // A token that is there and cannot be read is not taken for none.
        std::fs::create_dir(folder.path().join(TOKEN_FILE)).unwrap();
        assert!(refused(&args(None)).contains(TOKEN_FILE));
    }

    #[test]
    fn a_refused_token_says_what_to_do() {
        let text = Problem::default().render(StatusCode::UNAUTHORIZED, false);
        assert!(text.contains("TOLLGATE_TOKEN"), "{text}");
    }
}
