//! Pages that are generated from the program are those in the repository.

use std::path::Path;

use serde_json::Value;
use tollgate::control::{openapi, permission};

use super::attack::{body, furnished, operations};

/// Whether a page is what the program makes. If not, what it makes is kept beside the tests' other files.
fn is_current(path: &str, now: &str, command: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let page = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    if page != now {
        let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file.file_name().unwrap());
        std::fs::write(&made, now).unwrap();
        panic!("run `{command} > {path}`, or copy {} there", made.display());
    }
}

#[test]
fn the_description_of_the_api_is_current() {
    let now = std::str::from_utf8(openapi::text()).unwrap();
    is_current("docs/openapi.json", now, "tollgate schema --openapi");
}

#[test]
fn the_page_of_permissions_is_current() {
    let now = permission::page(&openapi::described());
    is_current("docs/permissions.md", &now, "tollgate schema --permissions");
}

/// Every operation is called; what its answer has is in its description.
#[tokio::test]
async fn answers_are_as_they_are_described() {
    let description: Value = serde_json::from_slice(openapi::text()).unwrap();
    let described = |id: &str| -> Value {
        let paths = description["paths"].as_object().unwrap().values();
        let all = paths.flat_map(|item| item.as_object().unwrap().values());
        all.into_iter().find(|operation| operation["operationId"] == id).unwrap().clone()
    };
    let plane = furnished().await;
    let (mut tags, mut seen) = (0, 0);
    let mut lines = operations("a");
    // What takes things away comes last, and more formats of one operation.
    lines.sort_by_key(|(line, _)| line.starts_with("DELETE "));
    let exports = ["csv", "cef"].map(|format| {
        let export = lines.iter().find(|(_, operation)| operation.id == "export_audit").unwrap();
        (format!("{}?format={format}", export.0), export.1)
    });
    for (line, operation) in lines.into_iter().chain(exports) {
        let operation_described = described(operation.id);
        for headers in [
            &[("if-match", "*")][..],
            &[("if-none-match", "*")],
            &[],
            &[("if-match", "*"), ("idempotency-key", "k")],
        ] {
            let answer = plane.ask("tg_default_super_admin", &line, headers, body(operation.id)).await;
            let status = answer.status.as_u16().to_string();
            let response = &operation_described["responses"][&status];
            assert!(response.is_object(), "{line}: {status} is not described");
            for name in
                ["etag", "retry-after", "idempotency-replayed", "www-authenticate", "x-tollgate-request-id"]
            {
                let there = answer.headers.contains_key(name);
                assert!(!there || response["headers"][name].is_object(), "{line}: {status}: {name}");
                let tagged = name == "etag" && answer.status.is_success();
                assert!(!tagged || there || response["headers"][name].is_null(), "{line}: no {name}");
                tags += usize::from(tagged && there);
            }
            let kind =
                answer.headers.get("content-type").map(|v| v.to_str().unwrap().split(';').next().unwrap());
            if let Some(kind) = kind.filter(|_| !answer.body.is_empty()) {
                assert!(response["content"][kind].is_object(), "{line}: {status}: {kind} is not described");
            }
            seen += 1;
        }
    }
    assert!(seen > 350 && tags > 40, "{seen} answers, {tags} with a tag");
}
