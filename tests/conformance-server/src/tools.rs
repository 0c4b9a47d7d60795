//! Dispatch of `tools/call`, and the tools that need neither rounds nor tasks.

use std::sync::atomic::Ordering;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ErrorData,
    JsonObject, LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam,
};
use rmcp::service::RequestContext;
use serde_json::json;
use tokio::time::sleep;

use crate::catalog::HEADER_TOOL;
use crate::changes::Change;
use crate::content::{audio, embedded, failure, image, text};
use crate::inputs::is_modern;
use crate::server::Fixture;
use crate::sessions::StreamCloser;
use crate::{rounds, tasks};

/// Pause between two notifications, so that a client can see them arrive one by one.
const PAUSE: Duration = Duration::from_millis(50);
/// When a client of a closed stream should come back, and for how long its result is kept.
const RETRY: Duration = Duration::from_millis(300);
const RESUME_PATIENCE: Duration = Duration::from_secs(10);

/// Answers one `tools/call`.
pub async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let name = request.name.clone();
    let changes = &fixture.shared.changes;
    let done = match &*name {
        "test_simple_text" => text("This is a simple text response for testing."),
        "test_image_content" => CallToolResult::success(vec![image()]),
        "test_audio_content" => CallToolResult::success(vec![audio()]),
        "test_embedded_resource" => CallToolResult::success(vec![embedded(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )]),
        "test_multiple_content_types" => CallToolResult::success(vec![
            ContentBlock::text("Multiple content types test:"),
            image(),
            embedded("test://mixed-content-resource", "application/json", r#"{"test":"data","value":123}"#),
        ]),
        "test_tool_with_logging" => with_logging(fixture, &context).await?,
        "test_logging_tool" => {
            log(fixture, &context, "The logging tool ran").await?;
            text("Logged, if the request asked for it.")
        }
        "test_tool_with_progress" => {
            progress(&context, &[0.0, 50.0, 100.0]).await?;
            text("Progress was reported.")
        }
        "test_error_handling" => failure("This tool intentionally returns an error for testing"),
        "test_reconnection" => reconnection(&context).await,
        "test_missing_capability" => missing_capability(&context)?,
        "greet" => text(format!("Hello, {}!", text_argument(&request, "name")?)),
        HEADER_TOOL | "json_schema_2020_12_tool" => {
            text(serde_json::to_string(&request.arguments.unwrap_or_default()).unwrap_or_default())
        }
        "test_cancellation_count" => text(fixture.shared.cancellations.load(Ordering::Relaxed).to_string()),
        "test_trigger_tool_change" => changed(fixture, Change::ToolList).await,
        "test_trigger_prompt_change" => changed(fixture, Change::PromptList).await,
        "test_trigger_resource_change" => changed(fixture, Change::ResourceList).await,
        "test_trigger_resource_update" => {
            changes.announce(Change::WatchedResource).await;
            text("The watched resource was updated.")
        }
        "slow_compute"
        | "failing_job"
        | "protocol_error_job"
        | "confirm_delete"
        | "multi_input"
        | "test_tool_with_task" => return tasks::call(fixture, request, context).await,
        "test_streaming_elicitation" => {
            progress(&context, &[50.0]).await?;
            return rounds::call(fixture, request, context).await;
        }
        _ => return rounds::call(fixture, request, context).await,
    };
    Ok(done.into())
}

/// A string argument.
///
/// # Errors
///
/// `-32602` if it is missing or no string.
pub fn text_argument<'a>(request: &'a CallToolRequestParams, name: &str) -> Result<&'a str, ErrorData> {
    let arguments: Option<&JsonObject> = request.arguments.as_ref();
    arguments
        .and_then(|all| all.get(name)?.as_str())
        .ok_or_else(|| ErrorData::invalid_params(format!("argument `{name}` must be a string"), None))
}

async fn changed(fixture: &Fixture, change: Change) -> CallToolResult {
    fixture.shared.changes.announce(change).await;
    text(format!("{change:?} changed {} times.", fixture.shared.changes.count(change)))
}

fn missing_capability(context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
    if context.client_capabilities().is_some_and(|declared| declared.sampling.is_some()) {
        return Ok(text("The client declared sampling."));
    }
    let required = ClientCapabilities::builder().enable_sampling().build();
    Err(ErrorData::missing_required_client_capability(required))
}

async fn reconnection(context: &RequestContext<RoleServer>) -> CallToolResult {
    match context.extensions.get::<StreamCloser>() {
        Some(closer) => closer.close_and_wait(RETRY, RESUME_PATIENCE).await,
        None => sleep(PAUSE).await,
    }
    text("The reconnection test is complete.")
}

/// Reports progress, if the request has a token for it.
async fn progress(context: &RequestContext<RoleServer>, steps: &[f64]) -> Result<(), ErrorData> {
    let Some(token) = context.meta.get_progress_token() else {
        sleep(PAUSE).await;
        return Ok(());
    };
    for (index, step) in steps.iter().enumerate() {
        if index > 0 {
            sleep(PAUSE).await;
        }
        let params = ProgressNotificationParam::new(token.clone(), *step).with_total(100.0);
        context
            .peer
            .notify_progress(params)
            .await
            .map_err(|e| ErrorData::internal_error(e.to_string(), None))?;
    }
    Ok(())
}

async fn with_logging(
    fixture: &Fixture,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    log(fixture, context, "Tool execution started").await?;
    sleep(PAUSE).await;
    log(fixture, context, "Tool processing data").await?;
    sleep(PAUSE).await;
    log(fixture, context, "Tool execution completed").await?;
    Ok(text("Three messages were logged."))
}

/// Logs at level info. A modern request must ask for it (S26/server/utilities/logging); a legacy session gets
/// everything until it sets a level.
async fn log(
    fixture: &Fixture,
    context: &RequestContext<RoleServer>,
    message: &str,
) -> Result<(), ErrorData> {
    let least = if is_modern(context) {
        match context.meta.log_level() {
            Some(level) => severity(level),
            None => return Ok(()),
        }
    } else {
        fixture.log_level.lock().unwrap_or(0)
    };
    if severity(LoggingLevel::Info) < least {
        return Ok(());
    }
    let params = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(message))
        .with_logger("conformance-server");
    context
        .peer
        .notify_logging_message(params)
        .await
        .map_err(|e| ErrorData::internal_error(e.to_string(), None))
}

/// The rank of a log level, least severe first.
pub fn severity(level: LoggingLevel) -> u8 {
    level as u8
}
