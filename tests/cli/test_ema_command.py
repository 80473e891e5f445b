import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from kao.checkpoints import SNAPSHOTS, Checkpoint, Snapshot
from kao.processes import ALONE
from kao.runs import Run
from kao.runs.averages import AVERAGES, BEST, Facts, SavedAverage, Snapshots, facts_of
from kao.runs.best import candidates
from kao.training import EMA, Progress
from kao.training.ema import average_name, power_decay

STEPS, BATCH = 24, 4
SEEN = STEPS * BATCH
CHECKPOINT = 16  # images of the newest checkpoint of `tiny_run`
TRACKED = (0.05, 0.1, 0.15, 0.25)


class Told:
    def __init__(self):
        self.events = []

    def event(self, kind, images, values):
        self.events.append((kind, images))

    def close(self):
        pass


def trainer_of(ema, images, **rest):
    """What the hook reads of a trainer."""
    facts = {"stopping": False, "done": 0.5, "processes": ALONE, **rest}
    return SimpleNamespace(ema=ema, progress=Progress(images=images), **facts)


def drift(run):
    """Snapshots as of a training that moved the weights about; and averages that were tracked."""
    model = Run.open(run).denoiser(weights="model", device=torch.device("cpu"))
    ema = {average_name(width): EMA(model, power_decay(width)) for width in TRACKED}
    snapshotted = {name: ema[name] for name in ("ema-w0.050", "ema-w0.250")}
    hook = Snapshots(run, Told(), every=BATCH)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, STEPS + 1):
        for value in model.parameters():
            value += 0.02 * torch.randn(value.shape, generator=generator)
        for average in ema.values():
            average.update(step * BATCH, BATCH)
        hook(trainer_of(snapshotted, step * BATCH))
    return {width: ema[average_name(width)].average for width in TRACKED}


@pytest.fixture(scope="module")
def drifted(tiny_run, tmp_path_factory):
    path = shutil.copytree(tiny_run, tmp_path_factory.mktemp("drifted") / "run")
    return path, drift(path)


@pytest.fixture
def run(drifted, tmp_path):
    return shutil.copytree(drifted[0], tmp_path / "run")


def apart(one, other):
    over = sum((one[name] - other[name]).square().sum() for name in other)
    return (over / sum(value.square().sum() for value in other.values())).sqrt().item()


# --- the hook -----------------------------------------------------------------------------------


def test_the_hook_keeps_the_power_averages_and_tells_of_it(tmp_path):
    model, told = nn.Linear(2, 2), Told()
    rules = {"ema-0.9": lambda images, batch: 0.9, "ema-w0.100": power_decay(0.1)}
    ema = {name: EMA(model, rule) for name, rule in rules.items()}
    Snapshots(tmp_path, told, every=8)(trainer_of(ema, 8))
    (snapshot,) = Snapshot.all(tmp_path)
    assert snapshot.widths() == {"w0.100": 0.1}
    assert told.events == [("snapshot", 8)]


def test_an_interrupted_run_takes_none_and_a_finished_one_does(tmp_path):
    hook = Snapshots(tmp_path, Told(), every=8)
    ema = {"ema-w0.100": EMA(nn.Linear(2, 2), power_decay(0.1))}
    hook(trainer_of(ema, 8, stopping=True))
    assert not (tmp_path / SNAPSHOTS).exists()
    hook(trainer_of(ema, 8, stopping=True, done=1.0))
    assert len(Snapshot.all(tmp_path)) == 1


def test_what_the_checkpoint_holds_is_not_judged_twice(tmp_path):
    tensors = {"w": torch.zeros(1)}
    weights = {"ema-0.9": tensors, "ema-w0.100": tensors}
    checkpoint = Checkpoint.write(tmp_path, images=8, config="", weights=weights, state={}, card={})
    made = [
        SavedAverage(Facts(f"w{width:.3f}", images=images, width=width), tensors)
        for width, images in ((0.1, 8), (0.2, 8), (0.1, 4))
    ]
    found = [(a.facts.name, a.facts.images) for a in candidates(checkpoint, made)]
    assert found == [("ema-0.9", 8), ("ema-w0.100", 8), ("w0.200", 8), ("w0.100", 4)]


# --- kao ema ------------------------------------------------------------------------------------


def test_the_widths_of_a_range_are_made_near_to_what_was_tracked(kao, run, drifted):
    code, out, err = kao("ema", run, "--width", "0.05..0.25", "--n", 3, "--width", 0.1)
    assert (code, out) == (0, ""), err
    files = sorted(file.name for file in (run / AVERAGES).iterdir())
    assert files == [f"w{w:.3f}.safetensors" for w in (0.05, 0.1, 0.15, 0.25)]
    for width in TRACKED:
        made = SavedAverage.load(run, f"w{width:.3f}")
        assert apart(made.tensors, drifted[1][width]) < 2e-3
        assert (made.facts.images, made.facts.width) == (SEEN, width)
        assert made.facts.fit < 0.02
        assert str(run / AVERAGES / f"w{width:.3f}.safetensors") in err
    assert f"Draw with: kao sample {run} --weights w0.250" in err


def test_an_earlier_moment_can_be_asked_for(kao, run):
    assert kao("ema", run, "--width", 0.05, "--images", SEEN // 2)[0] == 0
    made = SavedAverage.load(run, "w0.050")
    halfway = next(s for s in Snapshot.all(run) if s.images == SEEN // 2).averages()["w0.050"]
    assert made.facts.images == SEEN // 2
    assert apart(made.tensors, {n: v.float() for n, v in halfway.items()}) < 1e-5


def drawn(kao, run, tmp_path, weights):
    file = tmp_path / f"{weights}.npz"
    code, _, err = kao("sample", run, "--n", 2, "--weights", weights, "--npz", file)
    assert code == 0, err
    return np.load(file)["arr_0"], err


def test_pictures_are_drawn_with_an_average_that_was_made(kao, run, tmp_path):
    assert kao("ema", run, "--width", 0.1)[0] == 0
    ours, err = drawn(kao, run, tmp_path, "w0.10")
    usual, _ = drawn(kao, run, tmp_path, "ema")
    assert not np.array_equal(ours, usual)
    said = f"w0.100.safetensors is of {SEEN} images, the newest checkpoint of {CHECKPOINT}."
    assert said in err


def test_a_tracked_average_can_be_drawn_with_by_its_name(kao, run, tmp_path):
    named, _ = drawn(kao, run, tmp_path, "ema-0.999")
    usual, _ = drawn(kao, run, tmp_path, "ema")
    assert np.array_equal(named, usual)


BEST_OF = ("--width", 0.1, "--width", 0.25, "--pictures", 6, "--best")


def test_the_best_of_all_averages_is_kept(kao, run, faces, tmp_path):
    code, out, err = kao("ema", run, *BEST_OF, faces(5))
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["average", "images", "distance", "95", "%", "interval"]
    assert [row[0] for row in rows[1:]] == ["ema-0.999", "w0.100", "w0.250"]
    assert [row[1] for row in rows[1:]] == [str(CHECKPOINT), str(SEEN), str(SEEN)]
    first = min(rows[1:], key=lambda row: float(row[2]))
    known = facts_of(run, BEST)
    assert known.name == first[0]
    assert known.score == pytest.approx(float(first[2]), abs=1e-4)
    assert all(float(row[3]) < float(row[2]) < float(row[5]) for row in rows[1:])
    assert [file.stem for file in (run / AVERAGES).iterdir()] == [BEST]
    assert f"kao sample {run} --weights best" in err
    best, _ = drawn(kao, run, tmp_path, "best")
    if known.name == "ema-0.999":
        assert np.array_equal(best, drawn(kao, run, tmp_path, "ema")[0])


def test_json_is_all_that_is_printed(kao, run, faces):
    code, out, _ = kao("ema", run, *BEST_OF, faces(5), "--json")
    table = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert [entry["name"] for entry in table] == ["ema-0.999", "w0.100", "w0.250"]
    assert all(entry["error"] > 0 for entry in table)
    code, out, _ = kao("ema", run, "--width", 0.2, "--json")
    (entry,) = json.loads(out)
    assert (entry["name"], entry["score"]) == ("w0.200", None)


def test_a_profile_that_the_snapshots_fit_badly_is_told(kao, run):
    for snapshot in Snapshot.all(run)[:-2]:
        snapshot.path.unlink()
    _, _, err = kao("ema", run, "--width", 0.1, "--width", 0.25)
    assert "The snapshots miss the profile of w0.100 by " in err
    assert "The snapshots miss the profile of w0.250 by " not in err


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--width", "wide"], '--width = "wide"; expected a number such as 0.1, or a range'),
        (
            ["--width", "0.2..0.1"],
            '--width = "0.2..0.1"; expected a number such as 0.1, or a range',
        ),
        (["--width", "0.1..0.2..0.3"], '--width = "0.1..0.2..0.3"; expected a number'),
        (["--width", "0"], "--width = 0; expected 0.001 to 0.2887, a share of the run"),
        (["--width", "0.05..0.3"], "--width = 0.3; expected 0.001 to 0.2887"),
        (["--width", "nan"], "--width = nan; expected 0.001 to 0.2887"),
        (["--width", "0.1", "--n", "3"], "--n = 3 spreads widths over a range: give one"),
        (["--images", "97"], "--images = 97; expected 4 to 96, at which the first and the newest"),
        (["--images", "3"], "--images = 3; expected 4 to 96, at which the first and the newest"),
        (["--best", "nowhere"], "There is no folder or ZIP file nowhere"),
    ],
)
def test_a_mistake_is_told_in_one_line(words, said, refused, drifted):
    assert refused("ema", drifted[0], *words).startswith(said)


def test_a_run_without_snapshots_is_told_how_to_get_them(refused, tiny_run):
    said = refused("ema", tiny_run)
    assert said.startswith(f"{tiny_run} has no snapshots to make averages of")
    assert 'ema.snapshots = "auto"' in said


def test_a_damaged_snapshot_is_told(refused, run):
    path = Snapshot.all(run)[3].path
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    assert refused("ema", run).startswith(f"{path} is damaged (its SHA-256 differs): remove it")
    assert not (run / AVERAGES).exists()


def test_a_file_in_the_place_of_the_averages_is_told(refused, run):
    (run / AVERAGES).write_text("mine")
    assert "is in the way" in refused("ema", run, "--width", "0.1")
    assert (run / AVERAGES).read_text() == "mine"


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("raw", '--weights = "raw"; expected ema or model, or what kao ema made: best, or a width'),
        ("wide", '--weights = "wide"; expected ema or model'),
        ("w0.2", "has no average w0.200: make it with `kao ema"),
        ("best", "has no average best: make it with `kao ema"),
        ("ema-0.5", "has no weights 'ema-0.5'; it has: ema-0.999, model."),
    ],
)
def test_weights_that_are_not_there_are_told(weights, said, refused, tiny_run):
    assert said in refused("sample", tiny_run, "--n", "1", "--weights", weights)


def test_a_damaged_average_is_told(refused, kao, run):
    assert kao("ema", run, "--width", 0.1)[0] == 0
    path = run / AVERAGES / "w0.100.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert refused("sample", run, "--weights", "w0.1").startswith(f"{path} is damaged (")


def test_the_first_average_of_a_checkpoint_has_the_fixed_decay(tmp_path):
    tensors = {"w": torch.zeros(1)}
    weights = {"ema-w0.050": tensors, "ema-0.999": tensors, "ema-w0.250": tensors}
    checkpoint = Checkpoint.write(tmp_path, images=1, config="", weights=weights, state={}, card={})
    assert checkpoint.averages == ["ema-0.999", "ema-w0.050", "ema-w0.250"]
