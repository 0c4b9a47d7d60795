//! Where documents and identities come from: a file that is watched, or the store that is followed.
//!
//! - [`watch`] tells when files change.
//! - [`database`] follows the heads of the store and puts what moved in force through [`Serve`]; [`cache`] keeps the last
//!   good documents on disk; [`replica`] tells the store what this process serves, and how far all processes are.
//! - [`publish`] is the way into the store: compiled first, compared and swapped.
//! - [`canary`] tries a revision on a share of callers or replicas before it becomes the head.
//! - [`identity`] follows the feed of users, keys, revocations and roles.

mod board;
pub mod cache;
pub mod canary;
mod change;
pub mod database;
mod durable;
pub mod identity;
pub mod publish;
pub mod replica;
mod revisions;
mod secrets;
pub mod stored;
pub mod watch;

pub use board::Served;
pub use cache::Cache;
pub use database::{BeginError, Begun, Follower};
pub use identity::{Feed, FeedSettings, Registries};
pub use publish::{Change, Failed, PublishError, Published, Publisher};
pub use replica::{Convergence, Identity, Member, Position};
pub use stored::{Refusal, SecretValues, Serve, Stored};
pub use watch::FileWatch;
