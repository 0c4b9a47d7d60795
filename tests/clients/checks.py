"""The checks, the same for every Python client: what differs between the SDKs is behind `Adapter`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from common import PARALLEL_CALLS, Settings, Skip, expect, expect_in

NOTICE_SECONDS = 5
INVALID_PARAMS = -32602
LEGACY_NOT_FOUND = -32002


class RpcError(Exception):
    """A JSON-RPC error, whatever the SDK calls it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code} {message}")
        self.code = code


@dataclass
class Answer:
    """What a tool returned."""

    text: str
    failed: bool


@dataclass
class Heard:
    """What the server said by itself."""

    logs: list[Any] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)

    async def until(self, method: str) -> None:
        for _ in range(NOTICE_SECONDS * 20):
            if method in self.methods:
                self.methods.clear()
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"no {method} within {NOTICE_SECONDS} s")


class Adapter(Protocol):
    """One connection of one SDK. Calls raise `RpcError` for JSON-RPC errors."""

    heard: Heard

    @property
    def version(self) -> str: ...
    async def tools(self) -> list[str]: ...
    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        on_progress: Callable[[float], None] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Answer: ...
    async def call_and_cancel(self, tool: str, arguments: dict[str, Any], after: float) -> None: ...
    async def resources(self) -> tuple[int, int]: ...
    async def read(self, uri: str) -> str: ...
    async def prompts(self) -> list[str]: ...
    async def prompt(self, name: str, arguments: dict[str, str]) -> str: ...
    async def complete(self, prompt: str, argument: str, value: str) -> list[str]: ...
    async def set_level(self, level: str) -> None: ...
    async def ping(self) -> None: ...
    async def tools_changed(self, trigger: Callable[[], Awaitable[Any]]) -> None: ...
    async def resource_updated(self, uri: str, trigger: Callable[[], Awaitable[Any]]) -> None: ...


class Checks:
    """The checks on one connection."""

    def __init__(self, settings: Settings, peer: Adapter, era: str) -> None:
        self.settings = settings
        self.peer = peer
        self.era = era

    @property
    def modern(self) -> bool:
        return self.peer.version >= "2026-07-28"

    def all(self) -> list[tuple[str, Callable[[], Awaitable[str | None]]]]:
        asking = [(name, self.asking(name)) for name in ("elicitation", "rounds", "sampling", "roots", "headers")]
        return [
            ("version", self.version),
            ("tools_list", self.tools_list),
            ("tools_call", self.tools_call),
            ("parallel", self.parallel),
            ("tool_error", self.tool_error),
            ("unknown_tool", self.unknown_tool),
            ("progress", self.progress),
            ("cancel", self.cancel),
            *asking,
            ("logging", self.logging),
            ("resources", self.resources),
            ("resource_missing", self.resource_missing),
            ("prompts", self.prompts),
            ("completion", self.completion),
            ("tools_changed", self.tools_changed),
            ("resource_updated", self.resource_updated),
            ("ping", self.ping),
        ]

    def part(self, name: str) -> dict[str, Any]:
        """A part of the profile; skips the check if the server has it in the other era only."""
        part = self.settings.part(name)
        era = "modern" if self.modern else "legacy"
        if era not in part.get("eras", [era]):
            raise Skip(f"the server offers no {name} in this era")
        return part

    async def say(self, part: dict[str, Any]) -> str:
        """Calls a tool that must not fail."""
        answer = await self.peer.call(part["tool"], part.get("arguments", {}))
        expect(not answer.failed, f"the tool failed: {answer.text}")
        return answer.text

    def asking(self, name: str) -> Callable[[], Awaitable[None]]:
        """A tool that needs something of the client, by what it says in the end."""

        async def check() -> None:
            part = self.part(name)
            expect_in(part["says"], await self.say(part))

        return check

    async def version(self) -> str:
        if self.era != "auto":
            expect(self.modern == (self.era == "modern"), f"negotiated {self.peer.version}")
        return self.peer.version

    async def tools_list(self) -> str:
        names = await self.peer.tools()
        wanted = [self.settings.prefix + name for name in self.settings.profile["tools"]]
        missing = [name for name in wanted if name not in names]
        expect(not missing, f"not listed: {missing}")
        return f"{len(names)} tools"

    async def tools_call(self) -> None:
        part = self.part("text")
        expect_in(part["says"], await self.say(part))

    async def parallel(self) -> None:
        part = self.part("parallel")
        callers = [f"caller-{index}" for index in range(PARALLEL_CALLS)]
        calls = [self.say({"tool": part["tool"], "arguments": {part["argument"]: caller}}) for caller in callers]
        for caller, words in zip(callers, await asyncio.gather(*calls), strict=True):
            expect_in(part["says"].replace("{}", caller), words)

    async def tool_error(self) -> None:
        part = self.part("error")
        answer = await self.peer.call(part["tool"], part["arguments"])
        expect(answer.failed, "the result says that the tool did not fail")

    async def unknown_tool(self) -> None:
        # Servers on older SDKs say it in the result, the others with an error.
        try:
            answer = await self.peer.call(self.settings.prefix + "no_such_tool", {})
        except RpcError as error:
            expect(error.code == INVALID_PARAMS, f"code {error.code}")
        else:
            expect(answer.failed, "an unknown tool was called")

    async def progress(self) -> None:
        part = self.part("progress")
        seen: list[float] = []
        answer = await self.peer.call(part["tool"], part["arguments"], on_progress=seen.append)
        expect(not answer.failed, f"the tool failed: {answer.text}")
        expect(len(seen) >= part["steps"], f"{len(seen)} reports")
        expect(seen == sorted(seen), f"not increasing: {seen}")

    async def cancel(self) -> str | None:
        part = self.part("slow")
        before = await self.cancellations(part)
        await self.peer.call_and_cancel(part["tool"], part["arguments"], after=1)
        await self.tools_call()
        if before is None:
            return "the server cannot say whether it noticed"
        for _ in range(NOTICE_SECONDS * 10):
            if (await self.cancellations(part) or 0) > before:
                return None
            await asyncio.sleep(0.1)
        raise AssertionError("the server went on computing")

    async def cancellations(self, part: dict[str, Any]) -> int | None:
        return int(await self.say({"tool": part["count"]})) if "count" in part else None

    async def logging(self) -> None:
        part = self.part("logging")
        heard = self.peer.heard.logs
        heard.clear()
        if not self.modern:
            await self.peer.set_level("debug")
        meta = {"io.modelcontextprotocol/logLevel": "debug"} if self.modern else None
        await self.peer.call(part["tool"], {}, meta=meta)
        for _ in range(NOTICE_SECONDS * 20):
            if len(heard) >= part["messages"]:
                break
            await asyncio.sleep(0.05)
        expect(len(heard) == part["messages"], f"{len(heard)} messages")

    async def resources(self) -> str:
        listed, templates = await self.peer.resources()
        for name in ("resource", "template"):
            if name in self.settings.profile:
                part = self.part(name)
                expect_in(part["says"], await self.peer.read(part["uri"]))
        return f"{listed} resources, {templates} templates"

    async def resource_missing(self) -> None:
        part = self.part("missing")
        try:
            await self.peer.read(part["uri"])
        except RpcError as error:
            expect(error.code in (INVALID_PARAMS, LEGACY_NOT_FOUND), f"code {error.code}")
        else:
            raise AssertionError("a resource that does not exist was read")

    async def prompts(self) -> str:
        part = self.part("prompt")
        names = await self.peer.prompts()
        expect(part["name"] in names, f"{part['name']} is not listed")
        expect_in(part["says"], await self.peer.prompt(part["name"], part["arguments"]))
        return f"{len(names)} prompts"

    async def completion(self) -> None:
        part = self.part("completion")
        values = await self.peer.complete(part["prompt"], part["argument"], part["value"])
        expect(values == part["values"], f"completed to {values}")

    async def tools_changed(self) -> None:
        part = self.part("toolsChanged")
        await self.peer.tools_changed(lambda: self.say(part))

    async def resource_updated(self) -> None:
        part = self.part("resourceUpdated")
        await self.peer.resource_updated(part["uri"], lambda: self.say({"tool": part["tool"]}))

    async def ping(self) -> None:
        if self.modern:
            raise Skip("there is no ping in this revision")
        await self.peer.ping()
