//! Pages that are generated from the program are those in the repository.

use std::path::Path;

use tollgate::control::{openapi, permission};

fn in_repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_description_of_the_api_is_current() {
    let now = std::str::from_utf8(openapi::text()).unwrap();
    assert!(in_repository("docs/openapi.json") == now, "run `tollgate schema --openapi > docs/openapi.json`");
}

#[test]
fn the_page_of_permissions_is_current() {
    let now = permission::page(&openapi::described());
    let page = in_repository("docs/permissions.md");
    assert!(page == now, "run `tollgate schema --permissions > docs/permissions.md`");
}
