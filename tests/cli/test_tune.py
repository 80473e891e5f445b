import json
import shutil

import numpy as np
import pytest

from kao.runs import Run, draw
from kao.runs.budgets import BUDGETS, MEASURED, load_budget, load_budgets
from kao.runs.tuning import Trial

FEW = ("--n", 4, "--samplers", "ddim,heun", "--grids", "uniform,karras", "--steps", "2,3")


@pytest.fixture
def tuned(kao, own_run):
    """The run after `kao tune-sampler`, and what it printed."""
    code, out, err = kao("tune-sampler", own_run, *FEW)
    assert code == 0, err
    return own_run, out, err


def test_the_best_ways_are_printed_and_kept(tuned):
    path, out, err = tuned
    conditions, best = load_budgets(Run.open(path))
    assert (conditions.reals, conditions.checkpoint, conditions.seed) == (8, 16, 0)
    rows = out.splitlines()
    assert rows[0].split() == ["calls", "distance", "seconds", "way", "to", "draw"]
    assert [int(row.split()[0]) for row in rows[1:]] == [c.calls for c in best]
    assert f"kao sample {path} --budget {best[-1].calls}" in " ".join(err.split())
    assert load_budget(Run.open(path), 1000) == best[-1].sampling


def test_every_way_is_reported_as_it_is_measured(tuned):
    path, _, err = tuned
    assert err.startswith("8 ways to draw, up to 4 pictures each, against 8 real.")
    told = [line for line in err.splitlines() if "(4 pictures, " in line]
    assert len(told) == len((path / MEASURED).read_text().splitlines()) == 8
    assert told[0].startswith("ddim, uniform, 2 steps: ")


def test_the_chart_lies_with_the_pictures(tuned):
    path, _, err = tuned
    chart = path / "pictures" / "samplers.png"
    assert chart.read_bytes().startswith(b"\x89PNG")
    assert str(chart) in "".join(err.split("\n"))


def test_a_budget_draws_as_its_winner_does(tuned, kao, tmp_path):
    path, _, _ = tuned
    run = Run.open(path)
    budget = load_budgets(run)[1][-1].calls
    file = tmp_path / "drawn.npz"
    code, _, err = kao("sample", path, "--n", 2, "--budget", budget, "--npz", file)
    assert code == 0, err
    drawn = np.load(file)["arr_0"]

    def pictures(config):
        (images,) = draw(run.denoiser(), config, indices=range(2))
        return images.permute(0, 2, 3, 1).numpy()

    assert np.array_equal(drawn, pictures(run.drawing(load_budget(run, budget))))
    assert not np.array_equal(drawn, pictures(run.drawing()))


def test_the_same_command_goes_on_from_what_is_measured(tuned, kao, monkeypatch):
    path, out, _ = tuned
    lines = (path / MEASURED).read_text()

    def never(trial, n):
        raise AssertionError("measured twice")

    monkeypatch.setattr(Trial, "measure", never)
    again = kao("tune-sampler", path, *FEW)
    assert (again[0], again[1]) == (0, out)
    assert (path / MEASURED).read_text() == lines


def test_json_is_all_that_is_printed(kao, own_run):
    code, out, _ = kao("tune-sampler", own_run, *FEW, "--etas", "0,1", "--json")
    table = json.loads(out, parse_constant=pytest.fail)  # no NaN and no Infinity, which are no JSON
    assert code == 0
    assert len(table["measured"]) == 12
    ways = [entry["sampling"]["sampler"] for entry in table["measured"]]
    assert {"kind": "ddim", "eta": 1.0} in ways
    assert table["budgets"][0]["calls"] == 2


def test_a_budget_of_a_model_that_learned_on_is_drawn_with_a_note(tuned, kao, tmp_path):
    path, *_ = tuned
    words = ("sample", path, "--n", 1, "--budget", 2, "--grid", tmp_path / "grid.png")
    assert "was measured at" not in kao(*words)[2]
    shutil.rmtree(path / "checkpoints" / "000000016")
    code, _, err = kao(*words)
    assert code == 0
    assert "was measured at 16 images, and the model has 8 now: `kao tune-sampler" in err


def test_out_of_time_keeps_what_is_measured(kao, own_run):
    code, _, err = kao("tune-sampler", own_run, *FEW, "--minutes", "0.000001")
    assert code == 0
    assert "Out of time: keeping what is measured" in err
    assert len((own_run / MEASURED).read_text().splitlines()) == 1
    assert len(load_budgets(Run.open(own_run))[1]) == 1


@pytest.mark.parametrize("after", [0, 3])
def test_ctrl_c_keeps_what_is_measured(after, kao, own_run, monkeypatch):
    measure, met = Trial.measure, []

    def interrupted(trial, n):
        if len(met) == after:
            raise KeyboardInterrupt
        met.append(n)
        return measure(trial, n)

    monkeypatch.setattr(Trial, "measure", interrupted)
    code, _, err = kao("tune-sampler", own_run, *FEW)
    assert code == (0 if after else 130)
    assert ("Stopped: keeping what is measured" in err) == (after > 0)
    assert (own_run / BUDGETS).exists() == (after > 0)


def test_pictures_can_be_brought_where_the_runs_own_are_gone(kao, own_run, faces):
    code, _, _ = kao("tune-sampler", own_run, *FEW, "--real", faces(5))
    assert code == 0
    assert load_budgets(Run.open(own_run))[0].reals == 5


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--steps", "ten"], '--steps = "ten"; expected whole numbers from 1 up, such as 5,10,20.'),
        (["--steps", "5,0"], '--steps = "5,0"; expected whole numbers from 1 up, such as 5,10,20.'),
        (["--etas", "x"], '--etas = "x"; expected numbers such as 0,0.5.'),
        (["--etas", "2"], "sampler.eta = 2"),
        (["--etas", "nan"], "sampler.eta = nan"),
        (["--etas", "0,1", "--samplers", "heun"], "--etas has nothing to change, since none of"),
        (["--samplers", "ddim,"], '--samplers = "ddim,"; expected names such as ddim,heun.'),
        (["--samplers", "huen"], 'unknown sampler "huen" (did you mean "heun"?)'),
        (["--grids", "karas"], 'unknown grid "karas" (did you mean "karras"?)'),
        (["--minutes", "0"], "--minutes = 0; expected a number above 0."),
        (["--minutes", "nan"], "--minutes = nan; expected a number above 0."),
        (["--n", "2"], "--n = 2; expected 3 or more."),
        (["--real", "nowhere"], "There is no folder or ZIP file nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(words, said, refused, tiny_run):
    assert refused("tune-sampler", tiny_run, *words).startswith(said)


def test_a_run_that_is_none_is_told(refused, tmp_path):
    assert refused("tune-sampler", tmp_path / "gone").startswith("There is no run directory")


def test_a_run_whose_pictures_are_gone_is_told_what_to_do(refused, kao, faces, tiny, tmp_path):
    folder, path = faces(4), tmp_path / "run"
    assert kao("train", folder, "toy-32", *tiny, "--run", path, "--steps", 1)[0] == 0
    shutil.rmtree(folder)
    assert "There is no folder or ZIP file" in refused("tune-sampler", path)
