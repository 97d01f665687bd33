"""Stands in for the child that merges: says what it does, and writes a folder that looks like a whole model.

An adapter folder named ``broken`` makes it fail, one named ``endless`` makes it wait to be ended.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from serving_files import write_safetensors

adapter, base, dest, progress = (Path(given) for given in sys.argv[1:5])
with progress.open("a") as file:
    file.write(json.dumps({"doing": "merging", "share": 0.4}) + "\n")
if adapter.name == "broken":
    sys.exit("RuntimeError: the shapes do not match")
if adapter.name == "endless":
    time.sleep(60)
part = Path(f"{dest}.part")
part.mkdir(parents=True)
(part / "config.json").write_text("{}")
(part / "tokenizer.json").write_text("{}")
write_safetensors(part / "model.safetensors", {"w": np.ones(3, np.float32)})
shutil.rmtree(dest, ignore_errors=True)
part.rename(dest)
