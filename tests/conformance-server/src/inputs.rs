//! Asking the client for input, the same way in both eras.
//!
//! A tool says what it wants to know. A modern client gets an `input_required` result and calls again with the answers
//! (S26/basic/patterns/mrtr); a legacy client gets server→client requests while the call waits.

use std::time::Duration;

use rmcp::model::{
    ClientCapabilities, ElicitResult, ElicitationAction, ErrorData, InputRequest, InputRequests,
    InputRequiredResult, InputResponses,
};
use rmcp::service::{RequestContext, ServiceError};
use rmcp::{Peer, RoleServer};
use serde::Serialize;
use serde_json::{Value, json};

/// How long a legacy client may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of asking.
pub enum Gathered {
    /// Every question has an answer, by the key of the question.
    Answers(InputResponses),
    /// The client has to be asked, with this result.
    Ask(InputRequiredResult),
}

/// Whether this request belongs to the modern era.
pub fn is_modern(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| !version.has_initialize())
}

/// Gets an answer to each of `wanted`; `state` goes with the question if a modern client has to be asked.
///
/// # Errors
///
/// `-32021` if the client did not declare what a question needs; what a legacy client answered instead of a result.
pub async fn gather(
    context: &RequestContext<RoleServer>,
    wanted: InputRequests,
    given: Option<InputResponses>,
    state: Option<String>,
) -> Result<Gathered, ErrorData> {
    require(context, &wanted)?;
    if !is_modern(context) {
        return ask_now(context, wanted).await.map(Gathered::Answers);
    }
    let mut given = given.unwrap_or_default();
    // Answers nobody asked for are ignored, and one that is not even an object is asked for again.
    given.retain(|key, answer| wanted.contains_key(key) && answer.is_object());
    let open: InputRequests = wanted.into_iter().filter(|(key, _)| !given.contains_key(key)).collect();
    if open.is_empty() {
        return Ok(Gathered::Answers(given));
    }
    Ok(Gathered::Ask(InputRequiredResult::new(Some(open), state)))
}

/// Whether the client declared what this question needs.
pub fn is_declared(declared: &ClientCapabilities, request: &InputRequest) -> bool {
    match request {
        InputRequest::CreateMessage(_) => declared.sampling.is_some(),
        InputRequest::Elicitation(_) => declared.elicitation.is_some(),
        InputRequest::ListRoots(_) => declared.roots.is_some(),
        _ => false,
    }
}

fn require(context: &RequestContext<RoleServer>, wanted: &InputRequests) -> Result<(), ErrorData> {
    let declared = context.client_capabilities().unwrap_or_default();
    let Some(missing) = wanted.values().find(|request| !is_declared(&declared, request)) else {
        return Ok(());
    };
    let required = match missing {
        InputRequest::CreateMessage(_) => ClientCapabilities::builder().enable_sampling().build(),
        InputRequest::ListRoots(_) => ClientCapabilities::builder().enable_roots().build(),
        _ => ClientCapabilities::builder().enable_elicitation().build(),
    };
    Err(ErrorData::missing_required_client_capability(required))
}

/// The legacy way: one request after the other while the call waits.
async fn ask_now(
    context: &RequestContext<RoleServer>,
    wanted: InputRequests,
) -> Result<InputResponses, ErrorData> {
    let mut answers = InputResponses::new();
    for (key, request) in wanted {
        let answer = tokio::select! {
            answer = ask_one(&context.peer, request) => answer.map_err(refused)?,
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
            () = tokio::time::sleep(PATIENCE) => {
                return Err(ErrorData::internal_error("the client did not answer in time", None));
            }
        };
        answers.insert(key, answer);
    }
    Ok(answers)
}

async fn ask_one(peer: &Peer<RoleServer>, request: InputRequest) -> Result<Value, ServiceError> {
    match request {
        InputRequest::CreateMessage(request) => peer.create_message(request.params).await.map(as_json),
        InputRequest::Elicitation(request) => peer.create_elicitation(request.params).await.map(as_json),
        InputRequest::ListRoots(_) => peer.list_roots().await.map(as_json),
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

fn as_json(result: impl Serialize) -> Value {
    serde_json::to_value(result).unwrap_or_default()
}

fn refused(error: ServiceError) -> ErrorData {
    match error {
        ServiceError::McpError(error) => error,
        other => ErrorData::internal_error(format!("the client did not answer: {other}"), None),
    }
}

/// What the user entered, or `None` if they declined or cancelled.
///
/// # Errors
///
/// `-32602` if the answer is no elicitation result.
pub fn entered(answers: &InputResponses, key: &str) -> Result<Option<Value>, ErrorData> {
    let answer = answers.get(key).cloned().unwrap_or_default();
    let result: ElicitResult = serde_json::from_value(answer)
        .map_err(|error| ErrorData::invalid_params(format!("inputResponses.{key}: {error}"), None))?;
    Ok((result.action == ElicitationAction::Accept).then(|| result.content.unwrap_or_default()))
}

/// A form with these properties.
pub fn elicitation(message: &str, properties: Value, required: &[&str]) -> InputRequest {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    request("elicitation/create", json!({ "message": message, "requestedSchema": schema }))
}

/// A question to the client's model.
pub fn sampling(question: &str, max_tokens: u32) -> InputRequest {
    let message = json!({ "role": "user", "content": { "type": "text", "text": question } });
    request("sampling/createMessage", json!({ "messages": [message], "maxTokens": max_tokens }))
}

/// The question for the client's roots.
pub fn roots() -> InputRequest {
    request("roots/list", json!({}))
}

fn request(method: &str, params: Value) -> InputRequest {
    serde_json::from_value(json!({ "method": method, "params": params }))
        .expect("the builders above only make valid requests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builders_make_the_kind_they_name() {
        assert!(matches!(sampling("?", 5), InputRequest::CreateMessage(_)));
        assert!(matches!(roots(), InputRequest::ListRoots(_)));
        let form = elicitation("?", json!({ "name": { "type": "string" } }), &["name"]);
        assert!(matches!(form, InputRequest::Elicitation(_)));
    }

    #[test]
    fn a_declined_form_has_no_content_and_a_bad_one_is_an_error() {
        let mut answers = InputResponses::new();
        answers.insert("a".into(), json!({ "action": "decline" }));
        answers.insert("b".into(), json!({ "action": "perhaps" }));
        assert_eq!(entered(&answers, "a").expect("valid"), None);
        assert!(entered(&answers, "b").is_err());
    }
}
