//! The bytes of an event stream on their way to the client.

use bytes::Bytes;

use super::Rewrite;
use crate::mcp::sse::{Boundary, Events};

/// Bytes on their way, with or without a look inside.
pub(super) enum Flow {
    Raw(Boundary),
    Parsed(Box<Events>),
}

impl Flow {
    pub(super) fn new(parse: bool, event_limit: usize) -> Self {
        if parse { Flow::Parsed(Box::new(Events::new(event_limit))) } else { Flow::Raw(Boundary::new()) }
    }

    pub(super) fn pass(&mut self, chunk: Bytes, rewrite: Option<&mut dyn Rewrite>) -> Result<Bytes, String> {
        match (self, rewrite) {
            (Flow::Parsed(events), Some(rewrite)) => rewrite_events(events, &chunk, rewrite),
            (Flow::Raw(boundary), _) => {
                boundary.feed(&chunk);
                Ok(chunk)
            }
            (Flow::Parsed(_), None) => Ok(chunk),
        }
    }

    pub(super) fn at_boundary(&self) -> bool {
        match self {
            Flow::Raw(boundary) => boundary.at_event(),
            // What was passed on ends with an event; what is held back is not seen by the client.
            Flow::Parsed(_) => true,
        }
    }

    /// An unfinished event at the end of the stream, as it came.
    pub(super) fn rest(&mut self) -> Bytes {
        match self {
            Flow::Raw(_) => Bytes::new(),
            Flow::Parsed(events) => {
                let tail = std::mem::replace(&mut **events, Events::new(0)).finish();
                match tail.event {
                    Some(event) => event.into_raw(),
                    None => tail.rest,
                }
            }
        }
    }
}

fn rewrite_events(events: &mut Events, chunk: &[u8], rewrite: &mut dyn Rewrite) -> Result<Bytes, String> {
    events.feed(chunk);
    let mut out = Vec::new();
    let mut only = None;
    while let Some(event) = events.next().map_err(|e| e.to_string())? {
        let changed = match event.data() {
            Some(data) if !data.is_empty() => rewrite.message(&data)?,
            _ => None,
        };
        let bytes = match changed {
            Some(changed) => event.with_data(&changed),
            None => event.into_raw(),
        };
        // The usual chunk is one event: no copy.
        match (&only, out.is_empty()) {
            (None, true) => only = Some(bytes),
            (Some(first), true) => {
                out.extend_from_slice(first);
                out.extend_from_slice(&bytes);
            }
            _ => out.extend_from_slice(&bytes),
        }
    }
    Ok(if out.is_empty() { only.unwrap_or_default() } else { out.into() })
}
