//! Preconditions: nobody overwrites what they have not seen (RFC 9110 §13).
//!
//! The tag of whatever is part of a document is the document's revision, `"r42"`: any edit of the document makes it
//! old, which is what the compare-and-swap on its head means. Rows have a tag of their content.

use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::problem::Problem;

/// Longest precondition header taken, in bytes.
const MAX_HEADER: usize = 1024;

/// What a request says about the state it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    Absent,
    /// `If-Match: *`: any state, but there must be one.
    Exists,
    /// `If-Match` with these tags.
    Match(Vec<String>),
    /// `If-None-Match: *`: there must be none yet.
    New,
}

/// The tag of everything in a document at this revision.
pub fn of_revision(revision: u64) -> String {
    format!("\"r{revision}\"")
}

/// The tag of a row: a digest of what is shown of it.
pub fn of_content(item: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(item).expect("answers serialize");
    let digest = Sha256::digest(bytes);
    let mut tag = String::with_capacity(18);
    tag.push('"');
    digest[..8].iter().for_each(|byte| tag.push_str(&format!("{byte:02x}")));
    tag.push('"');
    tag
}

/// The header for a tag.
pub fn header(tag: &str) -> (HeaderName, HeaderValue) {
    (ETAG, HeaderValue::try_from(tag).expect("tags are quoted ASCII"))
}

impl Precondition {
    /// For operations that need one.
    ///
    /// # Errors
    ///
    /// 428 if there is none.
    pub fn required(self) -> Result<Self, Problem> {
        if self == Precondition::Absent { Err(Problem::precondition_required()) } else { Ok(self) }
    }

    /// Compares with what is there.
    ///
    /// # Errors
    ///
    /// 412 if that is something else than the caller expects.
    pub fn check(&self, current: Option<&str>) -> Result<(), Problem> {
        match (self, current) {
            (Precondition::Absent, _) | (Precondition::Exists, Some(_)) | (Precondition::New, None) => Ok(()),
            (Precondition::Match(tags), Some(current)) if tags.iter().any(|t| t == current) => Ok(()),
            (Precondition::New, Some(current)) => {
                Err(Problem::precondition_failed("it exists already").currently(current))
            }
            (_, None) => Err(Problem::precondition_failed("it does not exist")),
            (_, Some(current)) => {
                let changed = Problem::precondition_failed("it was changed since you read it: read it again");
                Err(changed.currently(current))
            }
        }
    }

    /// The revision that a compare-and-swap expects, if the caller named one.
    ///
    /// # Errors
    ///
    /// 412 for tags that are none of a document.
    pub fn revision(&self) -> Result<Option<u64>, Problem> {
        let Precondition::Match(tags) = self else { return Ok(None) };
        let mut revisions = tags.iter().filter_map(|tag| {
            tag.strip_prefix("\"r")?.strip_suffix('"')?.parse().ok().filter(|n| of_revision(*n) == *tag)
        });
        match (revisions.next(), tags.len()) {
            (Some(revision), 1) => Ok(Some(revision)),
            _ => {
                Err(Problem::precondition_failed("`If-Match` must be one tag of a revision, such as \"r42\""))
            }
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = |name: &HeaderName| -> Result<Option<String>, Problem> {
            let mut text = Vec::new();
            for value in parts.headers.get_all(name) {
                let value = value.to_str().map_err(|_| bad(name))?;
                text.push(value.trim().to_owned());
            }
            Ok((!text.is_empty()).then(|| text.join(",")))
        };
        match (read(&IF_MATCH)?, read(&IF_NONE_MATCH)?) {
            (None, None) => Ok(Precondition::Absent),
            (None, Some(text)) if text == "*" => Ok(Precondition::New),
            (None, Some(_)) => Ok(Precondition::Absent),
            (Some(text), None) if text == "*" => Ok(Precondition::Exists),
            (Some(text), None) => tags(&text).map(Precondition::Match).ok_or_else(|| bad(&IF_MATCH)),
            (Some(_), Some(_)) => {
                Err(Problem::bad_request("`If-Match` and `If-None-Match` exclude each other"))
            }
        }
    }
}

fn bad(name: &HeaderName) -> Problem {
    Problem::bad_request(format!("`{name}` is neither `*` nor a list of quoted tags"))
}

fn tags(text: &str) -> Option<Vec<String>> {
    if text.len() > MAX_HEADER {
        return None;
    }
    text.split(',')
        .map(|tag| {
            // A weak tag never matches here (RFC 9110 §13.1.1), and so is kept as it is.
            let tag = tag.trim();
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let quoted = strong.len() >= 2 && strong.starts_with('"') && strong.ends_with('"');
            (quoted && !strong[1..strong.len() - 1].contains('"')).then(|| tag.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(headers: &[(&str, &str)]) -> Result<Precondition, Problem> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        Precondition::from_request_parts(&mut parts, &()).await
    }

    #[tokio::test]
    async fn headers_become_preconditions() {
        assert_eq!(read(&[]).await.unwrap(), Precondition::Absent);
        assert_eq!(read(&[("if-match", "*")]).await.unwrap(), Precondition::Exists);
        assert_eq!(read(&[("if-none-match", "*")]).await.unwrap(), Precondition::New);
        let both = read(&[("if-match", "\"r1\", \"r2\"")]).await.unwrap();
        assert_eq!(both, Precondition::Match(vec!["\"r1\"".into(), "\"r2\"".into()]));
        for bad in ["r1", "\"", "\"a\"b\"", "", "\"r1\","] {
            assert!(read(&[("if-match", bad)]).await.is_err(), "{bad:?}");
        }
        assert!(read(&[("if-match", "*"), ("if-none-match", "*")]).await.is_err());
    }

    #[test]
    fn only_what_was_seen_may_be_changed() {
        let tag = of_revision(7);
        let seen = Precondition::Match(vec![tag.clone()]);
        assert!(seen.check(Some(&tag)).is_ok());
        assert_eq!(seen.check(Some("\"r8\"")).unwrap_err().status(), 412);
        assert_eq!(seen.check(None).unwrap_err().status(), 412);
        assert_eq!(Precondition::New.check(Some(&tag)).unwrap_err().status(), 412);
        assert_eq!(Precondition::Absent.required().unwrap_err().status(), 428);
        assert_eq!(seen.revision().unwrap(), Some(7));
        assert_eq!(Precondition::Exists.revision().unwrap(), None);
        for odd in ["\"r07\"", "\"7\"", "\"r-1\"", "W/\"r7\"", "\"r99999999999999999999\""] {
            let odd = Precondition::Match(vec![odd.to_owned()]);
            assert_eq!(odd.revision().unwrap_err().status(), 412, "{odd:?}");
            assert!(odd.check(Some(&tag)).is_err());
        }
    }
}
