"""`kao show`: its words, where figures go, and what is said to mistakes."""

import shutil

import pytest
import torch
from PIL import Image

import kao as library
from kao.cli.show import FILES, WHEN_NAMED, drawings, schedule_of, training_knots
from kao.diffusion import SCHEDULES
from kao.runs import Run


@pytest.fixture(scope="session")
def learning_run(tiny, tmp_path_factory):
    """A run of four steps that learns where to train."""
    path = tmp_path_factory.mktemp("runs") / "learning"
    words = (*tiny, "hooks.log=4", "hooks.checkpoints=8", "loss.times=loss_moment")
    library.train("toy:8", run=path, recipe="toy-32", length="4 steps", overrides=words)
    return path


def is_picture(file):
    with Image.open(file) as picture:
        picture.load()
        return min(picture.size) > 40


# --- schedules side by side -----------------------------------------------------------------------


def test_schedules_are_compared_without_a_run(kao, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kao("show", "schedule", "cosine", "flow:shift=-2.2") == (0, "", "schedule.png\n")
    assert [file.name for file in tmp_path.iterdir()] == ["schedule.png"]
    assert is_picture("schedule.png")


@pytest.mark.parametrize("out", ["mine.png", "MINE.PNG", "folder/mine.png"])
def test_a_name_that_ends_in_png_is_the_file(out, kao, tmp_path):
    assert kao("show", "schedule", "flow", "--out", tmp_path / out)[2] == f"{tmp_path / out}\n"
    assert is_picture(tmp_path / out)


def test_another_name_is_a_folder(kao, tmp_path):
    assert kao("show", "schedule", "flow", "--out", tmp_path / "new")[0] == 0
    assert is_picture(tmp_path / "new" / "schedule.png")


@pytest.fixture
def compared(monkeypatch):
    """The names and knots that were handed to the plot."""
    calls = {}

    def schedule_plot(schedules, *, knots):
        calls.update(names=list(schedules), knots=knots)
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr("kao.reports.schedules.schedule_plot", schedule_plot)
    return calls


def test_with_no_names_all_schedules_are_compared(kao, compared, tmp_path):
    assert kao("show", "schedule", "--out", tmp_path)[0] == 0
    assert compared["names"] == list(SCHEDULES)


def test_runs_stand_beside_schedules_with_the_times_that_they_learned(
    kao, compared, tiny_run, learning_run, tmp_path
):
    assert kao("show", "schedule", "linear", tiny_run, learning_run, "--out", tmp_path)[0] == 0
    assert compared["names"] == ["linear", "tiny", "learning"]
    assert list(compared["knots"]) == ["learning"]
    assert compared["knots"]["learning"] == Run.open(learning_run).learned_times().knots(129)


def test_runs_of_the_same_name_stay_apart(kao, compared, tiny_run, tmp_path):
    other = shutil.copytree(tiny_run, tmp_path / "tiny")
    assert kao("show", "schedule", tiny_run, other, "--out", tmp_path)[0] == 0
    assert compared["names"] == ["tiny", str(other)]


def test_the_word_schedule_is_no_run_and_a_path_to_one_is(kao, tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "schedule")
    monkeypatch.chdir(tmp_path)
    assert kao("show", "schedule", "flow")[2] == "schedule.png\n"
    _, _, said = kao("show", "./schedule", "schedule", "--out", "drawn")
    assert said == "drawn/schedule.png\n"


def test_a_name_wins_over_a_folder_and_a_path_over_a_name(kao, compared, tmp_path, tiny_run):
    shutil.copytree(tiny_run, tmp_path / "flow")
    assert kao("show", "schedule", "flow", tmp_path / "flow", "--out", tmp_path)[0] == 0
    assert compared["names"] == ["flow", str(tmp_path / "flow")]


@pytest.mark.parametrize(
    ("word", "name", "options"),
    [
        ("cosine", "cosine", {}),
        ("linear:steps=50", "linear", {"steps": 50}),
        ("linear:steps=50,zero_terminal_snr=true", "linear", {"steps": 50, "zero_terminal_snr": 1}),
        ("flow:shift=-2.2", "flow", {"shift": -2.2}),
        ("ve:sigma_max=3", "ve", {"sigma_max": 3.0}),
    ],
)
def test_words_are_the_schedules_that_they_name(word, name, options):
    met, expected = schedule_of(word), SCHEDULES[name](**options).build()
    assert met.t_max == expected.t_max
    t = torch.linspace(0, 1, 9, dtype=torch.float64) * met.t_max
    assert torch.equal(met(t).alpha, expected(t).alpha)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "cosin",
            'There is no schedule and no run directory "cosin" (did you mean "cosine"?); the '
            f"schedules are: {', '.join(SCHEDULES)}.",
        ),
        ("zzz:steps=3", 'There is no schedule and no run directory "zzz"; the schedules'),
        ("runs/gone", "There is no run directory runs/gone"),
        ("flow:shft=1", 'unknown key "shft" in [schedule] of flow:shft=1 (did you mean "shift"?)'),
        ("flow:kind=ve", 'unknown key "kind" in [schedule] of flow:kind=ve'),
        ("linear:steps=many", "schedule.steps = 'many' in linear:steps=many; expected a whole"),
        ("linear:steps=1", "schedule.steps = 1, but a chain needs at least 2 steps"),
        ("flow:shift=nan", "schedule.shift = nan"),
        (
            "linear:steps=5,shift",
            '"shift" in "linear:steps=5,shift" is no option: write name:key=value,key=value',
        ),
        ("flow:", '"" in "flow:" is no option'),
        ("", 'There is no schedule and no run directory ""'),
    ],
)
def test_a_wrong_word_is_answered_in_a_sentence(word, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("show", "schedule", word).startswith(said)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_told_as_that(refused, tmp_path):
    assert "is not a run directory" in refused("show", "schedule", tmp_path)


# --- figures of a run -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FILES)
def test_each_figure_is_drawn_into_the_file_that_is_named(kind, kao, learning_run, tmp_path):
    file = tmp_path / f"mine{FILES[kind][-4:]}"
    code, out, said = kao("show", learning_run, kind, "--n", "2", "--k", "3", "--out", file)
    assert (code, out, said.splitlines()[-1]) == (0, "", str(file))
    assert is_picture(file)


def test_with_nothing_named_learned_times_are_drawn_where_there_are_some(tiny_run, learning_run):
    def kinds(path):
        return set(drawings(Run.open(path), path, n=1, seed=0))

    assert kinds(learning_run) == set(FILES) - WHEN_NAMED
    assert kinds(tiny_run) == set(FILES) - WHEN_NAMED - {"times"}


def test_a_run_with_fixed_times_says_that_it_has_learned_none(refused, tiny_run):
    assert refused("show", tiny_run, "times") == (
        f"{tiny_run} trains with fixed times, so there is no learned density to draw: train with "
        f"loss.times=loss_moment or loss.times=warped."
    )


def test_neighbours_are_told_in_a_sentence(kao, tiny_run, tmp_path):
    code, _, said = kao("show", tiny_run, "neighbours", "--n", "3", "--k", "50", "--out", tmp_path)
    assert code == 0
    assert said.startswith("Median distance to the nearest of 8 training pictures: ")
    assert "for 3 samples" in said and "for 8 real pictures" in said


def test_neighbours_need_the_pictures(refused, own_run):
    file = own_run / "run.toml"
    file.write_text(file.read_text().replace('"toy:8"', '"/gone/faces"'))
    assert refused("show", own_run, "neighbours").startswith("There is no folder")


def test_several_figures_do_not_go_into_one_file(refused, tiny_run, tmp_path):
    out = tmp_path / "a.png"
    assert refused("show", tiny_run, "forward", "schedule", "--out", out) == (
        f"--out = {out} is one file, and 2 figures are drawn: give a folder, or name one figure."
    )
    assert "is one file" in refused("show", tiny_run, "--out", out)


def test_a_file_of_the_wrong_ending_is_refused(refused, tiny_run, tmp_path):
    out = tmp_path / "a.png"
    assert refused("show", tiny_run, "gif", "--out", out) == (
        f"--out = {out}, but gif is written as .gif: give it that ending."
    )


def test_a_folder_may_have_a_name_that_ends_in_png(kao, tiny_run, tmp_path):
    folder = tmp_path / "a.png"
    folder.mkdir()
    assert kao("show", tiny_run, "schedule", "--out", folder)[2] == f"{folder / 'schedule.png'}\n"


def test_what_cannot_be_drawn_is_told_with_the_near_miss(refused, tiny_run):
    assert refused("show", tiny_run, "neighbors") == (
        'kao show cannot draw "neighbors" (did you mean "neighbours"?); it can draw: '
        f"{', '.join(FILES)}."
    )


def test_a_run_that_has_no_checkpoint_shows_its_schedule_still(kao, own_run, tmp_path):
    shutil.rmtree(own_run / "checkpoints")
    assert kao("show", own_run, "schedule", "--out", tmp_path)[0] == 0
    assert "has no whole checkpoint yet" in kao("show", own_run, "trajectory")[2]


def test_training_times_are_told_by_knots_unless_they_are_uniform(tiny_run, own_run):
    assert training_knots(Run.open(tiny_run)) is None
    file = own_run / "run.toml"
    assert 'kind = "uniform"' in file.read_text()
    before, after = file.read_text().split("[loss.times]")
    changed = after.replace('kind = "uniform"', 'kind = "logit_normal"', 1)
    file.write_text(before + "[loss.times]" + changed)
    knots = training_knots(Run.open(own_run))
    assert knots[len(knots) // 2] == pytest.approx(0.5, abs=0.01)
