"""The table of operations: each is declared once and answers through four interfaces."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections import Counter, defaultdict

import pytest
from running_studio import RunningStudio
from waiting import patient

from sage_studio.errors import InvalidInput
from sage_studio.operations import NOUNS, operations
from sage_studio.operations.operation import ALL_INTERFACES, Noun
from sage_studio.settings import PREFIX, PROJECT

BY_HAND = {"GET /api/datasets/{dataset_id}/findings", "GET /api/finetune/tasks"}
"""Routes that stream or are written faster by hand: their operations have the other three interfaces."""

EXAMPLE = "operations.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)


def test_a_name_and_a_command_mean_one_thing_at_each_door():
    for interface in ALL_INTERFACES:
        table = operations(interface)
        for words in ([each.name for each in table], [(each.noun, each.verb) for each in table]):
            assert max(Counter(words).values()) == 1
    assert max(Counter((each.method, each.path) for each in operations("rest")).values()) == 1


def test_every_operation_is_offered_at_four_doors():
    offered = defaultdict(set)
    for noun in NOUNS:
        for each in noun.operations:
            assert each.description.endswith("."), each.name
            offered[f"{each.method} {each.path}"] |= set(each.interfaces)
    assert {name for name, interfaces in offered.items() if interfaces != set(ALL_INTERFACES)} == BY_HAND


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

    @things.get("/api/things/{thing_id}", "show", interfaces=("cli",))
    def get_thing(studio, thing_id: str, size: int = 3) -> dict[str, int]:
        """One thing."""
        return {thing_id: size}

    (operation,) = things.operations
    assert (operation.name, operation.path_parameters) == ("get_thing", ("thing_id",))
    assert list(operation.body.model_fields) == ["size"]
    assert operation.run(None, operation.checked({"thing_id": "a", "size": "4"})) == {"a": 4}


@pytest.mark.parametrize("page", ["operations.md", "operations.zh.md"])
def test_the_documentation_shows_the_same_example_in_both_languages(page):
    shown, known = (BLOCK.findall((PROJECT / "docs" / name).read_text(encoding="utf-8")) for name in (page, EXAMPLE))
    assert shown == known
    assert len(known) == 3


def test_the_new_operation_of_the_documentation_answers_at_four_doors(tmp_path):
    """The example of docs/operations.md in a copy of the code, whose two places are all that is touched."""
    project, home = tmp_path / "project", tmp_path / "home"
    for part in ("sage_studio", "configs", "app.py"):
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy2
        project.mkdir(exist_ok=True)
        copy(PROJECT / part, project / part)
    add_example(project)
    home.mkdir()
    studio = RunningStudio(home, project, SAGE_STUDIO_ENGINE="transformers").start()
    try:
        added = studio.post("/api/datasets/quickstart")
        asked = {"dataset_id": added["id"], "text": "SAGE"}
        answer = studio.get(f"/api/datasets/{added['id']}/count", text="SAGE")
        assert 0 < answer["rows"] <= added["stats"]["total_samples"]
        assert by_gradio_client(studio.url, "count_rows", **asked) == answer
        assert by_command_line(home, "datasets", "count", *asked.values(), project=project) == answer
        tools, by_mcp, refused = asyncio.run(by_tool(studio.url, "count_rows", asked, project))
        assert by_mcp == answer
        assert {each.name for each in operations("mcp")} | {"count_rows"} == tools
        assert "nothing" in refused
        assert "dataset_id" in refused
        documented = studio.get("/openapi.json")["paths"]["/api/datasets/{dataset_id}/count"]["get"]["responses"]
        assert set(documented) == {"200", "400", "401", "403", "404", "413", "422", "429"}
    finally:
        studio.stop()


def add_example(project):
    """Put the two blocks of Python of the page into the two places that it names."""
    language_and_text = BLOCK.findall((PROJECT / "docs" / EXAMPLE).read_text(encoding="utf-8"))
    method, operation, *_ = (text for language, text in language_and_text if language == "python")
    service = project / "sage_studio" / "services" / "datasets.py"
    before, head, after = service.read_text(encoding="utf-8").partition("class DatasetService:\n")
    title, rest = after.split("\n", 1)
    service.write_text(f"{before}{head}{title}\n\n{textwrap.indent(method, ' ' * 4)}{rest}", encoding="utf-8")
    with (project / "sage_studio" / "operations" / "datasets.py").open("a", encoding="utf-8") as table:
        table.write(f"\n\n{operation}")


def test_without_its_package_the_mcp_server_says_what_to_install():
    code = "import sys; sys.modules['mcp'] = None; from sage_studio.mcp import main; sys.exit(main([]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=patient())
    assert done.returncode == 2
    assert done.stdout == ""
    assert "pip install 'sage-studio[mcp]'" in done.stderr
    assert "Traceback" not in done.stderr


def by_gradio_client(url, name, **values):
    from gradio_client import Client

    client = Client(url, verbose=False)
    try:
        return client.predict(api_name=f"/{name}", **values)
    finally:
        client.close()


def by_command_line(home, *words, project):
    command = [sys.executable, "-m", "sage_studio.cli", *words]
    environment = {**os.environ, f"{PREFIX}HOME": str(home)}
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=True, timeout=patient()
    )
    return json.loads(done.stdout)


async def by_tool(url, name, values, project):
    """The tools that the MCP server offers, what one answers, and what one says to a wrong parameter."""
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    server = StdioServerParameters(
        command=sys.executable, args=["-m", "sage_studio.mcp", url], cwd=str(project), env=dict(os.environ)
    )
    async with stdio_client(server) as (incoming, outgoing), ClientSession(incoming, outgoing) as session:
        await session.initialize()
        tools = {tool.name for tool in (await session.list_tools()).tools}
        answer = await session.call_tool(name, values)
        refused = await session.call_tool("get_dataset", {"nothing": 1})
        assert refused.is_error
        return tools, json.loads(answer.content[0].text), refused.content[0].text
