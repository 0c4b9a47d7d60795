//! Legacy sessions whose streams a tool can close in mid-call (SSE polling, revision 2025-11-25).
//!
//! Everything is delegated to rmcp's in-memory sessions. With `close_streams`, each request also carries a
//! [`StreamCloser`] for its own stream, and a resumption is announced to the tool that waits for it: rmcp forgets a
//! stream as soon as its response is written, so a response written before the client is back would be lost.

use futures::StreamExt;
use futures::stream::{self, Stream};
use rmcp::model::{ClientJsonRpcMessage, GetExtensions, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionHandle, LocalSessionManager, LocalSessionManagerError, SessionTransport,
};
use rmcp::transport::streamable_http_server::session::{ServerSseMessage, SessionId, SessionManager};
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Resumptions that may wait for a slow tool before the oldest is forgotten.
const RESUMPTIONS: usize = 64;

/// Which stream: the session and rmcp's number of the HTTP request in it.
type StreamKey = (SessionId, u64);

/// The session manager of the fixture.
pub struct Sessions {
    inner: LocalSessionManager,
    /// Announces resumed streams; `None` unless streams are to be closed in mid-call.
    resumed: Option<broadcast::Sender<StreamKey>>,
}

impl Sessions {
    pub fn new(close_streams: bool) -> Self {
        Self {
            inner: LocalSessionManager::default(),
            resumed: close_streams.then(|| broadcast::channel(RESUMPTIONS).0),
        }
    }
}

/// Closes the stream of the request it was attached to.
#[derive(Clone)]
pub struct StreamCloser {
    handle: LocalSessionHandle,
    key: StreamKey,
    resumed: broadcast::Sender<StreamKey>,
}

impl StreamCloser {
    /// Closes the stream, tells the client to come back after `retry`, and waits until it has, at most `patience`.
    pub async fn close_and_wait(&self, retry: Duration, patience: Duration) {
        let mut resumed = self.resumed.subscribe();
        if self.handle.close_sse_stream(self.key.1, Some(retry)).await.is_err() {
            return;
        }
        let back = async {
            loop {
                match resumed.recv().await {
                    Ok(key) if key == self.key => break,
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => break,
                }
            }
        };
        if tokio::time::timeout(patience, back).await.is_err() {
            tracing::warn!("no client resumed the closed stream");
        }
    }
}

/// The HTTP request number in an event id of rmcp, `<index>/<request>`; `None` for the standalone stream.
fn request_of_event(event_id: &str) -> Option<u64> {
    event_id.split_once('/')?.1.parse().ok()
}

impl SessionManager for Sessions {
    type Error = LocalSessionManagerError;
    type Transport = SessionTransport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        self.inner.create_session().await
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.inner.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.inner.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.inner.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let Some(resumed) = &self.resumed else {
            return Ok(self.inner.create_stream(id, message).await?.left_stream());
        };
        let handle = self.inner.sessions.read().await.get(id).cloned();
        let handle = handle.ok_or_else(|| LocalSessionManagerError::SessionNotFound(id.clone()))?;
        let receiver = handle.establish_request_wise_channel().await?;
        if let (ClientJsonRpcMessage::Request(request), Some(number)) =
            (&mut message, receiver.http_request_id)
        {
            request.request.extensions_mut().insert(StreamCloser {
                handle: handle.clone(),
                key: (id.clone(), number),
                resumed: resumed.clone(),
            });
        }
        handle.push_message(message, receiver.http_request_id).await?;
        let events = stream::unfold(receiver.inner, |mut inner| async move {
            let event = inner.recv().await?;
            Some((event, inner))
        });
        Ok(events.right_stream())
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
        let number = request_of_event(&last_event_id);
        let stream = self.inner.resume(id, last_event_id).await?;
        if let (Some(resumed), Some(number)) = (&self.resumed, number) {
            // No receiver is normal: only a tool that closed its stream listens.
            let _ = resumed.send((id.clone(), number));
        }
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_name_the_request_unless_standalone() {
        assert_eq!(request_of_event("3/17"), Some(17));
        assert_eq!(request_of_event("3"), None);
        assert_eq!(request_of_event("3/x"), None);
    }
}
