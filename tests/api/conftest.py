"""A studio behind its REST routes."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from rest_app import app_of

from sage_studio.settings import Settings
from sage_studio.studio import Studio


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    studio = Studio(settings)
    studio.start()
    yield studio
    studio.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        yield client
