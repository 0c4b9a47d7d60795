//! Shares, and on which side of a canary a caller is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Places on the scale: a share is exact to a hundredth of a per cent.
const SCALE: u16 = 10_000;
/// Ids that are tried for a canary of replicas.
const TRIES: usize = 10_000;

/// A part of all callers or replicas, in hundredths of a per cent: `10%`, `0.25%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Share(u16);

impl Share {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// From hundredths of a per cent; `None` above 100 %.
    pub fn from_basis_points(points: u32) -> Option<Self> {
        u16::try_from(points).ok().filter(|points| *points <= SCALE).map(Self)
    }

    /// In hundredths of a per cent.
    pub fn basis_points(self) -> u32 {
        u32::from(self.0)
    }

    /// As a fraction of one.
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / f64::from(SCALE)
    }

    fn holds(self, place: u16) -> bool {
        place < self.0
    }

    /// How many of `count` that is: at least one and not all, so that there is something to compare.
    fn of(self, count: usize) -> usize {
        let exact = (self.fraction() * count as f64).round() as usize;
        exact.clamp(1, count.saturating_sub(1).max(1))
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no share: expected 0.01% to 100%, such as 10% or 0.5%");
        let number = text.strip_suffix('%').ok_or_else(wrong)?.trim();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(());
        digits(whole).and(digits(part)).filter(|()| whole.len() <= 3 && part.len() <= 2).ok_or_else(wrong)?;
        let part = format!("{part:0<2}");
        let points =
            whole.parse::<u32>().map_err(|_| wrong())? * 100 + part.parse::<u32>().map_err(|_| wrong())?;
        Self::from_basis_points(points).filter(|share| *share != Self::NONE).ok_or_else(wrong)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl TryFrom<String> for Share {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Share> for String {
    fn from(share: Share) -> Self {
        share.to_string()
    }
}

/// Which revision somebody is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The head.
    Base,
    /// The revision that is tried.
    Candidate,
}

impl Side {
    /// Both.
    pub const ALL: [Side; 2] = [Side::Base, Side::Candidate];

    /// The name in tables, answers and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Base => "base",
            Side::Candidate => "candidate",
        }
    }
}

/// What the share is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Callers.
    Principals,
    /// Processes that serve.
    Replicas,
}

impl Kind {
    /// The name in tables and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Principals => "principals",
            Kind::Replicas => "replicas",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Kind::Principals, Kind::Replicas].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Says on which side a caller is. The answer for a caller changes when the share does, and at the end; never else.
#[derive(Clone)]
pub struct Chooser {
    place: Place,
    before: Share,
    share: Share,
    from_ms: u64,
    until_ms: u64,
}

#[derive(Clone)]
enum Place {
    /// All callers of this replica have the same one.
    Fixed(u16),
    /// The hash so far: what the caller's id is added to.
    Hashed(Sha256),
}

impl fmt::Debug for Chooser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chooser({} → {} at {}, until {})", self.before, self.share, self.from_ms, self.until_ms)
    }
}

impl Chooser {
    /// Chooses by caller.
    pub fn principals(canary: Uuid, tenant: &str, share: Share) -> Self {
        let seed = Sha256::new().chain_update(b"tollgate canary\0").chain_update(canary.as_bytes());
        // Names of tenants have no NUL: what follows cannot be taken for a part of one.
        Self::new(Place::Hashed(seed.chain_update(tenant).chain_update([0])), share)
    }

    /// Chooses by replica: `replica` is this one's name, which stays the same over restarts.
    pub fn replica(canary: Uuid, replica: &str, share: Share) -> Self {
        Self::new(Place::Fixed(replica_place(canary, replica)), share)
    }

    fn new(place: Place, share: Share) -> Self {
        Self { place, before: Share::NONE, share, from_ms: 0, until_ms: u64::MAX }
    }

    /// Before this time, in milliseconds since the Unix epoch, another share holds. All replicas know of a share before it
    /// holds, and so change at once.
    #[must_use]
    pub fn from(self, from_ms: u64, before: Share) -> Self {
        Self { from_ms, before, ..self }
    }

    /// From this time on everybody is served the base: a replica that cannot ask the store ends a canary by itself.
    #[must_use]
    pub fn until(self, until_ms: u64) -> Self {
        Self { until_ms, ..self }
    }

    /// The side of a caller. No lock, no allocation; a SHA-256 of a block or two.
    pub fn side(&self, principal: &str, now_ms: u64) -> Side {
        let share = match now_ms {
            now if now >= self.until_ms => return Side::Base,
            now if now >= self.from_ms => self.share,
            _ => self.before,
        };
        let place = match &self.place {
            Place::Fixed(place) => *place,
            Place::Hashed(seed) => place(seed.clone().chain_update(principal).finalize().into()),
        };
        if share.holds(place) { Side::Candidate } else { Side::Base }
    }
}

fn place(digest: [u8; 32]) -> u16 {
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // Multiplied instead of divided: no bias, and below the scale by construction.
    ((u128::from(u64::from_be_bytes([a, b, c, d, e, f, g, h])) * u128::from(SCALE)) >> 64) as u16
}

fn replica_place(canary: Uuid, replica: &str) -> u16 {
    let digest = Sha256::new().chain_update(b"tollgate canary replica\0").chain_update(canary.as_bytes());
    place(digest.chain_update(replica).finalize().into())
}

/// The choice of an id for a canary of replicas.
pub struct Replicas;

impl Replicas {
    /// An id under which the share of these replicas is on the candidate's side: at least one and not all. A hash alone
    /// would leave that to luck when there are few.
    ///
    /// `None`: there are fewer than two, or no id was found.
    pub fn choose(replicas: &[String], share: Share, mut fresh: impl FnMut() -> Uuid) -> Option<Uuid> {
        if replicas.len() < 2 {
            return None;
        }
        let wanted = share.of(replicas.len());
        (0..TRIES)
            .map(|_| fresh())
            .find(|id| replicas.iter().filter(|name| share.holds(replica_place(*id, name))).count() == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(text: &str) -> Share {
        text.parse().unwrap()
    }

    fn names(count: u32) -> Vec<String> {
        (0..count).map(|n| format!("corp|user-{n}")).collect()
    }

    #[test]
    fn shares_read_what_they_write_and_nothing_else() {
        for text in ["1%", "10%", "100%", "0.5%", "0.01%", "12.34%", "99.9%"] {
            assert_eq!(share(text).to_string(), text);
        }
        assert_eq!(share("2.50%").to_string(), "2.5%");
        for text in
            ["", "%", "10", "0%", "0.00%", "100.01%", "101%", "1.234%", "-1%", "1e1%", "1.%", ".5%", "٣%"]
        {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_caller_has_one_side_wherever_and_whenever_it_is_asked() {
        let id = Uuid::from_u128(7);
        let (here, there) =
            (Chooser::principals(id, "a", share("30%")), Chooser::principals(id, "a", share("30%")));
        for name in names(2_000) {
            let side = here.side(&name, 1);
            assert!((0..3).all(|now| there.side(&name, now * 1_000_000) == side), "{name}");
        }
    }

    #[test]
    fn a_larger_share_only_moves_callers_to_the_candidate() {
        let id = Uuid::from_u128(11);
        let mut before: Vec<String> = Vec::new();
        for percent in 1..=100u32 {
            let chooser = Chooser::principals(id, "a", Share::from_basis_points(percent * 100).unwrap());
            let on = |name: &String| chooser.side(name, 0) == Side::Candidate;
            assert!(before.iter().all(&on), "somebody moved back at {percent}%");
            before = names(3_000).into_iter().filter(|name| on(name)).collect();
        }
        assert_eq!(before.len(), 3_000, "100% are all");
    }

    #[test]
    fn the_candidate_has_its_share_of_callers() {
        for (seed, percent) in [(1u128, 1u32), (2, 10), (3, 25), (4, 50), (5, 90)] {
            let chooser = Chooser::principals(
                Uuid::from_u128(seed),
                "acme",
                Share::from_basis_points(percent * 100).unwrap(),
            );
            let all = 20_000;
            let on = names(all).iter().filter(|n| chooser.side(n, 0) == Side::Candidate).count() as f64;
            let (n, p) = (f64::from(all), f64::from(percent) / 100.0);
            // Five standard deviations.
            assert!((on - n * p).abs() < 5.0 * (n * p * (1.0 - p)).sqrt(), "{percent}%: {on} of {all}");
        }
    }

    #[test]
    fn canaries_and_tenants_choose_other_callers() {
        let sides = |id: u128, tenant: &str| {
            let chooser = Chooser::principals(Uuid::from_u128(id), tenant, share("50%"));
            names(200).iter().map(|name| chooser.side(name, 0)).collect::<Vec<_>>()
        };
        assert_ne!(sides(1, "a"), sides(2, "a"), "the same callers would be tried on every time");
        assert_ne!(sides(1, "a"), sides(1, "b"));
    }

    #[test]
    fn a_share_holds_from_its_time_until_the_end() {
        let chooser =
            Chooser::principals(Uuid::from_u128(3), "a", share("100%")).from(10, Share::NONE).until(20);
        let sides: Vec<Side> = [9, 10, 19, 20].iter().map(|now| chooser.side("corp|ada", *now)).collect();
        assert_eq!(sides, [Side::Base, Side::Candidate, Side::Candidate, Side::Base]);
        let grown = Chooser::principals(Uuid::from_u128(3), "a", share("100%")).from(10, share("100%"));
        assert_eq!(grown.side("corp|ada", 0), Side::Candidate, "the share before holds until then");
    }

    #[test]
    fn of_few_replicas_the_share_is_chosen_and_never_all_or_none() {
        let names = |n: usize| (0..n).map(|i| format!("replica-{i}")).collect::<Vec<_>>();
        let mut next = 0u128;
        for (count, text, wanted) in
            [(2, "50%", 1), (2, "1%", 1), (3, "34%", 1), (4, "50%", 2), (5, "100%", 4)]
        {
            let replicas = names(count);
            let fresh = || {
                next += 1;
                Uuid::from_u128(next)
            };
            let Some(id) = Replicas::choose(&replicas, share(text), fresh) else {
                // A share of 100% holds every place: no id leaves one out.
                assert_eq!(text, "100%");
                continue;
            };
            let on = |name: &&String| {
                Chooser::replica(id, name, share(text)).side("anybody", 0) == Side::Candidate
            };
            assert_eq!(replicas.iter().filter(on).count(), wanted, "{count} replicas, {text}");
        }
        assert!(Replicas::choose(&names(1), share("50%"), Uuid::nil).is_none());
    }
}
