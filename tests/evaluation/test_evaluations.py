from dataclasses import replace

import pytest
import torch

from kao.config import SamplingConfig
from kao.data.toy_faces import ToyFaces
from kao.errors import DataError
from kao.evaluation import (
    Drawing,
    Evaluation,
    Looking,
    PictureSet,
    evaluate,
    open_pictures,
    protocol_of,
)
from kao.metrics import METRICS, Wavelets, reference_of
from kao.runs.guiding import sampling_table

LOOKING = Looking({"wavelets": Wavelets()}, torch.device("cpu"))


def asked(*metrics, n=60):
    return protocol_of("small-data").changed(n=n, metrics=metrics, features=["wavelets"])


@pytest.fixture(scope="module")
def real():
    return open_pictures("toy:300", size=16)


@pytest.fixture(scope="module")
def others():
    """Faces of the same kind that are not among the real ones."""
    source = ToyFaces(500, size=16)
    images = torch.stack([source[i].image for i in range(300, 400)])
    labels = torch.tensor([source[i].label for i in range(300, 400)])
    return PictureSet.of("others", images, labels=labels, classes=source.classes)


def noisy(pictures, *, by=40):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(-by, by + 1, pictures.images.shape, generator=generator)
    images = (pictures.images.int() + noise).clamp(0, 255).to(torch.uint8)
    return PictureSet.of("noisy", images)


def test_real_pictures_score_as_their_floor_and_noise_scores_worse(real, others):
    good = evaluate(others, real, protocol=asked("kernel"), looking=LOOKING).evaluation
    bad = evaluate(noisy(others), real, protocol=asked("kernel"), looking=LOOKING).evaluation
    score, floor = good.scores[0].score, good.scores[0].floor
    assert abs(score.value - floor.value) < 3 * (score.error**2 + floor.error**2) ** 0.5
    assert bad.scores[0].score.low > score.high
    assert (score.samples, floor.samples) == (60, 60)


def test_the_floor_is_of_real_pictures_whatever_was_drawn(real, others):
    floors = [
        evaluate(drawn, real, protocol=asked("kernel", "drift"), looking=LOOKING)
        for drawn in (replace(others, images=others.images), noisy(others))
    ]
    one, other = ([m.floor for m in found.evaluation.scores] for found in floors)
    assert one == other and None not in one


def test_a_score_that_depends_on_the_number_has_a_floor_of_that_number_alone(real, others):
    def found(n):
        return evaluate(
            others,
            real.some(150, seed=0),
            protocol=asked("manifold", "kernel", n=n),
            looking=LOOKING,
        ).evaluation

    few, many = found(60), found(100)
    assert {m.floor.samples for m in few.scores} == {60}
    assert [m.floor is None for m in many.scores] == [True] * 4 + [False]
    assert not any("have no floor" in note for note in few.notes)
    assert any("since 100 are scored, and there are 75 real ones" in note for note in many.notes)


def test_what_a_model_was_trained_on_is_on_the_card(real, others):
    found = evaluate(others, real, protocol=asked("kernel"), looking=LOOKING, train=real)
    assert found.evaluation.card.train_hash == real.fingerprint
    assert found.evaluation.card.metrics == ("kernel",)


def test_the_card_says_what_was_measured(real, others):
    way = sampling_table(SamplingConfig(steps=5), None)
    drawing = Drawing(images=64, sampling=way, ema="ema-0.999")
    found = evaluate(
        others, real, protocol=asked("kernel"), looking=LOOKING, drawing=drawing, seed=3
    )
    card = found.evaluation.card
    assert (card.subject, card.reference, card.n, card.reals) == ("others", "toy:300", 60, 240)
    assert (card.features, card.seed, card.sampling["steps"], card.images) == (
        ("wavelets-1",),
        3,
        5,
        64,
    )
    assert card.protocol == "small-data+n60"
    assert len(found.drawn) == 60


def test_a_number_that_is_not_the_protocols_is_told(real, others):
    few = evaluate(others, real, protocol=asked("kernel", n=101), looking=LOOKING)
    assert "There are 100 drawn pictures, and the protocol asks for 101" in few.evaluation.notes[0]
    many = evaluate(others, real, protocol=asked("kernel", n=99), looking=LOOKING)
    assert "99 of 100 drawn pictures are scored, chosen at random" in many.evaluation.notes[0]


def test_training_pictures_in_the_reference_are_told_of(real, others):
    train = real.some(200, seed=9)
    found = evaluate(others, real, protocol=asked("kernel"), looking=LOOKING, train=train)
    (note,) = [note for note in found.evaluation.notes if "were trained on" in note]
    seen = int(note.split()[0])
    assert 140 <= seen <= 180 and f"{seen} of 240 reference pictures" in note
    held = replace(others, name="held out")
    found = evaluate(real, held, protocol=asked("kernel", n=40), looking=LOOKING, train=train)
    assert not [note for note in found.evaluation.notes if "were trained on" in note]


def test_a_set_against_itself_gets_the_score_of_equal_sets(real):
    found = evaluate(real, real, protocol=asked("kernel", "drift", n=300), looking=LOOKING)
    assert "The drawn pictures are the reference itself" in " ".join(found.evaluation.notes)
    distance, *drifts = (measured.score.value for measured in found.evaluation.scores)
    assert distance < 0 and drifts == [0, 0, 0]


def test_drawn_pictures_that_are_in_the_reference_are_counted(real, others):
    mixed = PictureSet.of("mixed", torch.cat([others.images[:30], real.images[:20]]))
    whole = replace(asked("kernel", n=50), apart=False)
    (note,) = [
        note
        for note in evaluate(mixed, real, protocol=whole, looking=LOOKING).evaluation.notes
        if "reference too" in note
    ]
    assert note.startswith("20 of 50 drawn pictures")
    clean = evaluate(others, real, protocol=whole, looking=LOOKING).evaluation.notes
    assert not [note for note in clean if "reference too" in note]


def test_sets_that_cannot_be_compared_are_refused(real, others):
    small = PictureSet.of("small", others.images[:, :, ::2, ::2])
    with pytest.raises(DataError, match=r"small holds pictures of 8 pixels and toy:300 of 16.*--s"):
        evaluate(small, real, protocol=asked("kernel"), looking=LOOKING)


def test_a_metric_that_cannot_be_measured_leaves_the_others(real, others):
    found = evaluate(others, real, protocol=asked("frechet", "kernel"), looking=LOOKING).evaluation
    assert [m.score.name for m in found.scores] == ["kernel distance wavelets-1"]
    (note,) = [note for note in found.notes if note.startswith("Left out frechet")]
    assert '"kid"' in note
    with pytest.raises(DataError, match="covariance is singular"):
        evaluate(others, real, protocol=asked("frechet"), looking=LOOKING)


def test_classes_that_both_sets_have_are_scored_apart(others, real):
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([50, 47, 3]))
    drawn = replace(others, labels=labels, classes=("cat", "dog", "wild"))
    # So few real ones that the reference is all of them, alternately of two classes.
    held = replace(real.some(150, seed=1), labels=torch.arange(150) % 2, classes=("dog", "cat"))
    protocol = asked("kernel", n=100)
    found = evaluate(drawn, held, protocol=protocol, looking=LOOKING).evaluation
    assert list(found.per_class) == ["cat"]
    assert "Classes with fewer than 50" in found.notes[-1] and "dog" in found.notes[-1]
    (cat,) = found.per_class["cat"]
    assert (cat.score.samples, cat.floor) == (50, None)
    cats = [part.take(torch.nonzero(part.is_of("cat")).flatten()) for part in (held, drawn)]
    (by_hand,) = METRICS["kernel"](*(LOOKING.at(part, "wavelets") for part in cats))
    assert cat.score.value == pytest.approx(by_hand.value)


def test_colours_diversity_and_copies_are_measured_when_asked_for(real, others):
    red = others.images.clone()
    red[:, 0] = (red[:, 0].int() + 30).clamp(max=255).to(torch.uint8)
    red[:30] = real.images[:30]
    drawn = PictureSet.of("red", red)
    protocol = asked("drift", "diversity", "copies", n=100)
    found = evaluate(drawn, real, protocol=protocol, looking=LOOKING, train=real)
    evaluation = found.evaluation
    names = [m.score.name for m in evaluation.scores]
    assert names[3] == "pairwise distance wavelets-1"
    drift = evaluation.of("red drift")
    assert drift.score.low > 10 and abs(drift.floor.value) < 10
    assert set(found.copies.flagged.tolist()) >= set(range(30))
    assert evaluation.copies.score.value >= 0.3 > 0.1 > evaluation.copies.floor.value
    assert Evaluation.from_json(evaluation.to_json()) == evaluation


def test_without_training_pictures_it_is_said_that_copies_are_not_looked_for(real, others):
    found = evaluate(others, real, protocol=asked("kernel", "copies"), looking=LOOKING)
    assert found.copies is None and found.evaluation.copies is None
    assert any("say so with --train" in note for note in found.evaluation.notes)


def test_pictures_are_ranked_from_typical_to_strange(real, others):
    images = others.images[:60].clone()
    images[7] = torch.randint(
        0, 256, images[7].shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    drawn = PictureSet.of("one is noise", images)
    found = evaluate(drawn, real, protocol=asked("kernel"), looking=LOOKING)
    assert found.ranking.order[-1] == 7


def test_saved_statistics_serve_frechet_distances_and_nothing_else(real, others):
    many = PictureSet.of("many", real.images.repeat(2, 1, 1, 1))
    sight = LOOKING.at(many, "wavelets")
    statistics = reference_of(sight, resize=Wavelets().resize, fingerprint="ab" * 32)
    drawn = noisy(replace(others, images=others.images.repeat(4, 1, 1, 1)))
    protocol = asked("frechet", "kernel", "drift", n=400)
    found = evaluate(drawn, statistics, name="toy.npz", protocol=protocol, looking=LOOKING)
    evaluation = found.evaluation
    (measured,) = evaluation.scores
    assert measured.score.name == "Frechet distance wavelets-1" and measured.floor is None
    assert (evaluation.card.reference, evaluation.card.reals) == ("toy.npz", 600)
    assert [note.split(":")[0] for note in evaluation.notes] == [
        "Left out drift",
        "No floor",
        "Left out kernel",
    ]
    of_others = replace(statistics, gaussian=replace(statistics.gaussian, n=None))
    told = evaluate(drawn, of_others, name="toy.npz", protocol=protocol, looking=LOOKING)
    assert any("does not tell of how many pictures" in note for note in told.evaluation.notes)
    assert told.evaluation.scores[0].score.error < measured.score.error
    foreign = replace(statistics, space="faces-1")
    with pytest.raises(DataError, match='made in the feature space "faces-1"'):
        evaluate(drawn, foreign, name="toy.npz", protocol=protocol, looking=LOOKING)


def test_few_drawn_pictures_are_told_of(real, others):
    def told(n):
        few = others.some(n, seed=0)
        found = evaluate(few, real, protocol=asked("drift", n=n), looking=LOOKING)
        return [note for note in found.evaluation.notes if "say little" in note]

    assert told(50) == []
    assert told(49)[0].startswith("49 drawn pictures say little")


def test_a_floor_stands_in_the_table_with_its_interval(real, others):
    found = evaluate(others, real, protocol=asked("kernel", n=100), looking=LOOKING)
    (measured,) = found.evaluation.scores
    floor = measured.floor
    cell = f"{floor.value:.4g} ({floor.low:.3g} .. {floor.high:.3g})"
    assert cell in str(found.evaluation).splitlines()[1]
