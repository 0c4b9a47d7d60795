//! The tool that asks the user back, in the way of either era.
//!
//! A modern client gets an `input_required` result and calls again with the answer (S26/basic/patterns/mrtr); a legacy
//! client gets `elicitation/create` on the stream of its call, which waits for the answer.

use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, ElicitRequest, ElicitRequestParams,
    ElicitResult, ElicitationAction, ElicitationCapability, ElicitationSchema, EnumSchema, ErrorData,
    InputRequest, InputRequiredResult, InputResponses, IntegerSchema, PrimitiveSchemaDefinition,
};
use rmcp::service::{RequestContext, ServiceError};
use serde::Deserialize;

/// What is on the menu: id, name and price in cents.
pub(super) const MENU: [(&str, &str, u32); 4] = [
    ("soup", "Lentil soup", 650),
    ("salad", "Greek salad", 890),
    ("pasta", "Pasta al limone", 1150),
    ("curry", "Chickpea curry", 1290),
];

/// Largest order.
const MAX_PORTIONS: i64 = 20;
/// How long a legacy client may take to answer.
const PATIENCE: Duration = Duration::from_secs(120);
/// The key of the one question.
const QUESTION: &str = "order";

/// What the user enters.
#[derive(Debug, Deserialize)]
struct Order {
    dish: String,
    portions: i64,
}

/// Takes an order: asks for it, or concludes it if the answer came along.
///
/// # Errors
///
/// `-32021` if the client did not declare elicitation; `-32602` if its answer is no answer.
pub(super) async fn order(
    context: &RequestContext<RoleServer>,
    given: Option<InputResponses>,
) -> Result<CallToolResponse, ErrorData> {
    if !context.client_capabilities().and_then(|declared| declared.elicitation).is_some_and(takes_forms) {
        let required = ClientCapabilities::builder().enable_elicitation().build();
        return Err(ErrorData::missing_required_client_capability(required));
    }
    let modern = context.protocol_version().is_some_and(|version| !version.has_initialize());
    let answer = if modern {
        let Some(answer) = given.and_then(|mut given| given.remove(QUESTION)) else {
            let question = InputRequest::Elicitation(ElicitRequest::new(form()));
            return Ok(
                InputRequiredResult::from_input_requests([(QUESTION.to_owned(), question)].into()).into()
            );
        };
        serde_json::from_value(answer)
            .map_err(|error| ErrorData::invalid_params(format!("inputResponses.{QUESTION}: {error}"), None))?
    } else {
        ask(context).await?
    };
    conclude(answer).map(Into::into)
}

/// An empty capability means forms; one that names only URLs does not (S25/client/elicitation §Capabilities).
fn takes_forms(declared: ElicitationCapability) -> bool {
    declared.form.is_some() || declared.url.is_none()
}

async fn ask(context: &RequestContext<RoleServer>) -> Result<ElicitResult, ErrorData> {
    tokio::select! {
        answer = context.peer.create_elicitation(form()) => answer.map_err(|error| match error {
            ServiceError::McpError(error) => error,
            other => ErrorData::internal_error(format!("the client did not answer: {other}"), None),
        }),
        () = context.ct.cancelled() => Err(ErrorData::internal_error("the order was cancelled", None)),
        () = tokio::time::sleep(PATIENCE) => {
            Err(ErrorData::internal_error("nobody answered in time", None))
        }
    }
}

fn form() -> ElicitRequestParams {
    let ids = MENU.iter().map(|(id, ..)| (*id).to_owned()).collect();
    let prices: Vec<_> =
        MENU.iter().map(|(id, name, cents)| format!("{id}: {name}, {}", price(*cents))).collect();
    let dish = EnumSchema::builder(ids).title("Dish").description(prices.join("; ")).build();
    let portions = IntegerSchema::new().title("Portions").range(1, MAX_PORTIONS).with_default(1);
    let schema = ElicitationSchema::builder()
        .required_enum_schema("dish", dish)
        .required_property("portions", PrimitiveSchemaDefinition::Integer(portions))
        .build_unchecked();
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: "What would you like for lunch?".into(),
        requested_schema: schema,
    }
}

/// The client checked the form or did not: what it sends is input like any other.
fn conclude(answer: ElicitResult) -> Result<CallToolResult, ErrorData> {
    let say = |text: String| Ok(CallToolResult::success(vec![ContentBlock::text(text)]));
    match answer.action {
        ElicitationAction::Accept => {}
        ElicitationAction::Decline => return say("No lunch today, then.".into()),
        _ => return say("The order was called off.".into()),
    }
    let order: Order = serde_json::from_value(answer.content.unwrap_or_default())
        .map_err(|error| ErrorData::invalid_params(format!("the order is incomplete: {error}"), None))?;
    let Some((_, name, cents)) = MENU.iter().find(|(id, ..)| *id == order.dish) else {
        return Err(ErrorData::invalid_params(format!("`{}` is not on the menu", order.dish), None));
    };
    if !(1..=MAX_PORTIONS).contains(&order.portions) {
        return Err(ErrorData::invalid_params(
            format!("portions must be between 1 and {MAX_PORTIONS}"),
            None,
        ));
    }
    let total = cents * order.portions as u32;
    say(format!(
        "Ordered: {} × {name}, {} in all. (A demonstration; nothing is delivered.)",
        order.portions,
        price(total)
    ))
}

/// An amount as people write it.
pub(super) fn price(cents: u32) -> String {
    format!("€{}.{:02}", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn accepted(content: serde_json::Value) -> Result<String, ErrorData> {
        let result = conclude(ElicitResult::new(ElicitationAction::Accept).with_content(content))?;
        Ok(result.content[0].as_text().expect("text").text.clone())
    }

    #[test]
    fn an_order_is_confirmed_with_its_price() {
        let confirmed = accepted(json!({ "dish": "soup", "portions": 3 })).expect("an order");
        assert!(confirmed.starts_with("Ordered: 3 × Lentil soup, €19.50"), "{confirmed}");
    }

    #[test]
    fn an_order_beyond_the_form_is_refused() {
        for bad in
            [json!({ "dish": "steak", "portions": 1 }), json!({ "dish": "soup", "portions": 21 }), json!({})]
        {
            assert!(accepted(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn declining_is_no_error() {
        assert!(conclude(ElicitResult::new(ElicitationAction::Decline)).is_ok());
        assert!(conclude(ElicitResult::new(ElicitationAction::Cancel)).is_ok());
    }
}
