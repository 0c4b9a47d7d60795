//! What leads back to one target: the session id of a legacy request, `requestState` and task ids of a modern one.

use std::ops::Range;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use sha2::{Digest as _, Sha256};

use crate::gateway::observe::Observation;
use crate::gateway::respond::Failure;
use crate::gateway::serve::Caller;
use crate::gateway::{Gateway, Stop, headers};
use crate::mcp::header;
use crate::mcp::rewrite::quote;
use crate::mcp::scan::Message;
use crate::mcp::session::{Record, RequestState, SessionToken, TokenBuf, open_task};
use crate::mcp::version::Version;
use crate::telemetry::SessionHash;
use crate::upstream::TargetRef;

/// A legacy session that the request belongs to.
pub(crate) struct Session {
    pub(crate) record: Arc<Record>,
    pub(crate) target: Option<TargetRef>,
    pub(crate) upstream: Option<HeaderValue>,
}

/// What is known before the body's era is: whether the request presents a session id, and whether it opens.
pub(crate) enum Presented {
    Nothing,
    Session(Session),
    Unknown,
}

impl Presented {
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Presented::Session(session) => Some(session.record.version()),
            _ => None,
        }
    }

    /// For a legacy request: an id that does not open is 404, whatever is wrong with it.
    pub(crate) fn require(self) -> Result<Option<Session>, Stop> {
        match self {
            Presented::Nothing => Ok(None),
            Presented::Session(session) => Ok(Some(session)),
            Presented::Unknown => Err(Failure::unknown_session().into()),
        }
    }
}

/// What was found inside sealed handles.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) edits: Vec<(Range<usize>, Vec<u8>)>,
    pub(crate) target: Option<(TargetRef, &'static str)>,
    pub(crate) name_header: Option<HeaderValue>,
    pub(crate) known_tasks: Vec<(String, String)>,
}

impl Gateway {
    /// Opens the session id that a request presents, if it does.
    pub(crate) fn presented(
        &self,
        seen: &mut Observation<'_>,
        request: &HeaderMap,
        caller: &Caller,
    ) -> Presented {
        if !request.contains_key(&header::SESSION_ID) {
            return Presented::Nothing;
        }
        let Some(id) = headers::single(request, &header::SESSION_ID) else { return Presented::Unknown };
        let digest = Sha256::digest(id).into();
        seen.session = Some(SessionHash::of_digest(&digest));
        let ring = self.parts.keys.load();
        let (now, max_age) = (self.parts.clock.unix_secs(), self.parts.session_max_age);
        let binding = caller.binding();
        let opened = match self.opened.get(&digest, &ring, binding, now, max_age) {
            Some(opened) => opened,
            None => {
                let mut buffer = TokenBuf::default();
                match SessionToken::open(&ring, binding, id, now, max_age, &mut buffer) {
                    Ok(token) => self.opened.insert(digest, ring.clone(), binding, &token),
                    Err(_) => return Presented::Unknown,
                }
            }
        };
        let Ok(record) = self.parts.sessions.touch(&opened.token(), binding) else {
            return Presented::Unknown;
        };
        Presented::Session(Session {
            record,
            target: opened.target.clone(),
            upstream: opened.upstream.clone(),
        })
    }

    /// Unseals what leads back to a target, and what it says there.
    pub(crate) fn open_handles(&self, caller: &Caller, message: &Message<'_>) -> Result<Opened, Stop> {
        let params = &message.params;
        let mut opened = Opened::default();
        let is_task = message.method_name().starts_with("tasks/");
        if params.request_state.is_none()
            && params.task_ids.is_empty()
            && !(is_task && params.task_id.is_some())
        {
            return Ok(opened);
        }
        let ring = self.parts.keys.load();
        let mut buffer = Vec::new();
        if let Some(state) = &params.request_state {
            let subject = params.name.as_deref().or(params.uri.as_deref());
            let now = self.parts.clock.unix_secs();
            let request = (message.method_name(), subject);
            let found = RequestState::open(&ring, caller.binding(), state, request, now, &mut buffer)
                .map_err(|e| Failure::bad_handle("requestState").detail(e.to_string()))?;
            opened.edits.push((state.range(), quote(found.state.unwrap_or_default()).into_bytes()));
            opened.target = found.target.map(|t| (TargetRef::from_text(t), "requestState"));
        }
        let task = params.task_id.iter().filter(|_| is_task);
        for (is_name, id) in task.map(|id| (true, id)).chain(params.task_ids.iter().map(|id| (false, id))) {
            let found = match open_task(&ring, caller.binding(), id, &mut buffer) {
                Ok(found) => found,
                // The server decides what is wrong with the request first: the method, a capability, or the task. An id
                // that we did not seal must not reach it as it is, or it would name the task of somebody else.
                Err(_) if is_name => {
                    let nobody = format!("unknown-{}", SessionHash::of(id.as_bytes()));
                    opened.edits.push((id.range(), quote(&nobody).into_bytes()));
                    opened.name_header = Some(header::encode_value(&nobody));
                    opened.known_tasks.push((nobody, id.as_str().to_owned()));
                    continue;
                }
                Err(e) => return Err(Failure::bad_handle("taskId").detail(e.to_string()).into()),
            };
            let target = TargetRef::from_text(found.target);
            if opened.target.as_ref().is_some_and(|(other, _)| *other != target) {
                return Err(Failure::scattered_tasks().into());
            }
            opened.edits.push((id.range(), quote(found.id).into_bytes()));
            opened.known_tasks.push((found.id.to_owned(), id.as_str().to_owned()));
            if is_name {
                opened.name_header = Some(header::encode_value(found.id));
            }
            opened.target = Some((target, "taskId"));
        }
        Ok(opened)
    }
}
