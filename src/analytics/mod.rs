//! Judgements on figures. Pure: no store, no clock, no I/O.

mod score;

pub use score::{Component, Components, Evidence, Grade, Score};
