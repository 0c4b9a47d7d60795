//! Server-sent events: where they end, what is in them, how they are written (WHATWG HTML §9.2).
//!
//! Three tools for three needs. A relay that only injects pings follows the stream with [`Boundary`], which looks at a few
//! bytes per chunk and copies nothing. Whoever must look into events or change them uses [`Events`], which copies, bounds
//! and splits. What the gateway says itself is written with [`Outgoing`] and [`PING`].
//!
//! Lines end with LF, CRLF or CR, also mixed, and chunks break anywhere, also between CR and LF.

mod boundary;
mod encode;
mod event;
mod events;
#[cfg(test)]
mod tests;

pub use self::boundary::{Boundary, without_bom};
pub use self::encode::{BadField, Outgoing, PING, comment};
pub use self::event::Event;
pub use self::events::{Events, Tail, TooLarge};

const BOM: &[u8] = b"\xef\xbb\xbf";
