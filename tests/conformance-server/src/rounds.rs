//! Tools and the prompt that ask for input, in one or several rounds.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ErrorData, GetPromptRequestParams,
    GetPromptResponse, GetPromptResult, InputRequests, InputResponses, PromptMessage, Role, SealOptions,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use crate::content::{embedded, image, text};
use crate::inputs::{Gathered, elicitation, entered, gather, is_declared, is_modern, roots, sampling};
use crate::server::Fixture;
use crate::tools::text_argument;

/// How long a sealed state is good for.
const STATE_LIFE: Duration = Duration::from_secs(600);

/// Answers a `tools/call` of a tool that asks.
///
/// # Errors
///
/// `-32602` for a tool that does not exist and for a state that fails its check; `-32021` for a client that did not
/// declare what the tool asks for.
pub async fn call(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    match &*request.name {
        "test_input_required_result_request_state" | "test_input_required_result_tampered_state" => {
            confirm_with_state(fixture, request, context).await
        }
        "test_input_required_result_multiple_inputs" => multiple(fixture, request, context).await,
        "test_input_required_result_multi_round" => multi_round(fixture, request, context).await,
        "test_input_required_result_capabilities" => only_declared(request, context).await,
        _ => {
            let wanted = questions(&request)?;
            match gather(&context, wanted, request.input_responses, None).await? {
                Gathered::Ask(ask) => Ok(ask.into()),
                Gathered::Answers(answers) => Ok(conclusion(&request.name, &answers)?.into()),
            }
        }
    }
}

/// What the tools of one round ask.
fn questions(request: &CallToolRequestParams) -> Result<InputRequests, ErrorData> {
    let (key, question) = match &*request.name {
        "test_input_required_result_elicitation" => ("user_name", ask_name()),
        "test_input_required_result_sampling" => {
            ("capital_question", sampling("What is the capital of France?", 100))
        }
        "test_input_required_result_list_roots" => ("client_roots", roots()),
        "test_streaming_elicitation" => ("user_name", ask_name()),
        "test_sampling" => ("sampling", sampling(text_argument(request, "prompt")?, 100)),
        "test_elicitation" => {
            let properties = json!({
                "username": { "type": "string", "description": "User's response" },
                "email": { "type": "string", "description": "User's email address" },
            });
            ("form", elicitation(text_argument(request, "message")?, properties, &["username", "email"]))
        }
        "test_elicitation_sep1034_defaults" => ("form", elicitation("Please review", defaults(), &[])),
        "test_elicitation_sep1330_enums" => ("form", elicitation("Please choose", choices(), &[])),
        unknown => return Err(ErrorData::invalid_params(format!("Unknown tool: {unknown}"), None)),
    };
    Ok([(key.to_owned(), question)].into())
}

fn ask_name() -> rmcp::model::InputRequest {
    elicitation("What is your name?", json!({ "name": { "type": "string" } }), &["name"])
}

fn defaults() -> Value {
    json!({
        "name": { "type": "string", "default": "John Doe" },
        "age": { "type": "integer", "default": 30 },
        "score": { "type": "number", "default": 95.5 },
        "status": { "type": "string", "enum": ["active", "inactive", "pending"], "default": "active" },
        "verified": { "type": "boolean", "default": true },
    })
}

fn choices() -> Value {
    let titled = |noun: &str| {
        json!([
            { "const": "value1", "title": format!("First {noun}") },
            { "const": "value2", "title": format!("Second {noun}") },
            { "const": "value3", "title": format!("Third {noun}") },
        ])
    };
    let options = json!(["option1", "option2", "option3"]);
    json!({
        "untitledSingle": { "type": "string", "enum": options },
        "titledSingle": { "type": "string", "oneOf": titled("Option") },
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": { "type": "array", "items": { "type": "string", "enum": options } },
        "titledMulti": { "type": "array", "items": { "anyOf": titled("Choice") } },
    })
}

/// What the tools of one round say when they have their answer.
fn conclusion(tool: &str, answers: &InputResponses) -> Result<CallToolResult, ErrorData> {
    let raw = |key: &str| answers.get(key).cloned().unwrap_or_default();
    Ok(text(match tool {
        "test_input_required_result_elicitation" | "test_streaming_elicitation" => {
            greeting(answers, "user_name")?
        }
        "test_input_required_result_sampling" => {
            format!("The model says: {}", said(&raw("capital_question")))
        }
        "test_input_required_result_list_roots" => format!("The roots are: {}", raw("client_roots")["roots"]),
        "test_sampling" => format!("LLM response: {}", said(&raw("sampling"))),
        "test_elicitation" => format!("User response: {}", summary(&raw("form"))),
        _ => format!("Elicitation completed: {}", summary(&raw("form"))),
    }))
}

/// `Hello, <name>!`, or that nobody gave a name.
pub fn greeting(answers: &InputResponses, key: &str) -> Result<String, ErrorData> {
    Ok(match entered(answers, key)? {
        Some(form) => format!("Hello, {}!", form["name"].as_str().unwrap_or("stranger")),
        None => "No name was given.".into(),
    })
}

fn said(sampled: &Value) -> String {
    let content = &sampled["content"];
    content["text"].as_str().map_or_else(|| content.to_string(), str::to_owned)
}

fn summary(form: &Value) -> String {
    format!("action={}, content={}", form["action"].as_str().unwrap_or("none"), form["content"])
}

/// Seals what must come back with the answers, bound to the tool.
fn seal(fixture: &Fixture, tool: &str, state: &Value) -> Result<String, ErrorData> {
    let binding = binding(tool);
    let options = SealOptions::new().associated_data(binding.as_bytes()).ttl(STATE_LIFE);
    fixture
        .shared
        .codec
        .seal_json_with(state, &options)
        .map_err(|e| ErrorData::internal_error(e.to_string(), None))
}

fn open(fixture: &Fixture, tool: &str, sealed: Option<&String>) -> Result<Value, ErrorData> {
    let sealed = sealed.ok_or_else(|| ErrorData::invalid_params("requestState is missing", None))?;
    fixture
        .shared
        .codec
        .open_json_with(sealed, binding(tool).as_bytes())
        .map_err(|error| ErrorData::invalid_params(format!("requestState was refused: {error}"), None))
}

fn binding(tool: &str) -> String {
    format!("tools/call:{tool}")
}

/// The state a modern client must bring with its answers; `None` in the first round and for legacy clients.
fn returned_state(
    fixture: &Fixture,
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<Option<Value>, ErrorData> {
    let first_round = request.input_responses.is_none() && request.request_state.is_none();
    if first_round || !is_modern(context) {
        return Ok(None);
    }
    open(fixture, &request.name, request.request_state.as_ref()).map(Some)
}

async fn confirm_with_state(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    returned_state(fixture, &request, &context)?;
    let question = elicitation("Please confirm", json!({ "ok": { "type": "boolean" } }), &["ok"]);
    let state = seal(fixture, &request.name, &json!({ "asked": "confirm" }))?;
    let wanted = [("confirm".to_owned(), question)].into();
    Ok(match gather(&context, wanted, request.input_responses, Some(state)).await? {
        Gathered::Ask(ask) => ask.into(),
        Gathered::Answers(answers) => match entered(&answers, "confirm")? {
            Some(form) => text(format!("state-ok, confirmed: {}", form["ok"])).into(),
            None => text("state-ok, not confirmed").into(),
        },
    })
}

async fn multiple(
    fixture: &Fixture,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    returned_state(fixture, &request, &context)?;
    let wanted = [
        ("user_name".to_owned(), ask_name()),
        ("greeting".to_owned(), sampling("Generate a greeting", 50)),
        ("client_roots".to_owned(), roots()),
    ];
    let state = seal(fixture, &request.name, &json!({ "asked": "all" }))?;
    Ok(match gather(&context, wanted.into(), request.input_responses, Some(state)).await? {
        Gathered::Ask(ask) => ask.into(),
        Gathered::Answers(answers) => {
            let hello = greeting(&answers, "user_name")?;
            text(format!("{hello} {} {}", said(&answers["greeting"]), answers["client_roots"]["roots"]))
                .into()
        }
    })
}

async fn multi_round(
    fixture: &Fixture,
    mut request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let returned = returned_state(fixture, &request, &context)?;
    let mut name = returned.and_then(|state| state["name"].as_str().map(str::to_owned));
    if name.is_none() {
        let question =
            elicitation("Step 1: What is your name?", json!({ "name": { "type": "string" } }), &["name"]);
        let state = seal(fixture, &request.name, &json!({ "round": 1 }))?;
        let wanted = [("step1".to_owned(), question)].into();
        match gather(&context, wanted, request.input_responses.take(), Some(state)).await? {
            Gathered::Ask(ask) => return Ok(ask.into()),
            Gathered::Answers(answers) => {
                let form = entered(&answers, "step1")?.unwrap_or_default();
                name = Some(form["name"].as_str().unwrap_or("stranger").to_owned());
            }
        }
    }
    let question = elicitation(
        "Step 2: What is your favorite color?",
        json!({ "color": { "type": "string" } }),
        &["color"],
    );
    let state = seal(fixture, &request.name, &json!({ "round": 2, "name": name }))?;
    let wanted = [("step2".to_owned(), question)].into();
    Ok(match gather(&context, wanted, request.input_responses, Some(state)).await? {
        Gathered::Ask(ask) => ask.into(),
        Gathered::Answers(answers) => {
            let form = entered(&answers, "step2")?.unwrap_or_default();
            let name = name.unwrap_or_default();
            text(format!("{name} likes {}.", form["color"].as_str().unwrap_or("no color"))).into()
        }
    })
}

async fn only_declared(
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let declared = context.client_capabilities().unwrap_or_default();
    let mut wanted: InputRequests =
        [("user_name".to_owned(), ask_name()), ("greeting".to_owned(), sampling("Generate a greeting", 50))]
            .into();
    wanted.retain(|_, question| is_declared(&declared, question));
    Ok(match gather(&context, wanted, request.input_responses, None).await? {
        Gathered::Ask(ask) => ask.into(),
        Gathered::Answers(answers) => text(format!("{} questions were answered.", answers.len())).into(),
    })
}

/// Answers `prompts/get`.
///
/// # Errors
///
/// `-32602` for a prompt that does not exist or an argument that is missing.
pub async fn prompt(
    request: GetPromptRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<GetPromptResponse, ErrorData> {
    let argument = |name: &str| {
        let arguments = request.arguments.as_ref();
        arguments
            .and_then(|all| all.get(name)?.as_str())
            .ok_or_else(|| ErrorData::invalid_params(format!("argument `{name}` must be a string"), None))
    };
    let user = |content| PromptMessage::new(Role::User, content);
    let say = |words: String| PromptMessage::new_text(Role::User, words);
    let messages = match &*request.name {
        "test_simple_prompt" => vec![say("This is a simple prompt for testing.".into())],
        "test_prompt_with_arguments" => {
            let (first, second) = (argument("arg1")?, argument("arg2")?);
            vec![say(format!("Prompt with arguments: arg1='{first}', arg2='{second}'"))]
        }
        "test_prompt_with_embedded_resource" => vec![
            user(embedded(argument("resourceUri")?, "text/plain", "Embedded resource content for testing.")),
            say("Please process the embedded resource above.".into()),
        ],
        "test_prompt_with_image" => vec![user(image()), say("Please analyze the image above.".into())],
        "test_input_required_result_prompt" => {
            let question = elicitation(
                "What context should the prompt use?",
                json!({ "context": { "type": "string" } }),
                &["context"],
            );
            let wanted = [("user_context".to_owned(), question)].into();
            match gather(&context, wanted, request.input_responses.clone(), None).await? {
                Gathered::Ask(ask) => return Ok(ask.into()),
                Gathered::Answers(answers) => {
                    let form = entered(&answers, "user_context")?.unwrap_or_default();
                    vec![say(format!("Context: {}", form["context"].as_str().unwrap_or("none")))]
                }
            }
        }
        unknown => return Err(ErrorData::invalid_params(format!("Unknown prompt: {unknown}"), None)),
    };
    Ok(GetPromptResult::new(messages).into())
}
