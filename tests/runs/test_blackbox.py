"""Runs that meet a loss or a gradient that is not finite."""

import json

import pytest
import torch

from kao.checkpoints import Checkpoint, Snapshot
from kao.diffusion import DenoisingLoss
from kao.errors import OutputError, TrainingError
from kao.runs import Ask, finish, open_session
from kao.tracking import read_events

CPU = torch.device("cpu")
BATCH = 3
BAD = 5
"""The picture at which the network of some of these tests is no number."""


@pytest.fixture
def asked(tiny, tmp_path):
    def ask(*more, length="16 steps", run="run"):
        words = (
            *tiny,
            f"training.batch={BATCH}",
            "data.augment.flip=false",
            "hooks.log=3",
            "hooks.samples=9999",
            "hooks.checkpoints=12",
            "hooks.keep_last=9",
            *more,
        )
        return Ask(tmp_path / run, "toy:8", "toy-32", words, {"length": length})

    return ask


def go(session, *, at=None, kill=None):
    """Train; at(step) is called after each step.  Returns what the user was told."""
    told = []
    for _ in session.trainer.steps():
        step = session.trainer.progress.images // BATCH
        told += session.notices.take()
        if at is not None:
            at(step)
        if step == kill:
            session.tracker.close()
            session.lock.close()
            return told
    return told


def skipped(run):
    return [event for event in read_events(run) if event["event"] == "skipped"]


def box(run, images):
    return json.loads((run / "blackbox" / f"{images:09d}.json").read_text())


def weights(run):
    folder = Checkpoint.all(run)[-1].path
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


@pytest.fixture
def bad_picture(monkeypatch):
    """Lets the network of a session be no number at one picture."""

    def spoil(session):
        pixels = torch.from_numpy(session.prepared.images[BAD].copy())
        network = session.trainer.denoiser.network
        forward = network.forward
        at = DenoisingLoss.at

        def loss(self, denoiser, x0, condition, drawn):
            bytes_ = ((x0 + 1) * 127.5).round().to(torch.uint8)
            network.bad = (bytes_ == pixels).flatten(1).all(1)
            losses = at(self, denoiser, x0, condition, drawn)
            network.bad = None
            return losses

        def spoiled(x, label, condition=None):
            y = forward(x, label, condition)
            if network.bad is None:  # a grid is drawn
                return y
            return torch.where(network.bad[:, None, None, None], torch.nan, y)

        network.bad = None
        monkeypatch.setattr(DenoisingLoss, "at", loss)
        monkeypatch.setattr(network, "forward", spoiled)
        return session

    return spoil


def test_a_picture_at_which_the_network_breaks_costs_its_steps_and_no_more(asked, bad_picture):
    ask = asked("training.retries=9")
    session = bad_picture(open_session(ask, CPU))
    told = go(session)
    assert finish(session) == "finished"
    boxes = [box(ask.run, event["images"]) for event in skipped(ask.run)]
    assert boxes
    for found in boxes:
        met = found["met"]
        wrong = [loss is None for loss in met["losses"]]
        assert wrong == [index == BAD for index in met["indices"]]
        assert found["layer"] == "the output of denoiser.network"
        assert len(met["t"]) == len(met["log_snr"]) == BATCH
        assert met["learning_rate"] > 0 and met["precision"] == "fp32"
        assert set(met["seeds"]) and all(isinstance(s, int) for s in met["seeds"].values())
        name, size = found["largest_weight"]
        parameter = dict(session.trainer.gradients.objective.named_parameters())[name]
        assert size > 0 and parameter.dim() > 0
    # Every step that held the picture, and no other: once in eight pictures.
    assert len(boxes) == 16 * BATCH // 8
    assert [line.startswith("The step after ") for line in told] == [True] * len(boxes)
    assert f"See {ask.run / 'blackbox'}" in told[0]
    assert all(torch.isfinite(t).all() for t in Checkpoint.all(ask.run)[-1].weights().values())
    # Losses in the log are of good steps.
    assert all(e["loss"] > 0 for e in read_events(ask.run) if e["event"] == "train")


@pytest.mark.parametrize("kill", [5, 6, 9, 13])
def test_a_run_with_a_bad_picture_that_is_killed_ends_as_one_that_is_not(kill, asked, bad_picture):
    straight, killed = asked("training.retries=9", run="straight"), asked("training.retries=9")
    session = bad_picture(open_session(straight, CPU))
    go(session)
    finish(session)
    go(bad_picture(open_session(killed, CPU)), kill=kill)
    session = bad_picture(open_session(killed, CPU))
    go(session)
    assert finish(session) == "finished"
    assert weights(killed.run) == weights(straight.run)
    assert [e["images"] for e in skipped(killed.run)] == [
        e["images"] for e in skipped(straight.run)
    ]


def poison(session):
    """Make one weight no number."""
    with torch.no_grad():
        parameter = dict(session.trainer.denoiser.network.named_parameters())["conv_in.weight"]
        parameter.view(-1)[0] = torch.nan


def test_a_poisoned_weight_is_told_of_and_the_run_goes_back_and_ends_well(asked):
    ask = asked()
    session = open_session(ask, CPU)
    told = go(session, at=lambda step: poison(session) if step == 6 else None)
    assert finish(session) == "finished"
    events = skipped(ask.run)
    assert [(e["images"], e["streak"], e["back_to"]) for e in events] == [
        (18, 1, None),
        (21, 2, 12),
    ]
    assert {e["layer"] for e in events} == {"the output of denoiser.network.conv_in"}
    assert {e["loss"] for e in events} == {None}
    assert box(ask.run, 18)["largest_weight"] == ["denoiser.network.conv_in.weight", None]
    assert "what is learned goes back to 12 images" in told[1]
    assert all(torch.isfinite(t).all() for t in Checkpoint.all(ask.run)[-1].weights().values())
    # The save that was due at 24 images, after a bad step, waited for a good one.
    assert [c.images for c in Checkpoint.all(ask.run)] == [12, 27, 36, 48]


def test_a_run_that_cannot_be_mended_ends_with_the_layer_and_keeps_good_weights(asked):
    ask = asked("training.retries=2")
    session = open_session(ask, CPU)
    with pytest.raises(TrainingError) as caught:
        go(session, at=lambda step: poison(session) if step >= 6 else None)
    said = str(caught.value)
    assert said.startswith("The loss is nan and its gradient nan after 24 images, as in 3 steps")
    assert "the output of denoiser.network.conv_in is what went first" in said
    assert "lower optimizer.rate" in said
    assert finish(session, caught.value) == "failed"
    assert len(skipped(ask.run)) == 3

    newest = Checkpoint.all(ask.run)[-1]
    assert newest.images == 27  # the images of all three count as seen
    session = open_session(asked("training.retries=2", "optimizer.rate=1e-5"), CPU)
    assert (session.resumed, session.trainer.guard.streak) == (27, 0)


def test_nothing_is_written_where_no_step_is_bad(asked):
    ask = asked(length="2 steps")
    go(open_session(ask, CPU))
    assert not (ask.run / "blackbox").exists()


def test_snapshots_of_what_is_given_up_go_with_it(asked):
    ask = asked("ema.snapshots=6")
    session = open_session(ask, CPU)
    there = []

    def at(step):
        there.append([snapshot.images for snapshot in Snapshot.all(ask.run)])
        if step == 6:
            poison(session)

    go(session, at=at)
    assert finish(session) == "finished"
    assert [e["back_to"] for e in skipped(ask.run)] == [None, 12]
    assert there[5] == [6, 12, 18]  # after six steps of three images
    assert [snapshot.images for snapshot in Snapshot.all(ask.run)] == [6, 12, 24, 30, 36, 42, 48]
    # Nor is there a checkpoint of it: each is a restore point, too.
    assert 18 not in [checkpoint.images for checkpoint in Checkpoint.all(ask.run)]


def test_a_snapshot_that_cannot_be_removed_is_told_of(asked, monkeypatch):
    def refused(run, *, newer_than):
        raise OutputError("It cannot be removed.")

    session = open_session(asked("ema.snapshots=6"), CPU)
    monkeypatch.setattr(Snapshot, "drop", refused)
    told = go(session, at=lambda step: poison(session) if step == 6 else None)
    assert "It cannot be removed. Averages of snapshots past 12 images are spoilt." in told
    assert finish(session) == "finished"
