//! Label values from fixed lists. Enums index arrays of counters, and no client can add a value.

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// Every value, in order of its index.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The label value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

label! {
    /// What a request asked for, in both eras.
    Method {
        /// `completion/complete`.
        CompletionComplete = "completion/complete",
        /// HTTP DELETE: the client ends its session.
        Delete = "delete",
        /// `initialize`.
        Initialize = "initialize",
        /// `logging/setLevel`.
        LoggingSetLevel = "logging/setLevel",
        /// The request was refused before its method was known.
        None = "none",
        /// `notifications/cancelled`.
        NotificationCancelled = "notifications/cancelled",
        /// `notifications/initialized`.
        NotificationInitialized = "notifications/initialized",
        /// Any other notification.
        NotificationOther = "notifications/other",
        /// `notifications/progress`.
        NotificationProgress = "notifications/progress",
        /// A method outside this list.
        Other = "other",
        /// `ping`.
        Ping = "ping",
        /// `prompts/get`.
        PromptsGet = "prompts/get",
        /// `prompts/list`.
        PromptsList = "prompts/list",
        /// `resources/list`.
        ResourcesList = "resources/list",
        /// `resources/read`.
        ResourcesRead = "resources/read",
        /// `resources/subscribe`.
        ResourcesSubscribe = "resources/subscribe",
        /// `resources/templates/list`.
        ResourcesTemplatesList = "resources/templates/list",
        /// `resources/unsubscribe`.
        ResourcesUnsubscribe = "resources/unsubscribe",
        /// A client's answer to a server's request.
        Response = "response",
        /// `server/discover`.
        ServerDiscover = "server/discover",
        /// HTTP GET: a stream for server-to-client messages.
        Stream = "stream",
        /// `subscriptions/listen`.
        SubscriptionsListen = "subscriptions/listen",
        /// `tasks/cancel`.
        TasksCancel = "tasks/cancel",
        /// `tasks/get`.
        TasksGet = "tasks/get",
        /// `tasks/list`.
        TasksList = "tasks/list",
        /// `tasks/result`.
        TasksResult = "tasks/result",
        /// `tasks/update`.
        TasksUpdate = "tasks/update",
        /// `tools/call`.
        ToolsCall = "tools/call",
        /// `tools/list`.
        ToolsList = "tools/list",
    }
}

impl Method {
    /// The value for a JSON-RPC method name.
    pub fn from_rpc(name: &str) -> Self {
        match name {
            "tools/call" => Method::ToolsCall,
            "tools/list" => Method::ToolsList,
            "completion/complete" => Method::CompletionComplete,
            "initialize" => Method::Initialize,
            "logging/setLevel" => Method::LoggingSetLevel,
            "notifications/cancelled" => Method::NotificationCancelled,
            "notifications/initialized" => Method::NotificationInitialized,
            "notifications/progress" => Method::NotificationProgress,
            "ping" => Method::Ping,
            "prompts/get" => Method::PromptsGet,
            "prompts/list" => Method::PromptsList,
            "resources/list" => Method::ResourcesList,
            "resources/read" => Method::ResourcesRead,
            "resources/subscribe" => Method::ResourcesSubscribe,
            "resources/templates/list" => Method::ResourcesTemplatesList,
            "resources/unsubscribe" => Method::ResourcesUnsubscribe,
            "server/discover" => Method::ServerDiscover,
            "subscriptions/listen" => Method::SubscriptionsListen,
            "tasks/cancel" => Method::TasksCancel,
            "tasks/get" => Method::TasksGet,
            "tasks/list" => Method::TasksList,
            "tasks/result" => Method::TasksResult,
            "tasks/update" => Method::TasksUpdate,
            _ if name.starts_with("notifications/") => Method::NotificationOther,
            _ => Method::Other,
        }
    }

    /// Whether the response stays open for as long as the client listens, so that its length says nothing about
    /// speed.
    pub fn stays_open(self) -> bool {
        matches!(self, Method::Stream | Method::SubscriptionsListen)
    }
}

label! {
    /// How a request ended. One value for each row of the error table, and the good ends.
    Outcome {
        /// The request was malformed: JSON, JSON-RPC, framing, host or origin.
        BadRequest = "bad_request",
        /// The client went away before the end.
        ClientGone = "client_gone",
        /// The client was too slow with its head or body.
        ClientSlow = "client_slow",
        /// Refused by policy.
        Denied = "denied",
        /// The credential has not enough scope.
        Forbidden = "forbidden",
        /// Header and body disagree.
        HeaderMismatch = "header_mismatch",
        /// The gateway failed.
        Internal = "internal",
        /// Refused by a limit.
        Limited = "limited",
        /// No such route, or not the right HTTP method on it.
        NotFound = "not_found",
        /// Answered.
        Ok = "ok",
        /// Refused to protect the gateway: caps on connections or streams, or draining.
        Overload = "overload",
        /// The upstream answered with a JSON-RPC error.
        RpcError = "rpc_error",
        /// The session id is unknown, expired or another principal's.
        SessionUnknown = "session_unknown",
        /// Over the deadline.
        Timeout = "timeout",
        /// Over the size limit.
        TooLarge = "too_large",
        /// A tool answered with `isError`.
        ToolError = "tool_error",
        /// No credential, or one that does not verify.
        Unauthenticated = "unauthenticated",
        /// The tool, prompt or resource does not exist.
        UnknownItem = "unknown_item",
        /// A protocol revision that is not served.
        UnsupportedVersion = "unsupported_version",
        /// The gateway's own upstream credential failed.
        UpstreamCredential = "upstream_credential",
        /// The upstream broke the exchange or the protocol.
        UpstreamError = "upstream_error",
        /// No healthy target.
        UpstreamUnavailable = "upstream_unavailable",
    }
}

impl Outcome {
    /// Whether a tool that ended so exists on its server: only then may its name become a label.
    pub fn proves_tool(self) -> bool {
        matches!(self, Outcome::Ok | Outcome::ToolError)
    }

    /// Whether the end is a failure, for spans: those of the client count as well as those of servers.
    pub fn is_error(self) -> bool {
        !matches!(self, Outcome::Ok)
    }
}

label! {
    /// Why a credential was refused.
    AuthFailure {
        /// The audience is another resource.
        Audience = "audience",
        /// The token is bound to a key or connection that the caller did not prove.
        Binding = "binding",
        /// The client certificate does not verify.
        Certificate = "certificate",
        /// Past its expiry.
        Expired = "expired",
        /// Not parseable.
        Malformed = "malformed",
        /// None was presented.
        Missing = "missing",
        /// Before its time.
        NotYetValid = "not_yet_valid",
        /// Any other reason.
        Other = "other",
        /// Revoked.
        Revoked = "revoked",
        /// Not enough scope.
        Scope = "scope",
        /// The signature does not verify.
        Signature = "signature",
        /// Belongs to another tenant.
        Tenant = "tenant",
        /// Too many failed attempts; it was not looked at.
        Throttled = "throttled",
        /// The issuer's keys could not be had.
        Unavailable = "unavailable",
        /// An issuer that is not configured.
        UnknownIssuer = "unknown_issuer",
        /// A key id or API key that nobody issued.
        UnknownKey = "unknown_key",
    }
}

label! {
    /// Which of two revisions a caller is served while one is tried.
    CanarySide {
        /// The head.
        Base = "base",
        /// The one that is tried.
        Candidate = "candidate",
    }
}

label! {
    /// How a call ended, as far as a canary is about it.
    CanaryOutcome {
        /// The gateway refused it.
        Denied = "denied",
        /// The gateway or the server failed.
        Failed = "failed",
        /// It was answered.
        Ok = "ok",
    }
}

label! {
    /// How a canary ended.
    CanaryEnd {
        /// Somebody ended it, or what it was compared with is gone.
        Aborted = "aborted",
        /// The candidate is the head.
        Promoted = "promoted",
        /// The candidate did not do well, or its time was over.
        RolledBack = "rolled_back",
    }
}

label! {
    /// How an exchange with an upstream failed.
    UpstreamError {
        /// The connection was refused or unreachable.
        Connect = "connect",
        /// No connection in time.
        ConnectTimeout = "connect_timeout",
        /// The upstream refused the gateway's credential.
        Credential = "credential",
        /// A stream said nothing for too long.
        Idle = "idle",
        /// Every target is ejected or down.
        NoTarget = "no_target",
        /// Anything else.
        Other = "other",
        /// The answer was not MCP.
        Protocol = "protocol",
        /// Closed in the middle.
        Reset = "reset",
        /// The upstream forgot a session that the gateway had opened.
        Session = "session",
        /// A status of 500 or more.
        Status = "status",
        /// Over the deadline.
        Timeout = "timeout",
        /// No TLS session.
        Tls = "tls",
        /// The answer exceeded its bound.
        TooLarge = "too_large",
    }
}

label! {
    /// How an attempt to load a configuration ended.
    ReloadOutcome {
        /// It is in force.
        Applied = "applied",
        /// The source could not be read.
        Failed = "failed",
        /// It does not compile; the last good one stays in force.
        Rejected = "rejected",
        /// It is the same as the one in force.
        Unchanged = "unchanged",
    }
}

impl ReloadOutcome {
    /// Whether the newest configuration is the one in force.
    pub fn is_success(self) -> bool {
        matches!(self, ReloadOutcome::Applied | ReloadOutcome::Unchanged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_rpc_methods_map_to_themselves() {
        for method in Method::ALL {
            let not_rpc = matches!(
                method,
                Method::Delete
                    | Method::None
                    | Method::Other
                    | Method::NotificationOther
                    | Method::Response
                    | Method::Stream
            );
            if !not_rpc {
                assert_eq!(Method::from_rpc(method.as_str()), *method);
            }
        }
    }

    #[test]
    fn names_outside_the_list_are_other() {
        assert_eq!(Method::from_rpc("tools/call "), Method::Other);
        assert_eq!(Method::from_rpc(""), Method::Other);
        assert_eq!(Method::from_rpc("delete"), Method::Other);
        assert_eq!(Method::from_rpc("notifications/x"), Method::NotificationOther);
    }

    #[test]
    fn index_is_the_position_in_all() {
        for (i, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, i);
        }
        for (i, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, i);
        }
    }
}
