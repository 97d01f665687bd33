"""A preparation that prepares nothing but follows the protocol of the files. What it does stands in job.json's source.

Runs by itself, from the standard library alone, so that it starts in milliseconds; never longer than `LONGEST` seconds.

    ready      marks the orders as prepared
    wait       waits for a file "come" in its folder, then does so; SIGTERM ends it with a "stopped" result
    refuse     ends with a failed result of its own, until its folder holds a file "mended"
    die        writes a line to the log and leaves without a result
"""

import json
import signal
import sys
import time
from pathlib import Path

LONGEST = 3600.0


def main(folder: Path) -> int:
    job = json.loads((folder / "job.json").read_text())
    act = job["source"]
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    event(folder, phase="checking_rows", done=0, total=10, unit="rows")
    if act == "die":
        print("the last thing it said")
        return 3
    if act == "refuse" and not (folder / "mended").exists():
        return result(folder, "failed", reason="data", message=["Row 7 is odd.", "第 7 行异常。"])
    deadline = time.monotonic() + LONGEST
    while act == "wait" and not (folder / "come").exists():
        if told:
            return result(folder, "stopped", message=["Stopped.", "已停止。"])
        if time.monotonic() > deadline:
            sys.exit("nobody came")
        time.sleep(0.005)
    part = folder / "job.part"
    part.write_text(json.dumps({**job, "prepared": True, "dataset_id": "rows-v1", "dataset_name": "rows"}))
    part.replace(folder / "job.json")
    return 0


def event(folder: Path, **fields: object) -> None:
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), **fields}) + "\n")


def result(folder: Path, status: str, **fields: object) -> int:
    part = folder / "result.part"
    part.write_text(json.dumps({"status": status, **fields}))
    part.replace(folder / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
