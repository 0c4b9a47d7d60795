#!/usr/bin/env python3
"""Breaks each rule of the data plane once, and demands that a test notices.

    tests/mutants/run.py [--only NAME]... [--all-tests]     (bench-results/mutants.txt)
    tests/mutants/run.py --list                             the table
    tests/mutants/run.py --check                            only whether the table still fits the sources (no build)

A copy of the tracked files gets every entry of mutants.py as a condition that is off unless TOLLGATE_MUTANT names it.
So the tests are built once; they must pass as they are, and then, for each mutant, the tests that its entry names must
fail. Exit 1 if one does not. Needs Python 3.10 and Cargo. CARGO names another command than `cargo` (it may have
arguments), CARGO_TARGET_DIR another target directory than `target`; the copy lies in its folder `mutants`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
#: What stands for the condition in a replacement.
BROKEN = re.compile(r"\bBROKEN\b")
SWITCH = "TOLLGATE_MUTANT"
MODULE = f"""//! Which rule is broken in this run.

use std::sync::OnceLock;

/// Whether it is this one.
pub fn is(name: &str) -> bool {{
    static BROKEN: OnceLock<String> = OnceLock::new();
    BROKEN.get_or_init(|| std::env::var("{SWITCH}").unwrap_or_default()) == name
}}
"""

BUILD_SECONDS = 3600
SUITE_SECONDS = 600
MUTANT_SECONDS = 90
#: Of --all-tests: a broken gateway makes many tests wait for as long as they are willing to.
ALL_TESTS_SECONDS = 900
SUITES = ("it", "lib")


class Failed(Exception):
    """The run cannot go on; the text says why."""


@dataclass
class Run:
    """What one run of some tests came to."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    timed_out: bool = False
    seconds: float = 0.0

    def add(self, other: Run) -> None:
        self.passed |= other.passed
        self.failed |= other.failed
        self.timed_out |= other.timed_out
        self.seconds += other.seconds


class Report:
    """The table, on the screen and in a file."""

    def __init__(self, out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        self.file = out.open("w", encoding="utf-8")

    def line(self, text: str = "") -> None:
        print(text, flush=True)
        print(text, file=self.file, flush=True)


def suite_of(test: str) -> tuple[str, str]:
    """`lib::a::b` is a unit test, anything else an end-to-end test."""
    return ("lib", test.removeprefix("lib::")) if test.startswith("lib::") else ("it", test)


# === the table against the sources ===


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, timeout=60)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [name for name in names if (ROOT / name).is_file()]


def apply(mutants: list[Mutant]) -> tuple[dict[str, str], list[str]]:
    """The changed files, and all that does not fit."""
    texts: dict[str, str] = {}
    originals: dict[str, str] = {}
    problems = []
    for mutant in mutants:
        for edit in mutant.edits:
            where = f"{mutant.name}: {edit.file}"
            if edit.file not in originals:
                path = ROOT / edit.file
                if not path.is_file():
                    problems.append(f"{where}: there is no such file")
                    continue
                originals[edit.file] = texts[edit.file] = path.read_text(encoding="utf-8")
            count = originals[edit.file].count(edit.find)
            if count != 1:
                problems.append(f"{where}: the anchor occurs {count} times, not once: {edit.find!r}")
                continue
            if not BROKEN.search(edit.replace):
                problems.append(f"{where}: the replacement does not depend on BROKEN")
                continue
            text = texts[edit.file]
            if text.count(edit.find) != 1:
                problems.append(f"{where}: the anchor is changed by another mutant: {edit.find!r}")
                continue
            condition = f'crate::base::mutation::is("{mutant.name}")'
            texts[edit.file] = text.replace(edit.find, BROKEN.sub(lambda _: condition, edit.replace))
    return texts, problems


def check_table() -> list[str]:
    """Names are unique, and the tests that are named exist, as far as that can be told without building."""
    problems = []
    names = [mutant.name for mutant in MUTANTS]
    problems += [f"{name}: this name stands twice" for name in sorted({n for n in names if names.count(n) > 1})]
    sources = {"it": "", "lib": ""}
    for name in tracked():
        if name.endswith(".rs"):
            suite = "it" if name.startswith("tests/it/") else "lib" if name.startswith("src/") else None
            if suite:
                sources[suite] += (ROOT / name).read_text(encoding="utf-8")
    functions = {suite: set(re.findall(r"\bfn (\w+)\(", text)) for suite, text in sources.items()}
    for mutant in MUTANTS:
        if not mutant.caught_by or not mutant.rule or not mutant.edits:
            problems.append(f"{mutant.name}: an entry needs a rule, an edit and a test")
        for test in mutant.caught_by:
            suite, name = suite_of(test)
            if name.rsplit("::", 1)[-1] not in functions[suite]:
                problems.append(f"{mutant.name}: there is no test {test}")
    return problems


# === the copy ===


def write_copy(scratch: Path, changed: dict[str, str]) -> None:
    """Makes the copy what it should be, touching only what differs, so that a second build is a small one."""
    texts: dict[str, bytes] = {name: (ROOT / name).read_bytes() for name in tracked()}
    texts.update({name: text.encode() for name, text in changed.items()})
    texts["src/base/mutation.rs"] = MODULE.encode()
    base = texts["src/base/mod.rs"].decode()
    texts["src/base/mod.rs"] = base.replace("pub mod clock;", "pub mod clock;\npub mod mutation;", 1).encode()
    # Without the binary nothing is built that Cargo would put beside the real one.
    del texts["src/main.rs"]
    manifest = texts["Cargo.toml"].decode()
    texts["Cargo.toml"] = manifest.replace('default-run = "tollgate"\n', "", 1).encode()
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n", encoding="utf-8")
    for path in sorted(scratch.rglob("*"), reverse=True):
        name = path.relative_to(scratch).as_posix()
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif name not in texts and name != "CACHEDIR.TAG":
            path.unlink()
    for name, content in texts.items():
        path = scratch / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def build(scratch: Path, target: Path, suites: set[str]) -> dict[str, Path]:
    """The test binaries."""
    command = shlex.split(os.environ.get("CARGO", "cargo")) + ["test", "--locked", "--no-run"]
    command += ["--message-format=json-render-diagnostics"]
    command += [word for suite in sorted(suites) for word in (["--lib"] if suite == "lib" else ["--test", suite])]
    # Tests that run the program run the real one, which is no mutant.
    program = target / "debug" / "tollgate"
    if not program.is_file():
        raise Failed(f"{program} is not there: cargo build --workspace --bins")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target), "CARGO_BIN_EXE_tollgate": str(program)}
    process = subprocess.Popen(
        command, cwd=scratch, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=BUILD_SECONDS)
    except BaseException as e:
        os.killpg(process.pid, 15)
        process.wait()
        if isinstance(e, subprocess.TimeoutExpired):
            raise Failed(f"the tests were not built within {BUILD_SECONDS} s") from None
        raise
    if process.returncode != 0:
        raise Failed("the tests cannot be built with the mutants in them")
    binaries = {}
    for line in output.splitlines():
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("reason") == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            is_lib = "lib" in message["target"]["kind"]
            binaries["lib" if is_lib else message["target"]["name"]] = Path(message["executable"])
    missing = suites - binaries.keys()
    if missing:
        raise Failed(f"Cargo built no {', '.join(sorted(missing))}")
    return binaries


# === running tests ===

LINE = re.compile(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED)$", re.MULTILINE)


def run(binary: Path, scratch: Path, mutant: str, tests: list[str], seconds: float) -> Run:
    """Runs these tests of a binary, or all."""
    command = [str(binary), *(["--exact", *tests] if tests else [])]
    environment = {**os.environ, SWITCH: mutant, "RUST_BACKTRACE": "0", "CARGO_MANIFEST_DIR": str(scratch)}
    begun = time.monotonic()
    result = Run()
    try:
        done = subprocess.run(
            command,
            cwd=scratch,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
            check=False,
        )
        output = done.stdout
    except subprocess.TimeoutExpired as e:
        output = e.stdout or b""
        result.timed_out = True
    for name, verdict in LINE.findall(output.decode(errors="replace")):
        (result.passed if verdict == "ok" else result.failed).add(name)
    result.seconds = time.monotonic() - begun
    return result


def names_of(binary: Path, scratch: Path) -> set[str]:
    listed = subprocess.run(
        [str(binary), "--list", "--format=terse"], cwd=scratch, capture_output=True, text=True, timeout=60, check=True
    )
    return {line.removesuffix(": test") for line in listed.stdout.splitlines() if line.endswith(": test")}


def unmutated(report: Report, binaries: dict[str, Path], scratch: Path) -> None:
    for suite, binary in binaries.items():
        result = run(binary, scratch, "", [], SUITE_SECONDS)
        report.line(f"as it is: {suite}: {len(result.passed)} tests pass in {result.seconds:.0f} s")
        if result.failed or result.timed_out or not result.passed:
            what = ", ".join(sorted(result.failed)) or "they did not end in time"
            raise Failed(f"the tests fail without any mutant: {what}")


def judge(mutant: Mutant, binaries: dict[str, Path], scratch: Path, every: bool) -> tuple[str, str, float]:
    """Empty or what is wrong; by what the mutant was caught; how long it took."""
    total = Run()
    for suite, binary in binaries.items():
        expected = [name for s, name in map(suite_of, mutant.caught_by) if s == suite]
        if not expected and not every:
            continue
        result = run(
            binary, scratch, mutant.name, [] if every else expected, ALL_TESTS_SECONDS if every else MUTANT_SECONDS
        )
        prefix = "lib::" if suite == "lib" else ""
        total.add(
            Run(
                {prefix + name for name in result.passed},
                {prefix + name for name in result.failed},
                result.timed_out,
                result.seconds,
            )
        )
    missed = [test for test in mutant.caught_by if test not in total.failed]
    others = sorted(total.failed - set(mutant.caught_by))
    caught = ", ".join([test for test in mutant.caught_by if test in total.failed] + others)
    if not total.failed:
        return ("SURVIVES" + (" (the tests did not end)" if total.timed_out else ""), "nothing", total.seconds)
    if missed:
        return (f"NOT NOTICED BY {', '.join(missed)}", caught, total.seconds)
    return ("", caught, total.seconds)


def show(report: Report, mutant: Mutant, caught: str, problem: str, seconds: float) -> None:
    report.line(f"{mutant.name:30} {'caught' if not problem else problem} in {seconds:.1f} s")
    wrap = textwrap.TextWrapper(112, initial_indent=" " * 4, subsequent_indent=" " * 11, break_on_hyphens=False)
    report.line(wrap.fill(f"rule   {mutant.rule}"))
    report.line(wrap.fill(f"tests  {caught}"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the table and stop")
    parser.add_argument("--check", action="store_true", help="only check the table against the sources")
    parser.add_argument("--only", action="append", metavar="NAME", default=[], help="only this mutant; may be repeated")
    parser.add_argument("--all-tests", action="store_true", help="run every test on each mutant, to see what else fails")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results" / "mutants.txt", help="where the table goes")
    return parser.parse_args()


def prove(options: argparse.Namespace, chosen: list[Mutant], changed: dict[str, str]) -> int:
    report = Report(options.out)
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target").resolve()
    scratch = target / "mutants"
    begun = time.monotonic()
    write_copy(scratch, changed)
    suites = set(SUITES) if options.all_tests else {s for m in chosen for s, _ in map(suite_of, m.caught_by)}
    binaries = build(scratch, target, suites)
    print(f"built in {time.monotonic() - begun:.0f} s", flush=True)
    known = {suite: names_of(binary, scratch) for suite, binary in binaries.items()}
    unknown = [t for m in chosen for t in m.caught_by if suite_of(t)[1] not in known[suite_of(t)[0]]]
    if unknown:
        raise Failed("no such tests: " + ", ".join(unknown))
    begun = time.monotonic()
    unmutated(report, binaries, scratch)
    report.line()
    problems = []
    for mutant in chosen:
        problem, caught, seconds = judge(mutant, binaries, scratch, options.all_tests)
        show(report, mutant, caught, problem, seconds)
        if problem:
            problems.append(f"{mutant.name}: {problem}")
    report.line()
    took = time.monotonic() - begun
    report.line(f"{len(chosen)} rules broken, {len(chosen) - len(problems)} noticed, in {took:.0f} s")
    for problem in problems:
        report.line(problem)
    return 1 if problems else 0


def main() -> int:
    options = arguments()
    known = {mutant.name for mutant in MUTANTS}
    strange = [name for name in options.only if name not in known]
    if strange:
        raise Failed(f"no such mutant: {', '.join(strange)} (--list shows them)")
    chosen = [m for m in MUTANTS if not options.only or m.name in options.only]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.name:30} {mutant.rule}")
        return 0
    changed, problems = apply(MUTANTS)
    if problems := check_table() + problems:
        raise Failed("\n".join(problems))
    if options.check:
        print(f"mutants: {len(MUTANTS)} fit the sources")
        return 0
    if not shutil.which(shlex.split(os.environ.get("CARGO", "cargo"))[0]):
        raise Failed("there is no Cargo")
    return prove(options, chosen, changed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as e:
        sys.exit("\n".join(f"mutants: {line}" for line in str(e).splitlines()))
    except KeyboardInterrupt:
        sys.exit(130)
