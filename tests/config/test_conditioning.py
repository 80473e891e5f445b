import math
from dataclasses import replace

import pytest
import torch

from kao.config import RunConfig
from kao.config.conditioning import ConditionsConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.config.tree import Origin, parse
from kao.errors import ConfigError
from kao.networks import UNetConfig

OPEN = RunConfig(
    data=DataConfig(size=8),
    network=UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(4,)),
    training=TrainingConfig(batch=4, precision="fp32"),
    conditions=ConditionsConfig(classes=True),
)
NAMED = replace(OPEN, conditions=ConditionsConfig(True, ("cat", "dog"), (5, 3)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"drop": -0.1}, "conditions.drop = -0.1; expected a share from 0 up and below 1"),
        ({"drop": 1.0}, "conditions.drop = 1.0; expected a share from 0 up and below 1"),
        ({"drop": math.nan}, "conditions.drop = nan; expected a share"),
        ({"names": ("cat",)}, "conditions.names = ['cat']; expected two classes or more"),
        ({"names": ("cat", "cat")}, "conditions.names = ['cat', 'cat']; expected two classes"),
        ({"counts": (1, 2)}, "conditions.counts = [1, 2]; expected the pictures of each of the 0"),
        ({"names": ("a", "b"), "counts": (1,)}, "conditions.counts = [1]; expected the pictures"),
        ({"names": ("a", "b"), "counts": (0, 0)}, "conditions.counts = [0, 0]; expected the"),
        ({"names": ("a", "b"), "counts": (-1, 2)}, "conditions.counts = [-1, 2]; expected numbers"),
    ],
)
def test_conditions_that_cannot_be_are_refused_by_their_key(options, said):
    with pytest.raises(ConfigError) as caught:
        ConditionsConfig(classes=True, **options)
    assert str(caught.value).startswith(said)


def test_names_of_classes_that_nobody_is_told_are_refused():
    with pytest.raises(ConfigError, match=r"conditions\.classes = false tells no class: set"):
        parse(RunConfig, {"conditions": {"names": ["cat", "dog"]}}, Origin("mine.toml")).check()


def test_by_default_no_class_is_told():
    weights = replace(OPEN, conditions=ConditionsConfig()).build_denoiser("meta").state_dict()
    assert not any("classes" in name for name in weights)


def test_classes_add_one_row_each_and_one_for_none_and_change_no_other_weight():
    told, plain = NAMED.build_denoiser(), replace(OPEN, conditions=ConditionsConfig())
    before, after = plain.build_denoiser().state_dict(), told.state_dict()
    (name,) = after.keys() - before.keys()
    assert after[name].shape[0] == 3 and not after[name].any()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_before_the_pictures_are_known_the_rest_is_checked():
    OPEN.check()
    NAMED.check()


def test_a_trainer_is_not_built_before_its_classes_have_names(tiny_set):
    with pytest.raises(ConfigError, match=r"conditions\.names must be filled in"):
        OPEN.build(tiny_set, torch.device("cpu"))
