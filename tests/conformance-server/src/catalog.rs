//! What the fixture lists: tools, prompts, resources and templates, by the names the suite expects.

use std::sync::{Arc, LazyLock};

use rmcp::model::{
    JsonObject, Prompt, PromptArgument, Resource, ResourceContents, ResourceTemplate, Tool, ToolAnnotations,
    object,
};
use serde_json::{Value, json};

use crate::changes::{Change, Changes};
use crate::content::RED_PIXEL_PNG;

/// The resource that can be subscribed to.
pub const WATCHED_RESOURCE: &str = "test://watched-resource";
/// The tool whose arguments are mirrored into `Mcp-Param-*` headers.
pub const HEADER_TOOL: &str = "test_x_mcp_header";

const TEMPLATE_PREFIX: &str = "test://template/";
const TEMPLATE_SUFFIX: &str = "/data";

/// The tools in the order in which they are listed. The first one must work without arguments: the suite calls it.
static TOOLS: LazyLock<Vec<Tool>> = LazyLock::new(|| {
    let mut tools: Vec<Tool> = PLAIN.iter().map(|(name, about)| tool(name, about, json!({}), &[])).collect();
    tools.extend(with_arguments());
    tools
});

const PLAIN: &[(&str, &str)] = &[
    ("test_simple_text", "Returns one line of text"),
    ("test_image_content", "Returns an image"),
    ("test_audio_content", "Returns a sound"),
    ("test_embedded_resource", "Returns an embedded resource"),
    ("test_multiple_content_types", "Returns text, an image and an embedded resource"),
    ("test_tool_with_logging", "Writes three log messages while it runs"),
    ("test_logging_tool", "Writes one log message if the request asks for logging"),
    ("test_tool_with_progress", "Reports progress three times while it runs"),
    ("test_error_handling", "Always fails"),
    ("test_reconnection", "Answers late, possibly after its stream was closed and resumed"),
    ("test_elicitation_sep1034_defaults", "Asks for a form whose fields have defaults"),
    ("test_elicitation_sep1330_enums", "Asks for a form with every kind of choice"),
    ("test_missing_capability", "Needs a client that declared sampling"),
    ("test_streaming_elicitation", "Reports progress, then asks for a form"),
    ("test_cancellation_count", "Says how many inline computations were cancelled so far"),
    ("test_trigger_tool_change", "Changes the list of tools"),
    ("test_trigger_prompt_change", "Changes the list of prompts"),
    ("test_trigger_resource_change", "Changes the list of resources"),
    ("test_trigger_resource_update", "Updates the watched resource"),
    ("test_input_required_result_elicitation", "Asks for a name"),
    ("test_input_required_result_sampling", "Asks the client's model a question"),
    ("test_input_required_result_list_roots", "Asks for the client's roots"),
    ("test_input_required_result_request_state", "Asks for a confirmation and checks the returned state"),
    ("test_input_required_result_multiple_inputs", "Asks for a name, a greeting and the roots at once"),
    ("test_input_required_result_multi_round", "Asks twice, one question after the other"),
    ("test_input_required_result_tampered_state", "Refuses a state that was changed on its way"),
    ("test_input_required_result_capabilities", "Asks only what the client declared"),
    ("failing_job", "A task that ends with a tool error"),
    ("protocol_error_job", "A task that ends with a protocol error"),
    ("multi_input", "A task that asks two questions at once"),
    ("test_tool_with_task", "Asks for a name, then goes on as a task"),
];

fn with_arguments() -> Vec<Tool> {
    let string = |about: &str| json!({ "type": "string", "description": about });
    vec![
        tool("greet", "Greets somebody", json!({ "name": string("Who") }), &["name"]),
        tool(
            "test_sampling",
            "Asks the client's model",
            json!({ "prompt": string("What to ask") }),
            &["prompt"],
        ),
        tool("test_elicitation", "Asks the user", json!({ "message": string("What to ask") }), &["message"]),
        tool(
            "slow_compute",
            "Takes its time: a task for clients that know tasks",
            json!({
                "seconds": { "type": "number", "minimum": 0, "maximum": crate::tasks::MAX_SECONDS },
                "label": string("Comes back in the result"),
            }),
            &[],
        ),
        tool(
            "confirm_delete",
            "Asks before it pretends to delete",
            json!({ "filename": string("What") }),
            &["filename"],
        ),
        tool(
            HEADER_TOOL,
            "Its annotated arguments travel in headers, too",
            json!({
                "region": { "type": "string", "x-mcp-header": "Region" },
                "priority": { "type": "integer", "x-mcp-header": "Priority" },
                "verbose": { "type": "boolean", "x-mcp-header": "Verbose" },
                "query": string("Not mirrored"),
            }),
            &["region"],
        ),
        Tool::new(
            "json_schema_2020_12_tool",
            "Has an input schema that uses most of JSON Schema 2020-12",
            rich_schema(),
        ),
    ]
}

fn tool(name: &'static str, about: &'static str, properties: Value, required: &[&str]) -> Tool {
    let schema = json!({ "type": "object", "properties": properties, "required": required });
    let tool = Tool::new(name, about, object(schema));
    // What the gateway may repeat after a lost session: exactly the tools that say so.
    if matches!(name, "test_simple_text" | "greet") {
        return tool
            .with_annotations(ToolAnnotations::new().read_only(true).idempotent(true).open_world(false));
    }
    tool
}

/// Keywords a server or gateway that rebuilds schemas would lose.
fn rich_schema() -> Arc<JsonObject> {
    Arc::new(object(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": { "street": { "type": "string" }, "city": { "type": "string" } },
            },
        },
        "properties": {
            "name": { "type": "string" },
            "address": { "$ref": "#/$defs/address" },
            "contactMethod": { "type": "string", "enum": ["phone", "email"] },
            "phone": { "type": "string" },
            "email": { "type": "string" },
        },
        "allOf": [{ "anyOf": [{ "required": ["phone"] }, { "required": ["email"] }] }],
        "if": { "properties": { "contactMethod": { "const": "phone" } }, "required": ["contactMethod"] },
        "then": { "required": ["phone"] },
        "else": { "required": ["email"] },
        "additionalProperties": false,
    })))
}

/// The tool list as it is now.
pub fn tools(changes: &Changes) -> Vec<Tool> {
    let mut tools = TOOLS.clone();
    let count = changes.count(Change::ToolList);
    if let Some(trigger) = tools.iter_mut().find(|tool| tool.name == "test_trigger_tool_change") {
        trigger.description = Some(format!("Changes the list of tools; changed {count} times").into());
    }
    tools
}

/// One tool by name.
pub fn tool_named(name: &str) -> Option<Tool> {
    TOOLS.iter().find(|tool| tool.name == name).cloned()
}

/// The prompt list as it is now.
pub fn prompts(changes: &Changes) -> Vec<Prompt> {
    let argument =
        |name: &str, about: &str| PromptArgument::new(name).with_description(about).with_required(true);
    let count = changes.count(Change::PromptList);
    vec![
        Prompt::new(
            "test_simple_prompt",
            Some(format!("Says one line; the list changed {count} times")),
            None,
        ),
        Prompt::new(
            "test_prompt_with_arguments",
            Some("Says what it is told"),
            Some(vec![argument("arg1", "First"), argument("arg2", "Second")]),
        ),
        Prompt::new(
            "test_prompt_with_embedded_resource",
            Some("Embeds a resource"),
            Some(vec![argument("resourceUri", "URI of the resource")]),
        ),
        Prompt::new("test_prompt_with_image", Some("Embeds an image"), None),
        Prompt::new("test_input_required_result_prompt", Some("Asks for a context first"), None),
    ]
}

/// The resource list as it is now.
pub fn resources(changes: &Changes) -> Vec<Resource> {
    let count = changes.count(Change::ResourceList);
    vec![
        Resource::new("test://static-text", "static-text")
            .with_description("A text that never changes")
            .with_mime_type("text/plain"),
        Resource::new("test://static-binary", "static-binary")
            .with_description("An image that never changes")
            .with_mime_type("image/png"),
        Resource::new(WATCHED_RESOURCE, "watched-resource")
            .with_description(format!("A text that can be updated; the list changed {count} times"))
            .with_mime_type("text/plain"),
    ]
}

/// The template list.
pub fn templates() -> Vec<ResourceTemplate> {
    vec![
        ResourceTemplate::new(format!("{TEMPLATE_PREFIX}{{id}}{TEMPLATE_SUFFIX}"), "template")
            .with_description("Data by id")
            .with_mime_type("application/json"),
    ]
}

/// The content behind a URI, if there is any.
pub fn read(uri: &str, changes: &Changes) -> Option<ResourceContents> {
    let text = |text: String, mime: &str| Some(ResourceContents::text(text, uri).with_mime_type(mime));
    match uri {
        "test://static-text" => text("This is the content of the static text resource.".into(), "text/plain"),
        "test://static-binary" => {
            Some(ResourceContents::blob(RED_PIXEL_PNG, uri).with_mime_type("image/png"))
        }
        WATCHED_RESOURCE => {
            let count = changes.count(Change::WatchedResource);
            text(format!("Watched resource, updated {count} times."), "text/plain")
        }
        _ => {
            let id = uri.strip_prefix(TEMPLATE_PREFIX)?.strip_suffix(TEMPLATE_SUFFIX)?;
            if id.is_empty() || id.contains('/') {
                return None;
            }
            let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
            text(data.to_string(), "application/json")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_the_first_tool_needs_nothing() {
        let tools = tools(&Changes::new());
        let names: BTreeSet<_> = tools.iter().map(|tool| tool.name.clone()).collect();
        assert_eq!(names.len(), tools.len());
        assert_eq!(tools[0].input_schema["required"], json!([]));
    }

    #[test]
    fn templates_substitute_one_segment() {
        let changes = Changes::new();
        assert!(read("test://template/7/data", &changes).is_some());
        assert!(read("test://template/a/b/data", &changes).is_none());
        assert!(read("test://template//data", &changes).is_none());
        assert!(read("test://nothing", &changes).is_none());
    }
}
