from dataclasses import replace

import pytest
import torch

from kao.config import RunConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.networks import UNetConfig
from kao.runs import precision
from kao.runs.precision import trusted
from kao.training.selftest import PrecisionTest

CPU = torch.device("cpu")
CONFIG = RunConfig(
    data=DataConfig(size=8, held_out=0),
    network=UNetConfig(width=8, levels=(1,), attention=(), groups=2),
    training=TrainingConfig(batch=4, precision="bf16"),
)
BAD = PrecisionTest(
    precision="bf16", pictures=4, loss=0.5, cosine=0.1, norm=0.5, worst="a.weight", seconds=1
)


@pytest.mark.parametrize("chosen", [True, False])
def test_a_precision_that_computes_what_fp32_does_stays(tiny_set, chosen):
    config, notes = trusted(CONFIG, tiny_set, CPU, chosen=chosen)
    assert config == CONFIG
    assert len(notes) == 1 and notes[0].startswith("bf16 against fp32 on 4 pictures: loss differs")


def test_a_chosen_precision_that_fails_gives_way_to_fp32(tiny_set, monkeypatch):
    monkeypatch.setattr(precision, "compare_precision", lambda trainer: BAD)
    config, [note] = trusted(CONFIG, tiny_set, CPU, chosen=True)
    assert config == replace(CONFIG, training=replace(CONFIG.training, precision="fp32"))
    assert note == f"{BAD.sentence} This run computes in fp32."


def test_a_precision_that_was_asked_for_stays_with_a_warning(tiny_set, monkeypatch):
    monkeypatch.setattr(precision, "compare_precision", lambda trainer: BAD)
    config, [note] = trusted(CONFIG, tiny_set, CPU, chosen=False)
    assert config == CONFIG
    assert 'Set training.precision = "fp32"' in note


def test_fp32_is_not_tested(tiny_set, monkeypatch):
    def never(trainer):
        raise AssertionError("fp32 was compared with itself")

    monkeypatch.setattr(precision, "compare_precision", never)
    config = replace(CONFIG, training=replace(CONFIG.training, precision="fp32"))
    assert trusted(config, tiny_set, CPU, chosen=True) == (config, [])
