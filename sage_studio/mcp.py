"""MCP server over stdio: ``python -m sage_studio.mcp [ADDRESS]``.

It offers the table of operations as tools.

It talks to a running studio through ``gradio_client``, so a tool does what the named endpoint of the same name does.
``SAGE_STUDIO_AUTH=user:password`` logs in. Nothing is offered unless somebody starts it: it is not part of the studio.
"""

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from sage_studio import __version__
from sage_studio.operations import operations
from sage_studio.operations.operation import Operation
from sage_studio.settings import PREFIX, Settings

NAME = "sage-studio"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until standard input closes. Returns the exit status: 0, or 2 if no studio answers."""
    asked = argparse.ArgumentParser(prog="python -m sage_studio.mcp", description=(__doc__ or "").splitlines()[0])
    default = f"http://127.0.0.1:{Settings.model_fields['port'].default}"
    asked.add_argument("address", nargs="?", default=default, help=f"of the studio; {default} unless given")
    address = asked.parse_args(arguments).address
    try:
        import mcp_types  # noqa: F401 - of mcp 2; mcp 1 has none
        from mcp.server.stdio import stdio_server
    except ImportError:
        print(
            "The package mcp, version 2 or newer, is not installed. It comes with vLLM; without: "
            "python -m pip install 'sage-studio[mcp]', or in a checkout 'mcp>=2'.",
            file=sys.stderr,
        )
        return 2
    user, _, password = os.environ.get(f"{PREFIX}AUTH", "").partition(":")
    try:
        client = Client(address, auth=(user, password) if password else None, verbose=False)
    except (OSError, ValueError) as error:
        print(f"No studio answers at {address}: {error}. Start one with make run.", file=sys.stderr)
        return 2

    async def serve() -> None:
        server = build_server(client)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    asyncio.run(serve())
    return 0


def build_server(client: Client) -> Any:
    """An MCP server whose tools are the operations, done by a studio that ``client`` is connected to."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    known = {operation.name: operation for operation in operations("mcp")}

    async def list_tools(_: Any, __: Any) -> Any:
        return types.ListToolsResult(tools=[types.Tool(**tool(operation)) for operation in known.values()])

    async def call_tool(_: Any, params: Any) -> Any:
        operation = known.get(params.name)
        if operation is None:
            return _answer(types, f"There is no tool {params.name!r}. Tools: {', '.join(known)}.", is_error=True)
        try:
            answer = await asyncio.to_thread(call, client, operation, params.arguments or {})
        except (AppError, OSError, ValueError) as error:
            return _answer(types, str(error), is_error=True)
        return _answer(types, answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False))

    return Server(NAME, version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def tool(operation: Operation) -> dict[str, Any]:
    """An operation as MCP describes tools."""
    return {
        "name": operation.name,
        "description": operation.description,
        "input_schema": operation.request.model_json_schema(),
        "annotations": {"readOnlyHint": operation.method == "GET", "destructiveHint": operation.method == "DELETE"},
    }


def call(client: Client, operation: Operation, values: dict[str, Any]) -> Any:
    """Have the studio do an operation. Raises `gradio_client.exceptions.AppError` with the reason if it refuses."""
    unknown = sorted(set(values) - set(operation.request.model_fields))
    if unknown:
        fields = ", ".join(operation.request.model_fields) or "nothing"
        raise ValueError(f"{operation.name} does not take {', '.join(unknown)}; it takes {fields}.")
    upload = operation.file_parameter
    if upload is not None and upload in values:
        values = {**values, upload: handle_file(values[upload])}
    return client.predict(api_name=f"/{operation.name}", **values)


def _answer(types: Any, text: str, *, is_error: bool = False) -> Any:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=is_error)


if __name__ == "__main__":
    sys.exit(main())
