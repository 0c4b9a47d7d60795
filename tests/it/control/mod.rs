//! The control API of a whole gateway, and of a control plane alone.

mod attack;
mod bounds;
mod bulk;
mod canary;
mod conditional;
mod contention;
mod custom_roles;
mod documents;
mod evidence;
mod generated;
mod history;
mod identity;
mod listeners;
mod lists;
mod objects;
mod parameters;
mod plane;
mod pointers;
mod secrets;
mod trail;
mod words;
