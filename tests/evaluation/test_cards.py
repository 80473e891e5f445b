import json
from dataclasses import replace

import pytest

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


def test_an_evaluation_of_a_later_format_is_refused():
    told = json.loads(Evaluation(CARD, ()).to_json()) | {"format": 99}
    with pytest.raises(ValueError, match="format 99"):
        Evaluation.from_dict(told)
