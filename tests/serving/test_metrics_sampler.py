"""The sampler against a real HTTP server that tells figures: what it keeps, when it asks and when it does not."""

import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from waiting import patient, wait_until

from sage_studio.hardware import Gpu
from sage_studio.serving import metrics
from sage_studio.serving.metrics import MetricsEndpoint, MetricsSampler


class Engine(ThreadingHTTPServer):
    """Tells one more hundred tokens each time it is asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked, self.status, self.keys = 0, 200, []
        self.address = MetricsEndpoint(f"http://127.0.0.1:{self.server_port}/v1", "key")
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        return None

    def do_GET(self):
        self.server.asked += 1
        self.server.keys.append(self.headers["Authorization"])
        body = f"vllm:generation_tokens_total {100 * self.server.asked}\nvllm:num_requests_running 1\n".encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def engine():
    engine = Engine()
    yield engine
    engine.shutdown()
    engine.server_close()


@pytest.fixture
def sampler_of(monkeypatch):
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", patient())
    monkeypatch.setattr(metrics, "GPUS_SECONDS", patient())
    made = []

    def make(address, gpus=lambda: (), seconds=0.01):
        made.append(MetricsSampler(address, gpus, seconds))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_one_thread_samples_a_ready_engine(engine, sampler_of):
    sampler = sampler_of(lambda: engine.address)
    sampler.start()
    samples = wait_until(lambda: len(sampler.samples()) >= 3 and sampler.samples())
    assert samples[0].tokens_per_second is None
    assert all(one.tokens_per_second > 0 for one in samples[1:])
    assert [one.time for one in samples] == sorted(one.time for one in samples)
    assert set(engine.keys) == {"Bearer key"}
    sampler.close()
    asked = engine.asked
    assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]
    assert engine.asked == asked


def test_while_no_engine_is_ready_nobody_is_asked(engine, sampler_of):
    sampler = sampler_of(lambda: None)
    sampler.take_sample()
    assert (engine.asked, sampler.samples()) == (0, [])


def test_a_silent_or_a_missing_engine_leaves_a_gap_and_no_fault(engine, sampler_of):
    where = [engine.address, MetricsEndpoint("http://127.0.0.1:1/v1")]
    sampler = sampler_of(lambda: where[0])
    sampler.take_sample()
    engine.status = 503
    sampler.take_sample()
    where.reverse()
    sampler.take_sample()
    assert len(sampler.samples()) == 1


def test_another_engines_counters_are_not_compared(engine, sampler_of):
    second = Engine()
    where = engine.address
    sampler = sampler_of(lambda: where)
    for _ in range(3):
        sampler.take_sample()
    where = second.address
    sampler.take_sample()
    second.shutdown()
    second.server_close()
    assert [one.tokens_per_second is None for one in sampler.samples()] == [True, False, False, True]


def test_gpus_are_looked_at_less_often_than_the_engine(engine, sampler_of):
    looked = []

    def gpus():
        looked.append(1)
        return (Gpu(0, "RTX 3060", 12.0, 8.5, 71.0),)

    sampler = sampler_of(lambda: engine.address, gpus)
    for _ in range(4):
        sampler.take_sample()
    assert len(looked) == 1
    assert [one.gpu_percent for one in sampler.samples()] == [71.0] * 4


def test_it_remembers_ten_minutes(engine, sampler_of):
    sampler = sampler_of(lambda: engine.address)
    for _ in range(310):
        sampler.take_sample()
    assert len(sampler.samples()) == 300


@pytest.mark.parametrize("fault", [OSError("cannot fork"), sqlite3.OperationalError("database is locked")])
def test_a_fault_of_the_machine_does_not_end_the_thread(engine, sampler_of, fault):
    faults = [fault]

    def address():
        if faults:
            raise faults.pop()
        return engine.address

    sampler = sampler_of(address)
    sampler.start()
    assert wait_until(sampler.samples)
