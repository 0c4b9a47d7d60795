//! Which target takes a request: affinity first, then the balancer (request path, step 8).

use pingora::http::RequestHeader;

use crate::gateway::respond::Failure;
use crate::gateway::send::{Dispatch, Stay};
use crate::gateway::serve::Caller;
use crate::gateway::step::affinity::Session;
use crate::gateway::{Gateway, Stop};
use crate::snapshot::HashOn;
use crate::telemetry::UpstreamError;
use crate::upstream::{Lease, NoTarget, Pick, Pinned, TargetKey};

impl Gateway {
    /// Step 8: affinity first, then the balancer.
    pub(crate) fn select(
        &self,
        request: &RequestHeader,
        caller: &Caller,
        dispatch: &Dispatch<'_>,
        tried: &[TargetKey],
    ) -> Result<Lease, Stop> {
        let server = &caller.route.server;
        let pinned = match &dispatch.stay {
            Stay::Session(Session { target: Some(target), .. }) => Some((target, None)),
            Stay::Target(target, what) => Some((target, Some(*what))),
            _ => None,
        };
        if let Some((target, handle)) = pinned {
            return server.pinned(target).map_err(|e| {
                caller.route.server_failed(UpstreamError::NoTarget);
                match (e, handle) {
                    (Pinned::Gone, Some(what)) => Failure::bad_handle(what),
                    // A session whose target fails is of no use; a new one finds another target.
                    (_, None) => {
                        if let (Pinned::Gone, Stay::Session(s)) = (e, &dispatch.stay) {
                            self.parts.sessions.close(&caller.route.tenant, s.record.serial());
                        }
                        Failure::unknown_session()
                    }
                    (Pinned::Unavailable { retry_after }, Some(_)) => {
                        Failure::no_target(caller.route.server_id.as_str()).retry_after(retry_after)
                    }
                }
                .detail(e.to_string())
                .into()
            });
        }
        let hash = hash_of(request, caller, dispatch);
        server.pick(Pick { hash, tried }).map_err(|e| {
            caller.route.server_failed(UpstreamError::NoTarget);
            let failure = Failure::no_target(caller.route.server_id.as_str()).detail(e.to_string());
            match e {
                NoTarget::CircuitOpen { retry_after } => failure.retry_after(retry_after),
                _ => failure,
            }
            .into()
        })
    }
}

fn hash_of(request: &RequestHeader, caller: &Caller, dispatch: &Dispatch<'_>) -> Option<u64> {
    let of = |bytes: &[u8]| Some(stable_hash(bytes));
    match caller.route.hash_on.as_ref()? {
        HashOn::Header(name) => request.headers.get(name).and_then(|v| of(v.as_bytes())),
        HashOn::Principal => of(caller.principal().id.as_str().as_bytes()),
        HashOn::Session => match &dispatch.stay {
            Stay::Session(s) => of(&s.record.serial().0.to_le_bytes()),
            _ => None,
        },
    }
}

/// FNV-1a: the same on every replica and in every version, which consistent hashing needs and nothing else here does.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_for_ever() {
        // The offset basis of FNV-1a, and its published value for "a".
        assert_eq!(stable_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_ne!(stable_hash(b"alice"), stable_hash(b"bob"));
    }
}
