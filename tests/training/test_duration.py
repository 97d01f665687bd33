"""How long a training takes: the arithmetic of rows, steps and padding, and the pace a probe fits."""

import random

import pytest

from sage_studio.training.duration import (
    StepTime,
    estimate_step_time,
    loop_seconds,
    measure_in_child,
    spread_lengths,
    work_of,
)
from sage_studio.training.memory import TraceRequest
from sage_studio.training.recipes import DPORecipe, SFTRecipe
from sage_studio.training.speed_probe import fitted

A_TOKEN = StepTime(constant=0.0, linear=1.0)
A_STEP = StepTime(constant=1.0, linear=0.0)


def recipe(method=SFTRecipe, **values):
    return method(model_name_or_path="m", dataset_id="d", **values).model_dump()


def seconds(values, lengths, rows, pace):
    return loop_seconds(values, work_of(values, lengths, rows), pace)


def test_of_equal_rows_every_token_is_counted_once_an_epoch():
    assert seconds(recipe(num_train_epochs=2), [50] * 10, 10, A_TOKEN) == pytest.approx(2 * 10 * 50)


def test_rows_are_cut_and_counted_as_the_recipe_says():
    assert seconds(recipe(num_train_epochs=1, max_length=16, max_samples=4), [50], 100, A_TOKEN) == pytest.approx(
        4 * 16
    )


def test_max_steps_end_a_run_of_accumulated_batches():
    values = recipe(max_steps=3, gradient_accumulation_steps=4, per_device_train_batch_size=2)
    assert work_of(values, [10], 1000).batches == 12


def test_a_hold_out_set_is_not_trained_on_but_measured():
    plain, held = recipe(num_train_epochs=1), recipe(num_train_epochs=1, eval_share=0.5)
    assert work_of(held, [10], 100).batches == work_of(plain, [10], 100).batches / 2
    assert work_of(held, [10], 100).held_batches == 50 * 11


def test_a_batch_is_as_long_as_its_longest_row():
    lengths = [random.Random(0).randint(10, 400) for _ in range(200)]
    drawn, many = random.Random(1), 20_000
    real = sum(max(drawn.choice(lengths) for _ in range(8)) for _ in range(many)) / many
    values = recipe(per_device_train_batch_size=8)
    assert work_of(values, lengths, 10_000).length == pytest.approx(real, rel=0.01)


def test_packing_leaves_no_padding():
    lengths = [10] * 50 + [200] * 50
    values = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "max_length": 256}
    padded, packed = recipe(**values), recipe(**values, packing=True)
    tokens = sum(lengths)
    assert tokens < seconds(packed, lengths, 100, A_TOKEN) < 1.15 * tokens
    assert seconds(padded, lengths, 100, A_TOKEN) > 1.3 * tokens


def test_a_preference_runs_two_texts_through_model_and_reference():
    both = {"num_train_epochs": 1, "per_device_train_batch_size": 1, "eval_share": 0}
    once, pair = recipe(**both), recipe(DPORecipe, **both)
    assert seconds(pair, [100], 10, A_TOKEN) == pytest.approx(3 * seconds(once, [100], 10, A_TOKEN))


def test_checkpointing_and_quantizing_cost_time():
    plain = seconds(recipe(), [100], 10, A_TOKEN)
    for values in ({"gradient_checkpointing": True}, {"quantization": "8bit"}, {"use_dora": True}):
        assert seconds(recipe(**values), [100], 10, A_TOKEN) > plain


def test_several_gpus_share_the_rows():
    assert seconds(recipe(gpu_vis="0,1"), [9], 100, A_STEP) == pytest.approx(seconds(recipe(), [9], 100, A_STEP) / 2)


def test_lengths_like_a_datasets_have_its_mean():
    made = spread_lengths(((32, 100), (64, 300), (512, 20)), 60.0)
    assert sum(made) / len(made) == pytest.approx(60, rel=0.02)
    assert max(made) > 3 * min(made)
    assert spread_lengths((), 42.4) == [42]


@pytest.mark.parametrize(("constant", "linear", "square"), [(0.1, 0.01, 0.0), (0.0, 0.002, 1e-6)])
def test_a_probe_finds_what_its_steps_are_made_of(constant, linear, square):
    made = [constant + linear * length + square * length**2 for length in (64, 256, 512)]
    pace = fitted((64, 256, 512), made)
    assert pace.seconds(1, 400, 400**2) == pytest.approx(constant + linear * 400 + square * 400**2, rel=1e-6)


def test_noise_makes_no_pace_that_runs_backwards():
    pace = fitted((64, 256, 512), [0.5, 0.4, 0.6])
    assert min(pace.constant, pace.linear, pace.square) >= 0
    assert pace.seconds(1, 4096, 4096**2) > pace.seconds(1, 64, 64**2)


def test_a_rough_pace_follows_size_and_machine():
    small, large = estimate_step_time(10**8, True, 1e11), estimate_step_time(10**9, True, 1e11)
    assert large.linear == pytest.approx(10 * small.linear)
    assert estimate_step_time(10**8, False, 1e11).linear > small.linear
    assert estimate_step_time(10**8, True, 1e12).linear == pytest.approx(small.linear / 10)


@pytest.mark.training
def test_a_real_probe_measures_a_pace_that_longer_rows_slow_down(tiny_model, real_probe):
    pace = measure_in_child(TraceRequest(type="sft", location=str(tiny_model), dtype="float32"))
    assert 0 < pace.seconds(1, 64, 64**2) < pace.seconds(1, 2048, 2048**2)
