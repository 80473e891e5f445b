import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.evaluation.verdict import judge
from kao.processes import ALONE
from kao.runs.ask import Ask
from kao.runs.deciding import decide
from kao.runs.planning import foreseen
from kao.runs.small_data import expected_of_few, for_few, stopped_for_few, trained_on
from kao.runs.stopping import PATIENCE, grounds
from kao.runs.yardstick import FEWEST

CPU = torch.device("cpu")


def config(*words):
    return Request.of("toy-32", words).over(dump(RunConfig()))


@pytest.mark.parametrize("pictures", [1, 2, 49])
def test_of_very_few_pictures_memorising_is_expected(pictures):
    (sentence,) = expected_of_few(pictures)
    assert f"{pictures} picture" in sentence and "memorises" in sentence
    assert expected_of_few(50) == []


@pytest.mark.parametrize("dry", [True, False])
def test_a_run_that_begins_says_what_very_few_pictures_lead_to(dry, tmp_path):
    def notes(source, *words):
        ask = Ask(
            tmp_path / source.replace(":", ""), source, "toy-32", words, {"length": "4 steps"}
        )
        return decide(ask, CPU, ALONE).notes if not dry else foreseen(ask, CPU).notes

    assert [note for note in notes("toy:2") if "2 pictures memorises them" in note]
    assert [note for note in notes("toy:60", "data.held_out=20") if "from 40 pictures" in note]
    assert not [note for note in notes("toy:60", "data.held_out=0") if "memorises" in note]


@pytest.mark.parametrize(
    ("pictures", "dropout", "edm"),
    [(100, 0.3, 0.12), (1_000, 0.2, 0.12), (5_000, 0.1, 0.0), (10_000, 0.0, 0.0)],
)
def test_the_fewer_pictures_the_more_is_done_against_learning_by_heart(pictures, dropout, edm):
    chosen, told = for_few(config("network.dropout=0"), {}, pictures)
    assert (chosen.network.dropout, chosen.data.augment.edm) == (dropout, edm)
    assert bool(told) == (pictures < 10_000)
    assert chosen.evaluation.stop == "never"  # of which another function decides


def test_what_was_asked_for_stays():
    asked = {"network": {"dropout": 0.0}, "evaluation": {"stop": "never"}}
    chosen, told = for_few(config("network.dropout=0"), asked, 100)
    assert chosen.network.dropout == 0.0
    assert stopped_for_few(chosen, asked, 100) == (chosen, [])
    assert told == [
        "Chosen for 100 pictures, which are soon learned by heart (fewer than 300): "
        "data.augment.edm = 0.12."
    ]


def test_more_dropout_than_that_stays():
    assert for_few(config("network.dropout=0.5"), {}, 100)[0].network.dropout == 0.5


def test_frozen_blocks_are_not_told_of_what_was_done_to_pictures():
    frozen = config("network.dropout=0", "finetune.freeze=2")
    chosen, (_, why) = for_few(frozen, {}, 100)
    assert (chosen.network.dropout, chosen.data.augment.edm) == (0.3, 0.0)
    assert why.startswith("data.augment.edm = 0.12 is not chosen for so few pictures, since")
    assert len(for_few(frozen, {"data": {"augment": {"edm": 0.0}}}, 100)[1]) == 1
    assert len(for_few(frozen, {}, 5_000)[1]) == 1
    had = config("finetune.freeze=2", "data.augment.edm=0.2")
    assert for_few(had, {}, 100)[0].data.augment.edm == 0.2


def test_held_out_pictures_are_not_learned_from():
    assert trained_on(config("data.held_out=20"), 310) == 290
    assert trained_on(config(), 10_100) == 10_100 - 202


SCORED = ("length=8000 images", "evaluation.every=1000")


@pytest.mark.parametrize(
    ("words", "trained", "stop"),
    [
        (SCORED, FEWEST, "auto"),
        (SCORED, FEWEST - 1, "never"),  # nothing to be held against
        (SCORED, 10_000, "never"),
        (("length=8000 images", "evaluation.every=0"), 100, "never"),
        (("length=8000 images", f"evaluation.every={8000 // PATIENCE}"), 100, "never"),
        (("length=9 minutes",), 100, "auto"),
    ],
)
def test_an_end_at_copies_is_chosen_where_scores_can_tell_of_them(words, trained, stop):
    chosen, told = stopped_for_few(config(*words), {}, trained)
    assert chosen.evaluation.stop == stop
    assert [line.endswith("evaluation.stop = auto.") for line in told] == [True] * (stop == "auto")


def events(copies):
    """What a run tells that draws such shares of copies, the low ends of their intervals first."""
    for k, low in enumerate(copies, 1):
        score = {"value": 1.0, "error": 0.1, "own_error": 0.1, "low": 0.8, "high": 1.2}
        yield {
            "event": "evaluation",
            "images": 1000 * k,
            "measure": "kernel distance",
            "digest": "0",
            "pictures": 64,
            "score": score,
            "copies": {"value": low + 0.1, "low": low},
        }


def stopped_at(copies):
    """The score after which the run is stopped; None: it is not."""
    told, verdicts = [], []
    for k, event in enumerate(events(copies), 1):
        told.append(event)
        verdicts.append({"images": event["images"], **judge(told).to_event()})
        if grounds(verdicts, scores=k, done=k / len(copies), anneals=True):
            return k
    return None


def test_a_run_ends_where_the_share_of_copies_has_risen_and_stays():
    assert stopped_at([0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5]) == 8
    assert stopped_at([0, 0, 0, 0.2, 0, 0, 0.2, 0, 0]) is None
