//! Tools of the Tasks extension (SEP-2663). For clients that did not declare it they run inline where they can.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientCapabilities, CreateTaskResult, ErrorData,
    InputRequest, InputResponses,
};
use rmcp::service::RequestContext;
use rmcp::task_manager::{TaskContext, TaskExit, TaskFuture, TaskOptions};
use serde_json::json;
use tokio::time::sleep;

use crate::content::{failure, text};
use crate::inputs::{Gathered, elicitation, entered, gather};
use crate::rounds::greeting;
use crate::server::{Fixture, Shared};
use crate::tools::text_argument;

/// The longest a task computes.
pub const MAX_SECONDS: f64 = 120.0;
/// How long a task and its result are kept.
const LIFE_MS: u64 = 180_000;
const POLL_MS: u64 = 200;
/// Tasks that may run at once.
const MAX_RUNNING: usize = 256;
/// What the failing jobs take before they fail.
const SHORT_WORK: Duration = Duration::from_millis(500);

/// Answers a `tools/call` of a tool that can be a task.
///
/// # Errors
///
/// `-32021` if the tool must be a task and the client did not declare the extension.
pub async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let knows_tasks = context.client_capabilities().is_some_and(|declared| declared.supports_tasks());
    match &*request.name {
        "slow_compute" => slow_compute(fixture, &request, &context, knows_tasks).await,
        "confirm_delete" => {
            let filename = text_argument(&request, "filename")?.to_owned();
            let question = confirmation(&format!("Delete {filename}?"));
            if knows_tasks {
                return spawn(&fixture.shared, move |task| {
                    Box::pin(confirm_delete(task, filename, question))
                });
            }
            let wanted = [("confirm".to_owned(), question)].into();
            Ok(match gather(&context, wanted, request.input_responses, None).await? {
                Gathered::Ask(ask) => ask.into(),
                Gathered::Answers(answers) => deletion(&answers, &filename)?.into(),
            })
        }
        "test_tool_with_task" => {
            require_tasks(knows_tasks)?;
            let question =
                elicitation("What is your name?", json!({ "name": { "type": "string" } }), &["name"]);
            let wanted = [("user_name".to_owned(), question)].into();
            match gather(&context, wanted, request.input_responses, None).await? {
                Gathered::Ask(ask) => Ok(ask.into()),
                Gathered::Answers(answers) => {
                    let words = greeting(&answers, "user_name")?;
                    spawn(&fixture.shared, move |_| Box::pin(async move { Ok(text(words)) }))
                }
            }
        }
        "failing_job" => {
            require_tasks(knows_tasks)?;
            spawn(&fixture.shared, |task| {
                Box::pin(async move {
                    work(&task, SHORT_WORK).await?;
                    Ok(failure("The job failed, as it always does."))
                })
            })
        }
        "protocol_error_job" => {
            require_tasks(knows_tasks)?;
            spawn(&fixture.shared, |task| {
                Box::pin(async move {
                    work(&task, SHORT_WORK).await?;
                    Err(TaskExit::Error(ErrorData::internal_error("The job broke, as it always does.", None)))
                })
            })
        }
        _ => {
            require_tasks(knows_tasks)?;
            spawn(&fixture.shared, |task| Box::pin(multi_input(task)))
        }
    }
}

fn require_tasks(knows_tasks: bool) -> Result<(), ErrorData> {
    if knows_tasks {
        return Ok(());
    }
    let required = ClientCapabilities::builder().enable_tasks().build();
    Err(ErrorData::missing_required_client_capability(required))
}

fn spawn<F>(shared: &Shared, work: F) -> Result<CallToolResponse, ErrorData>
where
    F: FnOnce(TaskContext) -> TaskFuture,
{
    if shared.tasks.running_task_count() >= MAX_RUNNING {
        return Err(ErrorData::internal_error("too many tasks are running", None));
    }
    let options = TaskOptions::new().with_ttl_ms(LIFE_MS).with_poll_interval_ms(POLL_MS);
    Ok(CreateTaskResult::new(shared.tasks.spawn(options, work)).into())
}

async fn slow_compute(
    fixture: &Fixture,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
    knows_tasks: bool,
) -> Result<CallToolResponse, ErrorData> {
    let arguments = request.arguments.as_ref();
    let seconds = arguments.and_then(|all| all.get("seconds")?.as_f64()).unwrap_or(1.0);
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(ErrorData::invalid_params(format!("seconds must be between 0 and {MAX_SECONDS}"), None));
    }
    let label = arguments.and_then(|all| all.get("label")?.as_str()).unwrap_or("unnamed");
    let words = format!("Computed {label} in {seconds} s.");
    let time = Duration::from_secs_f64(seconds);
    if knows_tasks && !time.is_zero() {
        return spawn(&fixture.shared, move |task| {
            Box::pin(async move {
                work(&task, time).await?;
                Ok(text(words))
            })
        });
    }
    let unfinished = Unfinished(&fixture.shared.cancellations);
    tokio::select! {
        () = sleep(time) => {
            std::mem::forget(unfinished);
            Ok(text(words).into())
        }
        () = context.ct.cancelled() => Err(ErrorData::internal_error("the call was cancelled", None)),
    }
}

/// Counts a computation that ended before its time, however it ended.
struct Unfinished<'a>(&'a AtomicU64);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Passes the time until the task is cancelled.
async fn work(task: &TaskContext, time: Duration) -> Result<(), TaskExit> {
    tokio::select! {
        () = sleep(time) => Ok(()),
        () = task.cancelled() => Err(TaskExit::Cancelled),
    }
}

fn confirmation(message: &str) -> InputRequest {
    elicitation(message, json!({ "confirm": { "type": "boolean" } }), &["confirm"])
}

async fn confirm_delete(
    task: TaskContext,
    filename: String,
    question: InputRequest,
) -> Result<CallToolResult, TaskExit> {
    let answer = task.request_input("confirm", question).await?;
    Ok(deletion(&[("confirm".to_owned(), answer)].into(), &filename)?)
}

fn deletion(answers: &InputResponses, filename: &str) -> Result<CallToolResult, ErrorData> {
    let confirmed = entered(answers, "confirm")?.is_some_and(|form| form["confirm"] == true);
    Ok(text(if confirmed { format!("Deleted {filename}.") } else { format!("Kept {filename}.") }))
}

async fn multi_input(task: TaskContext) -> Result<CallToolResult, TaskExit> {
    let (first, second) = tokio::join!(
        task.request_input("first", confirmation("First question")),
        task.request_input("second", confirmation("Second question")),
    );
    Ok(text(format!("Answers: {} and {}", first?, second?)))
}
