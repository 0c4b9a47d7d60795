"""Python `mcp` 1.x against an MCP endpoint; see README.md. It speaks the legacy era only."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mcp.types as types
from checks import Answer, Checks, Heard, RpcError
from common import ROOT, SAMPLED, Report, Settings, expect, main
from mcp.client.session import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import McpError
from pydantic import AnyUrl

settings = Settings("py1", ["legacy"])


@contextmanager
def rpc_errors() -> Iterator[None]:
    try:
        yield
    except McpError as error:
        raise RpcError(error.error.code, error.error.message) from error


class Peer:
    """One connection."""

    def __init__(self, read: Any, write: Any) -> None:
        self.heard = Heard()
        self.version = ""
        self.session = ClientSession(
            read,
            write,
            sampling_callback=self.on_sampling,
            list_roots_callback=self.on_roots,
            elicitation_callback=self.on_elicitation,
            logging_callback=self.on_log,
            message_handler=self.on_message,
        )

    async def initialize(self) -> None:
        self.version = str((await self.session.initialize()).protocolVersion)

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.heard.logs.append(params.data)

    async def on_message(self, message: Any) -> None:
        if isinstance(message, types.ServerNotification):
            self.heard.methods.append(message.root.method)

    async def on_elicitation(self, context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=settings.answer(params.requestedSchema))

    async def on_sampling(self, context: Any, params: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", content=content, model="test", stopReason="endTurn")

    async def on_roots(self, context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=AnyUrl(ROOT), name="root")])

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.session.list_tools()).tools]

    async def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        on_progress: Callable[[float], None] | None = None,
        meta: dict[str, Any] | None = None,
    ) -> Answer:
        async def report(progress: float, total: float | None, message: str | None) -> None:
            if on_progress:
                on_progress(progress)

        with rpc_errors():
            result = await self.session.call_tool(
                tool, arguments, progress_callback=report if on_progress else None, meta=meta
            )
        text = "\n".join(block.text for block in result.content if block.type == "text")
        return Answer(text, result.isError)

    async def call_and_cancel(self, tool: str, arguments: dict[str, Any], after: float) -> None:
        # This SDK does not tell the server when a call is abandoned, so we do, with the id the call is about to get.
        request_id = self.session._request_id
        call = asyncio.create_task(self.session.call_tool(tool, arguments))
        await asyncio.sleep(after)
        expect(not call.done(), "the call ended before it was cancelled")
        notice = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=request_id))
        await self.session.send_notification(types.ClientNotification(notice))
        call.cancel()
        await asyncio.wait([call])

    async def resources(self) -> tuple[int, int]:
        listed = (await self.session.list_resources()).resources
        templates = (await self.session.list_resource_templates()).resourceTemplates
        return len(listed), len(templates)

    async def read(self, uri: str) -> str:
        with rpc_errors():
            return (await self.session.read_resource(AnyUrl(uri))).contents[0].text

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in (await self.session.list_prompts()).prompts]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return (await self.session.get_prompt(name, arguments)).messages[0].content.text

    async def complete(self, prompt: str, argument: str, value: str) -> list[str]:
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return (await self.session.complete(reference, {"name": argument, "value": value})).completion.values

    async def set_level(self, level: Any) -> None:
        await self.session.set_logging_level(level)

    async def ping(self) -> None:
        await self.session.send_ping()

    async def tools_changed(self, trigger: Callable[[], Awaitable[Any]]) -> None:
        await trigger()
        await self.heard.until("notifications/tools/list_changed")

    async def resource_updated(self, uri: str, trigger: Callable[[], Awaitable[Any]]) -> None:
        await self.session.subscribe_resource(AnyUrl(uri))
        await trigger()
        await self.heard.until("notifications/resources/updated")
        await self.session.unsubscribe_resource(AnyUrl(uri))


async def run_era(era: str) -> int:
    report = Report(settings, era)
    try:
        async with (
            create_mcp_http_client(headers=settings.headers) as http,
            streamable_http_client(settings.url, http_client=http) as (read, write, _),
        ):
            peer = Peer(read, write)
            async with peer.session:
                await peer.initialize()
                for name, run in Checks(settings, peer, era).all():
                    await report.check(name, run)
    except Exception as error:  # the connection itself failed, or its end
        report.fail("connection", error)
    return report.failed


if __name__ == "__main__":
    main(settings, run_era)
