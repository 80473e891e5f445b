import pytest

from kao.config import Request, RunConfig, dump
from kao.runs.cost import checkpoint_bytes, estimate, moments, snapshot_bytes


def lines(*words):
    config = Request.of("faces-32", ["optimizer.method=adamw", *words]).over(dump(RunConfig()))
    return dict(line.split(": ", 1) for line in estimate(config))


def megabytes(*words):
    return int(lines(*words)["memory of a step, estimated"].split(" MB")[0].replace(",", ""))


@pytest.mark.parametrize(
    "word",
    [
        "training.micro_batch=8",
        "training.gradient_checkpointing=blocks",
        "training.precision=bf16",
        "optimizer.method=muon",
    ],
)
def test_what_saves_memory_is_estimated_to(word):
    assert megabytes(word) < megabytes()


@pytest.mark.parametrize(
    "word", ["ema.widths=[0.1]", "ema.snapshots=auto", "optimizer.method=adan"]
)
def test_what_takes_memory_is_estimated_to(word):
    assert megabytes(word) > megabytes()


def test_offloaded_averages_take_no_memory_of_the_device():
    assert megabytes("ema.widths=[0.1]", "ema.offload=true") < megabytes()


def test_a_micro_batch_is_named_beside_the_memory():
    assert "8 pictures at once" in lines("training.micro_batch=8")["memory of a step, estimated"]


def test_snapshots_are_counted_on_the_disk():
    told = lines("ema.snapshots=10000", "length=100k images")
    assert "disk for 10 snapshots of the averages" in told
    assert not any("snapshots" in key for key in lines())


def test_bytes_are_those_of_float32_weights_averages_and_moments():
    words = ["optimizer.method=adamw", "ema.widths=[0.05, 0.1]"]
    config = Request.of("toy-32", words).over(dump(RunConfig()))
    weights = sum(p.numel() for p in config.build_denoiser("meta").parameters())
    assert moments(config) == 2
    assert checkpoint_bytes(config) == 4 * weights * (1 + 3 + 2)
    assert snapshot_bytes(config) == 2 * weights * 2
