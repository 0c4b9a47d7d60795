"""A FastMCP server for the client tests: `fastmcp_server.py PORT`, loopback only."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError

STEPS = 3


@dataclass
class Person:
    """What `introduce` asks for."""

    name: str


cancelled = 0
server = FastMCP("fastmcp-test-server")


@server.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool
def repeat(text: str) -> str:
    """Repeats a text."""
    return text


@server.tool
def fail() -> str:
    """Always fails."""
    raise ToolError("This tool fails on purpose.")


@server.tool
async def slow(seconds: float, context: Context) -> str:
    """Takes its time and reports progress."""
    global cancelled
    try:
        for step in range(1, STEPS + 1):
            await asyncio.sleep(seconds / STEPS)
            await context.report_progress(step, STEPS)
    except asyncio.CancelledError:
        cancelled += 1
        raise
    return f"Took {seconds} s."


@server.tool
def cancellations() -> int:
    """How many slow calls were cancelled so far."""
    return cancelled


@server.tool
async def introduce(context: Context) -> str:
    """Asks for a name."""
    answer = await context.elicit("What is your name?", Person)
    return f"Hello, {answer.data.name}!" if answer.action == "accept" else "No name was given."


@server.resource("data://static")
def static() -> str:
    """A text that never changes."""
    return "A static text."


@server.resource("data://item/{number}")
def item(number: str) -> str:
    """An item by its number."""
    return f"Item {number}"


@server.prompt
def ask(topic: str) -> str:
    """Asks about a topic."""
    return f"What do you know about {topic}?"


if __name__ == "__main__":
    server.run(transport="http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
