import math

import pytest

from kao.config import RunConfig, dump
from kao.config.loss import PerceptualConfig
from kao.config.sampling import GuidanceConfig
from kao.config.sections import EvaluationConfig
from kao.config.tree import Origin, leaves, parse
from kao.errors import ConfigError

GUIDANCE = "sampling.guidance"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scale": -1.0}, "scale = -1.0; expected a number from 0 up"),
        ({"scale": math.nan}, "scale = nan; expected a number from 0 up"),
        ({"scale": math.inf}, "scale = inf; expected a number from 0 up"),
        ({"interval": (-1.0, 2.0)}, "interval = [-1.0, 2.0]; expected a noise-to-signal ratio"),
        ({"interval": (2.0, 2.0)}, "interval = [2.0, 2.0]; expected a noise-to-signal ratio"),
        ({"interval": (0.0, math.nan)}, "interval = [0.0, nan]; expected a noise-to-signal ratio"),
        ({"interval": (math.nan, 1.0)}, "interval = [nan, 1.0]; expected a noise-to-signal ratio"),
        ({"interval": (math.inf, math.inf)}, "interval = [inf, inf]; expected"),
        ({"rescale": 1.5}, "rescale = 1.5; expected a share from 0 to 1"),
        ({"rescale": -0.1}, "rescale = -0.1; expected a share from 0 to 1"),
        ({"rescale": math.nan}, "rescale = nan; expected a share from 0 to 1"),
    ],
)
def test_guidance_that_cannot_be_is_refused_by_its_key(options, said):
    with pytest.raises(ConfigError) as caught:
        GuidanceConfig(worse="runs/small", **{"scale": 2.0, **options})
    assert str(caught.value).startswith(f"{GUIDANCE}.{said}")


def test_a_worse_model_without_a_scale_would_do_nothing_and_is_refused():
    with pytest.raises(ConfigError, match=r"does nothing at scale = 1: set .*2 is customary"):
        GuidanceConfig(worse="runs/small")


def test_guidance_is_kept_whole_where_its_interval_is_open():
    guidance = GuidanceConfig("runs/small", 2.0, (0.5, math.inf), 0.7)
    assert parse(GuidanceConfig, dump(guidance), Origin("x")) == guidance


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weight": -0.1}, "weight = -0.1; expected a number from 0 up"),
        ({"weight": math.nan}, "weight = nan; expected a number from 0 up"),
        ({"weight": math.inf}, "weight = inf; expected a number from 0 up"),
        ({"below": 0.0}, "below = 0.0; expected a number above 0"),
        ({"below": math.nan}, "below = nan; expected a number above 0"),
        ({"below": math.inf}, "below = inf; expected a number above 0"),
    ],
)
def test_a_perceptual_term_that_cannot_be_is_refused_by_its_key(options, said):
    with pytest.raises(ConfigError) as caught:
        PerceptualConfig(**options)
    assert str(caught.value).startswith(f"loss.perceptual.{said}")


def test_a_key_is_named_once_where_a_file_is_read():
    table = {"sampling": {"guidance": {"worse": "x", "scale": -1.0}}}
    with pytest.raises(ConfigError, match=r"^sampling\.guidance\.scale = -1\.0; expected"):
        parse(RunConfig, table, Origin("mine.toml"))


def test_the_defaults_guide_by_nothing():
    told = leaves(dump(RunConfig()))
    assert (told[f"{GUIDANCE}.worse"], told[f"{GUIDANCE}.scale"]) == ("", 1.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"every": -1}, "evaluation.every = -1; expected 0 or more."),
        ({"pictures": 15}, "evaluation.pictures = 15; expected 16 or more."),
        ({"steps": 0}, "evaluation.steps = 0; expected 1 or more."),
        ({"features": "face"}, 'unknown feature space "face" (did you mean "faces"?); there are:'),
        ({"share": 0.0}, "evaluation.share = 0.0; expected a share of the time above 0"),
        ({"share": 0.6}, "evaluation.share = 0.6; expected a share of the time above 0"),
        ({"share": math.nan}, "evaluation.share = nan; expected a share of the time above 0"),
    ],
)
def test_scores_that_cannot_be_taken_are_refused(options, said):
    with pytest.raises(ConfigError) as caught:
        EvaluationConfig(**options)
    assert str(caught.value).startswith(said)


def test_scores_in_more_steps_than_the_schedule_has_times_are_refused():
    table = {"schedule": {"kind": "cosine", "steps": 8}, "sampling": {"steps": 5}}
    with pytest.raises(ConfigError, match=r"^evaluation\.steps = 10: .*the schedule has 8 times"):
        parse(RunConfig, table, Origin("mine.toml")).check()
    unscored = {**table, "evaluation": {"every": 0}}
    parse(RunConfig, unscored, Origin("mine.toml")).check()
