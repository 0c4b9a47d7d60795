//! Events are the same whatever the chunks, nothing is lost, and a ping at a boundary is invisible.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::mcp::sse::{Boundary, Event, Events};

const LIMIT: usize = 4096;

fn parse<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Option<(Vec<Event>, Vec<u8>)> {
    let mut parser = Events::new(LIMIT);
    let mut events = Vec::new();
    for chunk in chunks {
        parser.feed(chunk);
        loop {
            match parser.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(_) => return None,
            }
        }
    }
    let tail = parser.finish();
    events.extend(tail.event);
    Some((events, tail.rest.to_vec()))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (size, stream) = input;
    let size = usize::from(size).max(1);
    let whole = parse(std::iter::once(stream));
    let cut = parse(stream.chunks(size));
    if let (Some(whole), Some(cut)) = (&whole, &cut) {
        assert_eq!(whole, cut);
    }
    if let Some((events, rest)) = cut {
        let mut again = Vec::new();
        for event in &events {
            again.extend_from_slice(event.raw());
            let data = event.data();
            let changed = event.with_data(b"{}");
            assert!(changed.len() >= 8);
            drop((data, event.id(), event.event(), event.retry()));
        }
        again.extend_from_slice(&rest);
        assert_eq!(again, stream);
    }
    let (mut one, mut many) = (Boundary::new(), Boundary::new());
    one.feed(stream);
    stream.chunks(size).for_each(|c| many.feed(c));
    assert_eq!(one.at_event(), many.at_event());
});
