use proptest::prelude::*;

use super::*;

/// The specification's algorithm, line by line, on a whole stream: what a client dispatches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Dispatched {
    id: Option<Vec<u8>>,
    event: Option<Vec<u8>>,
    data: Vec<u8>,
}

fn lines(stream: &[u8]) -> Vec<&[u8]> {
    let mut rest = stream;
    let mut lines = Vec::new();
    while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
        lines.push(&rest[..end]);
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
    lines
}

fn reference(stream: &[u8]) -> Vec<Dispatched> {
    let mut out = Vec::new();
    let mut current = Dispatched::default();
    let mut has_data = false;
    for line in lines(stream.strip_prefix(BOM).unwrap_or(stream)) {
        if line.is_empty() {
            if has_data {
                current.data.pop();
                out.push(current);
            }
            (current, has_data) = (Dispatched::default(), false);
            continue;
        }
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value).to_vec();
        match name {
            b"data" => {
                current.data.extend(value);
                current.data.push(b'\n');
                has_data = true;
            }
            b"id" if !value.contains(&0) => current.id = Some(value),
            b"event" => current.event = Some(value).filter(|v| !v.is_empty()),
            _ => {}
        }
    }
    out
}

fn split(stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = stream;
    let mut chunks = Vec::new();
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().copied().unwrap_or(1).clamp(1, rest.len());
        chunks.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    chunks
}

fn parse(chunks: &[Vec<u8>]) -> (Vec<Event>, Vec<u8>) {
    let mut events = Events::new(1 << 20);
    let mut out = Vec::new();
    for chunk in chunks {
        events.feed(chunk);
        while let Some(event) = events.next().expect("under the limit") {
            out.push(event);
        }
    }
    let tail = events.finish();
    out.extend(tail.event);
    (out, tail.rest.to_vec())
}

fn dispatched(events: &[Event]) -> Vec<Dispatched> {
    let of = |event: &Event| {
        Some(Dispatched {
            id: event.id().map(<[u8]>::to_vec),
            event: event.event().map(<[u8]>::to_vec),
            data: event.data()?.into_owned(),
        })
    };
    events.iter().filter_map(of).collect()
}

fn one(stream: &[u8]) -> Event {
    let (events, rest) = parse(&[stream.to_vec()]);
    assert_eq!((events.len(), rest.len()), (1, 0), "{}", stream.escape_ascii());
    events.into_iter().next().unwrap()
}

#[test]
fn reads_what_the_sdks_send() {
    // rmcp: bare data lines; Python: CRLF and a name; TypeScript: LF, name first (MCP.md §2.2 "Framing variance").
    for stream in [
        &b"data: {\"a\":1}\n\n"[..],
        b"event: message\r\ndata: {\"a\":1}\r\n\r\n",
        b"event: message\nid: 7\ndata: {\"a\":1}\n\n",
        b"data:{\"a\":1}\r\r",
        b"\xef\xbb\xbfdata: {\"a\":1}\n\n",
    ] {
        assert_eq!(one(stream).data().as_deref(), Some(&b"{\"a\":1}"[..]), "{}", stream.escape_ascii());
    }
    let event = one(b"id: 1\nid: a\0b\nevent: x\nretry: 12x\nretry: 30\ndata:  two\ndata\ndata: z\n\n");
    assert_eq!(event.id(), Some(&b"1"[..]), "an id with NUL is ignored");
    assert_eq!(event.event(), Some(&b"x"[..]));
    assert_eq!(event.retry(), Some(30));
    assert_eq!(event.data().as_deref(), Some(&b" two\n\nz"[..]));
}

#[test]
fn a_priming_event_has_empty_data_and_a_comment_has_none() {
    assert_eq!(one(b"id: 3\ndata:\n\n").data().as_deref(), Some(&b""[..]));
    assert_eq!(one(b": ping\n\n").data(), None);
    assert_eq!(one(b"\n").data(), None);
    assert_eq!(one(b"retry: 3000\n\n").data(), None);
}

#[test]
fn an_event_is_given_out_with_its_blank_line_not_later() {
    let mut events = Events::new(100);
    events.feed(b"data: a\n\n");
    assert!(events.next().unwrap().is_some(), "LF");
    events.feed(b"data: a\r\r");
    assert!(events.next().unwrap().is_some(), "CR: no LF is waited for");
    events.feed(b"data: a\r\n\r");
    assert!(events.next().unwrap().is_none(), "CRLF: the LF is part of it");
    events.feed(b"\n");
    assert_eq!(events.next().unwrap().unwrap().raw()[..], *b"data: a\r\n\r\n");
    assert!(events.next().unwrap().is_none());
}

#[test]
fn an_event_over_the_limit_is_an_error_and_nothing_is_lost() {
    for fed_at_once in [true, false] {
        let stream = [&b"data: ok\n\n"[..], b"data: ", &[b'x'; 40], b"\n\n"].concat();
        let mut events = Events::new(20);
        let mut got = Vec::new();
        let mut error = None;
        for chunk in if fed_at_once { vec![stream.clone()] } else { split(&stream, &[1]) } {
            events.feed(&chunk);
            loop {
                match events.next() {
                    Ok(Some(event)) => got.extend_from_slice(event.raw()),
                    Ok(None) => break,
                    Err(e) => {
                        error = Some(e);
                        break;
                    }
                }
            }
        }
        assert_eq!(error, Some(TooLarge { limit: 20 }));
        assert_eq!(got, b"data: ok\n\n");
        got.extend_from_slice(&events.finish().rest);
        assert_eq!(got, stream);
    }
}

#[test]
fn an_unfinished_event_is_left_over() {
    let (events, rest) = parse(&[b"data: a\n\ndata: b\n".to_vec()]);
    assert_eq!(events.len(), 1);
    assert_eq!(rest, b"data: b\n");
    let (events, rest) = parse(&[b"data: a\r\n\r".to_vec()]);
    assert_eq!((events.len(), rest.len()), (1, 0), "the end of the stream decides about the CR");
}

#[test]
fn replacing_data_keeps_everything_else() {
    let table: [(&[u8], &[u8], &[u8]); 9] = [
        (b"data: a\n\n", b"b", b"data: b\n\n"),
        (b"data:a\r\n\r\n", b"b", b"data:b\r\n\r\n"),
        (b"data:a\r\r", b" b", b"data:  b\r\r"),
        (
            b": c\nid: 1\ndata: a\nevent: e\nretry: 5\n\n",
            b"b",
            b": c\nid: 1\ndata: b\nevent: e\nretry: 5\n\n",
        ),
        (b"data: a\ndata: b\n\n", b"x", b"data: x\n\n"),
        (b"data: a\n\n", b"x\r\ny\nz", b"data: x\ndata: y\ndata: z\n\n"),
        (b"id: 1\r\n\r\n", b"x", b"id: 1\r\ndata: x\r\n\r\n"),
        (b"\xef\xbb\xbfdata: a\n\n", b"b", b"\xef\xbb\xbfdata: b\n\n"),
        (b"data: a\n\xef\xbb\xbfdata: b\ndata: c\n\n", b"x", b":\n\xef\xbb\xbfdata: b\ndata: x\n\n"),
    ];
    for (before, data, after) in table {
        let got = one(before).with_data(data);
        assert_eq!(got[..], *after, "{}", got.escape_ascii());
    }
}

#[test]
fn our_own_events_are_read_back() {
    let mut out = Vec::new();
    let event =
        Outgoing { event: Some("endpoint"), id: Some("9"), retry_ms: Some(3000), data: b"/message\nx" };
    event.encode(&mut out).unwrap();
    assert_eq!(out, b"event: endpoint\nid: 9\nretry: 3000\ndata: /message\ndata: x\n\n");
    out.clear();
    comment("bye\nnow", &mut out);
    assert_eq!(out, b": bye now\n\n");
    let bad = Outgoing { id: Some("1\ndata: x"), ..Outgoing::default() };
    assert_eq!(bad.encode(&mut out), Err(BadField { field: "id" }));
}

#[test]
fn a_boundary_is_after_a_blank_line() {
    let table: [(&[&[u8]], bool); 23] = [
        (&[], true),
        (&[b"data: x\n\n"], true),
        (&[b"data: x\r\n\r\n"], true),
        (&[b"data: x\r\r"], true),
        (&[b"data: x\n"], false),
        (&[b"data: x\r\n"], false),
        (&[b"data: x"], false),
        (&[b"data: x\r\n", b"\r\n"], true),
        (&[b"data: x\r\n\r", b"\n"], true),
        (&[b"data: x\r", b"\n"], false),
        (&[b"data: x\r", b"\n", b"\n"], true),
        (&[b"data: x\rdata: y", b"\n", b"\n"], true),
        (&[b"data: x\n", b"\n"], true),
        (&[b"\n\n", b"id: 1\n"], false),
        (&[b": ping\n"], true),
        (&[b": pi"], false),
        (&[b"data: x\n\n: ping\n"], true),
        (&[b"data: x\n: ping\n"], false),
        (&[b"\xef\xbb\xbf"], false),
        (&[b"\xef\xbb\xbf: c\n"], false),
        (&[b"\xef\xbb\xbf: c\n", b"\n"], true),
        (&[b": a\n: b\r", b": c\r\n"], true),
        (&[b"", b"data: x\n\n", b""], true),
    ];
    for (chunks, expected) in table {
        let mut boundary = Boundary::new();
        chunks.iter().for_each(|c| boundary.feed(c));
        assert_eq!(boundary.at_event(), expected, "{:?}", chunks.concat().escape_ascii().to_string());
    }
    assert_eq!(without_bom(b"\xef\xbb\xbfdata"), b"data");
}

/// Streams made of the pieces that matter, more often than random bytes would have them.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(&b"\n"[..]),
        Just(&b"\r"[..]),
        Just(&b"\r\n"[..]),
        Just(&b"\n\n"[..]),
        Just(&b"\r\n\r\n"[..]),
        Just(&b"\r\r"[..]),
        Just(&b"data: {\"x\":1}"[..]),
        Just(&b"data:y"[..]),
        Just(&b"data"[..]),
        Just(&b"id: 7"[..]),
        Just(&b"event: message"[..]),
        Just(&b"retry: 10"[..]),
        Just(&b": comment"[..]),
        Just(&b":"[..]),
        Just(&b" "[..]),
        Just(BOM),
        Just(&b"\xef"[..]),
        Just(&b"\0"[..]),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|p| p.concat())
}

/// The same stream with one kind of line end, as real servers send it.
fn tidy() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("data: a"),
        Just("data:b"),
        Just("data: c"),
        Just("id: 1"),
        Just("event: e"),
        Just(": c"),
        Just(""),
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    (proptest::collection::vec(line, 0..16), end)
        .prop_map(|(lines, end)| lines.iter().flat_map(|l| [*l, end]).collect::<String>().into_bytes())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(1usize..12, 1..6)
}

proptest! {
    #[test]
    fn any_chunking_yields_the_same_events(stream in stream(), sizes in sizes()) {
        let (whole, whole_rest) = parse(std::slice::from_ref(&stream));
        let (cut, cut_rest) = parse(&split(&stream, &sizes));
        prop_assert_eq!(&whole, &cut);
        prop_assert_eq!(&whole_rest, &cut_rest);
        prop_assert_eq!(dispatched(&whole), reference(&stream));
    }

    #[test]
    fn emitting_all_events_again_is_byte_exact(stream in stream(), sizes in sizes()) {
        let (events, rest) = parse(&split(&stream, &sizes));
        let mut again: Vec<u8> = events.iter().flat_map(|e| e.raw().to_vec()).collect();
        again.extend(rest);
        prop_assert_eq!(again, stream);
    }

    #[test]
    fn replaced_data_is_what_a_client_reads(stream in stream(), data in "[ -~\n]{0,20}") {
        let (events, _) = parse(std::slice::from_ref(&stream));
        for (i, event) in events.iter().enumerate() {
            let changed = event.with_data(data.as_bytes());
            // A byte order mark is one only at the start; an LF before the block ends the CR of the block before.
            let mut alone = if i == 0 { Vec::new() } else { b": not the start\n".to_vec() };
            let late_lf = event.raw().starts_with(b"\n") && event.raw().len() > 1;
            alone.extend_from_slice(&changed[usize::from(late_lf)..]);
            let read = reference(&alone);
            prop_assert_eq!(read.len(), 1, "{}", changed.escape_ascii());
            prop_assert_eq!(&read[0].data, data.as_bytes());
            prop_assert_eq!(read[0].id.as_deref(), event.id());
            prop_assert_eq!(read[0].event.as_deref(), event.event());
        }
    }

    #[test]
    fn replacing_data_by_itself_changes_nothing(stream in tidy()) {
        for event in parse(std::slice::from_ref(&stream)).0 {
            let Some(data) = event.data() else { continue };
            if matches!(data, std::borrow::Cow::Borrowed(_)) {
                prop_assert_eq!(&event.with_data(&data), event.raw());
            }
        }
    }

    #[test]
    fn a_comment_at_any_boundary_changes_nothing(stream in stream(), sizes in sizes()) {
        let mut boundary = Boundary::new();
        let mut with_pings = Vec::new();
        for chunk in split(without_bom(&stream), &sizes) {
            if boundary.at_event() {
                with_pings.extend_from_slice(PING);
            }
            boundary.feed(&chunk);
            with_pings.extend(chunk);
        }
        prop_assert_eq!(reference(&with_pings), reference(&stream));
    }

    #[test]
    fn the_boundary_is_where_no_line_is_pending(stream in stream(), sizes in sizes()) {
        let mut boundary = Boundary::new();
        split(&stream, &sizes).iter().for_each(|c| boundary.feed(c));
        let complete = stream.is_empty() || matches!(stream.last(), Some(b'\n' | b'\r'));
        let mut block = lines(&stream).into_iter().rev().take_while(|l| !l.is_empty());
        let expected = complete && block.all(|l| l.starts_with(b":"));
        prop_assert_eq!(boundary.at_event(), expected, "{}", stream.escape_ascii());
    }

    #[test]
    fn encoded_events_are_read_back(
        event in proptest::option::of("[a-z]{1,5}"), id in proptest::option::of("[!-~]{0,5}"),
        retry_ms in proptest::option::of(any::<u64>()), data in "[ -~\n]{0,30}",
    ) {
        let mut out = Vec::new();
        Outgoing { event: event.as_deref(), id: id.as_deref(), retry_ms, data: data.as_bytes() }
            .encode(&mut out)
            .unwrap();
        let read = one(&out);
        prop_assert_eq!(read.data().unwrap().into_owned(), data.as_bytes());
        prop_assert_eq!(read.id(), id.as_deref().map(str::as_bytes));
        prop_assert_eq!(read.event(), event.as_deref().map(str::as_bytes));
        prop_assert_eq!(read.retry(), retry_ms);
    }
}
