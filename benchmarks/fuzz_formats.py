"""How long the reader of data files withstands garbled ones: ``python -m benchmarks.fuzz_formats --minutes 30``.

Makes files (``tests/data/fuzzing.py``), reads each to its end and counts; then JSONL that is stored twice
(``tests/data/fuzzing_fast_jsonl.py``), read in small parts and sequentially, which must agree. Ends with status 1 and
the smallest file that made a reader fail, as hypothesis found it.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path
from time import monotonic

from hypothesis import HealthCheck, given, seed, settings

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "tests" / "data"))

from fuzzing import FILES, Tally, read  # noqa: E402  # lies beside the tests
from fuzzing_fast_jsonl import IN_PARTS, read_both  # noqa: E402

A_ROUND, IN_PARTS_A_ROUND = 500, 250


def main() -> None:
    """Fuzz until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    minutes = parser.parse_args().minutes
    tally, in_parts, began = Tally(), Tally(), monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while monotonic() < began + 60 * minutes:
            number = random.randrange(1 << 32)
            try:
                one_round(Path(folder), tally, number)
                one_round_in_parts(Path(folder), in_parts, number)
            except Exception:
                print(f"FAILED with seed {number} after {tally.files:,} and {in_parts.files:,} files")
                raise
            print(f"{(monotonic() - began) / 60:5.1f} min  {said(tally)}", flush=True)
            print(f"    twice  {said(in_parts)}; {in_parts.in_parts:,} in parts", flush=True)
    print(f"no unhandled exception in {(monotonic() - began) / 60:.1f} min: {said(tally)}")
    print(f"no difference between parts and whole: {said(in_parts)}; {in_parts.in_parts:,} in parts")


def one_round(folder: Path, tally: Tally, number: int) -> None:
    """Some hundred files; raises what the reader raised."""

    @seed(number)
    @settings(max_examples=A_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(file=FILES)
    def run(file: tuple[str, bytes]) -> None:
        path = folder / file[0]
        path.write_bytes(file[1])
        read(path, tally)

    run()


def one_round_in_parts(folder: Path, tally: Tally, number: int) -> None:
    """Some hundred files kept in two ways; raises what a reader raised, and where the two differ."""

    @seed(number)
    @settings(max_examples=IN_PARTS_A_ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(file=IN_PARTS)
    def run(file: tuple[bytes, int]) -> None:
        read_both(*file, folder, tally)

    run()


def said(tally: Tally) -> str:
    """The counts in a line."""
    refused = ", ".join(f"{code} {count:,}" for code, count in sorted(tally.refused.items()))
    read_ = f"{tally.files:,} files, {tally.read:,} read ({tally.rows:,} rows)"
    return f"{read_}, refused: {refused}; slowest {tally.slowest:.1f} s"


if __name__ == "__main__":
    main()
