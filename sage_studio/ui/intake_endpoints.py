"""The named endpoints for ``gradio_client`` that bring data in, beside ``/upload_dataset``.

Knows names and parameters. Knows nothing of widgets.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage_studio.data.column_mapping import parse_mapping
from sage_studio.data.sources.documents import DocumentRows
from sage_studio.intake_views import LookView, QuestionView
from sage_studio.studio import Studio
from sage_studio.views import DatasetView


def intake_verbs(studio: Studio, uploaded: Callable[[Any], Path]) -> list[Callable[..., Any]]:
    """The endpoints; ``uploaded`` finds the file that a client sent."""

    def upload_dataset(
        file: dict[str, Any], name: str = "", mapping: str = "", rows: DocumentRows = "questions"
    ) -> dict[str, Any]:
        """Keep a file of rows or documents, given with handle_file(path); mapping is JSON: {format, columns}."""
        path = uploaded(file)
        return DatasetView.of(
            studio.datasets.upload(path, name, mapping=parse_mapping(mapping), rows=rows)
        ).model_dump()

    def look_at_file(file: dict[str, Any]) -> dict[str, Any]:
        """What a file, given with handle_file(path), holds. Nothing is kept."""
        return LookView.of(studio.datasets.inspect_file(uploaded(file))).model_dump()

    def add_repository(
        address: str, branch: str = "", folder: str = "", name: str = "", rows: DocumentRows = "questions"
    ) -> dict[str, Any]:
        """Make a dataset of the documents in a Git repository's folder."""
        return DatasetView.of(studio.datasets.add_repository(address, branch, folder, name, rows)).model_dump()

    def add_hub_dataset(
        repo: str, config: str = "", split: str = "", max_rows: int = 0, name: str = "", mapping: str = ""
    ) -> dict[str, Any]:
        """Fetch a dataset from the hub by its id."""
        given = parse_mapping(mapping)
        dataset = studio.datasets.add_from_hub(repo, config, split, int(max_rows), name, given)
        return DatasetView.of(dataset).model_dump()

    def add_quickstart_dataset() -> dict[str, Any]:
        """Keep the questions about SAGE that come with the studio as a dataset."""
        return DatasetView.of(studio.datasets.add_quickstart()).model_dump()

    def quickstart_test() -> list[dict[str, Any]]:
        """The test questions of the quick-start set, which are in no dataset, and what makes an answer right."""
        return [QuestionView.of(question).model_dump() for question in studio.datasets.quickstart_test()]

    return [
        upload_dataset,
        look_at_file,
        add_repository,
        add_hub_dataset,
        add_quickstart_dataset,
        quickstart_test,
    ]
