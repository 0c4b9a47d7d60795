//! Where a document refers to a secret.

use std::collections::BTreeSet;

use serde_json::Value;

use super::canonical::Canonical;

/// What a reference to a secret begins with; its name and `}` follow.
const REFERENCE: &str = "${secret:";

/// The names of the secrets that a document in canonical form may refer to, by its text alone: none is left out, but one that
/// only stands in a key may be among them.
pub fn secrets_named(text: &str) -> BTreeSet<&str> {
    let name = |(start, _): (usize, &str)| {
        // `$${` stands for itself.
        let rest = text[start..].strip_prefix(REFERENCE).filter(|_| !text[..start].ends_with('$'))?;
        rest.split_once('}').map(|(name, _)| name)
    };
    text.match_indices(REFERENCE).filter_map(name).collect()
}

/// The places, as paths such as `servers[1].http.headers.authorization`, in the order of the document, at most `most`.
pub fn uses_of_secret(document: &Canonical, name: &str, most: usize) -> Vec<String> {
    let (reference, mut places) = (format!("{REFERENCE}{name}}}"), Vec::new());
    find(&document.to_json(), &reference, String::new(), &mut places);
    places.truncate(most);
    places
}

fn find(value: &Value, reference: &str, at: String, places: &mut Vec<String>) {
    match value {
        // `$${` stands for itself.
        Value::String(text)
            if text.match_indices(reference).any(|(start, _)| !text[..start].ends_with('$')) =>
        {
            places.push(at);
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(i, item)| find(item, reference, format!("{at}[{i}]"), places));
        }
        Value::Object(fields) => fields.iter().for_each(|(key, field)| {
            let below = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            find(field, reference, below, places);
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::canonical;

    #[test]
    fn references_are_found_where_they_stand_and_what_only_looks_like_one_is_not() {
        let text = "version: 1\nservers:\n- name: a\n  http: { headers: { x: 'b ${secret:to} c' } }\n- name: b\n  \
                    title: '$${secret:to}'\n  other: '${secret:token}'\n  last: '${secret:x}${secret:to}'\n";
        let document = canonical(text.as_bytes()).unwrap();
        assert_eq!(uses_of_secret(&document, "to", 9), ["servers[0].http.headers.x", "servers[1].last"]);
        assert_eq!(uses_of_secret(&document, "to", 1), ["servers[0].http.headers.x"]);
        assert_eq!(uses_of_secret(&document, "t", 9), [""; 0]);
        assert_eq!(Vec::from_iter(secrets_named(document.as_str())), ["to", "token", "x"]);
    }
}
