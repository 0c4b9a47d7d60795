//! The admin listener, spoken to over one connection.

use std::net::SocketAddr;

use serde_json::Value;

use crate::Result;
use crate::client::Connection;

/// Characters of a refusal that are shown.
const SHOWN: usize = 600;

/// The admin listener of one replica.
#[derive(Debug)]
pub struct Api {
    address: SocketAddr,
    token: String,
    connection: Connection,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// `ETag`.
    pub etag: Option<String>,
    /// Its body.
    pub body: String,
}

impl Api {
    /// As the bearer of `token`; of none if it is empty.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: token.to_owned(), connection: Connection::new(address) }
    }

    /// The body of a 200.
    ///
    /// # Errors
    /// It is refused or the listener is gone.
    pub fn get(&mut self, path: &str) -> Result<String> {
        let answer = self.send("GET", path, &[], None)?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.refusal("GET", path)) }
    }

    /// The body of a 200 as JSON.
    ///
    /// # Errors
    /// It is refused, the listener is gone, or it is not JSON.
    pub fn json(&mut self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&self.get(path)?)?)
    }

    /// Every item of a list, page by page.
    ///
    /// # Errors
    /// A page is refused or has no `items`.
    pub fn all(&mut self, path: &str, limit: usize) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let glue = if path.contains('?') { '&' } else { '?' };
            let mut page = self.json(&format!("{path}{glue}limit={limit}{cursor}"))?;
            let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) else {
                return Err(format!("{path}: no items in {page}").into());
            };
            items.extend(more);
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Ok(items),
            }
        }
    }

    /// Sends a request; `body` is a content type and bytes.
    ///
    /// # Errors
    /// There is no answer.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<(&str, &str)>,
    ) -> Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.address);
        if !self.token.is_empty() {
            request.push_str(&format!("Authorization: Bearer {}\r\n", self.token));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        match body {
            Some((kind, body)) => {
                request.push_str(&format!(
                    "Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ));
            }
            None => request.push_str("\r\n"),
        }
        self.connection.drop_if_closed();
        let status = self.connection.exchange(request.as_bytes())?.status;
        let etag = self.connection.header("etag").map(str::to_owned);
        let body = String::from_utf8_lossy(self.connection.body()).into_owned();
        Ok(Answer { status, etag, body })
    }
}

impl Answer {
    /// As an error.
    pub fn refusal(&self, method: &str, path: &str) -> crate::Error {
        let body: String = self.body.chars().take(SHOWN).collect();
        format!("{method} {path}: {} {body}", self.status).into()
    }
}
