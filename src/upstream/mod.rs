//! (upstream)
