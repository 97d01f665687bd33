"""The committed rehearsal on GPUs: every GPU and desktop is in it, nothing is refused unsaid, and it fits the code."""

import importlib.util
import re
import sys

import pytest

from sage_studio.settings import PROJECT

SPEC = importlib.util.spec_from_file_location("gpu_rehearsal", PROJECT / "scripts" / "gpu_rehearsal.py")
rehearsal = importlib.util.module_from_spec(SPEC)
sys.modules["gpu_rehearsal"] = rehearsal  # dataclasses look their module up
SPEC.loader.exec_module(rehearsal)
PAGE = rehearsal.FIGURES.read_text(encoding="utf-8")


def rows():
    """Every row of both tables, by column."""
    found = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    return [dict(zip(rehearsal.COLUMNS, cells, strict=True)) for cells in found if cells[0] not in ("GPU", "---")]


def test_every_gpu_is_rehearsed_beside_every_desktop():
    seen = [(row["GPU"], row["desktop"]) for row in rows()]
    for gpu in rehearsal.GPUS:
        for used in rehearsal.DESKTOPS:
            assert (gpu.label, f"{used:.0f} GB") in seen
    others = sum(len(gpu.others) for gpu in rehearsal.GPUS)
    assert len(seen) == len(rehearsal.GPUS) * len(rehearsal.DESKTOPS) + others


def test_nothing_is_refused_that_was_not_said_before():
    assert "**0** of" in PAGE
    for row in rows():
        if row["form"].startswith("vllm"):
            assert row["engine configuration"] == "accepted", row
            assert row["vLLM's memory check"] == "ok", row
            assert row["sampler"] == "no compiler", row
            need, room = (float(each) for each in row["needs"].split(" of "))
            assert need <= room, row


def test_the_gpus_decide_as_they_are():
    by_gpu = {row["GPU"]: row for row in rows()}
    assert (by_gpu["T4"]["dtype"], by_gpu["T4"]["attention"]) == ("float16", "TRITON_ATTN")
    assert (by_gpu["H100"]["dtype"], by_gpu["H100"]["attention"]) == ("bfloat16", "FLASH_ATTN")
    spread = [row["form"] for row in rows() if row["GPU"].startswith("2 x")]
    assert spread[0] == "vllm bf16 on GPU 1", "the first GPU is left to trainings"
    assert any("on 2 GPUs" in form for form in spread), "a model that one does not hold is spread over both"
    assert any(int(row["sequences, graphs"].split(",")[0]) > 32 for row in rows() if row["GPU"] == "H100")


@pytest.mark.parametrize("gpu", rehearsal.GPUS, ids=lambda gpu: gpu.label)
def test_the_table_fits_the_code(gpu, tmp_path):
    """What the studio plans today is what was rehearsed; else run scripts/gpu_rehearsal.py again."""
    then = {(row["GPU"], row["desktop"], row["model"]): row for row in rows()}
    asked = [(used, "") for used in rehearsal.DESKTOPS] + [(1.0, rehearsal.OTHERS[size]) for size in gpu.others]
    for used, model in asked:
        now = rehearsal.plan_row(gpu, used, model, tmp_path)
        before = then[(gpu.label, f"{used:.0f} GB", re.sub("^.*/|-Instruct$", "", now["model"]))]
        assert before["form"].startswith(f"{now['served'].engine or '-'} {now['served'].form}")
        if now["launch"] is not None:
            assert before["share"] == str(now["launch"].plan.memory_share)
            assert before["context"] == str(now["launch"].plan.context)
