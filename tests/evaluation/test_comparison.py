"""What is called real: equal sets seldom, different ones nearly always, others never."""

import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
import torch

from kao.config import SamplingConfig
from kao.errors import ConfigError
from kao.evaluation import Card, Evaluation, Measured
from kao.evaluation.comparison import compare, matching, pair_differences
from kao.metrics import METRICS, Score, Sight
from kao.runs.guiding import sampling_table


def in_steps(steps):
    """A whole [sampling]."""
    return sampling_table(SamplingConfig(steps=steps), None)


CARD = Card(
    subject="x",
    n=1000,
    size=32,
    reference="faces",
    reference_hash="ab" * 32,
    reals=2000,
    features=("faces-1",),
    resize=("none",),
    sampling=in_steps(50),
    protocol="small-data",
)


def distance(value, error=1.0, own_error=None, *, name="distance", better="lower", interval=None):
    score = Score(name, value, error, 1000, own_error, interval, better)
    return Measured(score, "faces-1", Score(name, 0.5, 0.1, 1000, better=better))


def evaluation(*scores, copies=None, per_class=None, notes=(), **card):
    return Evaluation(replace(CARD, **card), scores, per_class or {}, copies, notes)


def shared_reference(generator, *truths, own=1.0, common=10.0):
    """Scores that the choice of the reference moves by `common`, all of them alike."""
    moved = common * torch.randn((), generator=generator).item()
    error = (own**2 + common**2) ** 0.5
    return {
        f"model {i}": Score(
            "distance",
            truth + moved + own * torch.randn((), generator=generator).item(),
            error,
            1000,
            own_error=own,
        )
        for i, truth in enumerate(truths)
    }


@pytest.mark.parametrize("models", [2, 3, 5])
def test_equal_models_are_told_apart_in_about_one_comparison_of_twenty(models):
    generator = torch.Generator().manual_seed(models)
    false = sum(
        any(d.real for d in pair_differences(shared_reference(generator, *models * [50.0])))
        for _ in range(200)
    )
    assert 1 <= false <= 19  # 10 -+ 3 standard errors


def test_a_difference_of_four_errors_is_found_though_the_reference_moves_both_by_more():
    generator = torch.Generator().manual_seed(0)
    apart = 4 * 2**0.5  # standard errors of the difference
    found = 0
    for _ in range(200):
        (difference,) = pair_differences(shared_reference(generator, 50.0, 50.0 + apart))
        found += difference.winner == "model 0"
    assert found >= 190


def test_intervals_of_all_pairs_hold_the_true_differences_together():
    generator = torch.Generator().manual_seed(1)
    truths = (10.0, 12.0, 20.0)
    held = 0
    for _ in range(200):
        differences = pair_differences(shared_reference(generator, *truths))
        apart = [a - b for a, b in itertools.combinations(truths, 2)]
        held += all(d.low <= x <= d.high for d, x in zip(differences, apart, strict=True))
    assert 180 <= held <= 199


@pytest.mark.parametrize("name", METRICS)
def test_no_metric_tells_equal_sets_apart_more_often_than_it_may(name):
    metric = METRICS[name]
    generator, pairs = torch.Generator().manual_seed(0), 50 if name == "manifold" else 100

    def seen(features):
        space = f"{metric.spaces[0]}-1" if metric.spaces else "any"
        return Sight(space, features, features.softmax(1) if name == "is" else None)

    false = Counter()
    for _ in range(pairs):
        real, *drawn = torch.randn(3, 100, 6, generator=generator)
        reference = None if name == "is" else seen(real)
        scores = [metric(reference, seen(1.1 * features + 0.2)) for features in drawn]
        for a, b in zip(*scores, strict=True):
            false[a.name] += pair_differences({"a": a, "b": b})[0].real
    assert max(false.values()) <= 0.05 * pairs + 3 * (0.05 * 0.95 * pairs) ** 0.5


def test_two_pairs_that_barely_differ_alone_do_not_among_many():
    scores = {"a": Score("d", 0.0, 1.0, 9), "b": Score("d", 3.0, 1.0, 9)}
    assert pair_differences(scores)[0].finding == "real"
    scores |= {"c": Score("d", 1.5, 1.0, 9), "d": Score("d", 1.5, 1.0, 9)}
    assert {d.finding for d in pair_differences(scores)} == {"within the noise"}


def test_shares_near_zero_are_judged_by_their_leaning_intervals():
    # Wilson intervals of 0 and 4 of 100: by their standard errors, 0 and 0.02, they would differ.
    none = Score("copies", 0.0, 0.0, 100, interval=(0.0, 0.037))
    four = Score("copies", 0.04, 0.0196, 100, interval=(0.0157, 0.0984))
    (difference,) = pair_differences({"a": none, "b": four})
    assert not difference.real
    # Newcombe (1998), method 10, for 4/100 - 0/100.
    assert (-difference.high, -difference.low) == pytest.approx((-0.0044, 0.0984), abs=2e-3)


def test_the_lower_distance_and_the_higher_precision_win():
    scores = {"a": Score("d", 1.0, 0.1, 9), "b": Score("d", 2.0, 0.1, 9)}
    assert pair_differences(scores)[0].winner == "a"
    scores = {name: replace(score, better="higher") for name, score in scores.items()}
    assert pair_differences(scores)[0].winner == "b"
    scores = {name: replace(score, better="neither") for name, score in scores.items()}
    assert pair_differences(scores)[0].real
    assert pair_differences(scores)[0].winner is None


def test_a_difference_is_told_as_exactly_as_its_interval_allows():
    scores = {"a": Score("d", 1.2301, 0.01, 9), "b": Score("d", 1.2306, 0.01, 9)}
    assert pair_differences(scores)[0].figures == ("0.00", "\u22120.03", "0.03")


def test_those_that_nobody_beats_lead():
    compared = compare(
        {name: evaluation(distance(x)) for name, x in (("a", 10), ("b", 11), ("c", 30))}
    )
    (row,) = compared.rows
    assert row.leaders == ("a", "b")
    assert row.verdict() == "a or b best: real"
    assert [d.finding for d in row.differences] == ["within the noise", "real", "real"]


def test_where_nothing_differs_nobody_leads():
    (row,) = compare({"a": evaluation(distance(10)), "b": evaluation(distance(11))}).rows
    assert (row.leaders, row.verdict()) == ((), "within the noise")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"sampling": in_steps(10)},
            "Drawing: sampling.steps = 50 for a, sampling.steps = 10 for b.",
        ),
        ({"n": 500}, "Drawn pictures: 1,000 for a, 500 for b."),
        ({"reference_hash": "cd" * 32}, "abababababab"),
        ({"resize": ("bilinear",)}, "Resizing for faces-1"),
    ],
)
def test_other_protocols_are_shown_and_not_ranked(change, words):
    compared = compare({"a": evaluation(distance(1)), "b": evaluation(distance(100), **change)})
    (sentence,) = compared.obstacles
    assert words in sentence
    (row,) = compared.rows
    assert [m.score.value for m in row.measured.values()] == [1, 100]
    assert (row.differences, row.leaders, row.verdict()) == ((), (), "not ranked")
    assert not compared.to_dict()["ranked"]


def test_one_odd_protocol_of_three_ranks_none():
    sets = {name: evaluation(distance(x)) for name, x in (("a", 1), ("b", 100))}
    assert (
        not compare({**sets, "c": evaluation(distance(1), sampling=in_steps(5))})
        .rows[0]
        .differences
    )


def test_what_nobody_wrote_down_is_noted_and_hinders_nothing():
    folder = evaluation(distance(100), sampling=None)
    compared = compare({"run": evaluation(distance(1)), "folder": folder})
    assert compared.rows[0].leaders == ("run",)
    (note,) = compared.notes
    assert "How folder was drawn is not known: " in note


def test_models_that_differ_in_images_seen_and_weights_are_ranked():
    late = evaluation(distance(1), images=9, ema="ema-0.99", seed=3)
    assert compare({"a": evaluation(distance(50)), "b": late}).rows[0].leaders == ("b",)


def test_a_score_that_one_of_them_lacks_stands_alone():
    other = distance(3, name="precision")
    rows = compare({"a": evaluation(distance(1), other), "b": evaluation(distance(2))}).rows
    assert [row.name for row in rows] == ["distance", "precision"]
    assert (tuple(rows[1].measured), rows[1].verdict()) == (("a",), "only of a")


def test_copies_and_classes_are_compared_too():
    def one(x):
        return evaluation(
            distance(1),
            copies=distance(x, name="copies"),
            per_class={"cats": (distance(x),)},
            train_hash="ef" * 32,
        )

    compared = compare({"a": one(1), "b": one(50)})
    assert [row.name for row in compared.rows] == ["distance", "copies"]
    assert compared.rows[1].leaders == compared.per_class["cats"][0].leaders == ("a",)


@pytest.mark.parametrize(
    ("learned", "words"),
    [
        (("ef" * 32, "cd" * 32), "a and b were trained on different pictures"),
        (("ef" * 32, None), "not known what b was trained on"),
        ((None, None), "not known what a and b was trained on"),
    ],
)
def test_copies_of_different_training_pictures_are_not_ranked(learned, words):
    sets = {
        name: evaluation(distance(1), copies=distance(x, name="copies"), train_hash=train)
        for name, x, train in zip("ab", (1, 50), learned, strict=True)
    }
    compared = compare(sets)
    assert compared.obstacles == ()
    assert (compared.rows[1].differences, compared.rows[1].verdict()) == ((), "not ranked")
    assert words in compared.notes[0]


@pytest.mark.parametrize("unbiased", [True, False])
def test_other_numbers_of_pictures_are_ranked_where_the_score_has_no_bias(unbiased):
    def one(x, count):
        score = replace(distance(x), unbiased=unbiased)
        score = replace(score, score=replace(score.score, samples=count))
        return evaluation(distance(1), per_class={"cats": (score,)})

    compared = compare({"a": one(1, 900), "b": one(50, 60)})
    assert compared.per_class["cats"][0].leaders == (("a",) if unbiased else ())
    notes = [note for note in compared.notes if "900 of a, 60 of b" in note]
    assert len(notes) == (0 if unbiased else 1)
    assert not notes or notes[0].startswith("Class cats: distance is not ranked")


def test_the_error_that_the_reference_makes_is_left_out_of_leaning_intervals_too():
    # The interval is that of both sets' pictures; a tenth of it comes from the drawn ones.
    a, b = (Score("d", x, 1.0, 9, own_error=0.1, interval=(x - 1.96, x + 1.96)) for x in (1.0, 2.0))
    (difference,) = pair_differences({"a": a, "b": b})
    assert difference.winner == "a"
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * 0.1 * 2**0.5, rel=1e-3)


def test_other_precisions_and_averages_are_noted_and_hinder_nothing():
    sets = {
        "a": evaluation(distance(1), precision="fp32", ema="ema-0.999"),
        "b": evaluation(distance(50), precision="bf16", ema="w0.100"),
        "c": evaluation(distance(50)),
    }
    compared = compare(sets)
    assert compared.rows[0].leaders == ("a",)
    precision, average = compared.notes
    assert "a in fp32, b in bf16." in precision and "a with ema-0.999, b with w0.100." in average


def test_notes_say_whose_they_are_and_who_measured():
    sets = {
        "a": evaluation(distance(1), notes=("Few pictures.",), kao="0.1.0"),
        "b": evaluation(distance(1), kao="0.2.0"),
    }
    versions, own = compare(sets).notes
    assert "a by 0.1.0, b by 0.2.0" in versions
    assert own == "a: Few pictures."


def test_a_note_on_all_of_them_stands_once():
    sets = {name: evaluation(distance(1), notes=("Same.", f"Own of {name}.")) for name in "ab"}
    assert compare(sets).notes == ("Same.", "a: Own of a.", "b: Own of b.")


def test_a_comparison_takes_two():
    with pytest.raises(ConfigError, match="two or more"):
        compare({"a": evaluation(distance(1))})


def test_everything_is_told_as_json():
    sets = {"a": evaluation(distance(1)), "b": evaluation(distance(50))}
    told = json.loads(json.dumps(compare(sets).to_dict(), allow_nan=False))
    (difference,) = told["scores"][0]["differences"]
    assert (difference["finding"], difference["better"]) == ("real", "a")
    assert difference["difference"] == -49
    assert Evaluation.from_dict(told["evaluations"]["b"]) == sets["b"]


def test_the_newest_evaluations_of_one_protocol_are_taken():
    new, old = evaluation(images=2, sampling=in_steps(10)), evaluation(images=1)
    assert matching([[new, old], [evaluation()]]) == (old, evaluation())
    assert matching([[new, old], [evaluation(sampling=in_steps(10)), evaluation()]])[0] == new


def test_where_no_protocols_agree_the_newest_of_each_are_taken():
    new, other = (
        evaluation(sampling=in_steps(10)),
        evaluation(sampling=in_steps(20)),
    )
    assert matching([[new, evaluation()], [other]]) == (new, other)


def test_protocols_must_agree_with_all_and_not_with_the_first_alone():
    vague = evaluation(sampling=None)
    ten, twenty = (
        evaluation(sampling=in_steps(10)),
        evaluation(sampling=in_steps(20)),
    )
    assert matching([[vague], [ten], [twenty, ten]]) == (vague, ten, ten)
