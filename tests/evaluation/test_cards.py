import json
from dataclasses import replace

import pytest

from kao.errors import DataError
from kao.evaluation import Card, Evaluation, Measured, differences, unknown
from kao.metrics import Score

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
    sampler="ddim, uniform",
    steps=25,
    guidance="none",
    ema="ema-0.999",
    precision="fp32",
    seed=0,
    protocol="small-data",
)
FOLDER = replace(
    CARD, subject="drawn", images=None, sampler=None, steps=None, guidance=None, ema=None
)


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
    assert "sampler ddim, uniform, steps 25, guidance none, EMA ema-0.999" in lines[4]
    raw = replace(CARD, ema="model").lines()[4]
    assert "weights model" in raw and "EMA" not in raw
    assert str(FOLDER).endswith("precision fp32, seed 0")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n": 2000}, "drawn pictures: 1,000 for runs/mine, 2,000 for other"),
        ({"size": 64}, "pixels a side: 32 for"),
        ({"reference_hash": "cd" * 32}, "4,000 pictures: my-faces (cdcdcdcdcdcd) for other"),
        ({"sampler": "heun, karras"}, "sampler: ddim, uniform for runs/mine, heun, karras for"),
        ({"steps": 50}, "steps: 25 for runs/mine, 50 for other"),
        ({"guidance": "by runs/worse, scale 2"}, "guidance: none for runs/mine, by"),
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


def test_what_is_not_known_is_no_difference_but_told():
    assert differences(CARD, FOLDER) == []
    assert unknown(FOLDER) == ["sampler", "steps", "guidance"]
    assert unknown(CARD) == []


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
        {"steps": 50},
        {"guidance": "by runs/worse, scale 2"},
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
