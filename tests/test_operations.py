"""The table of operations: each is declared once and answers at four doors."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from running_studio import RunningStudio
from waiting import patient

from sage_studio.errors import InvalidInput
from sage_studio.operations import NOUNS, operations
from sage_studio.operations.operation import EVERY_DOOR, Noun
from sage_studio.settings import PREFIX, PROJECT

BY_HAND = {"GET /api/datasets/{dataset_id}/findings", "GET /api/finetune/tasks"}
"""Routes that stream or are written faster by hand: their operations have the other three doors."""


def test_a_name_and_a_command_mean_one_thing_at_each_door():
    for door in EVERY_DOOR:
        table = operations(door)
        for words in ([each.name for each in table], [(each.noun, each.verb) for each in table]):
            assert max(Counter(words).values()) == 1
    assert max(Counter((each.method, each.path) for each in operations("rest")).values()) == 1


def test_every_operation_is_offered_at_four_doors():
    offered = defaultdict(set)
    for noun in NOUNS:
        for each in noun.operations:
            assert each.description.endswith("."), each.name
            offered[f"{each.method} {each.path}"] |= set(each.doors)
    assert {name for name, doors in offered.items() if doors != set(EVERY_DOOR)} == BY_HAND


def test_values_are_checked_before_anything_is_done():
    operation = next(each for each in operations("client") if each.name == "see_row")
    assert operation.checked({"dataset_id": "d", "row": 2.0, "model": None}) == {"dataset_id": "d", "row": 2}
    for wrong, named in (({"row": 1}, "dataset_id"), ({"dataset_id": "d", "row": "x"}, "row"), ({"pages": 1}, "pages")):
        with pytest.raises(InvalidInput) as refused:
            operation.checked({"dataset_id": "d", "row": 1, **wrong} if named != "dataset_id" else wrong)
        assert named in refused.value.message.en
        assert "max_length" in refused.value.hint.en


def test_a_noun_collects_what_is_declared_on_it():
    things = Noun("things")

    @things.get("/api/things/{thing_id}", "show", doors=("cli",))
    def get_thing(studio, thing_id: str, size: int = 3) -> dict[str, int]:
        """One thing."""
        return {thing_id: size}

    (operation,) = things.operations
    assert (operation.name, operation.path_parameters) == ("get_thing", ("thing_id",))
    assert list(operation.body.model_fields) == ["size"]
    assert operation.run(None, operation.checked({"thing_id": "a", "size": "4"})) == {"a": 4}


def test_one_operation_answers_at_four_doors(tmp_path):
    studio = RunningStudio(tmp_path, SAGE_STUDIO_ENGINE="transformers").start()
    try:
        by_rest = studio.post("/api/datasets/quickstart")
        assert by_gradio_client(studio.url) == by_rest
        assert by_command_line(tmp_path) == by_rest
        tools, by_mcp, refused = asyncio.run(by_tool(studio.url))
        assert by_mcp == by_rest
        assert {each.name for each in operations("mcp")} == tools
        assert "nothing" in refused
        assert "dataset_id" in refused
    finally:
        studio.stop()


def by_gradio_client(url):
    from gradio_client import Client

    client = Client(url, verbose=False)
    try:
        return client.predict(api_name="/add_quickstart_dataset")
    finally:
        client.close()


def by_command_line(home):
    command = [sys.executable, "-m", "sage_studio.cli", "datasets", "quickstart"]
    environment = {**os.environ, f"{PREFIX}HOME": str(home)}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True, timeout=patient()
    )
    return json.loads(done.stdout)


async def by_tool(url):
    """The tools that the MCP server offers, what one answers, and what one says to a wrong parameter."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "sage_studio.mcp", url], cwd=str(PROJECT), env=dict(os.environ)
    )
    async with stdio_client(server) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        answer = await session.call_tool("add_quickstart_dataset", {})
        refused = await session.call_tool("get_dataset", {"nothing": 1})
        assert refused.is_error
        return tools, json.loads(answer.content[0].text), refused.content[0].text
