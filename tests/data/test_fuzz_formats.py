"""A few seconds of fuzzing; ``python -m benchmarks.fuzz_formats`` goes on for as long as one likes."""

from fuzzing import FILES, Tally, read
from hypothesis import HealthCheck, given, settings


@settings(max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(file=FILES)
def test_no_file_makes_the_reader_fail(tmp_path, file):
    name, content = file
    path = tmp_path / name
    path.write_bytes(content)
    tally = Tally()
    read(path, tally)
    assert tally.read + sum(tally.refused.values()) == 1
