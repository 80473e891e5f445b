import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.config import RunConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.networks import UNetConfig
from kao.networks.layers import ResidualBlock
from kao.training.selftest import PICTURES, PrecisionTest, compare_precision

BATCH = 6


def trainer_of(prepared, *, precision="bf16", **training):
    config = RunConfig(
        data=DataConfig(size=8, held_out=0),
        network=UNetConfig(width=8, levels=(1, 2), attention=(4,), dropout=0.3, groups=2),
        training=TrainingConfig(batch=BATCH, precision=precision, **training),
        length="12 steps",
    )
    return config.build(prepared, torch.device("cpu"))


def in_fp16(trainer, *, scale=2.0**16):
    """On a CPU, where no run is given it, since it is slow."""
    trainer.gradients.precision = "fp16"
    trainer.gradients.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return trainer


class Offset(nn.Module):
    """Adds a number and takes it away again: nothing at all, but for rounding and overflow.

    In bf16, whose 8 bits end at 1/2 beside 100, that takes the fine part of every feature away.
    """

    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return (x + self.number) - self.number


def behind_first_layer(trainer, module):
    network = trainer.denoiser.network
    network.conv_in = nn.Sequential(network.conv_in, module)
    return trainer


def bits(trainer):
    tensors = trainer.gradients.objective.state_dict()
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_bf16_says_what_fp32_says(tiny_set):
    test = compare_precision(trainer_of(tiny_set))
    assert test.passed
    assert 0 < test.loss < 0.01 and 0.99 < test.cosine < 1 and test.norm < 0.02
    assert test.sentence.startswith(f"bf16 against fp32 on {BATCH} pictures: loss differs by 0.")


def test_nothing_of_the_run_is_changed(tiny_set):
    trainer, untested = trainer_of(tiny_set), trainer_of(tiny_set)
    weights, generator = bits(trainer), torch.get_rng_state()
    modes = [module.training for module in trainer.gradients.objective.modules()]
    compare_precision(trainer)
    assert bits(trainer) == weights
    assert torch.equal(torch.get_rng_state(), generator)
    assert [module.training for module in trainer.gradients.objective.modules()] == modes
    assert all(parameter.grad is None for parameter in trainer.gradients.objective.parameters())
    assert trainer.meter.empty and not trainer.optimizer.state
    assert (trainer.progress.images, trainer.progress.seconds) == (0, 0.0)
    # Whatever it might have touched, the run that follows is the run without it.
    assert [step.loss for step in trainer.steps()] == [step.loss for step in untested.steps()]
    assert bits(trainer) == bits(untested)


def test_a_trained_model_is_compared_as_it_stands(tiny_set):
    trainer = trainer_of(tiny_set)
    for _ in trainer.steps():
        pass
    weights = bits(trainer)
    assert compare_precision(trainer).passed
    assert bits(trainer) == weights


def test_features_that_bf16_rounds_away_are_noticed(tiny_set):
    assert compare_precision(behind_first_layer(trainer_of(tiny_set), Offset(1.0))).passed
    test = compare_precision(behind_first_layer(trainer_of(tiny_set), Offset(1000.0)))
    assert not test.passed
    assert test.cosine < 0.9
    assert "more than rounding explains, most of it in denoiser.network." in test.sentence


def test_an_overflow_in_fp16_is_noticed(tiny_set):
    assert compare_precision(in_fp16(trainer_of(tiny_set))).passed
    trainer = in_fp16(behind_first_layer(trainer_of(tiny_set), Offset(1e6)))
    test = compare_precision(trainer)
    assert not test.passed
    assert test.sentence == f"fp16 against fp32 on {BATCH} pictures: the loss is not finite."


def test_a_block_that_begins_at_zero_is_looked_into(tiny_set):
    trainer = trainer_of(tiny_set)
    for block in trainer.denoiser.network.down.modules():
        if isinstance(block, ResidualBlock):
            # Before its last layer, whose weights are zero at first.
            block.conv_in = nn.Sequential(block.conv_in, Offset(3000.0))
    before = bits(trainer)
    assert not compare_precision(trainer).passed
    assert bits(trainer) == before


def test_a_loss_scale_that_is_too_large_is_no_failure(tiny_set):
    trainer = in_fp16(trainer_of(tiny_set), scale=2.0**40)
    assert compare_precision(trainer).passed
    assert trainer.gradients.scaler.get_scale() == 2.0**40


@pytest.mark.parametrize("mode", ["blocks", "all"])
def test_what_is_recomputed_is_recomputed_with_the_same_weights(tiny_set, mode):
    plain = compare_precision(trainer_of(tiny_set))
    test = compare_precision(trainer_of(tiny_set, gradient_checkpointing=mode))
    assert replace(test, seconds=0) == replace(plain, seconds=0)


def test_no_more_pictures_are_taken_than_the_run_takes_at_once(tiny_set):
    assert compare_precision(trainer_of(tiny_set, micro_batch=2)).pictures == 2
    assert BATCH < PICTURES


def test_fewer_pictures_are_taken_where_memory_runs_out(tiny_set, monkeypatch):
    trainer = trainer_of(tiny_set)
    forward = trainer.gradients.objective.forward

    def short(x0, conditions, drawn):
        if len(x0) > 2:
            raise torch.OutOfMemoryError("no room")
        return forward(x0, conditions, drawn)

    monkeypatch.setattr(trainer.gradients.objective, "forward", short)
    assert compare_precision(trainer).pictures == 1


def test_fp32_has_nothing_to_be_compared_with(tiny_set):
    assert compare_precision(trainer_of(tiny_set, precision="fp32")) is None


GOOD = PrecisionTest(
    precision="bf16", pictures=16, loss=3e-4, cosine=0.9995, norm=1e-3, worst="a.weight", seconds=1
)


def test_a_result_is_told_in_one_sentence():
    assert GOOD.sentence == (
        "bf16 against fp32 on 16 pictures: loss differs by 0.03%, gradients' norm by 0.10%, "
        "cosine 0.9995."
    )


@pytest.mark.parametrize("field", ["loss", "cosine", "norm"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.5])
def test_each_figure_can_fail_the_test(field, value):
    if (field, value) == ("cosine", float("inf")):
        value = -1.0
    bad = replace(copy.copy(GOOD), **{field: value})
    assert GOOD.passed and not bad.passed
    assert ("not finite" in bad.sentence) != ("more than rounding explains" in bad.sentence)
