"""What ``/metrics`` says becomes figures: quantiles from buckets, rates from counters, means over spans."""

import math

import pytest

from sage_studio.hardware import Gpu
from sage_studio.serving.metrics import (
    LATENCY,
    TOKENS,
    MetricsReading,
    Sample,
    counter_rate,
    downsample,
    histogram_delta,
    histogram_quantile,
    make_sample,
    parse_metrics,
    window_quantile,
)

INF = math.inf

SAID = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="small"} 2.0
vllm:num_requests_waiting{engine="0",model_name="small"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="small"} 0.125
vllm:generation_tokens_total{engine="0",model_name="small"} 1200.0
vllm:generation_tokens_total{engine="1",model_name="small"} 34.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="a{b} c"} 1.7e+09
vllm:e2e_request_latency_seconds_bucket{engine="0",le="1.0",model_name="small"} 4.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="2.0",model_name="small"} 9.0
vllm:e2e_request_latency_seconds_bucket{engine="0",le="+Inf",model_name="small"} 10.0
vllm:e2e_request_latency_seconds_bucket{engine="1",le="1.0",model_name="small"} 1.0
vllm:e2e_request_latency_seconds_bucket{engine="1",le="2.0",model_name="small"} 1.0
vllm:e2e_request_latency_seconds_bucket{engine="1",le="+Inf",model_name="small"} 1.0
vllm:e2e_request_latency_seconds_count{engine="0",model_name="small"} 10.0
process_start_time_seconds NaN
process_open_fds 31 1763770001000
<p>not a figure</p>
version 1.2.3
"""


def test_figures_are_summed_over_labels_and_histograms_keep_their_buckets():
    reading = parse_metrics(SAID, 5.0)
    assert reading.time == 5.0
    assert reading.values["vllm:generation_tokens_total"] == 1234
    assert reading.values["vllm:kv_cache_usage_perc"] == 0.125
    assert reading.values["vllm:lora_requests_info"] == 1.7e9
    assert reading.values["process_open_fds"] == 31
    assert reading.buckets == {LATENCY: ((1.0, 5.0), (2.0, 10.0), (INF, 11.0))}
    assert not {"process_start_time_seconds", "version", "<p>not"} & reading.values.keys()


@pytest.mark.parametrize("text", ["", "<html>busy</html>", "a\nb c d\n", "{} 1"])
def test_what_is_no_exposition_holds_no_figures(text):
    assert parse_metrics(text, 0.0) == MetricsReading(0.0, {}, {})


@pytest.mark.parametrize(
    ("share", "value"),
    [(0.0, 0.0), (0.1, 0.2), (0.5, 1.0), (0.75, 2.5), (0.95, 3.75), (1.0, 4.0)],
)
def test_a_quantile_lies_within_its_bucket_by_its_share(share, value):
    buckets = [(1.0, 5.0), (2.0, 7.0), (3.0, 8.0), (4.0, 10.0), (INF, 10.0)]
    assert histogram_quantile(buckets, share) == pytest.approx(value)


def test_a_quantile_is_as_near_as_its_buckets_are_fine():
    """Against the true quantiles of known values."""
    values = [(n * 37 % 1000) / 100 for n in range(1000)]
    bounds = [n / 4 for n in range(1, 41)] + [INF]
    buckets = [(bound, float(sum(value <= bound for value in values))) for bound in bounds]
    for share in (0.05, 0.5, 0.9, 0.95, 0.99):
        assert histogram_quantile(buckets, share) == pytest.approx(sorted(values)[int(share * 1000) - 1], abs=0.25)


@pytest.mark.parametrize(
    ("buckets", "value"),
    [
        ([], None),
        ([(1.0, 0.0), (INF, 0.0)], None),
        ([(1.0, 0.0), (INF, 8.0)], 1.0),
        ([(INF, 3.0)], 0.0),
        ([(1.0, 0.0), (2.0, 0.0), (3.0, 4.0), (INF, 4.0)], 2.5),
    ],
)
def test_the_edges_of_a_histogram(buckets, value):
    assert histogram_quantile(buckets, 0.5) == value


def test_only_what_came_since_counts():
    old, new = ((1.0, 5.0), (INF, 9.0)), ((1.0, 6.0), (INF, 12.0))
    assert histogram_delta(new, old) == ((1.0, 1.0), (INF, 3.0))
    assert histogram_delta(new, ()) == new
    assert histogram_delta(old, new) == old, "the engine began anew"
    assert histogram_delta(new, ((2.0, 1.0), (INF, 9.0))) == new, "another engine has other bounds"


def reading(time, **values):
    return MetricsReading(time, {f"vllm:{name}": value for name, value in values.items()}, {})


def test_speed_is_what_a_counter_gained_by_the_second():
    assert (
        counter_rate(reading(12.0, generation_tokens_total=150.0), reading(10.0, generation_tokens_total=100.0), TOKENS)
        == 25
    )
    assert counter_rate(reading(12.0, generation_tokens_total=150.0), None, TOKENS) is None
    assert counter_rate(reading(12.0), reading(10.0), TOKENS) is None
    restarted = counter_rate(
        reading(12.0, generation_tokens_total=3.0), reading(10.0, generation_tokens_total=100.0), TOKENS
    )
    assert restarted is None
    assert (
        counter_rate(reading(10.0, generation_tokens_total=1.0), reading(10.0, generation_tokens_total=0.0), TOKENS)
        is None
    )


def test_an_engine_without_buckets_tells_the_mean_for_the_median_and_nothing_else():
    name = "vllm:time_to_first_token_seconds"
    old = MetricsReading(0.0, {f"{name}_sum": 4.0, f"{name}_count": 2.0}, {})
    new = MetricsReading(2.0, {f"{name}_sum": 10.0, f"{name}_count": 4.0}, {})
    assert window_quantile(new, old, name, 0.5) == 3.0
    assert window_quantile(new, old, name, 0.95) is None
    assert window_quantile(new, new, name, 0.5) is None, "nothing was answered"
    assert window_quantile(new, None, name, 0.5) == 2.5


def test_a_sample_gathers_them_all():
    gpus = (Gpu(0, "RTX 3060", 12.0, 8.5, 71.0),)
    made = make_sample(parse_metrics(SAID, 5.0), None, None, gpus)
    assert (made.requests_running, made.requests_waiting, made.kv_cache) == (2, 1, 0.125)
    assert made.latency_p50 == pytest.approx(1.1)
    assert made.latency_p95 == 2.0
    assert (made.gpu_memory_gb, made.gpu_total_gb, made.gpu_percent) == (8.5, 12.0, 71.0)
    assert made.tokens_per_second is None
    assert made.first_token_seconds is None
    assert make_sample(parse_metrics("", 0.0), None, None) == Sample(0.0)


def test_thinning_takes_means_over_full_spans_and_keeps_gaps():
    def at(time, speed=None, busy=None):
        return Sample(time, tokens_per_second=speed, requests_running=busy)

    seen = [at(60, 10.0, 1), at(62, 20.0), at(64, None, 3), at(66), at(90, 7.0), at(96, 99.0)]
    assert downsample(seen, 6) == [at(60, 15.0, 2), at(66), at(90, 7.0)]
    assert downsample([], 6) == []
