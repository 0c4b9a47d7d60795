//! Promises of the control plane: replicas that share a store, put to the test as processes of their own.
//!
//! Everything is private to a run and gone with it: a PostgreSQL cluster ([`postgres`]), Valkey or Redis ([`redis`]), gateways
//! ([`replica`]) with servers behind them. Sessions call without end and enter every call into a ledger ([`ledger`]); what
//! the gateway says afterwards, such as its audit, is held against that. Processes are started from the main thread: they
//! end with the thread that started them.

pub mod api;
pub mod callers;
pub mod document;
pub mod ledger;
pub mod postgres;
pub mod redis;
pub mod replica;
