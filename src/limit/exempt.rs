//! What a limit must not refuse.

/// What kind of message or request came in, for [`is_exempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// HTTP DELETE: the client ends its session.
    Delete,
    /// A JSON-RPC notification.
    Notification,
    /// A JSON-RPC request with this method.
    Request(&'a str),
    /// A JSON-RPC response of the client to a request of the server.
    Response,
}

/// Whether limits do not apply: `server/discover` (a 429 there makes clients fall back to an older revision, MCP.md
/// §6.6), `ping` (a client would take the session for dead), notifications and responses (they have no answer that
/// could carry an error, and one lost response hangs a call that was already paid for) and DELETE (it frees resources).
pub fn is_exempt(incoming: Incoming<'_>) -> bool {
    match incoming {
        Incoming::Delete | Incoming::Notification | Incoming::Response => true,
        Incoming::Request(method) => matches!(method, "ping" | "server/discover"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_break_clients_is_exempt() {
        for incoming in [
            Incoming::Delete,
            Incoming::Notification,
            Incoming::Response,
            Incoming::Request("ping"),
            Incoming::Request("server/discover"),
        ] {
            assert!(is_exempt(incoming), "{incoming:?}");
        }
        // A request that calls itself a notification is still a request: it has an id and costs work.
        for method in ["initialize", "tools/call", "tools/list", "Ping", "ping ", "notifications/initialized"]
        {
            assert!(!is_exempt(Incoming::Request(method)), "{method}");
        }
    }
}
