#!/usr/bin/env python3
"""Sends hostile input to the real gateway and holds it to what docs/architecture.md says about errors.

    tests/hostile/run.py [--smoke] [--only GROUP]... [--out FILE]      (bench-results/hostile.txt)

Each case must get exactly its answer, nothing of it may reach the server behind the gateway, good requests must be
served meanwhile and afterwards, and memory must end within 16 MiB of where it was after warming up. Needs Linux, Python
3.10, `openssl`, and a built gateway; TOLLGATE names another binary than `cargo build` makes. `--smoke` is the same with
small floods.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from cases import GROUPS, MARK, Want
from suite import ROOT, Suite, b64, encode
from upstream import GOOD, Arrived
from wire import Connection, Reply, call, fresh_source, head

MIB = 1024
GROWTH = 16 * MIB
QUICK = 1.0


class Report:
    """The table, on the screen and in a file."""

    def __init__(self, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        self.file = out.open("w", encoding="utf-8")
        self.deviations = 0
        self.cases = 0

    def line(self, text: str = "") -> None:
        print(text, flush=True)
        print(text, file=self.file, flush=True)

    def case(self, group: str, name: str, wanted: str, got: str, problem: str = "") -> None:
        self.cases += 1
        self.deviations += bool(problem)
        verdict = f"DEVIATES: {problem}" if problem else "ok"
        self.line(f"{group:12} {name:58} {wanted:24} {got:24} {verdict}")


def judge(reply: Reply, want: Want, arrived: list[Arrived]) -> str:
    """What is wrong with an answer; empty if nothing is."""
    wanted = (want.status,) if isinstance(want.status, int) else want.status
    if reply.status not in wanted:
        return f"status; {reply.body[:120]!r}"
    if want.code is not None and reply.code != want.code:
        return f"code; {reply.body[:120]!r}"
    if want.closed and not reply.closed:
        return "the connection is still open"
    if reply.rest:
        return f"more came: {reply.rest[:80]!r}"
    if want.challenge and "resource_metadata=" not in reply.headers.get("www-authenticate", ""):
        return "no challenge"
    if reply.seconds > want.seconds:
        return f"took {reply.seconds:.1f} s"
    if arrived and not want.relayed:
        return f"the server got {arrived[0].method} {arrived[0].body[:80]!r}"
    if any(MARK.encode() in request.body for request in arrived):
        return "the server got what was hidden"
    return ""


def run_group(suite: Suite, report: Report, group: str) -> None:
    suite.upstream.seen.take()
    done = []
    with Background(suite) as background:
        for name, reply, want in GROUPS[group](suite):
            # A case that looks at what the server got has emptied its memory already.
            done.append((name, reply, want, suite.upstream.seen.take()))
        for _, reply, _, _ in done:
            reply.ended()
    late = suite.upstream.seen.take()
    for name, reply, want, arrived in done:
        closed = "close" if reply.closed else None
        got = " ".join(str(word) for word in (reply.status or "–", reply.code, closed) if word)
        report.case(group, name, str(want), got, judge(reply, want, arrived))
    report.case(group, "what came to the server afterwards", "nothing", f"{len(late)} requests", "too much" if late else "")
    report.case(group, "good calls meanwhile", "200 each", f"{background.calls:,} × 200", background.verdict())


class Background:
    """Good calls, one after the other, as long as the bad ones go on."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.stop = threading.Event()
        self.calls = 0
        self.failed = 0
        self.slowest = 0.0
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self) -> "Background":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(30)

    def run(self) -> None:
        body = json.dumps(call(arguments={"text": GOOD})).encode()
        fields = {"Authorization": f"Bearer {self.suite.token}", "Content-Length": str(len(body))}
        data = head(self.suite.host, self.suite.path, fields) + body
        source = fresh_source()
        connection = Connection(self.suite.address, source)
        while not self.stop.wait(0.02):
            started = time.monotonic()
            connection.send(data)
            reply = connection.reply()
            self.calls += 1
            if reply.status != 200:
                self.failed += 1
                connection = Connection(self.suite.address, source)
            self.slowest = max(self.slowest, time.monotonic() - started)

    def verdict(self) -> str:
        if self.failed:
            return f"{self.failed} of {self.calls} good calls failed"
        return f"a good call took {self.slowest:.1f} s" if self.slowest > QUICK else ""


def flood(suite: Suite, report: Report, count: int, name: str, one_address: bool) -> None:
    """Bad tokens, all different, over a few connections. Who is verified already must not notice."""
    workers = 6
    answers: dict[int, int] = {}
    lock = threading.Lock()
    claims = encode(suite.issuer.claims(suite.audience, groups=["testers"]))
    header = encode({"alg": "RS256", "kid": "test"})
    source = fresh_source()

    def work(number: int) -> None:
        mine: dict[int, int] = {}
        dice = random.Random(number)
        connection = None
        for i, _ in enumerate(range(number, count, workers)):
            # A new address now and then keeps the limiter on failed attempts from doing all the work.
            if connection is None or (not one_address and i % 25 == 0):
                if connection:
                    connection.socket.close()
                connection = Connection(suite.address, source if one_address else None)
            token = f"{header}.{claims}.{b64(dice.randbytes(256))}"
            connection.send(head(suite.host, suite.path, {"Authorization": f"Bearer {token}"}, "GET"))
            reply = connection.reply()
            mine[reply.status] = mine.get(reply.status, 0) + 1
            if reply.status == 0 or reply.headers.get("connection") == "close":
                connection.socket.close()
                connection = None
        with lock:
            for status, times in mine.items():
                answers[status] = answers.get(status, 0) + times

    started = time.monotonic()
    with Background(suite) as background:
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(300)
    seconds = time.monotonic() - started
    total = sum(answers.values())
    problem = "" if set(answers) == {401} else f"answers {answers}"
    problem = problem or ("" if total == count else f"only {total} answers in 300 s")
    problem = problem or background.verdict()
    suite.upstream.seen.take()
    got = f"{total:,} × 401, {seconds:.0f} s, {total / seconds:,.0f}/s"
    report.case("flood", f"{count:,} bad tokens {name}", "401 each", got, problem)


def crowd(suite: Suite, report: Report) -> None:
    """More connections than there may be, all at once, and half of them dripping."""
    source = fresh_source()
    opened = [Connection(suite.address, source) for _ in range(suite.per_address + 100)]
    time.sleep(0.5)
    closed = sum(is_closed(connection) for connection in opened)
    report.case("connections", f"{len(opened)} from one address", f"{100} closed at once", f"{closed} closed",
                "" if closed == 100 else "not the ones over the cap")
    reply = suite.ask(json.dumps(call()))
    report.case("connections", "another address meanwhile", "200", str(reply.status), "" if reply.status == 200 else "refused")
    for connection in opened:
        connection.socket.close()
    time.sleep(0.5)
    suite.upstream.seen.take()

    wanted = suite.connections + 100
    opened = []
    for number in range(wanted):
        if number % (suite.per_address - 1) == 0:
            source = fresh_source()
        opened.append(Connection(suite.address, source))
        opened[-1].send(b"POST /mcp/hostile HTTP/1.1\r\nHost: ")
    time.sleep(0.3)
    open_now = int(suite.metrics()["tollgate_connections"])
    problem = "" if open_now <= suite.connections else "over the cap"
    report.case("connections", f"{wanted:,} in all, each with half a header", f"at most {suite.connections:,}", f"{open_now:,} open", problem)
    time.sleep(suite.header_timeout + 1.5)
    left = int(suite.metrics()["tollgate_connections"])
    report.case("connections", "the same after the time for a header", "none left", f"{left} open", "" if left == 0 else "still open")
    for connection in opened:
        connection.socket.close()
    reply = suite.ask(json.dumps(call()))
    report.case("connections", "afterwards", "200", str(reply.status), "" if reply.status == 200 else "refused")
    suite.upstream.seen.take()


def is_closed(connection: Connection) -> bool:
    connection.socket.settimeout(0.001)
    try:
        return connection.socket.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def warm(suite: Suite, calls: int) -> None:
    """Brings caches, pools and arenas to their ordinary size: what comes after that is growth."""
    body = json.dumps(call(arguments={"text": "a" * 200_000}))
    for number in range(calls):
        suite.ask(body if number % 10 == 0 else json.dumps(call()))
    crowd_of = [Connection(suite.address) for _ in range(min(500, suite.connections // 2))]
    for connection in crowd_of:
        connection.send(head(suite.host, suite.path, {"Authorization": "Bearer x"}, "GET"))
    for connection in crowd_of:
        connection.reply()
        connection.socket.close()
    suite.session(suite.token)
    suite.upstream.seen.take()


def settled(suite: Suite, below: int = 0) -> int:
    """Memory under a little ordinary traffic, in KiB: the allocator gives back what is free while it is being used.
    Waits until it has stopped to fall, or until it is `below` what is asked for."""
    last = suite.rss()
    for _ in range(60):
        for _ in range(50):
            suite.ask(json.dumps(call()))
        time.sleep(0.2)
        now = suite.rss()
        if now <= below or (not below and now >= last):
            break
        last = now
    suite.upstream.seen.take()
    return min(last, now)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", action="append", choices=[*GROUPS, "flood", "connections"])
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results" / "hostile.txt")
    options = parser.parse_args()
    groups = options.only or [*GROUPS, "flood", "connections"]
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = Path(os.environ.get("TOLLGATE", target / "debug" / "tollgate"))
    if not binary.exists():
        raise SystemExit(f"there is no {binary}; build it first")
    connections = 400 if options.smoke else 3000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 16384)), hard))

    report = Report(options.out)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        suite = Suite(binary, Path(folder), connections, connections // 4)
        try:
            warm(suite, 200 if options.smoke else 2000)
            first = before = settled(suite)
            report.line(f"{'group':12} {'what is sent':58} {'expected':24} {'got':24} verdict")
            for group in groups:
                if group == "flood":
                    count = 1500 if options.smoke else 100_000
                    flood(suite, report, count, "from one address", True)
                    flood(suite, report, count, "from many addresses", False)
                elif group == "connections":
                    crowd(suite, report)
                else:
                    run_group(suite, report, group)
                if options.smoke:
                    continue
                now = settled(suite, before + GROWTH)
                grown = now - before
                problem = f"more than {GROWTH // MIB} MiB" if grown > GROWTH else ""
                report.case(group, "memory after all of these", f"at most +{GROWTH // MIB} MiB", f"{grown / MIB:+.1f} MiB", problem)
                before = now
            end = settled(suite, first + GROWTH)
            problem = f"more than {GROWTH // MIB} MiB" if end - first > GROWTH else ""
            report.case("all", "memory at the end", f"at most +{GROWTH // MIB} MiB", f"{first / MIB:.1f} → {end / MIB:.1f} MiB", problem)
            code = suite.stop()
            report.case("all", "the gateway ends cleanly", "exit 0", f"exit {code}", "" if code == 0 else "it does not")
        finally:
            if suite.process.poll() is None:
                suite.process.kill()
            if report.deviations:
                print((Path(folder) / "gateway.log").read_text()[-2000:], file=sys.stderr)
    report.line()
    report.line(f"{report.cases} cases, {report.deviations} deviations, {time.monotonic() - started:.0f} s, {binary.name} ({binary.parent.name})")
    return 1 if report.deviations else 0


if __name__ == "__main__":
    sys.exit(main())
