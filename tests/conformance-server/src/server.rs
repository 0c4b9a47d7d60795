//! The MCP server itself: lists, reads and dispatch. What a tool does is in [`crate::tools`], [`crate::rounds`] and
//! [`crate::tasks`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
    CompletionInfo, ErrorData, GetPromptRequestParams, GetPromptResponse, GetTaskParams, GetTaskResult,
    Implementation, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse,
    ReadResourceResult, RequestStateCodec, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
};
use rmcp::service::{NotificationContext, RequestContext, SubscriptionContext};
use rmcp::task_manager::TaskManager;
use serde_json::json;
use tokio::sync::broadcast;

use crate::changes::{Change, Changes, relay};
use crate::{Era, catalog, rounds, tools};

/// What a completion may suggest.
const SUGGESTIONS: [&str; 3] = ["paris", "park", "party"];

/// What all sessions and requests share.
pub struct Shared {
    pub changes: Changes,
    /// Seals `requestState`. The key is of this process: a second replica cannot open what this one sealed.
    pub codec: RequestStateCodec,
    pub tasks: TaskManager,
    /// How many inline computations were cancelled; a client cannot see this on its own connection.
    pub cancellations: AtomicU64,
    era: Era,
    name: String,
}

impl Shared {
    pub fn new(era: Era, name: String) -> Self {
        let key: [u8; 32] = rand::random();
        Self {
            changes: Changes::new(),
            codec: RequestStateCodec::try_new(key).expect("32 bytes are long enough for a key"),
            tasks: TaskManager::new(),
            cancellations: AtomicU64::new(0),
            era,
            name,
        }
    }
}

/// One legacy session, or one modern request.
pub struct Fixture {
    pub shared: Arc<Shared>,
    /// Least severe level a legacy session wants to see; see [`tools::severity`].
    pub log_level: Mutex<Option<u8>>,
    /// URIs a legacy session subscribed to; only URIs that exist get in.
    subscribed: Arc<Mutex<BTreeSet<String>>>,
    /// Opened before a subscription is acknowledged, so that no change falls between.
    listening: Mutex<Option<broadcast::Receiver<Change>>>,
}

impl Fixture {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, log_level: Mutex::default(), subscribed: Arc::default(), listening: Mutex::default() }
    }

    /// What `initialize` is answered with if the client names a revision we do not speak. One without `initialize`
    /// makes rmcp refuse the handshake.
    fn preferred_version(&self) -> ProtocolVersion {
        match self.shared.era {
            Era::Both | Era::Legacy => ProtocolVersion::LATEST_WITH_INITIALIZE,
            Era::Modern => ProtocolVersion::LATEST,
        }
    }

    fn require_resource(&self, uri: &str) -> Result<(), ErrorData> {
        catalog::read(uri, &self.shared.changes).map(drop).ok_or_else(|| not_found(uri))
    }
}

fn not_found(uri: &str) -> ErrorData {
    ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": uri })))
}

impl ServerHandler for Fixture {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(self.shared.name.clone(), env!("CARGO_PKG_VERSION")))
            .with_protocol_version(self.preferred_version())
            .with_instructions("Fixture for conformance tests.")
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.shared.era {
            Era::Both => Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS),
            Era::Legacy => ProtocolVersion::known_up_to(&ProtocolVersion::LATEST_WITH_INITIALIZE).into(),
            Era::Modern => Cow::Owned(vec![ProtocolVersion::V_2026_07_28]),
        }
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.shared.changes.add_session(context.peer, Arc::clone(&self.subscribed));
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(catalog::tools(&self.shared.changes)))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        catalog::tool_named(name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        tools::call(self, request, context).await
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        Ok(ListPromptsResult::with_all_items(catalog::prompts(&self.shared.changes)))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        rounds::prompt(request, context).await
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(catalog::resources(&self.shared.changes)))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(catalog::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents =
            catalog::read(&request.uri, &self.shared.changes).ok_or_else(|| not_found(&request.uri))?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let typed = request.argument.value.to_lowercase();
        let values = SUGGESTIONS.iter().filter(|s| s.starts_with(&typed)).map(ToString::to_string).collect();
        let completion =
            CompletionInfo::with_all_values(values).map_err(|e| ErrorData::internal_error(e, None))?;
        Ok(CompleteResult::new(completion))
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        *self.log_level.lock() = Some(tools::severity(request.level));
        Ok(())
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.require_resource(&request.uri)?;
        self.subscribed.lock().insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.subscribed.lock().remove(&request.uri);
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        *self.listening.lock() = Some(self.shared.changes.listen());
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.retain(|uri| self.require_resource(uri).is_ok());
        }
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let changes = self.listening.lock().take().unwrap_or_else(|| self.shared.changes.listen());
        relay(context, changes).await;
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        self.shared.tasks.get_task(&request.task_id).map(GetTaskResult::new)
    }

    async fn update_task(
        &self,
        request: UpdateTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.shared.tasks.cancel_task(&request.task_id)
    }
}
