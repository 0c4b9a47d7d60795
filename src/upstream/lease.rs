//! The right to send one request to one target, and the duty to say how it went.
//!
//! A [`Lease`] counts as one request in flight from the pick to its end, whatever end that is: [`Lease::finish`]
//! reports an outcome, and dropping the lease reports that the caller went away. It keeps everything the exchange
//! needs alive, so a change of the spec never touches a request under way.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue};
use pingora::upstreams::peer::HttpPeer;

use crate::base::TargetId;
use crate::upstream::circuit::Verdict;
use crate::upstream::spec::Timeouts;
use crate::upstream::target::{Member, TargetKey, TargetRef};

/// What a failure counts as latency, at least: a target that fails fast must not look fast.
const FAILURE_LATENCY: Duration = Duration::from_secs(1);

/// One request in flight. Dropping it without [`Lease::finish`] is [`Outcome::ClientGone`].
#[derive(Debug)]
pub struct Lease {
    member: Arc<Member>,
    started: u64,
    trial: Option<u64>,
    answered: bool,
    settled: bool,
}

/// How a request ended, as far as the target is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The caller went away or the gateway gave up for a reason of its own. Neutral.
    ClientGone,
    /// No connection: refused, unreachable, TLS failed or `connect` ran out.
    ConnectFailed,
    /// The connection broke.
    Reset,
    /// A 5xx that says nothing about the target as a whole.
    Status5xx,
    /// An answer below 500, complete.
    Success,
    /// A deadline of [`Timeouts`] ran out after connecting.
    Timeout,
    /// 502, 503 or 504: the target says that it cannot serve.
    Unavailable,
}

impl Outcome {
    /// What a complete answer with this status means.
    pub fn from_status(status: u16) -> Self {
        match status {
            502..=504 => Outcome::Unavailable,
            500.. => Outcome::Status5xx,
            _ => Outcome::Success,
        }
    }

    /// What an error of the client connector means. `connected`: whether a session had been obtained.
    pub fn from_error(error: &pingora::Error, connected: bool) -> Self {
        use pingora::ErrorType::{ReadTimedout, WriteTimedout};
        match error.etype {
            _ if !connected => Outcome::ConnectFailed,
            ReadTimedout | WriteTimedout => Outcome::Timeout,
            _ => Outcome::Reset,
        }
    }
}

impl Lease {
    pub(crate) fn new(member: Arc<Member>, started: u64, trial: Option<u64>) -> Self {
        Self { member, started, trial, answered: false, settled: false }
    }

    /// Where to connect; prebuilt, without a read timeout.
    pub fn peer(&self) -> &Arc<HttpPeer> {
        &self.member.endpoint.peer
    }

    /// The address, if the target speaks HTTP/1.1 in clear text.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        let spec = self.member.spec();
        (self.member.plain && !spec.h2).then_some(self.member.stats.addr)
    }

    /// How long an unused connection is kept, and how many of them.
    pub fn pool(&self) -> (Duration, usize) {
        let spec = self.member.spec();
        (spec.pool_idle, spec.pool_max_idle)
    }

    /// What to request.
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.member.endpoint.path_and_query
    }

    /// The target's own `Host`.
    pub fn authority(&self) -> &HeaderValue {
        &self.member.endpoint.authority
    }

    /// Headers that authenticate the gateway; marked sensitive.
    pub fn credentials(&self) -> &[(HeaderName, HeaderValue)] {
        &self.member.spec().credentials
    }

    /// What to wait for.
    pub fn timeouts(&self) -> &Timeouts {
        &self.member.spec().timeouts
    }

    /// What to bind a session to.
    pub fn target_ref(&self) -> &TargetRef {
        &self.member.target_ref
    }

    /// The target as configured, for logs and metrics.
    pub fn target_id(&self) -> &TargetId {
        &self.member.target
    }

    /// For [`crate::upstream::Pick::tried`] when the request is retried elsewhere.
    pub fn key(&self) -> TargetKey {
        self.member.stats.key
    }

    /// The response header came `elapsed` after the request was sent: the latency that balancing goes by.
    pub fn first_byte(&mut self, elapsed: Duration) {
        self.answered = true;
        self.member.stats.latency.observe(self.member.clock.mono_ns(), elapsed);
    }

    /// Ends the request with an outcome.
    pub fn finish(mut self, outcome: Outcome) {
        self.settle(outcome);
    }

    fn settle(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let trial = self.trial.take();
        let (stats, spec) = (&self.member.stats, self.member.spec());
        stats.release();
        let now = self.member.clock.mono_ns();
        // A break or timeout of an answer that had begun says little about the target: long streams end with each
        // restart, all at once.
        let (failed, gateway) = match outcome {
            Outcome::ClientGone => {
                self.settle_trial(trial, Verdict::Cancelled, now);
                return;
            }
            Outcome::Success => (false, false),
            Outcome::Status5xx => (true, false),
            Outcome::Reset | Outcome::Timeout => (true, !self.answered),
            Outcome::ConnectFailed | Outcome::Unavailable => (true, true),
        };
        // A 500 proves that the target answers: enough for the circuit, which is about reachability.
        self.settle_trial(trial, if gateway { Verdict::Failure } else { Verdict::Success }, now);
        if !failed {
            stats.outlier.success(now, spec.outlier.as_ref());
            return;
        }
        let row = stats.outlier.failure(gateway);
        if gateway {
            let took = Duration::from_nanos(now.saturating_sub(self.started));
            stats.latency.observe(now, took.max(FAILURE_LATENCY));
        }
        if let Some(outlier) = &spec.outlier
            && let Some(reason) = stats.outlier.exceeds(now, row, gateway, outlier)
            && let Some(length) = self.member.gate.try_eject(stats, now, outlier)
        {
            tracing::warn!(
                event = "target_ejected", tenant = %spec.tenant, server = %spec.id, target = %self.member.target,
                address = %stats.addr, reason, for_ms = length.as_millis() as u64,
            );
        }
        if let Some(breaker) = self.member.breaker()
            && gateway
            && row >= breaker.failures
            && let Some(length) = stats.circuit.trip(now, breaker)
        {
            tracing::warn!(
                event = "circuit_opened", tenant = %spec.tenant, server = %spec.id, target = %self.member.target,
                address = %stats.addr, for_ms = length.as_millis() as u64,
            );
        }
    }

    fn settle_trial(&self, trial: Option<u64>, verdict: Verdict, now: u64) {
        let Some(generation) = trial else { return };
        let stats = &self.member.stats;
        if stats.circuit.settle(generation, verdict, now, self.member.breaker()) {
            // The row that opened the circuit must not open it again with the next failure.
            stats.outlier.forgive();
            let spec = self.member.spec();
            tracing::info!(
                event = "circuit_closed", tenant = %spec.tenant, server = %spec.id, target = %self.member.target,
                address = %stats.addr,
            );
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.settle(Outcome::ClientGone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_blame_the_target_only_when_it_cannot_serve() {
        assert_eq!(Outcome::from_status(200), Outcome::Success);
        assert_eq!(Outcome::from_status(404), Outcome::Success);
        assert_eq!(Outcome::from_status(500), Outcome::Status5xx);
        assert_eq!(Outcome::from_status(503), Outcome::Unavailable);
        let refused = pingora::Error::new(pingora::ErrorType::ConnectRefused);
        assert_eq!(Outcome::from_error(&refused, false), Outcome::ConnectFailed);
        let slow = pingora::Error::new(pingora::ErrorType::ReadTimedout);
        assert_eq!(Outcome::from_error(&slow, true), Outcome::Timeout);
        let closed = pingora::Error::new(pingora::ErrorType::ConnectionClosed);
        assert_eq!(Outcome::from_error(&closed, true), Outcome::Reset);
    }
}
