import contextlib
import itertools
import json
from dataclasses import fields, is_dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from kao.config import SamplingConfig, dump, leaves
from kao.config.sampling import GuidanceConfig
from kao.diffusion import Heun
from kao.errors import ConfigError, DataError
from kao.evaluation import Card, Evaluation, Measured, differences
from kao.metrics import Score
from kao.runs.guiding import sampling_table

CARD = Card(
    subject="runs/mine",
    images=640_000,
    n=1000,
    size=32,
    reference="my-faces",
    reference_hash="ab" * 32,
    reals=4000,
    features=("faces-1", "wavelets-1"),
    resize=("none", "none"),
    sampling=sampling_table(SamplingConfig(), None),
    ema="ema-0.999",
    precision="fp32",
    seed=0,
    protocol="small-data",
)
FOLDER = replace(CARD, subject="drawn", images=None, sampling=None, ema=None)


def test_a_card_comes_back_from_json():
    for card in (CARD, FOLDER):
        assert Card.from_json(card.to_json()) == card
    later = json.loads(CARD.to_json()) | {"invented": 1}
    assert Card.from_dict(later) == CARD


def test_a_card_is_read_at_a_glance():
    lines = str(CARD).splitlines()
    assert len(lines) == 5
    assert "1,000 pictures of 32 pixels: runs/mine after 640,000 images" in lines[1]
    assert "4,000 pictures: my-faces (sha256 abababababab)" in lines[2]
    assert "sampler ddim, uniform, 25 steps, EMA ema-0.999" in lines[4]
    raw = replace(CARD, ema="model").lines()[4]
    assert "weights model" in raw and "EMA" not in raw
    assert str(FOLDER).endswith("precision fp32, seed 0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 2000}, "drawn pictures: 1,000 for runs/mine, 2,000 for other"),
        ({"size": 64}, "pixels a side: 32 for"),
        ({"reference_hash": "cd" * 32}, "4,000 pictures: my-faces (cdcdcdcdcdcd) for other"),
        (
            {"sampling": sampling_table(SamplingConfig(sampler=Heun(), steps=50), None)},
            "drawing: sampling.sampler.kind = ddim, sampling.sampler.eta = 0.0, "
            "sampling.steps = 25 for runs/mine, sampling.sampler.kind = heun, ",
        ),
        ({"resize": ("none", "bicubic")}, "resizing for wavelets-1: none for runs/mine, bicubic"),
        ({"features": ("inception-1",), "resize": ("none",)}, "feature spaces: faces-1, wavelets"),
    ],
)
def test_what_changes_a_score_is_a_difference(change, words):
    (sentence,) = differences(CARD, replace(CARD, subject="other", **change))
    assert words in sentence


def test_another_model_or_noise_is_no_other_protocol():
    other = replace(
        CARD,
        subject="other",
        images=1,
        ema="ema-w0.100",
        seed=1,
        precision="bf16",
        features=("faces-1",),
        resize=("none",),
    )
    assert differences(CARD, other) == []


def test_how_a_folder_was_drawn_is_not_known_and_no_difference():
    assert differences(CARD, FOLDER) == []
    assert "not known" in str(replace(FOLDER, precision=None, seed=None))


def turned(config):
    """(key, config, the same with another value) for each key that any component has."""
    for field in fields(config):
        value = getattr(config, field.name)
        if "registry" in field.metadata:
            entries = [
                e() if isinstance(e, type) else e for e in field.metadata["registry"].values()
            ]
            for pair in itertools.pairwise(entries):
                yield f"{field.name}.kind", *(replace(config, **{field.name: e}) for e in pair)
            parts = [entry for entry in entries if is_dataclass(entry)]
        elif is_dataclass(value):
            parts = [value]
        else:
            yield field.name, config, other_value(config, field.name)
            continue
        for part in parts:
            for key, *both in turned(part):
                yield f"{field.name}.{key}", *(replace(config, **{field.name: e}) for e in both)


def other_value(config, name):
    hint = get_type_hints(type(config))[name]
    values = {int: (7, 2, 1), float: (0.5, 0.25, 2.0), bool: (True, False), str: ("beta", "other")}
    values |= {tuple[float, float]: ((0.1, 9.0),), tuple[float, ...]: ((0.0, 0.5, 1.0),)}
    for value in get_args(hint) if get_origin(hint) is Literal else values[hint]:
        with contextlib.suppress(ConfigError):
            changed = replace(config, **{name: value})
            if changed != config:
                return changed
    raise AssertionError(f"no other value of {name} of {config} is known")


GUIDED = SamplingConfig(guidance=GuidanceConfig(worse="runs/worse", scale=3.0))
WORSE = torch.nn.Linear(2, 2)
TURNED = list(turned(GUIDED))


@pytest.mark.parametrize(("key", "one", "other"), TURNED, ids=[key for key, *_ in TURNED])
def test_every_key_of_sampling_is_on_the_card(key, one, other):
    # A worse model is known by its weights: another name alone is the same model.
    models = (WORSE, None if key == "guidance.worse" else WORSE)
    one, other = (
        replace(CARD, subject=subject, sampling=sampling_table(sampling, worse))
        for subject, sampling, worse in zip("ab", (one, other), models, strict=True)
    )
    (sentence,) = differences(one, other)
    assert f"sampling.{key} = " in sentence
    assert one.question != other.question
    assert [Card.from_json(card.to_json()) for card in (one, other)] == [one, other]


def test_every_key_of_sampling_was_turned():
    options = {
        f"{field.name}.{option.name}"
        for field in fields(SamplingConfig)
        for entry in field.metadata.get("registry", {}).values()
        if isinstance(entry, type)
        for option in fields(entry)
    }
    assert {key for key, *_ in TURNED} >= options | set(leaves(dump(GUIDED)))


def test_a_worse_model_is_told_by_its_weights():
    def question(worse, name="runs/worse"):
        guidance = GuidanceConfig(worse=name, scale=3.0)
        return replace(
            CARD, sampling=sampling_table(SamplingConfig(guidance=guidance), worse)
        ).question

    assert question(WORSE) == question(WORSE, "elsewhere") != question(torch.nn.Linear(2, 2))


def test_an_evaluation_comes_back_from_json():
    score = Score("kernel distance faces-1", 1.5, 0.1, 1000, own_error=0.05)
    share = Score("copies", 0.02, 0.01, 1000, interval=(0.01, 0.05), better="lower")
    found = Evaluation(
        CARD,
        (Measured(score, "faces-1", floor=replace(score, value=0.0)), Measured(share)),
        per_class={"cat": (Measured(score, "faces-1"),)},
        copies=Measured(share, floor=share),
        notes=("One.",),
    )
    again = Evaluation.from_json(found.to_json())
    assert again == found
    assert again.of("copies").score.low == 0.01
    assert again.of("nothing") is None


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"reference_hash": "cd" * 32},
        {"metrics": ("kid",)},
        {"features": ("faces-1",), "resize": ("none",)},
        {"sampling": sampling_table(SamplingConfig(steps=50), None)},
        {"sampling": None},
        {"train_hash": "ef" * 32},
    ],
)
def test_what_is_asked_for_makes_another_question(change):
    assert replace(CARD, **change).question != CARD.question


def test_who_answers_and_when_makes_no_other_question():
    assert replace(CARD, kao="9.9", subject="elsewhere").question == CARD.question
    assert Card.from_json(CARD.to_json()).question == CARD.question


def test_a_card_says_how_real_pictures_came_to_their_size():
    brought = "cut at the centre and resized from 178 x 218 pixels"
    assert f"4,000 pictures: my-faces, {brought}, (sha" in str(replace(CARD, brought=brought))


def test_scores_that_are_not_finite_are_not_kept():
    score = Score("distance", float("nan"), 0.1, 9)
    with pytest.raises(DataError, match="runs/mine is not finite"):
        Evaluation(CARD, (Measured(score),)).to_json()


def test_what_is_not_said_of_an_older_score_is_not_taken_for_granted():
    measured = Measured(Score("distance", 1.0, 0.1, 9), unbiased=True)
    told = Evaluation(CARD, (measured,)).to_dict()
    assert Evaluation.from_dict(told).scores[0].unbiased
    del told["scores"][0]["unbiased"]
    assert not Evaluation.from_dict(told).scores[0].unbiased


def test_an_evaluation_of_a_later_format_is_refused():
    told = json.loads(Evaluation(CARD, ()).to_json()) | {"format": 99}
    with pytest.raises(ValueError, match="format 99"):
        Evaluation.from_dict(told)
