//! Canary: who is served a candidate revision, what is counted of both sides, and when that is enough to decide.
//!
//! - [`Chooser`] says on which side a caller is: by a hash of the canary, the tenant and the caller's stable id, the same
//!   on every replica and after every restart, never by request. A larger share only moves callers from the base to the
//!   candidate, because each has one place on a scale of 10,000 and the share is how far the candidate reaches.
//! - [`Counts`] are what one replica counts of both sides, without locks; [`Figures`] are such counts as plain numbers,
//!   which add up over replicas.
//! - [`Rules`] and [`Window`] say when the candidate burns: its errors, refusals or latency against those of the base, over
//!   the last while and over the whole canary, with a least number of calls.
//!
//! Pure: no I/O, no time of its own. Who stores, serves and ends canaries is in `source::canary`.

mod counts;
mod judge;
mod share;

pub use counts::{Counts, Ended, Figures, Sides};
pub use judge::{Rules, RulesError, Window};
pub use share::{Chooser, Kind, Replicas, Share, Side};
