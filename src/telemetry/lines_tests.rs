use super::*;

const SOON: Duration = Duration::from_secs(10);

/// An output whose writes wait for a permit when it is closed.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    closed: bool,
    entered: bool,
    fail_after: Option<usize>,
    bytes: Vec<u8>,
    writes: usize,
}

impl Gate {
    fn close(&self) {
        self.0.0.lock().closed = true;
    }

    fn open(&self) {
        self.0.0.lock().closed = false;
        self.0.1.notify_all();
    }

    /// Waits until the writer stands before the closed gate.
    fn wait_entered(&self) {
        let mut state = self.0.0.lock();
        while !state.entered {
            assert!(!self.0.1.wait_for(&mut state, SOON).timed_out(), "the writer never wrote");
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.0.lock().bytes.clone()).expect("UTF-8")
    }
}

impl Write for Gate {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut state = self.0.0.lock();
        state.entered = true;
        self.0.1.notify_all();
        while state.closed {
            self.0.1.wait(&mut state);
        }
        state.writes += 1;
        let n = match state.fail_after {
            Some(0) => return Err(io::ErrorKind::StorageFull.into()),
            Some(left) => buf.len().min(left),
            None => buf.len(),
        };
        state.fail_after = state.fail_after.map(|left| left - n);
        state.bytes.extend_from_slice(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(gate: &Gate, capacity: usize) -> (LineQueue, Counter) {
    let dropped = Counter::detached();
    let output = Output::Writer(Box::new(gate.clone()));
    (LineQueue::start(output, capacity, dropped.clone(), "test").expect("starts"), dropped)
}

#[test]
fn lines_arrive_in_order_and_once() {
    let gate = Gate::default();
    let (queue, dropped) = queue(&gate, 1 << 20);
    for i in 0..1000 {
        assert!(queue.push(format!("line {i}\n").as_bytes()));
    }
    assert!(queue.flush(SOON));
    let want: String = (0..1000).map(|i| format!("line {i}\n")).collect();
    assert_eq!(gate.text(), want);
    assert_eq!(dropped.get(), 0);
    assert!(gate.0.0.lock().writes < 100, "lines are written in batches");
}

#[test]
fn a_full_queue_counts_what_it_loses_and_does_not_wait() {
    let gate = Gate::default();
    gate.close();
    let (queue, dropped) = queue(&gate, 100);
    assert!(queue.push(b"first"));
    gate.wait_entered();
    let accepted = (0..50).filter(|_| queue.push(b"123456789")).count();
    assert_eq!(accepted, 10, "ten bytes each with the newline");
    assert_eq!(dropped.get(), 40);
    assert!(!queue.flush(Duration::from_millis(10)), "the output is stuck");
    gate.open();
    assert!(queue.flush(SOON));
    assert_eq!(gate.text().lines().count(), 11);
    assert!(queue.push(b"goes on"), "there is room again");
}

#[test]
fn shutdown_writes_what_waits_and_refuses_what_comes_after() {
    let gate = Gate::default();
    let (queue, dropped) = queue(&gate, 1 << 20);
    queue.push(b"last");
    assert!(queue.shutdown(SOON));
    assert_eq!(gate.text(), "last\n");
    assert!(!queue.push(b"late"));
    assert_eq!(dropped.get(), 1);
}

#[test]
fn shutdown_gives_up_on_a_stuck_output() {
    let gate = Gate::default();
    gate.close();
    let (queue, _) = queue(&gate, 1 << 20);
    queue.push(b"x");
    gate.wait_entered();
    assert!(!queue.shutdown(Duration::from_millis(10)));
    gate.open();
    assert!(queue.shutdown(SOON));
}

#[test]
fn a_failed_write_counts_its_lines_and_leaves_no_torn_line_behind() {
    let gate = Gate::default();
    gate.0.0.lock().fail_after = Some(7);
    let (queue, dropped) = queue(&gate, 1 << 20);
    gate.close();
    queue.push(b"aaaa");
    queue.push(b"bbbb");
    queue.push(b"cccc");
    gate.open();
    assert!(queue.flush(SOON));
    assert_eq!(dropped.get(), 2, "the torn line and the one after it");
    gate.0.0.lock().fail_after = None;
    queue.push(b"dddd");
    assert!(queue.flush(SOON));
    assert_eq!(gate.text(), "aaaa\nbb\ndddd\n");
}

#[test]
fn concurrent_lines_are_never_mixed() {
    let gate = Gate::default();
    let (queue, dropped) = queue(&gate, 1 << 22);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let queue = &queue;
            scope.spawn(move || {
                for _ in 0..500 {
                    queue.push(format!("{thread}").repeat(50).as_bytes());
                }
            });
        }
    });
    assert!(queue.flush(SOON));
    let text = gate.text();
    assert_eq!(text.lines().count() as u64 + dropped.get(), 4000);
    for line in text.lines() {
        assert!(line.len() == 50 && line.bytes().all(|b| b == line.as_bytes()[0]), "{line}");
    }
}

#[test]
fn reopen_follows_a_rotated_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.log");
    let queue =
        LineQueue::start(Output::File(path.clone()), 1 << 20, Counter::detached(), "test").expect("starts");
    queue.push(b"old");
    assert!(queue.flush(SOON));
    let moved = dir.path().join("access.log.1");
    std::fs::rename(&path, &moved).expect("renames");
    queue.reopen();
    queue.push(b"new");
    assert!(queue.shutdown(SOON));
    assert_eq!(std::fs::read_to_string(moved).expect("the old file"), "old\n");
    assert_eq!(std::fs::read_to_string(path).expect("the new file"), "new\n");
}

#[test]
fn a_failed_reopen_keeps_the_old_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let sub = dir.path().join("logs");
    std::fs::create_dir(&sub).expect("a directory");
    let path = sub.join("access.log");
    let queue = LineQueue::start(Output::File(path), 1 << 20, Counter::detached(), "test").expect("starts");
    queue.push(b"one");
    assert!(queue.flush(SOON));
    let moved = dir.path().join("moved");
    std::fs::rename(&sub, &moved).expect("renames");
    queue.reopen();
    queue.push(b"two");
    assert!(queue.shutdown(SOON));
    assert_eq!(std::fs::read_to_string(moved.join("access.log")).expect("the file"), "one\ntwo\n");
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error_at_the_start() {
    let output = Output::File("/nonexistent/dir/access.log".into());
    let error =
        LineQueue::start(output, 1 << 20, Counter::detached(), "test").expect_err("no such directory");
    assert!(error.to_string().contains("/nonexistent/dir/access.log"));
}

#[test]
fn an_endless_line_is_cut() {
    let gate = Gate::default();
    let (queue, _) = queue(&gate, 1 << 20);
    queue.push(&vec![b'x'; MAX_LINE + 10]);
    assert!(queue.flush(SOON));
    assert_eq!(gate.text().len(), MAX_LINE + 1);
}
