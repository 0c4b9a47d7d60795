//! The control API of a whole gateway.

mod generated;
mod listeners;
