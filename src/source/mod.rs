//! Where documents come from. Today: a file, watched.

pub mod watch;

pub use watch::FileWatch;
