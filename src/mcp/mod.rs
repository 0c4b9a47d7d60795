//! Protocol knowledge of the Model Context Protocol, without I/O.
//!
//! What is here decides about bytes and values that somebody else has read: which revision a request speaks
//! ([`classify`]), whether its headers say what its body says ([`header`]), where an event ends ([`sse`]), what an opaque
//! id means and to whom it may mean it ([`seal`], [`session`]). Nothing here opens a socket or a file.
//!
//! **State.** Only [`session::Sessions`] holds any, and it is bounded. Everything else is a pure function or a parser
//! that belongs to one stream.
//!
//! **Failure.** Input comes from the network and is hostile: every parser has a stated bound, none panics, and every
//! error says what the peer did wrong without repeating secrets.

pub mod classify;
pub mod header;
pub mod jsonrpc;
pub mod rewrite;
pub mod scan;
pub mod seal;
pub mod session;
pub mod sse;
pub mod version;
