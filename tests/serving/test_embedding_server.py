"""The embedder's server, over HTTP, around a model that only counts characters."""

import base64
import http.client
import json
import threading

import numpy as np
import pytest
import uvicorn
from waiting import patient, wait_until

from sage_studio.serving.embedding_server import MAX_BODY_BYTES, EmbeddingModel, build_app

KEY = {"Authorization": "Bearer key"}
BODY = json.dumps({"model": "m", "input": ["a", "bcd"], "input_type": "query"})


class Counting(EmbeddingModel):
    def embed(self, texts, kind):
        return np.array([[len(text), kind == "query"] for text in texts], dtype="<f4")


@pytest.fixture
def connection():
    """One connection that is kept, as the studio keeps its own."""
    config = uvicorn.Config(build_app(Counting(None), "key"), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patient())
    yield connection
    connection.close()
    server.should_exit = True
    thread.join()


def ask(connection, body=BODY, headers=KEY, path="/v1/embeddings"):
    connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read() or b"{}")


def test_vectors_come_as_bytes_in_the_order_of_the_texts(connection):
    status, said = ask(connection)
    vectors = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4").tolist() for row in said["data"]]
    assert (status, said["model"], vectors) == (200, "m", [[1.0, 1.0], [3.0, 1.0]])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {}}, 401),
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"path": "/v1/other"}, 404),
        ({"body": "{"}, 422),
        ({"body": json.dumps({"input": ["x"], "input_type": "poem"})}, 422),
        ({"headers": {**KEY, "Content-Length": str(MAX_BODY_BYTES + 1)}, "body": ""}, 413),
    ],
)
def test_after_a_refusal_the_next_request_of_the_connection_is_answered(connection, changes, status):
    """A body that nobody read must not be taken for the next request."""
    assert ask(connection, **changes)[0] == status
    if status == 413:
        connection.close()  # the body that was announced never came
    assert ask(connection)[0] == 200
