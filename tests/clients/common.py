"""What the Python clients share: options, profiles, and one line per check."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

CHECK_SECONDS = 60
ALL_SECONDS = 600
SAMPLED = "sampled words"
ROOT = "file:///test/root"
PARALLEL_CALLS = 10

PROFILES: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "profiles.json").read_text(encoding="utf-8")
)


class Skip(Exception):
    """The server does not offer what a check needs."""


class Settings:
    """What the command line and the environment say."""

    def __init__(self, client: str, eras: list[str]) -> None:
        parser = argparse.ArgumentParser(prog=client)
        parser.add_argument("url")
        parser.add_argument("--server", choices=sorted(PROFILES), default="fixture")
        parser.add_argument("--era", action="append", choices=eras)
        parser.add_argument("--prefix", default="")
        parser.add_argument("--only", action="append")
        options = parser.parse_args()
        self.client = client
        self.url: str = options.url
        self.profile = PROFILES[options.server]
        self.eras: list[str] = options.era or [era for era in eras if era in self.profile["eras"]]
        self.prefix: str = options.prefix
        self.only: list[str] | None = options.only
        token = os.environ.get("MCP_TEST_TOKEN")
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def part(self, name: str) -> dict[str, Any]:
        """A part of the profile, with the prefix on its names; skips the check if there is none."""
        if name not in self.profile:
            raise Skip(f"the server offers no {name}")
        part = dict(self.profile[name])
        for key in ("tool", "count", "prompt", "name"):
            if key in part:
                part[key] = self.prefix + part[key]
        return part

    def answer(self, schema: dict[str, Any]) -> dict[str, Any]:
        """What the user enters into a form: the answers of the profile to the fields that it has."""
        answers: dict[str, Any] = {}
        for name in ("elicitation", "rounds"):
            answers |= self.profile.get(name, {}).get("answers", {})
        return {key: value for key, value in answers.items() if key in schema.get("properties", {})}


def expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise AssertionError(otherwise)


def expect_in(expected: str, text: str) -> None:
    expect(expected in text, f"expected {expected!r} in {text[:200]!r}")


class Report:
    """Runs checks, each with a deadline, and keeps what came of them."""

    def __init__(self, settings: Settings, era: str) -> None:
        self.settings = settings
        self.era = era
        self.failed = 0

    async def check(self, name: str, run: Callable[[], Awaitable[str | None]]) -> None:
        if self.settings.only and name not in self.settings.only:
            return
        try:
            note = await asyncio.wait_for(run(), CHECK_SECONDS)
            self._line("PASS", name, note or "")
        except Skip as skip:
            self._line("SKIP", name, str(skip))
        except Exception as error:  # a check may fail in any way its client can
            self.failed += 1
            self._line("FAIL", name, describe(error))

    def fail(self, name: str, error: BaseException) -> None:
        self.failed += 1
        self._line("FAIL", name, describe(error))

    def _line(self, verdict: str, name: str, note: str) -> None:
        line = f"{verdict} {self.settings.client} {self.era} {name}"
        print(f"{line}: {note}" if note else line, flush=True)


def describe(error: BaseException) -> str:
    """One line, with the innermost cause of a group."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    if os.environ.get("MCP_TEST_TRACE"):
        traceback.print_exception(error)
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"took longer than {CHECK_SECONDS} s"
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]


def main(settings: Settings, run_era: Callable[[str], Awaitable[int]]) -> None:
    """Runs every era within the time for all of them and exits."""

    async def everything() -> int:
        return sum([await run_era(era) for era in settings.eras])

    try:
        failed = asyncio.run(asyncio.wait_for(everything(), ALL_SECONDS))
    except asyncio.TimeoutError:
        print(f"FAIL {settings.client} all deadline: took longer than {ALL_SECONDS} s")
        failed = 1
    sys.exit(1 if failed else 0)
