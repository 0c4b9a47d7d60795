//! Lists of records in a text: JSON lines (one object in each line) or a YAML/JSON sequence, with the line of each error.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_saphyr::Spanned;

/// The largest text, in bytes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1024 * 1024;
/// How many errors are reported of one text.
pub(crate) const MAX_ERRORS: usize = 100;

/// An error in one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct LineError {
    /// The line, from 1; of records that came without a text, their position.
    pub line: usize,
    /// What is wrong. Holds no secret.
    pub problem: String,
}

/// Parses every record of a text. Nothing is skipped: one bad record fails the list, and all errors are reported.
///
/// A text whose first character that is not blank or comment is `{` is read as JSON lines, everything else as YAML.
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>, Vec<LineError>> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(vec![LineError { line: 1, problem: format!("larger than {MAX_TEXT_BYTES} bytes") }]);
    }
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
    match first {
        None => Ok(Vec::new()),
        Some(line) if line.starts_with('{') => json_lines(text),
        Some(_) => yaml(text),
    }
}

/// Builds something from each record, collecting the errors.
pub(crate) fn build<T, U>(
    records: impl IntoIterator<Item = (usize, T)>,
    mut each: impl FnMut(T) -> Result<U, String>,
) -> Result<Vec<(usize, U)>, Vec<LineError>> {
    let mut built = Vec::new();
    let mut errors = Vec::new();
    for (line, record) in records {
        match each(record) {
            Ok(done) => built.push((line, done)),
            Err(problem) if errors.len() < MAX_ERRORS => errors.push(LineError { line, problem }),
            Err(_) => {}
        }
    }
    if errors.is_empty() { Ok(built) } else { Err(errors) }
}

fn json_lines<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>, Vec<LineError>> {
    let lines = text.lines().map(str::trim).enumerate().map(|(i, line)| (i + 1, line));
    let records = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    build(records, |line| serde_json::from_str(line).map_err(|e| describe(&e.to_string())))
}

fn yaml<T: DeserializeOwned>(text: &str) -> Result<Vec<(usize, T)>, Vec<LineError>> {
    let records: Vec<Spanned<T>> = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |at| at.line() as usize);
        let rendered = error.to_string();
        vec![LineError { line, problem: describe(rendered.lines().next().unwrap_or_default()) }]
    })?;
    Ok(records.into_iter().map(|record| (record.referenced.line() as usize, record.value)).collect())
}

/// Parsers quote what they found. A hash in a log is no secret, but a whole line is no use either.
fn describe(problem: &str) -> String {
    problem.chars().take(200).collect()
}

/// A moment, in seconds since the Unix epoch. Read from a number of seconds or an RFC 3339 text
/// (`2027-01-31T00:00:00Z`, with any offset).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds since 1970 or a time like 2027-01-31T00:00:00Z")
            }

            fn visit_u64<E: Error>(self, seconds: u64) -> Result<Timestamp, E> {
                Ok(Timestamp(seconds))
            }

            fn visit_i64<E: Error>(self, seconds: i64) -> Result<Timestamp, E> {
                u64::try_from(seconds).map(Timestamp).map_err(|_| E::custom("a time before 1970"))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Timestamp, E> {
                parse_rfc3339(text)
                    .map(Timestamp)
                    .ok_or_else(|| E::custom("expected a time like 2027-01-31T00:00:00Z"))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// RFC 3339, from 1970 on; fractions of a second are dropped.
fn parse_rfc3339(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = bytes.get(range)?;
        digits
            .iter()
            .all(u8::is_ascii_digit)
            .then(|| digits.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|b| any.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    // A leap second is read as the second after it.
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = 19;
    if is(rest, b".") {
        rest += 1;
        let digits = bytes[rest..].iter().take_while(|b| b.is_ascii_digit()).count();
        if digits == 0 {
            return None;
        }
        rest += digits;
    }
    let offset = match bytes.get(rest..)? {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(rest + 1..rest + 3)?, number(rest + 4..rest + 6)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = hours * 3600 + minutes * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 in the proleptic Gregorian calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    let days =
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - offset).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        name: String,
        at: Option<Timestamp>,
    }

    fn lines(text: &str) -> Result<Vec<(usize, String)>, Vec<LineError>> {
        parse::<Item>(text).map(|items| items.into_iter().map(|(line, item)| (line, item.name)).collect())
    }

    #[test]
    fn both_forms_give_records_with_their_lines() {
        let json = "# comment\n\n{\"name\":\"a\"}\n{\"name\":\"b\",\"at\":5}\n";
        assert_eq!(lines(json).unwrap(), [(3, "a".into()), (4, "b".into())]);
        let yaml = "# comment\n- name: a\n- name: b\n  at: 2027-01-31T00:00:00Z\n";
        assert_eq!(lines(yaml).unwrap(), [(2, "a".into()), (3, "b".into())]);
        assert_eq!(lines("[{\"name\": \"a\"}]").unwrap().len(), 1);
        assert_eq!(lines("").unwrap(), []);
        assert_eq!(lines("# nothing\n").unwrap(), []);
    }

    #[test]
    fn errors_name_their_line() {
        let errors = lines("{\"name\":\"a\"}\n{\"nam\":\"b\"}\n{\n").unwrap_err();
        assert_eq!(errors.iter().map(|e| e.line).collect::<Vec<_>>(), [2, 3]);
        let errors = lines("- name: a\n- nam: b\n").unwrap_err();
        assert_eq!(errors[0].line, 2, "{errors:?}");
        assert!(lines("name: a").is_err(), "not a sequence");
    }

    #[test]
    fn times_are_read_as_rfc3339() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2027-01-31T00:00:00Z", 1_801_353_600),
            ("2027-01-31T01:00:00.999+01:00", 1_801_353_600),
            ("2026-12-31t23:59:60z", 1_798_761_600),
            ("9999-12-31T23:59:59-23:59", 253_402_300_799 + 86_340),
        ] {
            assert_eq!(parse_rfc3339(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "2027-01-31",
            "2027-02-29T00:00:00Z",
            "2027-13-01T00:00:00Z",
            "2027-01-31T24:00:00Z",
            "2027-01-31T00:00:00",
            "2027-01-31T00:00:00.Z",
            "2027-01-31T00:00:00+1:00",
            "1969-12-31T23:59:59Z",
            "+027-01-31T00:00:00Z",
            "2027-01-31T00:00:00Zx",
        ] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }
}
