"""`kao compare`: where its scores come from, what it prints and writes, what it refuses."""

import json
import shutil

import numpy as np
import pytest

from kao.config import SamplingConfig
from kao.evaluation import Card, Evaluation, Measured
from kao.metrics import Score
from kao.runs import Run
from kao.runs.evaluating import save_evaluation
from kao.runs.guiding import sampling_table


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def two(tiny_run, tmp_path):
    """Two runs, a and b, in the current folder."""
    for name in ("a", "b"):
        shutil.copytree(tiny_run, tmp_path / name)
    return "a", "b"


@pytest.fixture
def array(tmp_path):
    """array("x.npz", 20): a file of so many drawn pictures."""

    def make(name, count, size=16, seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)
        np.savez(tmp_path / name, pixels)
        return name

    return make


def keep(run, tmp_path, value, **card):
    """Scores in a run, as `kao evaluate` keeps them."""
    facts = {
        "subject": run,
        "images": 16,
        "n": 100,
        "size": 16,
        "reference": "toy",
        "reference_hash": "ab" * 32,
        "reals": 200,
        "features": ("faces-1",),
        "resize": ("none",),
        "sampling": sampling_table(SamplingConfig(steps=2), None),
        "protocol": "small-data",
    }
    score = Measured(Score("distance", value, 1.0, 100), "faces-1")
    save_evaluation(Run.open(tmp_path / run), Evaluation(Card(**facts | card), (score,)))


def test_scores_that_runs_keep_are_compared(kao, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 50.0)
    code, out, err = kao("compare", *two)
    assert (code, err) == (0, "compare.html\n")
    assert "10.0 (8.0 to 12.0)" in out and "a best: real" in out
    assert "real: a is better" in out
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert "Each row is drawn from the same noise" in page and page.count("<img") == 4


def test_a_difference_by_chance_is_within_the_noise(kao, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 11.0)
    out = kao("compare", *two, "--n-grid", 0)[1]
    assert out.count("within the noise") == 2 and "is better" not in out
    assert "<img" not in (tmp_path / "compare.html").read_text(encoding="utf-8")


def test_the_newest_scores_by_one_protocol_are_taken(kao, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("a", tmp_path, 20.0, images=32)
    keep("a", tmp_path, 30.0, images=64, sampling=sampling_table(SamplingConfig(steps=9), None))
    keep("b", tmp_path, 50.0)
    told = json.loads(kao("compare", *two, "--json", "--n-grid", 0)[1])
    (difference,) = told["scores"][0]["differences"]
    assert (difference["difference"], difference["finding"]) == (-30, "real")
    assert told["evaluations"]["a"]["card"]["images"] == 32


def test_scores_by_other_protocols_are_not_ranked(kao, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 50.0, sampling=sampling_table(SamplingConfig(steps=9), None))
    out = kao("compare", *two, "--n-grid", 0)[1]
    assert (
        "Drawing: sampling.steps = 2 for a, sampling.steps = 9 for b." in out
        and "not ranked" in out
    )
    assert "real:" not in out and "best" not in out


def test_only_scores_by_the_protocol_that_is_asked_for_are_compared(kao, refused, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 50.0, images=8)
    keep("b", tmp_path, 70.0, protocol="clean-fid+n100")
    words = ("compare", *two, "--json", "--n-grid", 0, "--protocol")
    told = json.loads(kao(*words, "small-data")[1])
    assert told["evaluations"]["b"]["scores"][0]["score"]["value"] == 50
    assert "a keeps no scores by clean-fid yet" in refused(*words, "clean-fid")


def test_everything_is_scored_now_where_real_pictures_are_given(kao, two, array, tmp_path):
    words = ("compare", "a", array("x.npz", 30), "--real", "toy:120", "--n", 40, "--n-grid", 2)
    code, out, err = kao(*words, "--json", "--out", "new/page.html")
    assert code == 0
    assert "30 pictures of each are scored, since one of them has no more." in err
    told = json.loads(out)
    assert told["ranked"]
    assert any("How x.npz was drawn is not known" in note for note in told["notes"])
    cards = [told["evaluations"][name]["card"] for name in ("a", "x.npz")]
    assert [card["n"] for card in cards] == [30, 30]
    assert cards[0]["reference_hash"] == cards[1]["reference_hash"]
    assert (cards[0]["sampling"]["steps"], cards[1]["sampling"]) == (2, None)
    page = (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert page.count("<img") == 2 and "chosen at random" in page


def test_everything_is_scored_in_the_space_that_is_asked_for(kao, two):
    words = ("--real", "toy:120", "--n", 20, "--n-grid", 0, "--json", "--features", "wavelets")
    told = json.loads(kao("compare", *two, *words)[1])
    assert told["evaluations"]["a"]["card"]["features"] == ["wavelets-1"]


def test_smaller_real_pictures_are_refused(refused, array, faces):
    array("x.npz", 20, size=32)
    array("y.npz", 20, size=32, seed=1)
    words = ("compare", "x.npz", "y.npz", "--real", faces(4), "--n", 20)
    assert "pictures of 32 pixels and" in refused(*words)


def test_a_run_compared_with_its_copy_differs_in_nothing(kao, two):
    words = ("--real", "toy:120", "--n", 20, "--n-grid", 0, "--json")
    told = json.loads(kao("compare", *two, *words)[1])
    differences = [d for row in told["scores"] for d in row["differences"]]
    assert differences and {d["difference"] for d in differences} == {0}
    assert not any(d["better"] for d in differences)


def test_folders_of_one_name_are_called_by_their_paths(kao, two, tmp_path):
    (tmp_path / "c").mkdir()
    shutil.move("b", "c/a")
    keep("a", tmp_path, 10.0)
    keep("c/a", tmp_path, 50.0)
    told = json.loads(kao("compare", "a", "c/a", "--json", "--n-grid", 0)[1])
    assert list(told["evaluations"]) == ["a", "c/a"]


def test_a_run_that_cannot_draw_is_compared_without_pictures(kao, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 50.0)
    shutil.rmtree(tmp_path / "b" / "checkpoints")
    code, out, err = kao("compare", *two)
    assert code == 0 and "a best: real" in out
    assert "Left out the pictures of b: b has no whole checkpoint" in err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a"], "a alone cannot be compared: name two or more"),
        (["a", "b/../a"], "b/../a is named twice"),
        (["a", "nowhere"], "There is no nowhere"),
        (["a", "b"], "a keeps no scores yet: run `kao evaluate a`, or give real pictures"),
        (["a", "x.npz"], "keeps no scores yet"),
        (["x.npz", "a"], "x.npz is no run directory, so no scores of it are kept"),
        (["a", "b", "--n", "20"], "without --real none are"),
        (["a", "b", "--features", "faces"], "or leave --features out"),
        (["a", "b", "--weights", "inception=x"], "or leave --weights out"),
        (["a", "b", "--real", "toy:60", "--weights", "ema"], "expected SPACE=PATH"),
        (["a", "b", "--real", "toy:60", "--weights", "inceptoin=x"], "inceptoin"),
        (["a", "b", "--protocol", "small-dat"], 'did you mean "small-data"?'),
        (["a", "b", "--n-grid", "33"], "--n-grid = 33; expected 32 or less."),
        (["a", "b", "--out", "page.png"], "written as .html"),
        (["a", "b", "--out", "a"], "a is in the way"),
        (["a", "x.npz", "--real", "toy:60"], "several sizes cannot be compared, and a has 16, x"),
    ],
)
def test_mistakes_are_told_in_a_sentence(words, sentence, refused, two, array, tmp_path):
    array("x.npz", 20, size=8)
    assert sentence in refused("compare", *words)
    assert not (tmp_path / "compare.html").exists()


def test_runs_of_several_sizes_are_refused(refused, two, tmp_path):
    file = tmp_path / "b" / "run.toml"
    file.write_text(file.read_text().replace("size = 16", "size = 32"))
    assert "a has 16, b has 32 pixels a side" in refused("compare", *two)


def test_a_damaged_evaluation_is_named(refused, two, tmp_path):
    keep("a", tmp_path, 10.0)
    keep("b", tmp_path, 10.0)
    (file,) = (tmp_path / "b" / "evaluations").glob("*.json")
    file.write_text("{")
    assert "delete it and run `kao evaluate` again" in refused("compare", *two)


def test_two_names_of_the_same_pictures_are_told(kao, array):
    words = ("--real", "toy:120", "--n-grid", 0, "--features", "wavelets", "--json")
    twins = (array("x.npz", 60), array("y.npz", 60), array("z.npz", 60, seed=1))
    code, out, err = kao("compare", *twins, *words)
    assert code == 0, err
    told = [note for note in json.loads(out)["notes"] if "are those of" in note]
    assert told == ["y.npz: The 60 pictures of y.npz are those of x.npz."]
