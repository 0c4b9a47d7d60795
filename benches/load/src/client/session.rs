//! A legacy session on a connection of its own.

use crate::Result;
use crate::client::{Answer, Call, Connection, Endpoint, Request};

/// An initialized session.
#[derive(Debug)]
pub struct Session {
    endpoint: Endpoint,
    /// Its connection.
    pub connection: Connection,
    id: String,
    handshake: (Request, Request),
    /// Who answered: the fixture's name and its own session id. An answer of somebody else is a misroute.
    home: Option<Vec<u8>>,
}

impl Session {
    /// Opens a session.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn open(endpoint: &Endpoint) -> Result<Self> {
        let mut session = Self {
            endpoint: endpoint.clone(),
            connection: Connection::new(endpoint.address),
            id: String::new(),
            handshake: (endpoint.initialize(), endpoint.initialized("")),
            home: None,
        };
        session.reopen()?;
        Ok(session)
    }

    /// Opens another one in its place, on the same connection.
    ///
    /// # Errors
    /// The handshake failed.
    pub fn reopen(&mut self) -> Result<()> {
        let answer = self.connection.exchange(self.handshake.0.advance())?;
        if answer.status != 200 || !self.handshake.0.is_answered_by(self.connection.body()) {
            return Err(self.unexpected("initialize", &answer));
        }
        self.id = answer.session.clone().ok_or("no session id")?;
        self.home = None;
        self.handshake.1 = self.endpoint.initialized(&self.id);
        let answer = self.connection.exchange(self.handshake.1.advance())?;
        if answer.status == 202 { Ok(()) } else { Err(self.unexpected("notifications/initialized", &answer)) }
    }

    /// Ends it.
    ///
    /// # Errors
    /// DELETE failed.
    pub fn delete(&mut self) -> Result<()> {
        let answer = self.connection.exchange(self.endpoint.delete(&self.id).advance())?;
        if (200..300).contains(&answer.status) { Ok(()) } else { Err(self.unexpected("DELETE", &answer)) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The request for a call in it.
    pub fn call(&self, call: Call) -> Request {
        self.endpoint.call(&self.id, call)
    }

    /// Whether the last answer came from where this session lives.
    pub fn is_home(&mut self) -> bool {
        let Some(home) = home_of(self.connection.body()) else { return false };
        match &self.home {
            Some(known) => known == home,
            None => {
                self.home = Some(home.to_vec());
                true
            }
        }
    }

    /// Name and session id of the server that it lives on, once a call has been answered.
    pub fn home(&self) -> Option<&str> {
        self.home.as_deref().and_then(|home| std::str::from_utf8(home).ok())
    }

    fn unexpected(&self, what: &str, answer: &Answer) -> crate::Error {
        let body = String::from_utf8_lossy(self.connection.body());
        format!("{what}: {} {}", answer.status, body.chars().take(200).collect::<String>()).into()
    }
}

fn home_of(body: &[u8]) -> Option<&[u8]> {
    const KEY: &[u8] = b"\"home\":\"";
    let at = memchr::memmem::find(body, KEY)? + KEY.len();
    let end = memchr::memchr(b'"', &body[at..])?;
    Some(&body[at..at + end])
}
