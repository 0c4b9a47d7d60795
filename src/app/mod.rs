//! Wires everything into a process: runtimes, listeners, background work, reload, shutdown.
//!
//! [`Process::start`] does what `tollgate serve` does, in the caller's process and on its own runtimes: tests and the
//! binary take the same way. Two runtimes: *data* carries MCP traffic and nothing else; *control* has the admin
//! listener, probes, refreshes, reloads and logs.
//!
//! Where a new part goes: what outlives snapshots into `state`, what others share into `core`, a listener into
//! `listeners`, background work into `tasks`, what operators see into `admin`. `process` only says in which order.

mod admin;
mod audit;
mod authn;
mod canaries;
mod certificates;
mod core;
mod database;
mod demo;
mod documents;
mod error;
mod gauges;
mod handover;
mod health;
mod housekeeping;
mod internal;
mod keys;
mod listeners;
mod live;
mod metrics;
mod occupied;
mod options;
mod parts;
mod preview;
mod process;
mod reload;
mod runtimes;
mod samples;
mod settings;
mod shared_sessions;
mod signals;
mod state;
mod tasks;

pub use audit::{
    Signed as SignedCheckpoints, bodies_exported as audit_bodies_exported, checkpoint, checkpoint_all,
    erase as audit_erase, horizon as audit_horizon, record as audit_record, signing_key,
};
pub use error::StartError;
pub use handover::{HandoverError, Inherited, receive as take_over};
pub use housekeeping::upkeep;
pub use occupied::Occupied;
pub use options::{Document, Environment, Options, Role};
pub use preview::{Checked, check, compile_only, preview};
pub use process::{Process, make_data_dir};
pub use reload::hooks;
pub use signals::run;
