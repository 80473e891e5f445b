"""What may change when a run goes on, what needs a branch, and what neither can carry."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

import kao
from kao.checkpoints import LOSS, MODEL, Checkpoint
from kao.errors import CheckpointError, ConfigError, OutputError
from kao.runs import Ask, Run, configure, finish, open_session, plan
from kao.tracking import read_events

CPU = torch.device("cpu")
BATCH = 3
WORDS = (
    "optimizer.method=adamw",
    f"training.batch={BATCH}",
    "hooks.log=3",
    "hooks.samples=9999",
    "hooks.checkpoints=6",
    "hooks.keep_last=9",
)


@pytest.fixture
def asked(tiny, tmp_path):
    """asked("seed=1", branch="b"): the run tmp_path/run, or a branch of it."""

    def ask(*more, length="4 steps", branch=None, source="toy:8", recipe="toy-32", words=WORDS):
        flags = {} if length is None else {"length": length}
        branch = None if branch is None else tmp_path / branch
        return Ask(tmp_path / "run", source, recipe, (*tiny, *words, *more), flags, branch)

    return ask


def go(ask, *, stop=None):
    session = open_session(ask, CPU)
    for _ in session.trainer.steps():
        if session.trainer.progress.images // BATCH == stop:
            session.trainer.stop()
    return session, finish(session)


def tree(run):
    files = (file for file in sorted(run.rglob("*")) if file.is_file())
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def starts(run):
    return [event for event in read_events(run) if event["event"] == "start"]


# --- going on -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        "hooks.log=6",
        "sampling.steps=3",
        "tracking.project=other",
        "data.keep=disk",
        "ema.offload=true",
        "optimizer.rate=0.005",
        "training.precision=bf16",
        "training.micro_batch=2",
        "training.gradient_checkpointing=blocks",
        "training.channels_last=true",
        "training.tf32=false",
        "training.parallel=fsdp",
        "training.retries=9",
    ],
)
def test_what_does_not_decide_what_is_learned_may_change(change, asked):
    go(asked(), stop=2)
    session, reason = go(asked(change))
    key, value = change.split("=")
    assert (reason, session.resumed) == ("finished", 6)
    assert any(note.startswith(f"{key} was ") for note in session.notes)
    assert str(value) in Run.open(session.run.path).config.to_toml()


def test_a_refusal_tells_the_keys_that_may_change_from_those_that_may_not(asked):
    ask = asked()
    go(ask, stop=2)
    before = tree(ask.run)
    with pytest.raises(ConfigError) as caught:
        configure(asked("ema.decay=0.9", "hooks.log=6", length="9 steps"), CPU)
    assert str(caught.value) == (
        f"{ask.run} belongs to another configuration: ema.decay = 0.999 there and 0.9 now. Give "
        f"the same settings to go on with it (length, hooks.log may change), add --branch NEW_RUN "
        f"to go on from its weights in a run of its own, or begin anew with another --run."
    )
    assert tree(ask.run) == before


# --- intervals that follow the length -----------------------------------------------------------

OPEN = (f"training.batch={BATCH}", "hooks.checkpoints=6", "hooks.keep_last=9", "hooks.log=auto")


def test_an_interval_that_was_open_follows_a_new_length(asked):
    def hooks(length, *more):
        session = open_session(asked(*more, words=OPEN, length=length), CPU)
        next(iter(session.trainer.steps()))
        session.checkpoints.save(session.trainer)
        finish(session)
        return session.config.hooks

    first = hooks("4800 images")
    assert (first.log, first.checkpoints) == (12, 6)
    assert hooks("4800 images").log == 12
    assert hooks("9600 images").log == 24
    assert hooks("9600 images", "hooks.log=30").log == 30
    # What was typed once stays.
    assert hooks("19200 images", "hooks.log=30").log == 30
    assert starts(asked().run)[-1]["auto"] == ["hooks.samples", "hooks.held_out"]


def test_a_dry_run_shows_the_intervals_of_the_new_length(asked):
    go(asked(words=OPEN, length="4800 images"), stop=2)
    assert plan(asked(words=OPEN, length="9600 images"), CPU).hooks.log == 24


SNAPPED = (*OPEN, "ema.snapshots=auto")


def test_snapshots_that_were_open_follow_a_new_length_and_may_be_typed(asked):
    def every(length, *more):
        session = open_session(asked(*more, words=SNAPPED, length=length), CPU)
        if session.resumed is None:
            next(iter(session.trainer.steps()))
            session.checkpoints.save(session.trainer)
        finish(session)
        return session.config.ema.snapshots

    assert every("4800 images") == 200
    assert every("4800 images") == 200
    assert every("9600 images") == 400
    assert every("9600 images", "ema.snapshots=45") == 45
    assert every("19200 images", "ema.snapshots=45") == 45
    assert every("19200 images") == 800


def test_snapshots_of_averages_that_were_not_tracked_are_refused(asked):
    ask = asked()
    go(ask, stop=2)
    for words in ("auto", "6"):
        with pytest.raises(ConfigError, match="tracks no averages to take snapshots of"):
            configure(asked(f"ema.snapshots={words}"), CPU)


def test_a_run_does_not_stop_to_take_snapshots(asked):
    go(asked("ema.snapshots=6"), stop=2)
    with pytest.raises(ConfigError, match=r"ema\.snapshots = 6 there and 0 now"):
        configure(asked("ema.snapshots=0"), CPU)


# --- branches -----------------------------------------------------------------------------------


def test_a_branch_begins_with_what_a_run_has_learned_and_leaves_it_alone(asked, tmp_path):
    go(asked())
    before = tree(tmp_path / "run")
    ask = asked("ema.decay=0.9", "optimizer.betas=[0.5,0.9]", length="6 steps", branch="b")
    session = open_session(ask, CPU)
    old = Checkpoint.all(tmp_path / "run")[-1]
    (first,) = Checkpoint.all(tmp_path / "b")
    assert (session.resumed, first.images, old.images) == (12, 12, 12)
    assert all(torch.equal(t, first.weights(MODEL)[n]) for n, t in old.weights(MODEL).items())
    # An average of another name begins with the weights as they are.
    assert all(torch.equal(t, first.weights("ema-0.9")[n]) for n, t in old.weights(MODEL).items())
    assert "The average ema-0.9 begins with the weights as they are." in session.notes
    moments = old.state()["optimizer"]["state"]
    assert all(
        torch.equal(moments[i]["exp_avg"], state["exp_avg"])
        for i, state in session.trainer.optimizer.state_dict()["state"].items()
    )
    (group,) = session.trainer.optimizer.param_groups
    assert tuple(group["betas"]) == (0.5, 0.9)

    for _ in session.trainer.steps():
        pass
    assert finish(session) == "finished"
    assert tree(tmp_path / "run") == before
    config = Run.open(tmp_path / "b").config
    assert (config.ema.decay, config.length) == (0.9, "6 steps")
    assert [c.images for c in Checkpoint.all(tmp_path / "b")] == [12, 18]


def test_a_branch_that_changes_nothing_ends_as_the_run_would_have(asked, tmp_path):
    go(asked(), stop=2)
    go(asked(branch="b"))
    go(asked())
    ends = [Checkpoint.all(tmp_path / name)[-1].path for name in ("run", "b")]
    for name in ("model.safetensors", "ema-0.999.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()


def test_a_branch_says_where_it_came_from_for_good(asked, tmp_path):
    go(asked(), stop=2)
    go(asked("seed=1", branch="b"), stop=3)
    again = Ask(tmp_path / "b")
    go(again)
    origin = str(tmp_path / "run" / "checkpoints" / "000000006")
    assert [event["branched_from"] for event in starts(tmp_path / "b")] == [origin, origin]
    for checkpoint in Checkpoint.all(tmp_path / "b"):
        assert json.loads((checkpoint.path / "card.json").read_text())["branched_from"] == origin
    assert all("branched_from" not in event for event in starts(tmp_path / "run"))


def test_a_branch_with_another_optimiser_begins_it_afresh_and_says_so(asked):
    go(asked(), stop=2)
    session = open_session(asked("optimizer.method=adan", branch="b"), CPU)
    assert any(note.startswith("The optimiser begins afresh") for note in session.notes)
    assert session.trainer.progress.images == 6
    for _ in session.trainer.steps():
        pass
    assert finish(session) == "finished"


def test_a_branch_carries_what_the_loss_learned_if_it_means_the_same(asked, tmp_path):
    learning = ("loss.times.kind=loss_moment", "loss.times.bins=2", "loss.times.warmup=1")
    go(asked(*learning), stop=2)
    old = Checkpoint.all(tmp_path / "run")[-1].weights(LOSS)
    same = open_session(asked(*learning, "seed=1", branch="same"), CPU)
    assert all(torch.equal(t, same.trainer.loss.state_dict()[n]) for n, t in old.items())
    other = open_session(asked(*learning, "loss.times.bins=4", branch="other"), CPU)
    assert "What the loss learns begins afresh." in other.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.width=16", "network.width = 8 there and 16 now"),
        ("loss.bound=0.001", "loss.bound = 0.0 there and 0.001 now"),
        ("network.levels=[1,2,2]", "network.levels = [1, 2] there and [1, 2, 2] now"),
    ],
)
def test_a_branch_to_a_network_of_other_weights_is_refused(change, words, asked, tmp_path):
    go(asked(), stop=2)
    with pytest.raises(ConfigError) as caught:
        open_session(asked(change, branch="b"), CPU)
    assert str(caught.value).startswith(f"The weights of {tmp_path / 'run' / 'checkpoints'}")
    assert words in str(caught.value)
    assert "do not fit this network" in str(caught.value)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("change", ["data.size=32", "data.crop=pad", "data.held_out=2"])
def test_a_branch_to_other_pictures_is_refused(change, asked, tmp_path):
    go(asked(), stop=2)
    with pytest.raises(ConfigError, match=r"learns the same pictures at the same size: data\."):
        open_session(asked(change, branch="b"), CPU)
    with pytest.raises(ConfigError, match="the pictures of toy:9 have changed since it began"):
        open_session(asked(source="toy:9", branch="b"), CPU)
    assert not (tmp_path / "b").exists()


def test_the_command_that_began_a_branch_goes_on_with_it(asked, tmp_path):
    go(asked(), stop=2)
    again = asked("seed=1", branch="b")
    go(again, stop=3)
    go(asked())  # what the run does meanwhile is no part of the branch
    before = tree(tmp_path / "run")
    session, reason = go(again)
    assert (reason, session.resumed, session.run.path) == ("finished", 9, tmp_path / "b")
    assert tree(tmp_path / "run") == before
    assert plan(again, CPU) == session.config
    with pytest.raises(ConfigError, match=r"b belongs to another configuration: seed = 1 there"):
        open_session(asked("seed=2", branch="b"), CPU)


def test_what_is_no_branch_of_the_run_is_not_gone_on_with(asked, tmp_path):
    go(asked(), stop=2)
    other = replace(asked(), run=tmp_path / "b")
    go(other, stop=2)
    before = tree(tmp_path / "b")
    with pytest.raises(OutputError, match=r"b exists already and is no branch of .*run: go on"):
        open_session(asked("seed=1", branch="b"), CPU)
    with pytest.raises(OutputError, match="run exists already"):
        open_session(asked("seed=1", branch="run"), CPU)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"is no run and holds photo\.png"):
        open_session(asked("seed=1", branch="mine"), CPU)
    assert tree(tmp_path / "b") == before


def test_there_is_nothing_to_branch_from_without_a_checkpoint(asked):
    with pytest.raises(CheckpointError, match="There is no run directory"):
        open_session(asked(branch="b"), CPU)
    session = open_session(asked(), CPU)
    finish(session)
    with pytest.raises(CheckpointError, match="has no whole checkpoint to branch from"):
        open_session(asked(branch="b"), CPU)


def test_a_branch_is_one_word_in_a_program(asked, tiny, tmp_path):
    go(asked(), stop=2)
    with pytest.warns(UserWarning, match="begins with what .* has learned"):
        branch = kao.train(
            "toy:8",
            run=tmp_path / "run",
            recipe="toy-32",
            length="3 steps",
            overrides=(*tiny, *WORDS, "seed=1"),
            branch=tmp_path / "b",
        )
    assert branch.path == tmp_path / "b"
    assert branch.config.seed == 1
    assert Checkpoint.all(branch.path)[-1].images == 9
