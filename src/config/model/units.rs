//! Values with units: durations, sizes, rates and shares.
//!
//! Each is parsed from text like `10s`, `4MiB`, `200/m`, `20%`. A bare number is refused, because the reader of a
//! document should never have to guess its unit. `Display` writes the shortest text that parses back to the same value.

use std::fmt;
use std::str::FromStr;

use super::text::{BadText, text_value};

/// The longest duration accepted: 366 days. Longer ones are typing errors.
const MAX_PERIOD_MS: u64 = 366 * 86_400_000;

/// The largest size accepted: 1 TiB.
const MAX_SIZE: u64 = 1 << 40;

/// The highest rate count accepted: one thousand million per unit.
const MAX_RATE_COUNT: u64 = 1_000_000_000;

/// A duration such as `250ms`, `10s`, `5m`, `12h` or `30d`. Whole milliseconds, at most 366 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period(std::time::Duration);

impl Period {
    /// A period of whole milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Self(std::time::Duration::from_millis(ms))
    }

    /// A period of whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// The duration as the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Period> for std::time::Duration {
    fn from(period: Period) -> Self {
        period.0
    }
}

/// A number of bytes such as `512B`, `64KiB`, `4MiB` or `1GiB`. Powers of 1024 only, at most 1 TiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// A size in bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A size in KiB.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// A size in MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// So many per time unit, such as `10/s`, `200/m`, `1000/h` or `5000/d`. The count is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u64,
    unit: RateUnit,
}

impl Rate {
    /// So many per minute; `count` of 0 is taken as 1.
    pub const fn per_minute(count: u64) -> Self {
        Self { count: if count == 0 { 1 } else { count }, unit: RateUnit::Minute }
    }

    /// So many per second; `count` of 0 is taken as 1.
    pub const fn per_second(count: u64) -> Self {
        Self { count: if count == 0 { 1 } else { count }, unit: RateUnit::Second }
    }

    /// How many are granted per [`Rate::per`]. Never 0.
    pub const fn count(self) -> u64 {
        self.count
    }

    /// The time in which [`Rate::count`] are granted: a second, a minute, an hour or a day.
    pub const fn per(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.unit.secs())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum RateUnit {
    Second,
    Minute,
    Hour,
    Day,
}

impl RateUnit {
    const fn secs(self) -> u64 {
        match self {
            RateUnit::Second => 1,
            RateUnit::Minute => 60,
            RateUnit::Hour => 3_600,
            RateUnit::Day => 86_400,
        }
    }
}

/// A share such as `20%` or `0.5%`: from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Percent(f64);

impl Percent {
    /// A share of 100; values outside 0..=100 are clamped.
    pub const fn new(percent: f64) -> Self {
        Self(percent.clamp(0.0, 100.0))
    }

    /// The share of 100.
    pub const fn percent(self) -> f64 {
        self.0
    }

    /// The share of 1.
    pub fn fraction(self) -> f64 {
        self.0 / 100.0
    }
}

impl FromStr for Period {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad =
            || BadText::expected("a duration with a unit, such as `250ms`, `10s`, `5m`, `12h` or `30d`");
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        let factor = match unit {
            "ms" => 1.0,
            "s" => 1_000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            "" => return Err(bad().hint(format!("write `{text}s` for seconds"))),
            "min" | "mins" | "minutes" => return Err(bad().hint(format!("write `{number}m`"))),
            "sec" | "secs" | "seconds" => return Err(bad().hint(format!("write `{number}s`"))),
            "hour" | "hours" => return Err(bad().hint(format!("write `{number}h`"))),
            "day" | "days" => return Err(bad().hint(format!("write `{number}d`"))),
            _ => return Err(bad()),
        };
        let ms = number * factor;
        if ms > MAX_PERIOD_MS as f64 {
            return Err(BadText::expected("a duration of at most `366d`"));
        }
        if ms.fract() != 0.0 {
            return Err(BadText::expected("a duration of whole milliseconds"));
        }
        Ok(Self::from_millis(ms as u64))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis() as u64;
        let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        match units.into_iter().find(|(_, size)| ms >= *size && ms.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", ms / size),
            None if ms == 0 => f.write_str("0s"),
            None => write!(f, "{ms}ms"),
        }
    }
}

impl FromStr for Size {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::expected("a size with a unit, such as `512B`, `64KiB`, `4MiB` or `1GiB`");
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        let factor = match unit {
            "B" => 1u64,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "" => return Err(bad().hint(format!("write `{text}B` for bytes"))),
            _ => {
                // `4MB` is ambiguous (10⁶ or 2²⁰), so it is answered with the unambiguous spelling, not accepted.
                let spelled = match unit.to_ascii_lowercase().as_str() {
                    "b" => "B",
                    "k" | "kb" | "kib" => "KiB",
                    "m" | "mb" | "mib" => "MiB",
                    "g" | "gb" | "gib" => "GiB",
                    _ => return Err(bad()),
                };
                return Err(bad().hint(format!("write `{number}{spelled}`")));
            }
        };
        let bytes = number * factor as f64;
        if bytes > MAX_SIZE as f64 {
            return Err(BadText::expected("a size of at most `1024GiB`"));
        }
        if bytes.fract() != 0.0 {
            return Err(BadText::expected("a size of whole bytes"));
        }
        Ok(Self(bytes as u64))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((unit, size)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl FromStr for Rate {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::expected("a rate such as `10/s`, `200/m`, `1000/h` or `5000/d`");
        let Some((count, unit)) = text.split_once('/') else {
            let numeric = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            return Err(if numeric { bad().hint(format!("write `{text}/m` for per minute")) } else { bad() });
        };
        let count: u64 = count.trim().parse().map_err(|_| bad())?;
        let unit = match unit.trim() {
            "s" => RateUnit::Second,
            "m" => RateUnit::Minute,
            "h" => RateUnit::Hour,
            "d" => RateUnit::Day,
            "sec" | "second" => return Err(bad().hint(format!("write `{count}/s`"))),
            "min" | "minute" => return Err(bad().hint(format!("write `{count}/m`"))),
            "hour" => return Err(bad().hint(format!("write `{count}/h`"))),
            "day" => return Err(bad().hint(format!("write `{count}/d`"))),
            _ => return Err(bad()),
        };
        if count == 0 || count > MAX_RATE_COUNT {
            return Err(BadText::expected("a rate of 1 to 1000000000 per unit")
                .hint("to refuse everything, deny it in a policy".to_owned()));
        }
        Ok(Self { count, unit })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "m",
            RateUnit::Hour => "h",
            RateUnit::Day => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl FromStr for Percent {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = || BadText::expected("a share from `0%` to `100%`");
        let (number, unit) = split_number(text).ok_or_else(bad)?;
        match unit {
            "%" if number <= 100.0 => Ok(Self(number)),
            "" => Err(bad().hint(format!("write `{text}%`"))),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// Splits `12.5MiB` into the number and the unit. No sign, no exponent, at most 18 digits.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let end = text.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() || number.len() > 18 || number.starts_with('.') || number.ends_with('.') {
        return None;
    }
    number.parse().ok().map(|n| (n, unit.trim()))
}

text_value!(Period, "tollgate-duration", r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$");
text_value!(Size, "tollgate-size", r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$");
text_value!(Rate, "tollgate-rate", r"^[1-9][0-9]*/(s|m|h|d)$");
text_value!(Percent, "tollgate-percent", r"^[0-9]+(\.[0-9]+)?%$");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_parse_to_their_base() {
        assert_eq!("1.5s".parse(), Ok(Period::from_millis(1500)));
        assert_eq!("30d".parse(), Ok(Period::from_secs(30 * 86_400)));
        assert_eq!("4MiB".parse(), Ok(Size::from_mib(4)));
        let rate: Rate = "200/m".parse().unwrap();
        assert_eq!((rate.count(), rate.per().as_secs()), (200, 60));
        assert_eq!("2.5%".parse::<Percent>().unwrap().fraction(), 0.025);
    }

    #[test]
    fn bare_numbers_are_refused_with_a_spelling() {
        assert_eq!("10".parse::<Period>().unwrap_err().hint.unwrap(), "write `10s` for seconds");
        assert_eq!("4096".parse::<Size>().unwrap_err().hint.unwrap(), "write `4096B` for bytes");
        assert_eq!("200".parse::<Rate>().unwrap_err().hint.unwrap(), "write `200/m` for per minute");
        assert_eq!("20".parse::<Percent>().unwrap_err().hint.unwrap(), "write `20%`");
    }

    #[test]
    fn ambiguous_units_are_refused_with_a_spelling() {
        assert_eq!("4MB".parse::<Size>().unwrap_err().hint.unwrap(), "write `4MiB`");
        assert_eq!("5min".parse::<Period>().unwrap_err().hint.unwrap(), "write `5m`");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "s", "-1s", "1e3s", ".5s", "5.s", "400d", "0.1ms", "1 2s", "9".repeat(400).as_str()]
        {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
        for text in ["0/m", "1/fortnight", "/s", "1.5/s", "99999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
        assert!("101%".parse::<Percent>().is_err());
    }

    proptest! {
        #[test]
        fn display_parses_back(ms in 0u64..MAX_PERIOD_MS, bytes in 0u64..MAX_SIZE, count in 1u64..MAX_RATE_COUNT) {
            let period = Period::from_millis(ms);
            prop_assert_eq!(period.to_string().parse(), Ok(period));
            let size = Size::from_bytes(bytes);
            prop_assert_eq!(size.to_string().parse(), Ok(size));
            let rate = Rate::per_minute(count);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Period>();
            let _ = text.parse::<Size>();
            let _ = text.parse::<Rate>();
            let _ = text.parse::<Percent>();
        }
    }
}
