import json
import tomllib

import pytest

from kao.config import Request, RunConfig, dump
from kao.runs import Run

QUICK = ("data.source=toy:8", "--steps", "1", "--rounds", "1")


def test_a_recipe_is_measured_and_a_recipe_recommended(kao, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("kao.runs.ladder.best_precision", lambda device: "fp32")
    out = tmp_path / "fast.toml"
    code, table, told = kao("bench", "toy-32", *tiny, *QUICK, "--out", out)
    assert code == 0, told
    rows = {line[:23].strip(): line for line in table.splitlines()}
    assert rows["plain loop"].endswith("taken")
    assert rows["bf16"].endswith("emulates bf16, slowly; --all tries it")
    assert rows["adamw8bit"].endswith("CUDA only, and this is cpu")
    for name in ("recompute blocks", "recompute all", "2 at once", "patches", "progressive"):
        assert " x" in rows[name], rows[name]
    assert f"kao train FACES {out}" in told

    written = tomllib.loads(out.read_text())
    assert written["extends"] == "toy-32"
    config = Request.of(str(out)).over(dump(RunConfig()))
    asked = Request.of("toy-32", tiny).over(dump(RunConfig()))
    assert config.training.precision == "fp32"
    assert config.network == asked.network
    assert config.training.batch == asked.training.batch


def test_the_recommendation_trains(kao, tiny, tmp_path):
    out = tmp_path / "fast.toml"
    assert kao("bench", "toy-32", *tiny, *QUICK, "--out", out)[0] == 0
    code, _, told = kao("train", "toy:8", out, "--run", tmp_path / "run", "--steps", "2")
    assert code == 0, told
    assert "Finished at 8 images" in told


def test_a_run_is_measured_on_its_own_pictures(kao, tiny_run, tmp_path):
    out = tmp_path / "fast.toml"
    code, printed, told = kao("bench", tiny_run, *QUICK[1:], "--out", out, "--json")
    assert code == 0, told
    report = json.loads(printed)
    first = report["rungs"][0]
    assert (first["technique"], first["taken"]) == ("plain loop", True)
    assert first["measured"]["speed"]["median"] > 0
    assert first["measured"]["gain"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    written = tomllib.loads(out.read_text())
    own = Run.open(tiny_run).config
    assert "extends" not in written and "hooks" not in written
    assert not {"source", "fingerprint", "held_out"} & set(written["data"])
    assert Request.of(str(out)).over(dump(RunConfig())).network == own.network


def test_a_recipe_of_ones_own_is_extended_from_where_the_recommendation_lies(
    kao, tiny, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text('extends = "toy-32"\nseed = 7\n')
    (tmp_path / "there").mkdir()
    words = ("bench", "mine.toml", *tiny, *QUICK, "--out", "there/fast.toml")
    assert kao(*words)[0] == 0
    assert tomllib.loads((tmp_path / "there" / "fast.toml").read_text())["extends"] == (
        "../mine.toml"
    )
    assert Request.of("there/fast.toml").over(dump(RunConfig())).seed == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("seed=1",), "and got none: try kao bench faces-32."),
        (("toy-32", "faces-32"), "and got 2: toy-32, faces-32"),
        (("toy-33",), 'unknown recipe "toy-33" (did you mean "toy-32"?)'),
        (("toy-32", "network.widht=8"), 'did you mean "width"?'),
        (("toy-32", "--seconds", "0"), "--seconds = 0; expected a number above 0."),
        (("toy-32", "--seconds", "nan"), "--seconds = nan; expected a number above 0."),
        (("toy-32", "--out", "fast.yaml"), "is written as .toml"),
    ],
)
def test_mistakes_are_told_in_one_line(refused, words, said):
    assert said in refused("bench", *words)


def test_a_folder_that_is_no_run_is_refused(refused, tmp_path):
    assert str(tmp_path) in refused("bench", tmp_path)
