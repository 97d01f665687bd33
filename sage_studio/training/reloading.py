"""The saved model loaded once more, so that what is asked and judged is what lies on the disk.

Knows how an adapter comes onto the base that is in memory already, and when there is room for a second whole model.
Knows nothing of what makes a model healthy (`sage_studio.training.health`).
"""

from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from sage_studio.text import Text
from sage_studio.training.base_model import UNUSABLE
from sage_studio.training.failures import explain
from sage_studio.training.health import Unhealthy
from sage_studio.training.progress import Reason

SAVED = "saved"
"""The adapter's name beside the one that was trained."""
ROOM = 1.5
"""Free memory, in sizes of the model on the disk, from which on a whole model is loaded a second time."""


def loaded_again(model: Any, folder: Path, is_adapter: bool, trust_remote_code: bool) -> Any:
    """The model that was saved in a folder; the one in memory where there is no room for another.

    Args:
        model: the trained model. An adapter is put on it beside the trained one and takes its place.

    Raises:
        Unhealthy: what was saved cannot be loaded.
    """
    try:
        if is_adapter:
            model.load_adapter(str(folder), SAVED)
            model.set_adapter(SAVED)
            return model
        size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
        if psutil.virtual_memory().available < ROOM * size:
            print("the saved model is not loaded again: too little memory is free")
            return model
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=next(model.parameters()).dtype, trust_remote_code=trust_remote_code
        ).to(torch.device("cpu"))
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        if explain(error)[0] in (Reason.MEMORY, Reason.DISK):
            raise
        said = str(error).strip().partition("\n")[0][:300]
        raise Unhealthy(
            Text(f"The saved model cannot be loaded again: {said}", f"保存的模型无法重新加载：{said}"),
            Text("Train again; if it happens once more, please report it.", "请重新训练；如再次出现，请反馈该问题。"),
        ) from error
