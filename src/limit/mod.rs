//! (limit)
