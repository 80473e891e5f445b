"""A run of two processes is the run of one, whatever happens to it."""

import json
import shutil
import time
from types import SimpleNamespace

import pytest
import torch
from several import several

import kao
from kao.errors import ConfigError
from kao.machine import device
from kao.processes import join
from kao.runs import Ask, Run, draw, finish, open_session

WORDS = (
    "training.batch=8",
    "data.held_out=4",
    "network.dropout=0.2",
    "hooks.pictures=3",
    "hooks.log=8",
    "hooks.checkpoints=16",
    "hooks.held_out=32",
    "ema.widths=[0.1]",
)
WAYS = {
    "ddp": (),
    "pieces": ("training.micro_batch=2",),
    "uneven": ("training.batch=5",),
    "fsdp": ("training.parallel=fsdp", "training.micro_batch=2"),
}
ALONE = {"uneven": "one uneven"}
"""What one process does in the same way; "one" for the others."""

TOLD = "conditions.classes=true"
"""Of the ways: the class of a picture goes with its row, and the table of classes is sharded."""

STEPS, MORE = 4, 6


def train(path, tiny, *words, steps=STEPS):
    length = f"{steps} steps"
    kao.train(
        "toy:40", run=path, recipe="toy-32", length=length, overrides=(*tiny, *WORDS, TOLD, *words)
    )


class Stopping:
    """A stream of batches of pictures, in the middle of which one process is asked to stop."""

    def __init__(self, session):
        self.session, self.batches = session, 0

    def __call__(self, *words, **options):
        for batch in draw(*words, **options):
            self.batches += 1
            if self.session.trainer.processes.rank == 1:
                self.session.trainer.stop()
            yield batch


class Asked:
    """A hook that asks to stop in one process, as a signal to it would."""

    def __init__(self, *, at):
        self.every = at

    def __call__(self, trainer):
        if trainer.processes.rank == 1:
            trainer.stop()


def _stopped(path, tiny):
    """Train until one process is asked to stop; what each then says."""
    ask = Ask(run=path, source="toy:40", recipe="toy-32", overrides=(*tiny, *WORDS))
    session = open_session(ask, device())
    session.trainer.hooks = {**session.trainer.hooks, "asked": Asked(at=16)}
    for _ in session.trainer.steps():
        pass
    return session.trainer.progress.images, finish(session)


def _stopped_drawing(path, tiny):
    """Train until one process is asked to stop while they draw; batches drawn and what they say."""
    words = (*tiny, *WORDS, "hooks.samples=16", "hooks.pictures=6")
    session = open_session(Ask(path, "toy:40", "toy-32", words), device())
    drawing = Stopping(session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kao.runs.hooks._CPU_BATCH", 1)
        patch.setattr("kao.runs.hooks.draw", drawing)
        for _ in session.trainer.steps():
            pass
    return session.trainer.progress.images, drawing.batches, finish(session)


def _timed(path, tiny):
    """Train for two seconds by the first process; the other's clock runs a thousand times as fast.

    Returns:
        Images, and seconds as each process has them.
    """
    flags = {"length": "0.04 minutes"}
    words = (*tiny, *WORDS, "hooks.samples=8000")
    session = open_session(Ask(path, "toy:40", "toy-32", words, flags), device())
    fast = SimpleNamespace(perf_counter=lambda: 1000 * time.perf_counter())
    with pytest.MonkeyPatch.context() as patch:
        if session.trainer.processes.rank == 1:
            patch.setattr("kao.training.trainer.time", fast)
        for _ in session.trainer.steps():
            pass
    told = session.trainer.progress.images, session.trainer.progress.seconds
    return *told, finish(session)


def _all(folder, tiny):
    """Everything that is asked of two processes, in one start."""
    for way, words in WAYS.items():
        train(folder / way, tiny, *words)
    for way in ("ddp", "fsdp", "one"):
        train(folder / f"{way} on two", tiny, *WAYS.get(way, ()), steps=MORE)
    told = {
        "stopped": _stopped(folder / "stopped", tiny),
        "stopped drawing": _stopped_drawing(folder / "drawing", tiny),
        "timed": _timed(folder / "timed", tiny),
    }
    try:
        train(folder / "refused", tiny, "training.batch=5", "training.parallel=fsdp")
    except ConfigError as error:
        told["refused"] = str(error)
    run = Run.open(folder / "one")
    told["drawn"] = torch.cat(
        list(
            draw(
                run.denoiser(),
                run.drawing(),
                indices=range(5),
                batch=2,
                processes=join(device()),
            )
        )
    )
    told["sampled"] = kao.sample(folder / "one", n=3)
    return told


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    train(folder / "one", tiny)
    train(folder / "one uneven", tiny, "training.batch=5")
    shutil.copytree(folder / "one", folder / "one on two")
    shutil.copytree(folder / "one", folder / "further")
    train(folder / "further", tiny, steps=MORE)
    return folder


@pytest.fixture(scope="module")
def told(folder, tiny):
    # Runs that two began are copied by themselves, so that two and one may go on with each.
    # All of it takes minutes where the machine is busy.
    return several(2, _begun_and_all, folder, tiny, timeout=400)


def _begun_and_all(folder, tiny):
    processes = join(device())
    for way in ("ddp", "fsdp"):
        train(folder / f"{way} on two", tiny, *WAYS[way])
        if processes.main:
            shutil.copytree(folder / f"{way} on two", folder / f"{way} on one")
        processes.wait()
    return _all(folder, tiny)


def curve(path):
    """(images, loss, gradient norm, held-out loss) of each line of the log."""
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [
        [line["images"], line.get("loss", 0), line.get("gradient_norm", 0)]
        + [line[name]["loss"] for name in ("held", "train") if name in line]
        for line in lines
        if line["event"] in ("train", "held_out")
    ]


def grids(path):
    return {file.name: file.read_bytes() for file in (path / "samples").iterdir()}


def assert_same_curve(path, wanted):
    here, there = curve(path), curve(wanted)
    assert [line[0] for line in here] == [line[0] for line in there]
    for line, expected in zip(here, there, strict=True):
        assert line == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_curve_is_that_of_one_process(told, folder, way):
    assert_same_curve(folder / way, folder / ALONE.get(way, "one"))


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_sample_grids_are_those_of_one_process(told, folder, way):
    assert grids(folder / way) == grids(folder / ALONE.get(way, "one"))


@pytest.mark.parametrize("way", ["ddp", "fsdp", "one"])
def test_two_processes_go_on_with_a_run_of_two_and_of_one(told, folder, way):
    assert_same_curve(folder / f"{way} on two", folder / "further")


@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_one_process_goes_on_with_a_run_of_two(told, folder, tiny, way):
    train(folder / f"{way} on one", tiny, steps=MORE)
    assert_same_curve(folder / f"{way} on one", folder / "further")


def test_all_stop_after_the_step_in_which_one_was_asked(told, folder):
    assert [answer["stopped"] for answer in told] == [(16, "interrupted")] * 2
    assert (folder / "stopped" / "checkpoints" / "000000016" / "card.json").exists()


def test_all_leave_a_grid_after_the_batch_in_which_one_was_asked(told, folder):
    assert [answer["stopped drawing"] for answer in told] == [(16, 1, "interrupted")] * 2
    assert list((folder / "drawing" / "samples").iterdir()) == []
    assert (folder / "drawing" / "checkpoints" / "000000016" / "card.json").exists()


def test_a_run_in_minutes_ends_by_the_clock_of_the_first(told):
    one, other = (answer["timed"] for answer in told)
    assert one == other
    _, seconds, reason = one
    assert 2.4 <= seconds < 1000
    assert reason == "finished"


def test_shares_that_cannot_be_equal_are_refused_where_they_must_be(told):
    assert all("try 6" in answer["refused"] for answer in told)


def test_each_draws_its_share_and_all_have_the_pictures_of_one(told, folder):
    run = Run.open(folder / "one")
    pictures = torch.cat(list(draw(run.denoiser(), run.drawing(), indices=range(5), batch=2)))
    for answer in told:
        assert torch.equal(answer["drawn"], pictures)
        assert torch.equal(answer["sampled"], pictures[:3])
