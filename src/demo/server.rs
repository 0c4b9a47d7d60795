//! The MCP server: what it lists and who answers.

use std::sync::LazyLock;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData,
    GetPromptRequestParams, GetPromptResponse, GetPromptResult, Implementation, JsonObject,
    ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, Prompt, PromptArgument, PromptMessage,
    ProtocolVersion, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, Resource,
    ResourceContents, ResourceTemplate, Role, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
};
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::civil::{Offset, Timestamp};
use super::countdown::{self, Ended};
use super::{calculator, lunch};
use crate::base::Clock;

/// Longest text that is echoed, in bytes.
const MAX_ECHO: usize = 64 * 1024;
/// How long a list or a resource may be cached. They only change with the program.
const FRESH: Duration = Duration::from_secs(300);

const ABOUT: &str = "demo://about";
const MENU: &str = "demo://menu";
const DISH_PREFIX: &str = "demo://menu/";

const ABOUT_TEXT: &str = "\
This is the demo server that comes with Tollgate. Its tools are harmless: they tell the time, calculate, repeat what \
they are told, count down, and pretend to order lunch. Nothing you send to it is stored.";

#[derive(Debug, Deserialize, JsonSchema)]
struct TimeArguments {
    /// Offset from UTC, such as `+02:00` or `-0330`. UTC if left out.
    #[serde(default)]
    offset: Option<String>,
}

#[derive(Debug, Serialize, JsonSchema)]
struct TimeResult {
    /// Now in UTC, RFC 3339.
    utc: String,
    /// Now at the offset, RFC 3339.
    local: String,
    /// The weekday at the offset.
    weekday: &'static str,
    /// Seconds since 1970-01-01T00:00:00Z.
    unix_seconds: i64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct EchoArguments {
    /// What to repeat.
    #[schemars(length(max = MAX_ECHO))]
    text: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CalculatorArguments {
    /// An expression such as `2 * (3 + 4) ^ 2` or `sqrt(2)`.
    #[schemars(length(min = 1, max = calculator::MAX_LENGTH))]
    expression: String,
}

#[derive(Debug, Serialize, JsonSchema)]
struct CalculatorResult {
    /// The value.
    value: f64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct CountdownArguments {
    /// How many steps.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = countdown::MAX_STEPS))]
    from: u32,
    /// How long a step takes, in milliseconds.
    #[serde(default = "second")]
    #[schemars(range(min = *countdown::STEP_MS.start(), max = *countdown::STEP_MS.end()))]
    step_ms: u64,
}

fn ten() -> u32 {
    10
}

fn second() -> u64 {
    1000
}

static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let pure = || ToolAnnotations::new().read_only(true).idempotent(true).open_world(false);
    vec![
        Tool::new("calculator", "Evaluates an arithmetic expression", JsonObject::new())
            .with_title("Calculator")
            .with_input_schema::<CalculatorArguments>()
            .with_output_schema::<CalculatorResult>()
            .with_annotations(pure()),
        Tool::new("countdown", "Counts down, reports progress, and can be cancelled", JsonObject::new())
            .with_title("Countdown")
            .with_input_schema::<CountdownArguments>()
            .with_annotations(pure()),
        Tool::new("echo", "Repeats a text", JsonObject::new())
            .with_title("Echo")
            .with_input_schema::<EchoArguments>()
            .with_annotations(pure()),
        Tool::new("order_lunch", "Asks what you would like and pretends to order it", no_arguments())
            .with_title("Order lunch")
            .with_annotations(
                ToolAnnotations::new()
                    .read_only(false)
                    .destructive(false)
                    .idempotent(false)
                    .open_world(false),
            ),
        Tool::new("time", "Tells the time in UTC and at an offset", JsonObject::new())
            .with_title("Time")
            .with_input_schema::<TimeArguments>()
            .with_output_schema::<TimeResult>()
            // Two calls give two answers, but neither changes anything.
            .with_annotations(pure()),
    ]
});

fn no_arguments() -> JsonObject {
    JsonObject::from_iter([("type".to_owned(), json!("object"))])
}

/// The demo server. It has no state of its own.
pub(super) struct Demo {
    pub(super) clock: Clock,
}

impl ServerHandler for Demo {
    fn get_info(&self) -> ServerConfig {
        let capabilities =
            ServerCapabilities::builder().enable_prompts().enable_resources().enable_tools().build();
        let about =
            Implementation::new("tollgate-demo", env!("CARGO_PKG_VERSION")).with_title("Tollgate demo");
        ServerConfig::new(capabilities)
            .with_server_info(about)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
            .with_instructions("A demonstration. Nothing here has an effect on the world.")
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.clone())
            .with_ttl_ms(fresh_ms())
            .with_cache_scope(CacheScope::Public))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        TOOLS.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let CallToolRequestParams { name, arguments, input_responses, .. } = request;
        match &*name {
            "calculator" => calculate(&arguments_of(arguments)?),
            "countdown" => count_down(&arguments_of(arguments)?, &context).await,
            "echo" => echo(arguments_of(arguments)?),
            "order_lunch" => return lunch::order(&context, input_responses).await,
            "time" => time(&arguments_of(arguments)?, &self.clock),
            unknown => return Err(ErrorData::invalid_params(format!("Unknown tool: {unknown}"), None)),
        }
        .map(Into::into)
    }

    async fn list_prompts(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let people =
            PromptArgument::new("people").with_description("How many people will eat").with_required(true);
        let prompt = Prompt::new("plan_lunch", Some("Plans a lunch from the menu"), Some(vec![people]));
        Ok(ListPromptsResult::with_all_items(vec![prompt])
            .with_ttl_ms(fresh_ms())
            .with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        if request.name != "plan_lunch" {
            return Err(ErrorData::invalid_params(format!("Unknown prompt: {}", request.name), None));
        }
        let people = request.arguments.as_ref().and_then(|all| all.get("people")?.as_str());
        let people: u32 = people
            .and_then(|text| text.trim().parse().ok())
            .filter(|people| *people > 0)
            .ok_or_else(|| ErrorData::invalid_params("argument `people` must be a number", None))?;
        let text = format!(
            "Plan a lunch for {people} from the resource {MENU}. Say what everyone gets and what it costs, and use the \
             calculator for the total."
        );
        Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, text)])
            .with_description("Plans a lunch from the menu")
            .into())
    }

    async fn list_resources(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = vec![
            Resource::new(ABOUT, "about")
                .with_description("What this server is")
                .with_mime_type("text/plain"),
            Resource::new(MENU, "menu").with_description("The lunch menu").with_mime_type("application/json"),
        ];
        Ok(ListResourcesResult::with_all_items(resources)
            .with_ttl_ms(fresh_ms())
            .with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let template = ResourceTemplate::new(format!("{DISH_PREFIX}{{dish}}"), "dish")
            .with_description("One dish of the menu")
            .with_mime_type("application/json");
        Ok(ListResourceTemplatesResult::with_all_items(vec![template])
            .with_ttl_ms(fresh_ms())
            .with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = read(&request.uri).ok_or_else(|| {
            ErrorData::resource_not_found("Resource not found", Some(json!({ "uri": request.uri })))
        })?;
        Ok(ReadResourceResult::new(vec![contents])
            .with_ttl_ms(fresh_ms())
            .with_cache_scope(CacheScope::Public)
            .into())
    }
}

fn fresh_ms() -> u64 {
    FRESH.as_millis() as u64
}

/// The arguments as their type.
///
/// # Errors
///
/// `-32602` with what is wrong.
fn arguments_of<T: DeserializeOwned>(arguments: Option<JsonObject>) -> Result<T, ErrorData> {
    serde_json::from_value(arguments.unwrap_or_default().into())
        .map_err(|error| ErrorData::invalid_params(format!("arguments: {error}"), None))
}

fn text(text: impl Into<String>) -> CallToolResult {
    CallToolResult::success(vec![ContentBlock::text(text)])
}

/// What went wrong, in a way the model can learn from.
fn failure(text: impl Into<String>) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}

fn structured(value: impl Serialize) -> Result<CallToolResult, ErrorData> {
    let value = serde_json::to_value(value).map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
    Ok(CallToolResult::structured(value))
}

fn calculate(arguments: &CalculatorArguments) -> Result<CallToolResult, ErrorData> {
    match calculator::evaluate(&arguments.expression) {
        Ok(value) => structured(CalculatorResult { value }),
        Err(error) => Ok(failure(error.to_string())),
    }
}

fn echo(arguments: EchoArguments) -> Result<CallToolResult, ErrorData> {
    if arguments.text.len() > MAX_ECHO {
        return Ok(failure(format!("the text is longer than {MAX_ECHO} bytes")));
    }
    Ok(text(arguments.text))
}

fn time(arguments: &TimeArguments, clock: &Clock) -> Result<CallToolResult, ErrorData> {
    let offset = match arguments.offset.as_deref() {
        None | Some("") => Offset::default(),
        Some(written) => match Offset::parse(written) {
            Some(offset) => offset,
            None => return Ok(failure(format!("`{written}` is no offset such as `+02:00`"))),
        },
    };
    let unix_secs = i64::try_from(clock.unix_secs()).unwrap_or(i64::MAX / 2);
    let local = Timestamp { unix_secs, offset };
    structured(TimeResult {
        utc: Timestamp { unix_secs, offset: Offset::default() }.to_string(),
        local: local.to_string(),
        weekday: local.weekday(),
        unix_seconds: unix_secs,
    })
}

async fn count_down(
    arguments: &CountdownArguments,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    let CountdownArguments { from, step_ms } = *arguments;
    if !(1..=countdown::MAX_STEPS).contains(&from) || !countdown::STEP_MS.contains(&step_ms) {
        return Ok(failure(format!(
            "from must be between 1 and {}, step_ms between {} and {}",
            countdown::MAX_STEPS,
            countdown::STEP_MS.start(),
            countdown::STEP_MS.end()
        )));
    }
    let token = context.meta.get_progress_token();
    let report = |done: u32| {
        let progress = token.clone().map(|token| {
            ProgressNotificationParam::new(token, f64::from(done))
                .with_total(f64::from(from))
                .with_message(format!("{} to go", from - done))
        });
        async move {
            let Some(progress) = progress else { return };
            // A client that has gone shows as cancellation; one report less does not matter.
            if let Err(error) = context.peer.notify_progress(progress).await {
                tracing::debug!(%error, "progress was not reported");
            }
        }
    };
    match countdown::run(from, Duration::from_millis(step_ms), &context.ct, report).await {
        Ended::AtZero => Ok(text(format!("Counted down from {from} to zero."))),
        Ended::Cancelled(left) => {
            Err(ErrorData::internal_error(format!("cancelled with {left} to go"), None))
        }
    }
}

fn read(uri: &str) -> Option<ResourceContents> {
    let dish = |(id, name, cents): &(&str, &str, u32)| json!({ "id": id, "name": name, "price": lunch::price(*cents) });
    let (content, mime_type) = match uri {
        ABOUT => (ABOUT_TEXT.to_owned(), "text/plain"),
        MENU => {
            let dishes: Vec<_> = lunch::MENU.iter().map(dish).collect();
            (json!({ "dishes": dishes }).to_string(), "application/json")
        }
        _ => {
            let wanted = uri.strip_prefix(DISH_PREFIX)?;
            let found = lunch::MENU.iter().find(|(id, ..)| *id == wanted)?;
            (dish(found).to_string(), "application/json")
        }
    };
    Some(ResourceContents::text(content, uri).with_mime_type(mime_type))
}
