//! Values with a syntax of their own: names, header names, secrets; and the table of all formats.
//!
//! Each carries its JSON Schema `format`; [`check_format`] is how the checker runs the same parser over a document that
//! cannot be deserialized yet, so that the message an operator reads always comes from the parser itself.

use std::fmt;
use std::str::FromStr;

use super::net::{Address, Cidr, HostPattern, HttpUrl, UrlPattern};
use super::units::{Percent, Period, Rate, Size};
use crate::base::Secret;

/// Longest name of a server, route, limit, policy or issuer, in bytes.
pub const MAX_NAME: usize = 63;

/// Why a text is not a value of its kind. Never contains the text itself, which may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct BadText {
    /// What would have been right, as a phrase.
    pub expected: String,
    /// A spelling that would work.
    pub hint: Option<String>,
}

impl BadText {
    /// An error that says what would have been right.
    pub fn expected(expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), hint: None }
    }

    /// Adds a spelling that would work.
    pub fn hint(mut self, hint: String) -> Self {
        self.hint = Some(hint);
        self
    }
}

/// Gives a type that is text in the document its serde and schema sides.
macro_rules! text_value {
    ($name:ident, $format:literal, $pattern:literal) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                // A reference (`${env:NAME}`) stands for the whole value, so editors must accept it as well.
                let pattern = format!("{}|\\$\\{{", $pattern);
                schemars::json_schema!({ "type": "string", "format": $format, "pattern": pattern })
            }
        }
    };
}
pub(crate) use text_value;

/// Runs the parser that belongs to a schema `format`. `None` for formats that are not ours.
pub fn check_format(format: &str, text: &str) -> Option<Result<(), BadText>> {
    fn parse<T: FromStr<Err = BadText>>(text: &str) -> Option<Result<(), BadText>> {
        Some(text.parse::<T>().map(drop))
    }
    match format {
        "tollgate-address" => parse::<Address>(text),
        "tollgate-cidr" => parse::<Cidr>(text),
        "tollgate-duration" => parse::<Period>(text),
        "tollgate-header-name" => parse::<HeaderName>(text),
        "tollgate-host" => parse::<HostPattern>(text),
        "tollgate-name" => parse::<Name>(text),
        "tollgate-percent" => parse::<Percent>(text),
        "tollgate-rate" => parse::<Rate>(text),
        "tollgate-secret" => parse::<SecretText>(text),
        "tollgate-size" => parse::<Size>(text),
        "tollgate-url" => parse::<HttpUrl>(text),
        "tollgate-url-pattern" => parse::<UrlPattern>(text),
        _ => None,
    }
}

/// The name of a server, route, limit, policy or issuer: lower-case letters, digits, `-` and `_`, at most 63 bytes,
/// starting with a letter or digit. It appears in URLs, metrics and logs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = text.len() <= MAX_NAME
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || b == b'-' || b == b'_');
        if valid {
            return Ok(Self(text.to_owned()));
        }
        let bad = BadText::expected("a name of up to 63 lower-case letters, digits, `-` and `_`");
        let spelled: String = text
            .trim()
            .chars()
            .map(|c| c.to_ascii_lowercase())
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' { c } else { '-' })
            .collect();
        let spelled = spelled.trim_matches(|c| c == '-' || c == '_');
        Err(if spelled.is_empty() || spelled.len() > MAX_NAME {
            bad
        } else {
            bad.hint(format!("write `{spelled}`"))
        })
    }
}

/// The name of an HTTP header, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderName(String);

impl HeaderName {
    /// The name in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HeaderName {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        http::HeaderName::from_bytes(text.as_bytes())
            .map(|name| Self(name.as_str().to_owned()))
            .map_err(|_| BadText::expected("a header name such as `x-api-key`"))
    }
}

/// A secret text. Usually a reference, `${env:NAME}` or `${file:/path}`; never shown again once read.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Secret<String>);

impl SecretText {
    /// The secret, still wrapped.
    pub fn secret(&self) -> &Secret<String> {
        &self.0
    }

    /// The secret itself. Call it as late as possible.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl FromStr for SecretText {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        if text.is_empty() {
            return Err(BadText::expected("a secret that is not empty"));
        }
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(BadText::expected("a secret of one line without control characters"));
        }
        Ok(Self(Secret::new(text.to_owned())))
    }
}

impl fmt::Display for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

macro_rules! display_as_str {
    ($($name:ident),*) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}
pub(crate) use display_as_str;
display_as_str!(Name, HeaderName);

text_value!(HeaderName, "tollgate-header-name", r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$");
text_value!(Name, "tollgate-name", r"^[a-z0-9][a-z0-9_-]{0,62}$");
text_value!(SecretText, "tollgate-secret", r".+");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_in_urls_and_metrics() {
        assert!("weather-2".parse::<Name>().is_ok());
        assert_eq!("My Server".parse::<Name>().unwrap_err().hint.unwrap(), "write `my-server`");
        assert!("".parse::<Name>().is_err());
        assert!("a".repeat(64).parse::<Name>().is_err());
    }

    #[test]
    fn secrets_never_print() {
        let secret: SecretText = "hunter2".parse().unwrap();
        assert_eq!(format!("{secret} {secret:?}"), "[redacted] [redacted]");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"[redacted]\"");
    }
}
