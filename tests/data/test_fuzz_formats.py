"""A few seconds of fuzzing; ``python -m benchmarks.fuzz_formats`` goes on for as long as one likes."""

from fuzzing import FILES, Tally, read
from fuzzing_fast_jsonl import IN_PARTS, read_both
from hypothesis import HealthCheck, given, settings

SHORT = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@SHORT
@given(file=FILES)
def test_no_file_makes_the_reader_fail(tmp_path, file):
    name, content = file
    path = tmp_path / name
    path.write_bytes(content)
    tally = Tally()
    read(path, tally)
    assert tally.read + sum(tally.refused.values()) == 1


def test_no_jsonl_is_read_otherwise_in_parts(tmp_path):
    tally = Tally()

    @SHORT
    @given(file=IN_PARTS)
    def run(file):
        read_both(*file, tmp_path, tally)

    run()
    assert tally.files >= 150
    assert tally.in_parts > tally.files / 2
    assert tally.read > 10
    assert tally.refused
