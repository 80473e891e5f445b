"""A run on a disk that is full, for a while or for good."""

import errno
import os
import subprocess
import sys
from contextlib import suppress

import pytest
import torch

from kao.checkpoints import Checkpoint
from kao.errors import OutputError, TrainingError
from kao.runs import Ask, finish, open_session
from kao.runs.saving import Notices, Patient
from kao.tracking import read_events

CPU = torch.device("cpu")
BATCH = 4


@pytest.fixture
def asked(tiny, tmp_path):
    def ask(*more, length="12 steps", run="run"):
        words = (*tiny, "hooks.log=4", "hooks.samples=9999", "hooks.checkpoints=40", *more)
        return Ask(tmp_path / run, "toy:8", "toy-32", words, {"length": length})

    return ask


class Disk:
    """Raises ENOSPC where files of a run are brought to the disk, while it is full."""

    def __init__(self, monkeypatch, *, names=("",)):
        self.full, self.names, self.refused = False, names, []
        sync = __import__("kao.files", fromlist=["sync"]).sync

        def guarded(path):
            if self.full and any(name in str(path) for name in self.names):
                self.refused.append(path)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(path)

        monkeypatch.setattr("kao.files.sync", guarded)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch, names=("checkpoints",))


def go(session, *, at=None):
    """Train; at(step) is called after each step.  Returns what the user was told."""
    told = []
    for _ in session.trainer.steps():
        if at is not None:
            at(session.trainer.progress.images // BATCH, session)
        told += session.notices.take()
    return told + session.notices.take()


def saved(run):
    return [checkpoint.images for checkpoint in Checkpoint.all(run)]


def warnings(run):
    return [event for event in read_events(run) if event["event"] == "warning"]


# --- checkpoints --------------------------------------------------------------------------------


def test_a_save_on_a_full_disk_is_told_of_and_made_up_for_a_tenth_of_the_interval_later(
    asked, disk
):
    ask = asked(length="30 steps")
    session = open_session(ask, CPU)

    def at(step, session):
        disk.full = 19 <= step < 22
        if step in (20, 21):  # the newest good one stays while those after it fail
            assert saved(ask.run) == [40]

    told = go(session, at=at)
    assert finish(session) == "finished"
    # The one that was due at 80 failed there and at the next two tenths of 40.
    assert saved(ask.run) == [92, 120]
    assert [event["images"] for event in warnings(ask.run)] == [80, 84, 88]
    assert "The disk is full while writing" in warnings(ask.run)[0]["message"]
    assert {event["saved"] for event in warnings(ask.run)} == {40}
    assert len(told) == 2
    assert told[0].startswith("The disk is full while writing")
    assert told[0].endswith(
        f"The run goes on and tries again. Nothing newer than 40 images of {ask.run} is saved."
    )
    assert told[1] == "Saved at 92 images."


def test_what_a_full_disk_delays_changes_nothing_that_is_learned(asked, disk):
    straight, delayed = asked(run="straight"), asked(run="delayed")
    for ask in (straight, delayed):
        session = open_session(ask, CPU)
        go(session, at=lambda step, _, ask=ask: setattr(disk, "full", ask is delayed and step < 11))
        finish(session)
    ends = [Checkpoint.all(ask.run)[-1].weights() for ask in (straight, delayed)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


@pytest.mark.parametrize("how", ["finished", "stopped"])
def test_a_run_that_ends_without_its_last_save_fails_and_says_what_is_kept(how, asked, disk):
    ask = asked(length="20 steps")
    session = open_session(ask, CPU)

    def at(step, session):
        disk.full = step >= 12
        if how == "stopped" and step == 15:
            session.trainer.stop()

    with pytest.raises(OutputError) as caught:
        go(session, at=at)
    finish(session, caught.value)
    assert str(caught.value).startswith("The disk is full while writing")
    assert str(caught.value).endswith(f"Nothing newer than 40 images of {ask.run} is saved.")
    assert read_events(ask.run)[-1]["reason"] == "failed"
    assert saved(ask.run) == [40]
    disk.full = False
    session = open_session(ask, CPU)
    assert session.resumed == 40
    go(session)
    assert finish(session) == "finished"


def test_a_stop_right_after_a_save_that_failed_is_no_way_around_it(asked, disk):
    ask = asked()
    session = open_session(ask, CPU)

    def at(step, session):
        disk.full = step >= 9
        if step == 10:  # where a save was due and has just failed
            session.trainer.stop()

    go(session, at=at)
    with pytest.raises(OutputError, match=r"Nothing of this run is saved\.$"):
        finish(session)
    session.lock.close()
    disk.full = False


def test_a_stop_after_a_save_that_failed_saves_when_there_is_room_again(asked, disk):
    ask = asked()
    session = open_session(ask, CPU)

    def at(step, session):
        disk.full = step == 9
        if step == 10:
            session.trainer.stop()

    go(session, at=at)
    assert finish(session) == "interrupted"
    assert saved(ask.run) == [40]


def test_nothing_is_saved_on_a_step_that_was_skipped_until_one_is_good(asked):
    ask = asked(length="13 steps")
    session = open_session(ask, CPU)
    guard = session.trainer.guard
    guard.cleared = lambda: None
    go(session, at=lambda step, _: setattr(guard, "streak", int(step in (9, 10))))
    assert finish(session) == "finished"
    assert saved(ask.run) == [48, 52]


class Failing:
    """Lets the step after so many images fail."""

    def __init__(self, session, images, words="The loss is nan"):
        self.trainer, self.images, self.words = session.trainer, images, words
        self.step, self.trainer.step = session.trainer.step, self

    def __call__(self, batch, **more):
        if self.trainer.progress.images >= self.images:
            raise TrainingError(self.words)
        return self.step(batch, **more)


def test_a_run_that_fails_on_a_full_disk_is_told_what_is_saved_and_no_more(asked, disk):
    ask = asked(length="20 steps")
    session = open_session(ask, CPU)
    Failing(session, 48)
    with pytest.raises(TrainingError) as caught:
        go(session, at=lambda step, _: setattr(disk, "full", step >= 11))
    assert finish(session, caught.value) == "failed"
    (told,) = session.notices.take()
    assert told.startswith("The disk is full while writing")
    assert told.endswith(
        f"choose another place. Nothing newer than 40 images of {ask.run} is saved."
    )
    assert saved(ask.run) == [40]


def test_an_error_right_after_a_save_leaves_that_checkpoint_as_it_is(asked):
    ask = asked(length="20 steps")
    session = open_session(ask, CPU)
    Failing(session, 40)
    with pytest.raises(TrainingError) as caught:
        go(session)
    (checkpoint,) = Checkpoint.all(ask.run)
    before = {file: file.stat().st_ino for file in checkpoint.path.iterdir()}
    finish(session, caught.value)
    assert {file: file.stat().st_ino for file in checkpoint.path.iterdir()} == before
    assert [e["images"] for e in read_events(ask.run) if e["event"] == "checkpoint"] == [40]


def test_memory_that_holds_no_first_step_saves_nothing_so_that_its_advice_can_be_taken(asked):
    session = open_session(asked(), CPU)
    Failing(session, 0, "A step of 4 images does not fit into memory: set a smaller network.width.")
    with pytest.raises(TrainingError) as caught:
        go(session)
    finish(session, caught.value)
    assert saved(session.run.path) == []
    assert open_session(asked("network.width=16"), CPU).config.network.width == 16


# --- the log and the grids ----------------------------------------------------------------------


class Full:
    """A tracker whose disk is full now and then."""

    def __init__(self):
        self.full, self.events, self.closed = False, [], False

    def event(self, kind, images, values):
        if self.full:
            raise OutputError("The disk is full while writing metrics.jsonl: free some space.")
        self.events.append(images)

    def close(self):
        self.closed = True
        self.event("end", 0, {})


def test_events_that_cannot_be_written_are_told_of_once_until_one_can():
    inner, notices = Full(), Notices()
    tracker = Patient(inner, notices)
    for images in range(8):
        inner.full = images in (2, 3, 6)
        tracker.event("train", images, {})
    assert inner.events == [0, 1, 4, 5, 7]
    told = notices.take()
    assert len(told) == 2
    assert told[0].endswith("free some space. The run goes on without a part of its log.")
    inner.full = True
    tracker.close()
    assert inner.closed
    assert len(notices.take()) == 1


def test_a_log_on_a_full_disk_ends_no_run(asked, monkeypatch):
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full, which is a disk without room")
    session = open_session(asked("hooks.checkpoints=16"), CPU)
    (patient,) = session.tracker._trackers
    patient._tracker._file = open("/dev/full", "a", buffering=1)
    (told,) = go(session)
    assert told.startswith("The disk is full while writing")
    assert told.endswith("The run goes on without a part of its log.")
    assert finish(session) == "finished"
    assert saved(session.run.path) == [32, 48]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tensorboard_on_a_full_disk_ends_no_run(asked, monkeypatch):
    session = open_session(asked("tracking.tensorboard=true"), CPU)

    def full(file, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("tensorboard.compat.tensorflow_stub.io.gfile.GFile.write", full)
    told = go(session)
    assert finish(session) == "finished"
    told += session.notices.take()
    assert any("No space left on device" in line for line in told)
    assert saved(session.run.path) == [40, 48]


def test_a_grid_that_cannot_be_written_is_told_of_and_the_run_goes_on(asked, monkeypatch):
    ask = asked("hooks.samples=16")
    session = open_session(ask, CPU)

    def refused(*_):
        raise OutputError("The disk is full while writing a grid: free some space.")

    monkeypatch.setattr("kao.runs.hooks.save_picture", refused)
    told = go(session)
    assert finish(session) == "finished"
    assert [event["images"] for event in warnings(ask.run)] == [16, 32, 48]
    assert (
        told
        == ["The disk is full while writing a grid: free some space. The run goes on without it."]
        * 3
    )
    assert saved(ask.run) == [40, 48]


def test_a_disk_that_is_really_full_keeps_the_last_good_checkpoint(asked, tmp_path):
    """With a file system of 8 MB, where this user may mount one."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        ask = asked(run="small/run", length="30 steps")
        session = open_session(ask, CPU)
        filler = small / "filler"

        def at(step, session):
            if step == 12:
                handle = os.open(filler, os.O_WRONLY | os.O_CREAT)
                with suppress(OSError):
                    while os.write(handle, bytes(4096)):
                        pass
                os.close(handle)
            if step == 22:
                assert saved(ask.run) == [40]
                assert Checkpoint.all(ask.run)[0].damage() is None
                filler.unlink()

        told = go(session, at=at)
        assert finish(session) == "finished"
        assert any(line.startswith("The disk is full while writing") for line in told)
        assert saved(ask.run)[-1] == 120
        assert all(checkpoint.damage() is None for checkpoint in Checkpoint.all(ask.run))
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
