//! Legacy sessions in memory, bounded in number and in idle time.
//!
//! rmcp's own manager forgets idle sessions but takes any number of new ones. This one ends the session that was idle
//! longest when a new one would exceed the limit, so a client that opens sessions in a loop hurts itself first.

use std::collections::HashMap;
use std::time::Duration;

use futures::Stream;
use parking_lot::Mutex;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionManager, LocalSessionManagerError, SessionConfig, SessionTransport,
};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};
use tokio::time::Instant;

/// Sessions that may exist at once.
pub(super) const MAX_SESSIONS: usize = 256;
/// How long a session may be without a message in either direction.
pub(super) const SESSION_IDLE: Duration = Duration::from_secs(30 * 60);

/// See the module.
pub(super) struct BoundedSessions {
    inner: LocalSessionManager,
    limit: usize,
    /// When each session was last used. Sessions leave it when they are closed, whoever closes them.
    used: Mutex<HashMap<SessionId, Instant>>,
}

impl BoundedSessions {
    /// A manager for at most `limit` sessions.
    pub(super) fn new(limit: usize) -> Self {
        let mut config = SessionConfig::default();
        config.keep_alive = Some(SESSION_IDLE);
        let mut inner = LocalSessionManager::default();
        inner.session_config = config;
        Self { inner, limit, used: Mutex::default() }
    }

    fn touch(&self, id: &SessionId) {
        if let Some(used) = self.used.lock().get_mut(id) {
            *used = Instant::now();
        }
    }

    /// Records a new session; returns the one that has to go for it.
    fn admit(&self, id: SessionId) -> Option<SessionId> {
        let mut used = self.used.lock();
        let idle = if used.len() < self.limit {
            None
        } else {
            used.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone())
        };
        if let Some(idle) = &idle {
            used.remove(idle);
        }
        used.insert(id, Instant::now());
        idle
    }
}

impl SessionManager for BoundedSessions {
    type Error = LocalSessionManagerError;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        let (id, transport) = self.inner.create_session().await?;
        if let Some(idle) = self.admit(id.clone()) {
            tracing::info!("the demo has as many sessions as it may; the one that was idle longest ends");
            self.inner.close_session(&idle).await?;
        }
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.touch(id);
        self.inner.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.used.lock().remove(id);
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.create_stream(id, message).await
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.inner.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.inner.resume(id, last_event_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_session_idle_longest_ends_for_a_new_one() {
        let sessions = BoundedSessions::new(2);
        let (first, _a) = sessions.create_session().await.expect("created");
        tokio::time::advance(Duration::from_secs(1)).await;
        let (second, _b) = sessions.create_session().await.expect("created");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(sessions.has_session(&first).await.expect("answers"));
        let (third, _c) = sessions.create_session().await.expect("created");

        assert!(sessions.has_session(&first).await.expect("answers"), "used more recently");
        assert!(!sessions.has_session(&second).await.expect("answers"), "idle longest");
        assert!(sessions.has_session(&third).await.expect("answers"));
        assert_eq!(sessions.used.lock().len(), 2);
    }

    #[tokio::test]
    async fn a_closed_session_makes_room() {
        let sessions = BoundedSessions::new(1);
        let (first, _a) = sessions.create_session().await.expect("created");
        sessions.close_session(&first).await.expect("closed");
        assert!(sessions.used.lock().is_empty());
        assert!(!sessions.has_session(&first).await.expect("answers"));
    }
}
