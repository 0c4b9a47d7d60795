//! Extractors whose refusals are problems: bodies, parameters, the caller, the reason of a change.

use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::actor::Actor;
use super::problem::{FieldError, Problem};

/// Says why a change is made; kept with the revision and in the audit log.
pub const REASON: HeaderName = HeaderName::from_static("x-tollgate-reason");
/// Longest reason, in characters.
pub const MAX_REASON: usize = 500;
/// Longest text of a caller's that a problem repeats.
const MAX_SHOWN: usize = 200;

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "the body must be `application/json`",
            ));
        }
        let bytes = bytes(request, state).await?;
        json(&bytes).map(Json)
    }
}

/// The bytes of a body, whatever they say.
#[derive(Debug)]
pub struct Raw(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for Raw {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        bytes(request, state).await.map(Self)
    }
}

/// The bytes of a body, within the listener's bound.
///
/// # Errors
///
/// 413 if it is too long, 400 if it breaks off.
pub async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too long")
        }
        _ => Problem::bad_request("the body is not complete"),
    })
}

/// Whether the body says that it is JSON.
pub fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Reads a JSON text.
///
/// # Errors
///
/// 400 if it is no JSON, 422 with a pointer if it says something else than the type.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        let inner = error.into_inner();
        let detail = without_place(&inner);
        if inner.is_data() {
            Problem::invalid([FieldError::new(pointer, shown(&detail))])
        } else {
            Problem::bad_request("the body is not JSON").with_errors([FieldError {
                line: u32::try_from(inner.line()).ok(),
                column: u32::try_from(inner.column()).ok(),
                ..FieldError::new(pointer, shown(&detail))
            }])
        }
    })?;
    reader.end().map_err(|_| Problem::bad_request("something follows the JSON value"))?;
    if let Some(at) = twice::given(bytes) {
        return Err(Problem::invalid([FieldError::new(shown(&at), "this key is given twice")]));
    }
    // PostgreSQL takes no NUL in text, and nobody means one.
    if memchr::memmem::find(bytes, b"\\u0000").is_some()
        && let Ok(tree) = serde_json::from_slice::<Value>(bytes)
        && let Some(at) = nul(&tree, String::new())
    {
        return Err(Problem::invalid([FieldError::new(at, "text has no place for a NUL character")]));
    }
    Ok(value)
}

fn nul(value: &Value, at: String) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then_some(at),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| nul(item, format!("{at}/{i}"))),
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            if key.contains('\0') {
                return Some(at.clone());
            }
            nul(item, format!("{at}/{}", escape(key)))
        }),
        _ => None,
    }
}

/// A path of serde as a JSON pointer.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", shown(&escape(key)))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

/// A key as part of a JSON pointer (RFC 6901 §3).
pub fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// serde_json ends its messages with the place, which the problem has as fields.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// A text of bounded length, without control characters. What is too long ends after a word.
fn shown(text: &str) -> String {
    let mut chars = text.chars().filter(|c| !c.is_control());
    let mut start: String = chars.by_ref().take(MAX_SHOWN).collect();
    if let Some(next) = chars.next() {
        let end = if next.is_whitespace() { Some(start.len()) } else { start.rfind(char::is_whitespace) };
        // One word as long as all of it is cut.
        start.truncate(end.filter(|end| *end > 0).unwrap_or(start.len()));
        start.truncate(start.trim_end_matches([' ', ',']).len());
        start.push('…');
    }
    start
}

/// Finds keys that are given twice: which of the two was meant nobody can tell.
mod twice {
    use std::collections::HashSet;
    use std::fmt;

    use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

    use super::escape;

    /// Where the first one is in a JSON text that is known to be one, as a pointer.
    pub(super) fn given(bytes: &[u8]) -> Option<String> {
        let mut found = None;
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let _ = Look(&mut found).deserialize(&mut reader);
        found
    }

    /// Ends early when a key is found; those around it put their own in front of it.
    struct Look<'a>(&'a mut Option<String>);

    impl<'de> DeserializeSeed<'de> for Look<'_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
            deserializer.deserialize_any(self)
        }
    }

    impl<'de> Visitor<'de> for Look<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("JSON")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut seen: HashSet<String> = HashSet::new();
            while let Some(key) = map.next_key::<String>()? {
                if seen.contains(&key) {
                    *self.0 = Some(format!("/{}", escape(&key)));
                    return Err(A::Error::custom("twice"));
                }
                let inner = map.next_value_seed(Look(self.0));
                inner.inspect_err(|_| prepend(self.0, &escape(&key)))?;
                seen.insert(key);
            }
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
            for index in 0_usize.. {
                let item = list.next_element_seed(Look(self.0));
                if item.inspect_err(|_| prepend(self.0, &index.to_string()))?.is_none() {
                    break;
                }
            }
            Ok(())
        }

        fn visit_bool<E>(self, _: bool) -> Result<(), E> {
            Ok(())
        }

        fn visit_i64<E>(self, _: i64) -> Result<(), E> {
            Ok(())
        }

        fn visit_u64<E>(self, _: u64) -> Result<(), E> {
            Ok(())
        }

        fn visit_f64<E>(self, _: f64) -> Result<(), E> {
            Ok(())
        }

        fn visit_str<E>(self, _: &str) -> Result<(), E> {
            Ok(())
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }
    }

    fn prepend(found: &mut Option<String>, part: &str) {
        if let Some(pointer) = found {
            pointer.insert_str(0, &format!("/{part}"));
        }
    }
}

/// Parameters of the query. A parameter that does not exist is an error: a mistyped filter must not show everything.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if query.contains("%00") || query.contains('\0') {
            return Err(Problem::bad_request("the query has no place for a NUL character"));
        }
        // The reason has an extractor of its own.
        let rest: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with("reason=")).collect();
        let uri = Uri::builder().path_and_query(format!("/?{}", rest.join("&"))).build();
        let uri = uri.map_err(|_| Problem::bad_request("the query cannot be read"))?;
        match Query::<T>::try_from_uri(&uri) {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(bad_parameter(&rejection.body_text())),
        }
    }
}

/// What serde says of a query, as a problem that names the parameter.
fn bad_parameter(text: &str) -> Problem {
    let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(text);
    let quoted = |after: &str| text.strip_prefix(after)?.split('`').next();
    let (name, what) = match (quoted("missing field `"), quoted("duplicate field `"), text.split_once(": ")) {
        (Some(name), ..) => (name, "it is missing"),
        (_, Some(name), _) => (name, "it is there twice"),
        (.., Some((name, what))) => (name, what),
        _ => ("", text),
    };
    let expected = if what.contains("`true` or `false`") {
        Some("`true` or `false`")
    } else if ["digit", "number", "integer"].iter().any(|word| what.contains(word)) {
        Some("a whole number in its bounds")
    } else {
        None
    };
    let name = shown(name);
    let error = FieldError::new(format!("?{name}"), shown(what));
    Problem::parameter(&name, "").replacing_errors([match expected {
        Some(expected) => error.expecting(expected),
        None => error,
    }])
}

/// Parameters of the path.
#[derive(Debug)]
pub struct At<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for At<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        // What cannot be the name of anything is not there.
        let Path(value) =
            Path::<T>::from_request_parts(parts, state).await.map_err(|_| Problem::not_found())?;
        Ok(Self(value))
    }
}

/// Where a request comes from; there for every operation behind the gate.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub std::net::IpAddr);

/// Who calls; there for every operation behind the gate.
#[derive(Clone, Debug)]
pub struct Caller(pub Arc<Actor>);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Caller>().cloned().ok_or_else(Problem::unauthorized)
    }
}

/// Why a change is made: the header, or the parameter `reason`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Reason {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Only {
            reason: Option<String>,
        }
        let text = match parts.headers.get(REASON) {
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| Problem::bad_request("the reason is not UTF-8"))?
                    .to_owned(),
            ),
            None => Query::<Only>::from_request_parts(parts, state).await.ok().and_then(|q| q.0.reason),
        };
        let text = text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        if text.as_ref().is_some_and(|t| t.chars().count() > MAX_REASON || t.chars().any(char::is_control)) {
            return Err(Problem::bad_request(format!(
                "the reason must have at most {MAX_REASON} characters, none of them control characters"
            )));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by serde")]
    struct Body {
        name: String,
        roles: Vec<u8>,
    }

    fn problem(text: &str) -> Value {
        json::<Body>(text.as_bytes()).expect_err("refused").to_json()
    }

    #[test]
    fn data_errors_point_at_their_place() {
        let wrong = problem(r#"{"name": "x", "roles": [1, "two"]}"#);
        assert_eq!(
            (wrong["status"].as_u64(), &wrong["errors"][0]["pointer"]),
            (Some(422), &json!("/roles/1"))
        );
        let unknown = problem(r#"{"name": "x", "roles": [], "a/b": 1}"#);
        assert_eq!(unknown["errors"][0]["pointer"], "/a~1b");
        let twice = problem(r#"{"name": "x", "name": "y", "roles": []}"#);
        assert_eq!(twice["status"], 422);
    }

    #[test]
    fn what_is_no_json_is_a_bad_request_with_its_place() {
        let broken = problem("{\"name\": \n  oops}");
        assert_eq!(broken["status"], 400);
        assert_eq!((&broken["errors"][0]["line"], &broken["errors"][0]["column"]), (&json!(2), &json!(3)));
        assert_eq!(problem("").get("status"), Some(&json!(400)));
        assert_eq!(problem(r#"{"name": "x", "roles": []} {}"#)["status"], 400);
        assert_eq!(problem(&"[".repeat(100_000))["status"], 422, "no body of this kind is a list");
    }

    #[tokio::test]
    async fn bad_parameters_are_named_with_what_was_expected() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[allow(dead_code, reason = "only read by serde")]
        struct Ask {
            from: i64,
            #[serde(default)]
            dry_run: bool,
        }
        let read = async |query: &str| {
            let request = http::Request::builder().uri(format!("/x?{query}")).body(()).unwrap();
            let (mut parts, ()) = request.into_parts();
            Params::<Ask>::from_request_parts(&mut parts, &()).await
        };
        for (query, pointer, expected) in [
            ("from=x", "?from", json!("a whole number in its bounds")),
            ("from=99999999999999999999", "?from", json!("a whole number in its bounds")),
            ("", "?from", Value::Null),
            ("from=1&from=2", "?from", Value::Null),
            ("from=1&dry_run=maybe", "?dry_run", json!("`true` or `false`")),
        ] {
            let problem = read(query).await.expect_err("refused").to_json();
            let error = &problem["errors"][0];
            assert_eq!(
                (&error["pointer"], &error["expected"]),
                (&json!(pointer), &expected),
                "{query}: {error}"
            );
            let detail = error["detail"].as_str().unwrap();
            assert!(!detail.is_empty() && !detail.contains("deserialize"), "{query}: {detail}");
        }
        let both = read("reason=because&from=1&dry_run=true").await.expect("the reason is read elsewhere").0;
        assert!(both.dry_run && both.from == 1);
    }

    #[test]
    fn a_key_that_is_given_twice_is_refused_wherever_it_is() {
        let place = |text: &str| match json::<Value>(text.as_bytes()) {
            Ok(_) => None,
            Err(problem) => {
                assert_eq!(problem.status(), 422);
                Some(problem.to_json()["errors"][0]["pointer"].as_str().unwrap().to_owned())
            }
        };
        assert_eq!(place(r#"{"a": 1, "b": {"a": [{"a": null}, {"a": 1.5}]}, "c": -1}"#), None);
        assert_eq!(place(r#"{"a": 1, "a": 1}"#).as_deref(), Some("/a"));
        assert_eq!(place(r#"{"a": 1, "\u0061": 2}"#).as_deref(), Some("/a"), "the same, written otherwise");
        assert_eq!(place(r#"{"x": [true, {"y/z": {"k": "", "k": ""}}]}"#).as_deref(), Some("/x/1/y~1z/k"));
    }

    #[test]
    fn what_is_too_long_ends_after_a_word() {
        assert_eq!(shown("as it\u{7} is"), "as it is");
        let long = "`deadline`, ".repeat(40);
        let cut = shown(&long);
        assert!(cut.ends_with("`deadline`…") && cut.chars().count() <= MAX_SHOWN + 1, "{cut}");
        assert_eq!(shown(&"x".repeat(MAX_SHOWN + 1)), format!("{}…", "x".repeat(MAX_SHOWN)));
        assert_eq!(shown(&"x".repeat(MAX_SHOWN)), "x".repeat(MAX_SHOWN));
    }

    #[test]
    fn nul_characters_are_refused_where_they_are() {
        let nul = problem(r#"{"name": "a\u0000b", "roles": []}"#);
        assert_eq!((&nul["status"], &nul["errors"][0]["pointer"]), (&json!(422), &json!("/name")));
        assert!(json::<Body>(br#"{"name": "a\\u0000b", "roles": []}"#).is_ok(), "an escaped backslash");
    }
}
