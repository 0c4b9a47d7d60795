//! The part of a session record that most sessions never need.

/// The most subscriptions of one session.
pub const MAX_SUBSCRIPTIONS: usize = 256;
/// The most bytes of subscribed URIs of one session.
pub const MAX_SUBSCRIPTION_BYTES: usize = 32 * 1024;
/// The most requests of servers that wait for the client's answer in one session.
pub const MAX_PENDING: usize = 64;
/// The most bytes of ids of those requests.
pub const MAX_PENDING_BYTES: usize = 16 * 1024;
/// The most upstream sessions of one session: servers of a virtual server.
pub const MAX_UPSTREAMS: usize = 256;

/// Something was not put into a session record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// A request of that id is already waiting: the server used an id twice.
    #[error("a request with this id is already pending")]
    Duplicate,
    /// A bound of the session is reached.
    #[error("the session has too many {0}")]
    Full(&'static str),
    /// Another request changed the record first: read it again.
    #[error("the session record has changed")]
    Stale,
}

/// A session that the gateway has with a server on behalf of a client's session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// The server's id in its tenant.
    pub server: Box<str>,
    /// The target's id in its server.
    pub target: Box<str>,
    /// The server's session id; `None` if it gave none.
    pub session: Option<Box<str>>,
}

/// Where the client's answer to a server's request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingReply {
    /// The server's id in its tenant.
    pub server: Box<str>,
    /// The id that the server gave the request, as raw JSON.
    pub upstream_id: Box<str>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) upstreams: Vec<Upstream>,
    subscriptions: Vec<Box<str>>,
    pending: Vec<(Box<str>, PendingReply)>,
}

impl State {
    pub(super) fn set_upstream(&mut self, upstream: Upstream) -> Result<(), StateError> {
        if let Some(known) = self.upstreams.iter_mut().find(|u| u.server == upstream.server) {
            *known = upstream;
            return Ok(());
        }
        if self.upstreams.len() == MAX_UPSTREAMS {
            return Err(StateError::Full("upstream sessions"));
        }
        self.upstreams.push(upstream);
        Ok(())
    }

    pub(super) fn subscribe(&mut self, uri: &str) -> Result<bool, StateError> {
        if self.subscriptions.iter().any(|u| **u == *uri) {
            return Ok(false);
        }
        let bytes = self.subscriptions.iter().map(|u| u.len()).sum::<usize>() + uri.len();
        if self.subscriptions.len() == MAX_SUBSCRIPTIONS || bytes > MAX_SUBSCRIPTION_BYTES {
            return Err(StateError::Full("subscriptions"));
        }
        self.subscriptions.push(uri.into());
        Ok(true)
    }

    pub(super) fn unsubscribe(&mut self, uri: &str) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|u| **u != *uri);
        self.subscriptions.len() != before
    }

    pub(super) fn subscriptions(&self) -> &[Box<str>] {
        &self.subscriptions
    }

    pub(super) fn expect_reply(&mut self, id: &str, reply: PendingReply) -> Result<(), StateError> {
        if self.pending.iter().any(|(known, _)| **known == *id) {
            return Err(StateError::Duplicate);
        }
        let size = |id: &str, reply: &PendingReply| id.len() + reply.server.len() + reply.upstream_id.len();
        let bytes = self.pending.iter().map(|(id, r)| size(id, r)).sum::<usize>() + size(id, &reply);
        if self.pending.len() == MAX_PENDING || bytes > MAX_PENDING_BYTES {
            return Err(StateError::Full("pending requests"));
        }
        self.pending.push((id.into(), reply));
        Ok(())
    }

    pub(super) fn take_reply(&mut self, id: &str) -> Option<PendingReply> {
        let at = self.pending.iter().position(|(known, _)| **known == *id)?;
        Some(self.pending.swap_remove(at).1)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }
}
