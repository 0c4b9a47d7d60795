//! Dates and times of day from seconds since the Unix epoch, in UTC or at a fixed offset.
//!
//! Enough for a clock tool: the proleptic Gregorian calendar, no time zones with rules, no leap seconds.

use std::fmt;

const DAY: i64 = 86_400;
/// The largest offset in use on Earth is +14:00; this is what RFC 3339 can write.
const MAX_OFFSET_MINUTES: i32 = 23 * 60 + 59;

/// Minutes east of UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offset(i32);

impl Offset {
    /// Parses `Z`, `UTC`, `+02`, `+0530` or `-03:30`; `None` if it is nothing of the kind or out of range.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.eq_ignore_ascii_case("z") || text.eq_ignore_ascii_case("utc") {
            return Some(Self(0));
        }
        let (sign, digits) = match text.split_at_checked(1)? {
            ("+", digits) => (1, digits),
            ("-", digits) => (-1, digits),
            _ => return None,
        };
        let (hours, minutes) = match digits.len() {
            2 => (digits, "0"),
            4 => digits.split_at(2),
            5 => digits.split_once(':')?,
            _ => return None,
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let total = hours * 60 + minutes;
        (hours < 24 && minutes < 60 && total <= MAX_OFFSET_MINUTES).then_some(Self(sign * total))
    }
}

/// Decimal digits only: `parse` alone would take a sign.
fn number(digits: &str) -> Option<i32> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("Z");
        }
        let sign = if self.0 < 0 { '-' } else { '+' };
        let minutes = self.0.abs();
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A second, written as RFC 3339 at its offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timestamp {
    pub(super) unix_secs: i64,
    pub(super) offset: Offset,
}

impl Timestamp {
    /// The English name of the weekday at the offset.
    pub(super) fn weekday(&self) -> &'static str {
        // 1970-01-01 was a Thursday.
        const NAMES: [&str; 7] =
            ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
        NAMES[self.local_secs().div_euclid(DAY).rem_euclid(7) as usize]
    }

    fn local_secs(&self) -> i64 {
        self.unix_secs + i64::from(self.offset.0) * 60
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let local = self.local_secs();
        let (year, month, day) = date(local.div_euclid(DAY));
        let second = local.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{}", self.offset)
    }
}

/// Year, month and day of a day counted from 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    /// Days of 400 years, after which the calendar repeats.
    const ERA: i64 = 146_097;
    // Counted from 0000-03-01 the leap day ends the year, and month lengths repeat every five months.
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(unix_secs: i64) -> String {
        Timestamp { unix_secs, offset: Offset::default() }.to_string()
    }

    #[test]
    fn writes_known_moments() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_709_164_799), "2024-02-28T23:59:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(utc(-1), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut previous = date(-200_000);
        for day in -199_999..200_000 {
            let (year, month, dom) = date(day);
            let (before_year, before_month, before_dom) = previous;
            let next_in_month = (year, month, dom) == (before_year, before_month, before_dom + 1);
            let next_month = dom == 1 && (year, month) == (before_year, before_month + 1) && before_dom >= 28;
            let next_year =
                (month, dom) == (1, 1) && year == before_year + 1 && (before_month, before_dom) == (12, 31);
            assert!(next_in_month || next_month || next_year, "{previous:?} then {year}-{month}-{dom}");
            previous = (year, month, dom);
        }
    }

    #[test]
    fn an_offset_moves_the_day_and_its_name() {
        let offset = Offset::parse("+05:30").expect("an offset");
        let late = Timestamp { unix_secs: 20 * 3600, offset };
        assert_eq!(late.to_string(), "1970-01-02T01:30:00+05:30");
        assert_eq!(late.weekday(), "Friday");
        assert_eq!(
            Timestamp { unix_secs: 0, offset: Offset::parse("-03:30").expect("an offset") }.weekday(),
            "Wednesday"
        );
    }

    #[test]
    fn offsets_are_parsed_strictly() {
        for (text, minutes) in
            [("Z", 0), ("utc", 0), ("+02", 120), ("+0530", 330), ("-03:30", -210), ("+23:59", 1439)]
        {
            assert_eq!(Offset::parse(text), Some(Offset(minutes)), "{text}");
        }
        for text in ["", "2", "+2", "+24", "+02:60", "+-2:00", "02:00", "+0 :30", "Berlin", "é1"] {
            assert_eq!(Offset::parse(text), None, "{text}");
        }
    }
}
