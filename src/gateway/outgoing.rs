//! The request as the server gets it.

use http::header::{ACCEPT, CONTENT_TYPE, FORWARDED};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::http::RequestHeader;

use crate::base::net::AddressText;
use crate::gateway::exchange::Outgoing;
use crate::gateway::observe::Observation;
use crate::gateway::send::{Dispatch, Stay};
use crate::gateway::step::affinity::Session;
use crate::gateway::{Gateway, headers};
use crate::mcp::version::Era;

const JSON_OR_EVENTS: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

impl Gateway {
    /// The request as the server gets it.
    pub(crate) fn outgoing(
        &self,
        request: &RequestHeader,
        seen: &Observation<'_>,
        dispatch: &Dispatch<'_>,
    ) -> Outgoing {
        let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(request.headers.len() + 8);
        let connection = request.headers.get(http::header::CONNECTION);
        let legacy = seen.era == Some(Era::Legacy);
        for (name, value) in &request.headers {
            // Only the modern era compares these with the body; before, they are whatever the client made up.
            let routing = *name == headers::MCP_NAME || *name == headers::MCP_METHOD;
            let replaced = *name == headers::MCP_NAME && dispatch.name_header.is_some();
            if headers::passes_upstream(name, connection) && !(routing && legacy) && !replaced {
                fields.push((name.clone(), value.clone()));
            }
        }
        let accept = if dispatch.method == Method::GET { EVENTS } else { JSON_OR_EVENTS };
        fields.push((ACCEPT, accept));
        if dispatch.method == Method::POST && !request.headers.contains_key(CONTENT_TYPE) {
            fields.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        if let Some(name) = &dispatch.name_header {
            fields.push((headers::MCP_NAME, name.clone()));
        }
        if let Stay::Session(Session { upstream: Some(id), .. }) = &dispatch.stay
            && legacy
        {
            fields.push((headers::MCP_SESSION_ID, id.clone()));
        }
        let mut id = [0u8; 36];
        fields.push((
            headers::REQUEST_ID,
            pingora::http::header_value_from_slice(seen.request_id.encode(&mut id)),
        ));
        self.forwarded(&request.headers, seen, &mut fields);
        if let Some(context) = seen.trace.upstream() {
            let value = context.to_traceparent();
            if let Ok(value) = HeaderValue::from_str(value.as_str()) {
                fields.push((headers::TRACEPARENT, value));
            }
            if let Some(state) = request.headers.get(&headers::TRACESTATE) {
                fields.push((headers::TRACESTATE, state.clone()));
            }
        }
        Outgoing { method: dispatch.method.clone(), fields, body: dispatch.body.clone() }
    }

    /// Who the client is, in the headers servers know. What the client wrote there itself is gone by now.
    fn forwarded(
        &self,
        request: &HeaderMap,
        seen: &Observation<'_>,
        fields: &mut Vec<(HeaderName, HeaderValue)>,
    ) {
        if let Ok(client) = HeaderValue::from_str(AddressText::new(seen.client).as_str()) {
            fields.push((headers::X_FORWARDED_FOR, client));
        }
        let proto = if self.settings.https { "https" } else { "http" };
        fields.push((headers::X_FORWARDED_PROTO, HeaderValue::from_static(proto)));
        if let Some(host) = request.get(http::header::HOST) {
            fields.push((headers::X_FORWARDED_HOST, host.clone()));
        }
        debug_assert!(fields.iter().all(|(name, _)| *name != FORWARDED), "the client's own is dropped");
    }
}
