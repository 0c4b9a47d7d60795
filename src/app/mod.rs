//! Wires everything into a process: runtimes, listeners, background work, reload, shutdown.
//!
//! [`Process::start`] does what `tollgate serve` does, in the caller's process and on its own runtimes: tests and the
//! binary take the same way. Two runtimes: *data* carries MCP traffic and nothing else; *control* has the admin
//! listener, probes, refreshes, reloads and logs.

mod admin;
mod certificates;
mod gauges;
mod handover;
mod keys;
mod metrics;
mod parts;
mod preview;
mod process;
mod reload;
mod settings;
mod signals;

pub use handover::{HandoverError, Inherited, receive as take_over};
pub use preview::{Checked, check, compile_only, preview};
pub use process::{Document, Environment, Options, Process, StartError};
pub use reload::hooks;
pub use signals::run;
