"""Python `mcp` 2.x against an MCP endpoint; see README.md."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import mcp_types as types
from checks import Answer, Checks, Heard, RpcError
from common import ROOT, SAMPLED, Report, Settings, expect, main
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, ToolsListChanged
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError

# Sampling, roots, logging and resource subscriptions are deprecated, and what legacy servers have.
warnings.simplefilter("ignore", MCPDeprecationWarning)

MODES = {"legacy": "legacy", "modern": "2026-07-28", "auto": "auto"}
settings = Settings("py2", list(MODES))


@contextmanager
def rpc_errors() -> Iterator[None]:
    try:
        yield
    except MCPError as error:
        raise RpcError(error.error.code, error.error.message) from error


class Peer:
    """One connection."""

    def __init__(self, http: Any, mode: str) -> None:
        self.heard = Heard()
        self.client = Client(
            streamable_http_client(settings.url, http_client=http),
            mode=mode,
            sampling_callback=self.on_sampling,
            list_roots_callback=self.on_roots,
            elicitation_callback=self.on_elicitation,
            logging_callback=self.on_log,
            message_handler=self.on_message,
        )

    async def on_log(self, params: types.LoggingMessageNotificationParams) -> None:
        self.heard.logs.append(params.data)

    async def on_message(self, message: Any) -> None:
        if not isinstance(message, Exception):
            self.heard.methods.append(message.method)

    async def on_elicitation(self, context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content=settings.answer(params.requested_schema))

    async def on_sampling(self, context: Any, params: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text=SAMPLED)
        return types.CreateMessageResult(role="assistant", content=content, model="test", stop_reason="endTurn")

    async def on_roots(self, context: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri=ROOT, name="root")])

    @property
    def version(self) -> str:
        return self.client.protocol_version

    @property
    def modern(self) -> bool:
        return self.version >= "2026-07-28"

    async def tools(self) -> list[str]:
        return [tool.name for tool in (await self.client.list_tools()).tools]

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
            result = await self.client.call_tool(
                tool, arguments, progress_callback=report if on_progress else None, meta=meta
            )
        text = "\n".join(block.text for block in result.content if block.type == "text")
        return Answer(text, bool(result.is_error))

    async def call_and_cancel(self, tool: str, arguments: dict[str, Any], after: float) -> None:
        with anyio.move_on_after(after) as scope:
            await self.client.call_tool(tool, arguments)
        expect(scope.cancelled_caught, "the call ended before it was cancelled")

    async def resources(self) -> tuple[int, int]:
        listed = (await self.client.list_resources()).resources
        templates = (await self.client.list_resource_templates()).resource_templates
        return len(listed), len(templates)

    async def read(self, uri: str) -> str:
        with rpc_errors():
            return (await self.client.read_resource(uri)).contents[0].text

    async def prompts(self) -> list[str]:
        return [prompt.name for prompt in (await self.client.list_prompts()).prompts]

    async def prompt(self, name: str, arguments: dict[str, str]) -> str:
        return (await self.client.get_prompt(name, arguments)).messages[0].content.text

    async def complete(self, prompt: str, argument: str, value: str) -> list[str]:
        reference = types.PromptReference(type="ref/prompt", name=prompt)
        return (await self.client.complete(reference, {"name": argument, "value": value})).completion.values

    async def set_level(self, level: Any) -> None:
        await self.client.set_logging_level(level)

    async def ping(self) -> None:
        await self.client.send_ping()

    async def tools_changed(self, trigger: Callable[[], Awaitable[Any]]) -> None:
        if not self.modern:
            await trigger()
            await self.heard.until("notifications/tools/list_changed")
            return
        async with self.client.listen(tools_list_changed=True) as subscription:
            await trigger()
            event = await anext(aiter(subscription))
            expect(isinstance(event, ToolsListChanged), f"another event: {event}")

    async def resource_updated(self, uri: str, trigger: Callable[[], Awaitable[Any]]) -> None:
        if not self.modern:
            await self.client.subscribe_resource(uri)
            await trigger()
            await self.heard.until("notifications/resources/updated")
            await self.client.unsubscribe_resource(uri)
            return
        async with self.client.listen(resource_subscriptions=[uri]) as subscription:
            await trigger()
            event = await anext(aiter(subscription))
            expect(isinstance(event, ResourceUpdated) and str(event.uri) == uri, f"another event: {event}")


async def run_era(era: str) -> int:
    report = Report(settings, era)
    try:
        async with create_mcp_http_client(headers=settings.headers) as http:
            peer = Peer(http, MODES[era])
            async with peer.client:
                for name, run in Checks(settings, peer, era).all():
                    await report.check(name, run)
    except Exception as error:  # the connection itself failed, or its end
        report.fail("connection", error)
    return report.failed


if __name__ == "__main__":
    main(settings, run_era)
