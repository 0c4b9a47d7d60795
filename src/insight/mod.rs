//! What would happen: questions about configurations instead of requests.
//!
//! - [`proof`] answers for every request there could be: who can call what, what is open to everybody, what one
//!   configuration allows that another does not.
//! - [`whatif`] answers for the requests there were: replays a recorded sample against a candidate.
//!
//! Neither touches what is being served: both look at snapshots that were compiled apart.

pub mod proof;
pub mod whatif;
