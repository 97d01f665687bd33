"""The real trainer, which waits behind step `PAUSE` until its folder holds a file "go" or it is told to stop.

    python paused_trainer.py FOLDER    one training, as the studio starts it
    python paused_trainer.py           a forked training for each folder named on standard input, answered by its pid:
                                       the libraries are imported once, not at every start

With a file "clock" in the folder the clock is set back by an hour when it goes on.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PAUSE = 7
LONGEST = 3600.0


def train(folder: Path) -> int:
    from sage_studio.training.__main__ import main
    from sage_studio.training.callbacks import ProgressCallback

    right = ProgressCallback.on_step_end

    def pausing(self: Any, arguments: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == PAUSE:
            (folder / "paused").touch()
            deadline = time.monotonic() + LONGEST
            while not (folder / "go").exists() and not self._run.stop.requested and time.monotonic() < deadline:
                time.sleep(0.005)
            if (folder / "clock").exists():
                now = time.time
                time.time = lambda: now() - 3600
        right(self, arguments, state, control, **rest)

    ProgressCallback.on_step_end = pausing
    return main([str(folder)])


def serve() -> None:
    import torch

    import sage_studio.training.methods.sft  # noqa: F401 - what takes so long

    torch.set_num_threads(1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        folder = Path(line.strip())
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            log = os.open(folder / "train.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(log, stream)
            os._exit(train(folder))
        print(pid, flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(train(Path(sys.argv[1])))
    serve()
