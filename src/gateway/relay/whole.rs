//! Answers that are not event streams: collected, or passed on with their length.

use std::pin::{Pin, pin};

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_LENGTH;
use http::response::Parts;
use pingora::protocols::http::ServerSession;
use tokio::time::Instant;

use super::{Client, Plan, Relayed, reborrow};
use crate::gateway::Stop;
use crate::gateway::acknowledge::UNRECORDED;
use crate::gateway::exchange::{Exchange, Whole};
use crate::gateway::respond::Failure;
use crate::gateway::send::{Race, race};

/// Passes on an answer that is not an event stream.
///
/// # Errors
/// [`Stop`] before the first byte went to the client; after that, trouble is in [`Relayed`].
pub(crate) async fn json(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    mut header: Parts,
    plan: &mut Plan<'_>,
) -> Result<Relayed, Stop> {
    let started = Instant::now();
    let cancels = plan.cancel_on_disconnect;
    if let Some(rewrite) = reborrow(&mut plan.rewrite) {
        let collected = {
            let collecting = pin!(exchange.collect(plan.message_limit, plan.idle));
            left_or(session, cancels, collecting).await?
        };
        let (body, whole) = collected.map_err(Stop::Broken)?;
        let waited = started.elapsed();
        if whole == Whole::Yes {
            let body = match rewrite.message(&body) {
                Ok(Some(changed)) => changed.into(),
                Ok(None) => body,
                Err(reason) => return Err(Stop::Unreadable(reason)),
            };
            let mut relayed = send_whole(session, header, body, plan).await?;
            relayed.waited = waited;
            return Ok(relayed);
        }
        if !rewrite.may_skip() {
            return Err(Stop::Unreadable(format!("answer over {} bytes", plan.message_limit)));
        }
        return Ok(stream_rest(session, exchange, header, body, plan, started).await);
    }
    if !plan.prefix.is_empty() {
        // Collected whole already.
        let prefix = std::mem::take(&mut plan.prefix);
        return send_whole(session, header, prefix, plan).await;
    }
    // A declared length lets the header and the first piece leave together.
    let first = {
        let waiting = pin!(exchange.chunk_within(plan.idle));
        left_or(session, cancels, waiting).await?
    };
    let Some(first) = first.map_err(Stop::Broken)? else {
        let mut relayed = send_whole(session, header, Bytes::new(), plan).await?;
        relayed.waited = started.elapsed();
        return Ok(relayed);
    };
    if let Some(length) = exchange.headers().get(CONTENT_LENGTH).cloned() {
        if length.as_bytes() == itoa(first.len()).as_bytes() {
            let waited = started.elapsed();
            // Reads the end, so that the connection can be kept.
            let _ = exchange.chunk().await;
            let mut relayed = send_whole(session, header, first, plan).await?;
            relayed.waited = waited;
            return Ok(relayed);
        }
        header.headers.insert(CONTENT_LENGTH, length);
    }
    Ok(stream_rest(session, exchange, header, first, plan, started).await)
}

/// Waits for the server; a client that leaves meanwhile ends the wait, where leaving cancels.
async fn left_or<T>(
    session: &mut ServerSession,
    cancels: bool,
    wait: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Stop> {
    match race(session, wait, cancels).await {
        Race::Done(done) => Ok(done),
        Race::Gone(detail) => Err(Stop::Client(detail)),
    }
}

fn itoa(n: usize) -> String {
    n.to_string()
}

async fn send_whole(
    session: &mut ServerSession,
    header: Parts,
    body: Bytes,
    plan: &mut Plan<'_>,
) -> Result<Relayed, Stop> {
    let bytes_out = body.len() as u64;
    plan.pass(&body);
    plan.settled(bytes_out, None).await.map_err(|_| Failure::audit_failed())?;
    let client_gone = crate::gateway::respond::send(session, header, body).await.is_err();
    Ok(Relayed { bytes_out, client_gone, ended: !client_gone, ..Relayed::default() })
}

async fn stream_rest(
    session: &mut ServerSession,
    exchange: &mut Exchange,
    mut header: Parts,
    first: Bytes,
    plan: &mut Plan<'_>,
    started: Instant,
) -> Relayed {
    if session.as_http1().is_some() && !header.headers.contains_key(CONTENT_LENGTH) {
        header.headers.insert(http::header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let mut client = Client { session, gone: false, ended: false, sent: 0 };
    // Where a length is declared, the answer is complete with its last byte, before any end of ours.
    let length = exchange.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    client.gone = client.session.write_response_header(Box::new(header.into())).await.is_err();
    let mut relayed = Relayed::default();
    let mut next = Some(first);
    loop {
        if let Some(chunk) = next.take() {
            let sent = client.sent + chunk.len() as u64;
            plan.pass(&chunk);
            if length.is_some_and(|length| sent >= length) && plan.settled(sent, None).await.is_err() {
                relayed.broken = Some(UNRECORDED.to_owned());
                break;
            }
            client.write(chunk).await;
        }
        if client.gone && plan.cancel_on_disconnect {
            break;
        }
        let read = {
            let chunk = std::pin::pin!(exchange.chunk_within(plan.idle));
            race(client.session, chunk, plan.cancel_on_disconnect).await
        };
        let Race::Done(chunk) = read else {
            client.gone = true;
            break;
        };
        match chunk {
            Ok(Some(chunk)) => next = Some(chunk),
            Ok(None) => {
                if !client.gone && plan.settled(client.sent, None).await.is_err() {
                    relayed.broken = Some(UNRECORDED.to_owned());
                    break;
                }
                client.end().await;
                relayed.ended = !client.gone;
                break;
            }
            Err(e) => {
                relayed.broken = Some(e);
                break;
            }
        }
    }
    relayed.client_gone = client.gone;
    relayed.bytes_out = client.sent;
    relayed.waited = started.elapsed();
    relayed
}
