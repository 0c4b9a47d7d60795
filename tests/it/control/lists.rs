//! Filters and orders of what the store has rows of.

use serde_json::{Value, json};

use super::plane::Plane;

const ADMIN: &str = "tg_a_admin";
const AT: &str = "/api/v1/tenants/a";

async fn furnished() -> Plane {
    let plane = Plane::start().await;
    for (n, name) in ["ann", "bob", "eve", "dan", "cat"].into_iter().enumerate() {
        let made = [
            (
                format!("PUT {AT}/users/corp%7C{name}"),
                Some(json!({ "email": format!("{n}@x.example"), "disabled": n % 2 == 1 })),
            ),
            (
                format!("POST {AT}/api-keys"),
                Some(
                    json!({ "roles": ["viewer"], "principal": format!("corp|{name}"), "note": format!("n{n}") }),
                ),
            ),
            (format!("PUT {AT}/role-bindings/corp%7C{name}/viewer"), None),
            (format!("PUT {AT}/role-bindings/corp%7C{name}/developer"), None),
            (format!("POST {AT}/revocations"), Some(json!({ "sub": name }))),
            (format!("PUT {AT}/secrets/{name}"), Some(json!({ "value": "v" }))),
        ];
        for (line, body) in made {
            let done = plane.ask(ADMIN, &line, &[], body).await;
            assert!(done.status.is_success(), "{line}: {}", done.status);
        }
    }
    plane
}

/// All items, page by page.
async fn all(plane: &Plane, list: &str, query: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = plane.ask(ADMIN, &format!("GET {AT}/{list}?limit=2{query}{cursor}"), &[], None).await;
        assert_eq!(page.status, 200, "{list} {query}: {}", page.json());
        let page = page.json();
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn texts(items: &[Value], field: &str) -> Vec<String> {
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn rows_are_filtered_and_sorted_and_no_page_leaves_one_out() {
    let plane = furnished().await;
    for (list, size) in
        [("users", 5), ("api-keys", 5), ("role-bindings", 10), ("revocations", 5), ("secrets", 5)]
    {
        let plain = all(&plane, list, "").await;
        assert_eq!(plain.len(), size, "{list}");
        let later_first = all(&plane, list, "&sort=-created").await;
        assert_eq!(later_first.len(), size, "{list}");
        let mut times = texts(&later_first, "created");
        times.reverse();
        assert!(times.is_sorted(), "{list}: {times:?}");
        let none = all(&plane, list, "&filter=created%3C2020-01-01T00:00:00Z").await;
        assert!(none.is_empty(), "{list}: {none:?}");
        let unknown = plane.ask(ADMIN, &format!("GET {AT}/{list}?filter=nothing==1"), &[], None).await;
        assert_eq!(
            (unknown.status.as_u16(), &unknown.json()["errors"][0]["pointer"]),
            (400, &json!("?filter"))
        );
    }
    let off = all(&plane, "users", "&filter=disabled==true&sort=-id").await;
    assert_eq!(texts(&off, "id"), ["corp|dan", "corp|bob"]);
    let one = all(&plane, "api-keys", "&filter=principal==corp%7Ceve").await;
    assert_eq!(texts(&one, "note"), ["n2"]);
    let roles = all(&plane, "role-bindings", "&filter=role==developer&sort=-subject").await;
    assert_eq!(texts(&roles, "subject"), ["corp|eve", "corp|dan", "corp|cat", "corp|bob", "corp|ann"]);
    let secrets = all(&plane, "secrets", "&filter=name~a&sort=-name").await;
    assert_eq!(texts(&secrets, "name"), ["dan", "cat", "ann"]);
}
