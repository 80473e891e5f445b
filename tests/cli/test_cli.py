import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import numpy as np
import pytest
from PIL import Image

from kao import __version__
from kao.checkpoints import Checkpoint
from kao.cli import run
from kao.cli.train import default_name, places_and_overrides, split_words
from kao.config import Request, RunConfig, dump, load_config
from kao.errors import ConfigError
from kao.runs import Ask
from kao.tracking import read_events

COMMANDS = ("demo", "prepare", "train", "sample", "show", "report", "ema", "tune-sampler", "edit")


# --- help ---------------------------------------------------------------------------------------


def test_kao_alone_shows_its_help(kao):
    code, out, err = kao()
    assert (code, err) == (0, "")
    assert out == kao("--help")[1] == kao("-h")[1]
    assert all(f"\n  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, kao):
    code, out, err = kao(command, "--help")
    assert (code, err) == (0, "")
    assert f"Example: kao {command}" in out
    assert kao(command, "-h")[1] == out


def test_the_version_is_told(kao):
    assert kao("--version") == (0, f"kao {__version__}\n", "")


def test_help_is_there_before_torch_is():
    code = (
        "import sys; from kao.cli import run\n"
        f"for words in [[], ['--version'], *([c, '--help'] for c in {COMMANDS})]:\n"
        "    assert run(words) == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?"),
        (["sample"], "Missing argument 'RUN'."),
        (["train", "--sise", "3"], "No such option: --sise Did you mean --size?"),
        (["sample", "run", "--n", "many"], "--n = many; expected a whole number."),
        (["sample", "run", "--n", "0"], "--n = 0; expected 1 or more."),
    ],
)
def test_words_that_make_no_command_are_answered_in_one_line(words, said, refused):
    assert refused(*words).startswith(said.split(" Did")[0])


def test_ctrl_c_is_answered_by_a_word(kao, monkeypatch):
    def interrupted(protocol, **changes):
        raise KeyboardInterrupt

    monkeypatch.setattr("kao.evaluation.planning.asked_protocol", interrupted)
    assert kao("evaluate", "drawn") == (130, "", "Stopped.\n")


def test_a_traceback_is_shown_to_whoever_asks(kao):
    with pytest.raises(ConfigError):
        run(["train", "a", "b", "c", "--traceback"])


# --- train --------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_whole_configuration_and_its_cost(kao, train, tmp_path, monkeypatch):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "cache"))
    code, out, err = kao(*train, "--steps", "7", "training.precision=auto", "--dry-run")
    assert (code, err) == (0, "")
    config = load_config(out, "the dry run")
    assert (config.network.width, config.length, config.data.source) == (8, "7 steps", "toy:8")
    assert config.training.precision != "auto"
    parameters = sum(p.numel() for p in config.build_denoiser("meta").parameters())
    assert f"# parameters: {parameters:,}\n" in out
    assert " GFLOP\n" in out and " MB\n" in out
    assert list(tmp_path.iterdir()) == []


def test_stopping_by_the_verdict_is_a_key_of_the_configuration(kao, train, refused):
    scored = (*train, "evaluation.every=auto", "--dry-run")
    assert 'stop = "auto"' in kao(*scored, "--stop", "auto")[1]
    assert 'stop = "never"' in kao(*scored)[1]
    assert "evaluation.stop = 'soon'" in refused(*scored, "--stop", "soon")
    assert "evaluation.every = 0 takes none" in refused(*train, "--dry-run", "--stop", "auto")


def test_a_dry_run_finds_the_mistakes_that_a_run_would(refused, train):
    said = refused(*train, "training.precision=fp16", "--dry-run")
    assert said.startswith("training.precision = 'fp16' on a CPU")


def test_training_says_what_it_does_and_how_to_go_on(kao, train, tmp_path):
    code, out, err = kao(*train, "--steps", "2")
    assert (code, out) == (0, "")
    assert f"Training {tmp_path / 'run'} for 2 steps on cpu in fp32.\n" in err
    assert "Finished at 8 images after 0.0 minutes. Draw with: kao sample" in err
    code, _, err = kao(*train, "--steps", "3")
    assert f"Going on with {tmp_path / 'run'} at 8 images (67 % of 3 steps).\n" in err


def test_a_run_is_called_after_its_pictures_unless_it_is_named(kao, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert kao("train", "toy:8", "toy-32", *tiny, "--steps", "1")[0] == 0
    assert (tmp_path / "runs" / "toy-8" / "run.toml").exists()
    assert default_name("../data/anime64.zip") == "anime64"
    assert default_name("faces/") == "faces"
    assert default_name(".") == tmp_path.name
    assert default_name("..") == tmp_path.parent.name
    assert default_name("AFHQ/train") == "AFHQ-train"


def test_images_may_be_counted_in_thousands(kao, train):
    _, out, _ = kao(*train, "--images", "1.5k", "--dry-run")
    assert load_config(out, "the dry run").length == "1.5k images"


def test_words_are_told_apart_by_their_equals_sign(tmp_path):
    assert split_words(["faces", "seed=1", "faces-32", "a.b=c"]) == (
        "faces",
        "faces-32",
        ["seed=1", "a.b=c"],
    )
    odd = tmp_path / "a=b"
    odd.mkdir()
    assert split_words([str(odd)]) == (str(odd), None, [])
    classes = f"data.classes={[f'name{i}' for i in range(99)]}"  # longer than a file's name may be
    assert split_words(["faces", classes]) == ("faces", None, [classes])


@pytest.fixture
def training(train, tmp_path):
    """A process that trains in tmp_path/run, has taken some steps, and has none to spare."""
    path = tmp_path / "run"
    rare = ["hooks.log=4", "hooks.samples=9999999", "hooks.checkpoints=9999999"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kao", *map(str, train), *rare, "--steps", "1000000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not any(event["event"] == "train" for event in read_events(path)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.words = [*train, *rare]
        yield process
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 0)]
)
def test_a_signal_ends_the_step_and_saves_and_the_same_command_goes_on(
    number, code, training, kao, tmp_path
):
    path = tmp_path / "run"
    training.send_signal(number)
    out, err = training.communicate(timeout=60)
    assert (training.returncode, out) == (code, "")
    assert "Stopping after this step; saving.\n" in err
    end = read_events(path)[-1]
    assert (end["event"], end["reason"]) == ("end", "interrupted")
    (checkpoint,) = Checkpoint.all(path)
    assert checkpoint.images == end["images"]
    assert checkpoint.damage() is None
    assert f"Interrupted at {end['images']:,} images after" in err

    code, _, err = kao(*training.words, "--images", end["images"] + 8)
    assert code == 0
    assert f"Going on with {path} at {end['images']:,} images" in err
    assert f"Finished at {end['images'] + 8:,} images" in err


SLOW = """
import importlib, sys, time
from pathlib import Path
from kao.cli import run

started, module, name = Path(sys.argv[1]), importlib.import_module(sys.argv[2]), sys.argv[3]
quick = getattr(module, name)

def slow(*words, **named):
    started.touch()
    time.sleep(1)
    return quick(*words, **named)

setattr(module, name, slow)
sys.exit(run(sys.argv[4:]))
"""


@pytest.mark.parametrize(
    ("module", "name", "code", "said"),
    [
        ("kao.runs.deciding", "_prepared", 75, "Stopped before the first step; nothing is lost.\n"),
        ("kao.runs", "finish", 0, "Finished at 8 images"),
    ],
)
def test_a_signal_outside_of_steps_ends_the_start_and_lets_the_end_be(
    module, name, code, said, train, tmp_path
):
    started = tmp_path / "started"
    words = [sys.executable, "-c", SLOW, started, module, name, *map(str, train), "--steps", "2"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    try:
        while not started.exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert said in err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows hangs nobody up")
def test_a_closed_terminal_ends_the_step_and_saves(train, tmp_path):
    import fcntl
    import pty
    import termios

    path, (screen, terminal) = tmp_path / "run", pty.openpty()
    rare = ["hooks.log=4", "hooks.samples=9999999", "hooks.checkpoints=9999999"]
    process = subprocess.Popen(
        [sys.executable, "-m", "kao", *map(str, train), *rare, "--steps", "1000000"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    os.set_blocking(screen, False)
    try:
        while not any(event["event"] == "train" for event in read_events(path)):
            assert process.poll() is None
            with suppress(BlockingIOError):
                os.read(screen, 2**16)  # a screen that is full would hold up the run
            time.sleep(0.1)
        os.close(screen)
        assert process.wait(timeout=60) == 75
    finally:
        process.kill()
    end = read_events(path)[-1]
    assert (end["event"], end["reason"]) == ("end", "interrupted")
    assert [checkpoint.images for checkpoint in Checkpoint.all(path)] == [end["images"]]


def test_a_second_process_in_a_run_directory_is_refused_and_the_first_goes_on(
    training, refused, tmp_path
):
    path = tmp_path / "run"
    said = refused(*training.words, "--steps", "1000000")
    assert said == (
        f"{path} is in use by another process: wait until it ends, or choose another place."
    )
    seen = len(read_events(path))
    while len(read_events(path)) == seen:
        assert training.poll() is None
        time.sleep(0.05)
    training.send_signal(signal.SIGINT)
    training.communicate(timeout=60)
    assert training.returncode == 0
    assert [event["event"] for event in read_events(path)].count("start") == 1


def test_a_branch_is_one_word_more(kao, train, tmp_path):
    assert kao(*train, "--steps", "2")[0] == 0
    code, _, err = kao(*train, "--steps", "3", "ema.decay=0.9", "--branch", tmp_path / "b")
    assert code == 0
    assert "ema.decay was 0.999 and is 0.9 now." in err
    assert f"{tmp_path / 'b'} begins with what {tmp_path / 'run'}" in err
    assert f"Going on with {tmp_path / 'b'} at 8 images (67 % of 3 steps).\n" in err
    assert [c.images for c in Checkpoint.all(tmp_path / "b")] == [8, 12]
    assert [c.images for c in Checkpoint.all(tmp_path / "run")] == [8]


# --- prepare ------------------------------------------------------------------------------------


def test_preparing_says_what_the_pictures_are_like(kao, faces, tmp_path):
    folder = faces(3)
    (folder / "broken.png").write_text("no picture")
    code, out, err = kao("prepare", folder, "--size", "8", "--out", tmp_path / "set")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == str(tmp_path / "set")
    assert "3 pictures" in out and "broken.png" in out
    assert (tmp_path / "set" / "images.u8").stat().st_size == 3 * 3 * 8 * 8


def test_what_was_added_since_is_told_where_a_set_is_used_again(kao, faces, tmp_path):
    folder, words = faces(3), ("--size", "8", "--out", tmp_path / "set")
    assert "labels.csv" not in kao("prepare", folder, *words)[1]
    (folder / "labels.csv").write_text("no table that is read")
    assert "labels.csv" in kao("prepare", folder, *words)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--size", "4"), "size = 4; expected 8 pixels or more."),
        (("--crop", "center"), "center"),
        (("--workers", "0"), "workers = 0; expected 1 or more."),
    ],
)
def test_a_way_to_prepare_that_cannot_work_is_refused(words, said, refused, faces):
    assert said in refused("prepare", faces(3), *words)


# --- sample -------------------------------------------------------------------------------------


def test_pictures_are_written_in_every_form_that_is_asked_for(kao, tiny_run, tmp_path):
    out, grid, npz = tmp_path / "new" / "out", tmp_path / "grid.png", tmp_path / "array"
    code, printed, _ = kao(
        "sample", tiny_run, "--n", "5", "--batch", "2", "--out", out, "--grid", grid, "--npz", npz
    )
    assert (code, printed) == (0, "")
    names = [f"{index:06d}.png" for index in range(5)]
    assert sorted(file.name for file in out.iterdir()) == names
    array = np.load(npz)["arr_0"]
    assert (array.shape, array.dtype) == ((5, 16, 16, 3), np.uint8)
    for index, name in enumerate(names):
        with Image.open(out / name) as picture:
            assert (np.asarray(picture) == array[index]).all()
    with Image.open(grid) as picture:
        assert picture.width > 16 * 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["array", "grid.png", "new"]


def test_a_grid_goes_into_the_run_where_nothing_is_asked_for(kao, own_run):
    assert kao("sample", own_run, "--n", "2", "--seed", "7")[0] == 0
    assert (own_run / "pictures" / "grid-seed7.png").exists()


def arrays(kao, run, path, *ways):
    """What `kao sample` draws in several ways."""
    for way in ways:
        assert kao("sample", run, "--n", "3", "--npz", path, *way)[0] == 0
        yield np.load(path)["arr_0"]


def test_a_seed_names_its_pictures(kao, tiny_run, tmp_path):
    ways = [("--seed", "1"), ("--seed", "1"), ("--seed", "2"), ("--batch", "1", "--seed", "1")]
    one, again, two, singly = arrays(kao, tiny_run, tmp_path / "a.npz", *ways)
    assert (one == again).all()
    assert (one != two).any()
    assert np.abs(one.astype(int) - singly).max() <= 1


def test_the_way_to_draw_may_be_changed(kao, tiny_run, tmp_path):
    ways = [
        (),
        ("--steps", "5"),
        ("sampling.steps=5",),
        ("--sampler", "ddpm"),
        ("--sampler", "ddim", "sampling.sampler.eta=1.0"),
        ("--weights", "model"),
    ]
    plain, *others = arrays(kao, tiny_run, tmp_path / "a.npz", *ways)
    assert all((plain != other).any() for other in others)
    assert (others[0] == others[1]).all()


def test_another_sampler_takes_times_that_suit_it_unless_they_are_named(kao, tiny_run, tmp_path):
    """The small run draws by dpm++2m on steps of equal log-snr."""
    even = ("sampling.grid=uniform", "sampling.steps=25")
    own = ("sampling.grid=log_snr", "sampling.steps=2")
    ways = [("--sampler", "ddim", *more) for more in ((), even, ("--steps", 25), own)]
    plain, named, stepped, as_run = arrays(kao, tiny_run, tmp_path / "a.npz", *ways)
    assert (plain == named).all() and (plain == stepped).all() and (plain != as_run).any()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "raw"), '--weights = "raw"; expected ema or model, or what kao ema made'),
        (
            ("--sampler", "dimm"),
            'unknown sampling.sampler "dimm" in the command line (did you mean',
        ),
        (("network.width=9",), "network.width cannot be changed when drawing, only keys of [samp"),
        (("sampling.stesp=9",), 'unknown key "stesp" in [sampling] of the command line (did you'),
        (
            ("--sampler", "heun", "sampling.sampler.eta=1"),
            'unknown key "eta" in [sampling.sampler]',
        ),
        (
            ("--sampler", "ddim", "sampling.sampler.eta=3"),
            "sampling.sampler.eta = 3.0, but it lies between",
        ),
    ],
)
def test_a_way_to_draw_that_cannot_work_is_refused(words, said, refused, tiny_run):
    assert refused("sample", tiny_run, *words).startswith(said)


def test_options_are_those_of_the_sampler_that_the_run_has(kao, train, tmp_path):
    assert kao(*train, "sampling.sampler=ddpm", "--steps", "1")[0] == 0
    ways = [(), ("sampling.sampler.variance=beta",)]
    one, other = arrays(kao, tmp_path / "run", tmp_path / "a.npz", *ways)
    assert (one != other).any()


def test_more_steps_than_a_chain_has_are_refused(kao, refused, train, tmp_path):
    assert kao(*train, "schedule=cosine", "schedule.steps=10", "--steps", "1")[0] == 0
    said = refused("sample", tmp_path / "run", "--steps", "11")
    assert said.startswith("steps = 11, but the schedule has 10 times to visit")


# --- show and report ----------------------------------------------------------------------------

FIGURES = ["denoising.gif", "forward.png", "process.png", "reverse.png", "schedule.png"]


def test_show_writes_every_figure_and_says_where(kao, tiny_run, tmp_path):
    code, _, err = kao("show", tiny_run, "--n", "2", "--out", tmp_path)
    assert code == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == FIGURES
    assert sorted(err.splitlines()) == [str(tmp_path / name) for name in FIGURES]
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            picture.load()


def test_show_draws_only_what_is_named(kao, own_run):
    assert kao("show", own_run, "schedule", "process")[0] == 0
    drawn = sorted(file.name for file in (own_run / "pictures").iterdir())
    assert drawn == ["process.png", "schedule.png"]


def test_a_figure_that_does_not_exist_is_told_the_near_miss(refused, tiny_run):
    assert refused("show", tiny_run, "proces") == (
        'kao show cannot draw "proces" (did you mean "process"?); it can draw: forward, reverse, '
        "process, schedule, gif, times, trajectory, neighbours."
    )


@pytest.fixture
def far_from_its_pictures(own_run):
    """A run whose pictures stayed elsewhere."""
    file = own_run / "run.toml"
    file.write_text(file.read_text().replace('"toy:8"', '"/gone/faces"'))
    return own_run


def test_a_run_far_from_its_pictures_shows_the_rest(kao, refused, far_from_its_pictures):
    code, _, err = kao("show", far_from_its_pictures, "--n", "1")
    assert code == 0
    assert "Left out forward: There is no folder or ZIP file /gone/faces" in err
    there = sorted(file.name for file in (far_from_its_pictures / "pictures").iterdir())
    assert there == [name for name in FIGURES if name != "forward.png"]
    assert refused("show", far_from_its_pictures, "forward").startswith("There is no folder")


def test_a_report_is_written_with_figures_that_are_missing(kao, own_run):
    assert kao("sample", own_run, "--n", "2")[0] == 0
    code, _, err = kao("report", own_run)
    assert (code, err) == (0, f"{own_run / 'report.html'}\n")
    assert {file.name for file in (own_run / "pictures").iterdir()} == {*FIGURES, "grid-seed0.png"}
    page = (own_run / "report.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert page.count("data:image/") >= 6


def test_a_report_of_a_run_that_only_began_is_written_too(kao, own_run):
    shutil.rmtree(own_run / "checkpoints")
    assert kao("report", own_run)[0] == 0
    assert (own_run / "report.html").exists()


# --- demo ---------------------------------------------------------------------------------------


def test_the_demonstration_trains_draws_and_reports_once(kao, tiny, tmp_path, monkeypatch):
    hooks = ("hooks.log=4", "hooks.samples=9999", "hooks.checkpoints=9999")
    small = partial(Ask, source="toy:8", overrides=(*tiny, *hooks))
    monkeypatch.setattr("kao.runs.Ask", small)
    path = tmp_path / "demo"
    code, out, err = kao("demo", "--run", path, "--minutes", "0.01")
    assert code == 0
    steps = [line[:2] for line in err.splitlines() if line[1:2] == "."]
    assert steps == ["1.", "2.", "3.", "4."]
    assert "kernel distance faces-1" in out and "protocol   small-data+n200" in out
    assert {"demo.png", "report.html", "run.toml", "pictures"} <= {f.name for f in path.iterdir()}
    assert sorted(file.name for file in (path / "pictures").iterdir()) == FIGURES

    (before,) = Checkpoint.all(path)
    assert kao("demo", "--run", path, "--minutes", "0.01")[0] == 0
    assert Checkpoint.all(path) == [before]


def test_the_recipe_of_the_demonstration_needs_no_pictures():
    assert Request.of("toy-32").over(dump(RunConfig())).data.source == "toy"


def test_a_recipe_where_pictures_belong_is_told(kao):
    code, _, err = kao("train", "faces-32")
    assert code == 2
    assert err.startswith('kao: "faces-32" is a recipe, and pictures come first: kao train FACES')


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (["run=4/faces", "toy-32"], ["run=4/faces", "toy-32"]),
        (["lr=1e-3"], ["lr=1e-3"]),
        (["faces", "out/lr=1.toml"], ["faces", "out/lr=1.toml"]),
        (["faces", "lr=1.toml"], ["faces", "lr=1.toml"]),
        (["faces", "lr=1"], ["faces"]),
        (["netwrok.width=8", "faces"], ["faces"]),
        (["network.width=8", "faces"], ["faces"]),
        (["data.source=a/b"], []),
        (["conditions.names=['a/b']", "faces"], ["faces"]),
    ],
)
def test_an_equals_sign_makes_no_key_of_a_path(words, places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, overrides = places_and_overrides(words)
    assert found == places and sorted([*found, *overrides]) == sorted(words)


@pytest.mark.parametrize("word", ["network.width=8", "faces=2", "./a=b"])
def test_what_is_there_is_a_path_whatever_it_looks_like(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / word).mkdir()
    assert places_and_overrides(["faces", word]) == (["faces", word], [])


def test_a_missing_path_with_an_equals_sign_is_named(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no folder or ZIP file run=4/faces" in refused("train", "run=4/faces", "toy-32")
    assert "epoch=9-step=8.ckpt" in refused("finetune", "epoch=9-step=8.ckpt", "toy:8")


def test_a_home_directory_is_meant_after_an_equals_sign_too(kao, own_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert kao("sample", "~/run", "--n", "2", "--grid=~/g.png", "--out", "~/drawn")[0] == 0
    assert (tmp_path / "g.png").exists() and len(list((tmp_path / "drawn").iterdir())) == 2
    assert not (tmp_path / "~").exists()
