import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import kao
from kao.checkpoints import MODEL, Checkpoint
from kao.config import RunConfig, dump, leaves, load_config
from kao.data.keeping import keep
from kao.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MissingExtraError,
    OutputError,
    TrainingError,
)
from kao.runs import Ask, Run, configure, draw, finish, open_session
from kao.runs.hooks import Samples
from kao.tracking import read_events
from kao.visualisation import grid

CPU = torch.device("cpu")
BATCH = 3  # so that an epoch of eight pictures ends within a batch


@pytest.fixture(scope="module")
def small(tiny):
    """A run in which everything that is drawn by lot matters: order, augmentation, dropout."""
    return (
        *tiny,
        f"training.batch={BATCH}",
        "network.dropout=0.2",
        "data.augment.crop=2",
        "hooks.log=3",
        "hooks.samples=9",
        "hooks.checkpoints=6",
        "hooks.keep_last=9",
    )


@pytest.fixture
def asked(small, tmp_path):
    """asked("seed=3", length="6 steps"): a run in tmp_path."""

    def ask(*more, length="6 steps", recipe="toy-32", source="toy:8", run="run"):
        flags = {} if length is None else {"length": length}
        return Ask(tmp_path / run, source, recipe, (*small, *more), flags)

    return ask


def go(ask, *, stop=None, kill=None):
    """Train; stop gently, or leave the loop without a word, once so many steps were taken.

    Returns:
        The session, and how it ended.
    """
    session = open_session(ask, CPU)
    for _ in session.trainer.steps():
        steps = session.trainer.progress.images // BATCH
        if steps == kill:
            session.tracker.close()
            return session, "killed"
        if steps == stop:
            session.trainer.stop()
    return session, finish(session)


def weights(run):
    """The bytes of the newest weights and averages."""
    folder = Checkpoint.all(run)[-1].path
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def tree(run):
    """All files of a run but its log, and what is in them."""
    files = (file for file in sorted(run.rglob("*")) if file.is_file())
    apart = ("metrics.jsonl", ".lock")
    return {str(f.relative_to(run)): f.read_bytes() for f in files if f.name not in apart}


def events(run, kind):
    return [event for event in read_events(run) if event["event"] == kind]


@pytest.fixture(scope="module")
def whole(small, tmp_path_factory):
    """The weights that six steps without a stop end with."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    assert go(Ask(run, "toy:8", "toy-32", small, {"length": "6 steps"}))[1] == "finished"
    return weights(run)


# --- a new run ----------------------------------------------------------------------------------


def test_a_new_run_leaves_a_whole_directory(asked):
    ask = asked()
    session, reason = go(ask)
    assert (reason, session.resumed) == ("finished", None)
    assert [note.partition(" memorises")[0] for note in session.notes] == [
        "A model that learns from 8 pictures"
    ]
    assert sorted(tree(ask.run)) == [
        "audit.json",
        *(
            f"checkpoints/{images:09d}/{name}"
            for images in (6, 12, 18)
            for name in (
                "card.json",
                "ema-0.999.safetensors",
                "model.safetensors",
                "run.toml",
                "trainer.pt",
            )
        ),
        "contact.png",
        "run.toml",
        "samples/000000009-ema.png",
        "samples/000000009-raw.png",
        "samples/000000018-ema.png",
        "samples/000000018-raw.png",
    ]


def test_the_log_tells_what_happened_in_order(asked):
    ask = asked(length="3 steps")
    go(ask)
    told = [(event["event"], event["images"]) for event in read_events(ask.run)]
    assert told == [
        ("start", 0),
        ("train", 3),
        ("train", 6),
        ("checkpoint", 6),
        ("train", 9),
        ("checkpoint", 9),  # before the grids, which may take long
        ("samples", 9),
        ("samples", 9),
        ("end", 9),
    ]
    (start,) = events(ask.run, "start")
    assert start["pictures"] == 8
    assert start["parameters"] == sum(
        tensor.numel() for tensor in Checkpoint.all(ask.run)[-1].weights(MODEL).values()
    )
    assert start["precision"] == "fp32"
    for event in events(ask.run, "train"):
        assert event["loss"] > 0 and event["gradient_norm"] > 0 and event["memory"]["cpu_rss"] > 0
    assert [event["reason"] for event in events(ask.run, "end")] == ["finished"]


def test_run_toml_says_what_was_run_and_leaves_nothing_open(asked):
    ask = asked("training.precision=auto", "hooks.log=auto", "hooks.samples=auto")
    session, _ = go(ask)
    text = (ask.run / "run.toml").read_text()
    config = load_config(text, "run.toml")
    assert config == session.config
    left = [key for key, value in leaves(dump(config)).items() if value == "auto"]
    assert left == ["data.keep", "training.micro_batch"]  # which the machine decides each time
    assert config.training.precision in ("fp32", "bf16")
    assert (config.hooks.log, config.hooks.samples) == (BATCH, 100 * BATCH)
    assert config.data.fingerprint == session.prepared.fingerprint


def test_a_log_line_a_step_and_a_grid_a_hundred_steps_are_the_most_that_auto_gives(asked):
    ask = asked(
        "hooks.log=auto", "hooks.samples=auto", "hooks.checkpoints=auto", length="1M images"
    )
    hooks = open_session(ask, CPU).config.hooks
    assert (hooks.log, hooks.samples, hooks.checkpoints) == (2_500, 125_000, 100_000)


def test_old_checkpoints_make_room_for_new_ones(asked):
    ask = asked("hooks.keep_last=1", "hooks.keep_every=10")
    go(ask)
    assert [checkpoint.images for checkpoint in Checkpoint.all(ask.run)] == [12, 18]


def test_where_nothing_is_learned_all_grids_are_one_picture(asked):
    ask = asked("optimizer.rate=1e-30")
    go(ask)
    grids = {file.read_bytes() for file in (ask.run / "samples").iterdir()}
    assert len(grids) == 1


def test_the_last_grids_show_what_the_saved_weights_draw(asked):
    ask = asked("optimizer.rate=0.05", "optimizer.schedule.warmup=0")
    session, _ = go(ask)
    shown = []
    for name, kind in (("raw", "model"), ("ema", "ema")):
        drawn = draw(session.run.denoiser(weights=kind), session.config, indices=range(2))
        with Image.open(ask.run / "samples" / f"000000018-{name}.png") as picture:
            shown.append(np.asarray(picture))
        assert (shown[-1] == np.asarray(grid(torch.cat(list(drawn))))).all()
    assert (shown[0] != shown[1]).any()


def test_drawing_a_grid_changes_no_weight(asked):
    session = open_session(asked(), CPU)
    trainer = session.trainer
    next(iter(trainer.steps()))
    before = {name: value.clone() for name, value in trainer.denoiser.state_dict().items()}
    Samples(session.run.path, session.config, session.tracker, every=1)(trainer)
    assert trainer.denoiser.training
    assert all(torch.equal(v, before[name]) for name, v in trainer.denoiser.state_dict().items())


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_a_stop_in_the_middle_of_drawing_leaves_no_grid(asked, monkeypatch, batches):
    monkeypatch.setattr("kao.runs.hooks._CPU_BATCH", 1)
    ask = asked(length="9 steps")
    session, drawn = open_session(ask, CPU), []

    def watched(*words, **options):
        for batch in draw(*words, **options):
            drawn.append(len(batch))
            if len(drawn) == batches:
                session.trainer.stop()
            yield batch

    monkeypatch.setattr("kao.runs.hooks.draw", watched)
    for _ in session.trainer.steps():
        pass
    assert finish(session) == "interrupted"
    assert drawn == [1] * batches  # of two pictures with raw and two with averaged weights
    assert list((ask.run / "samples").iterdir()) == events(ask.run, "samples") == []
    assert Checkpoint.all(ask.run)[-1].images == session.trainer.progress.images == 9


def test_the_last_grids_of_a_run_are_drawn_whatever_comes(asked, monkeypatch):
    ask = asked(length="2 steps")
    session = open_session(ask, CPU)

    def watched(*words, **options):
        session.trainer.stop()
        yield from draw(*words, **options)

    monkeypatch.setattr("kao.runs.hooks.draw", watched)
    for _ in session.trainer.steps():
        pass
    assert finish(session) == "finished"
    assert len(list((ask.run / "samples").iterdir())) == 2


# --- what is left to the machine and the pictures -----------------------------------------------


@pytest.mark.parametrize(("size", "recipe"), [(32, "faces-32"), (40, "faces-32"), (64, "faces-64")])
def test_the_size_asked_for_decides_the_recipe_of_whoever_names_none(size, recipe, tmp_path):
    plain = Ask(tmp_path / "run", "toy:8", flags={"data": {"size": size}})
    named = replace(plain, recipe=recipe)
    width = configure(plain, CPU)[0].network.width
    assert width == (64 if recipe == "faces-64" else 48)
    if size != 40:  # which has no map of 8 pixels, where the recipe wants attention
        assert configure(named, CPU)[0].network.width == width


@pytest.mark.parametrize(
    ("more", "dropout"), [((), 0.1), (("network.dropout=0.3",), 0.3), (("network.dropout=0.0",), 0)]
)
def test_few_pictures_get_dropout_unless_something_was_said(more, dropout, tiny, tmp_path):
    ask = Ask(tmp_path / "run", "toy:8", None, (*tiny, *more), {"length": "1 step"})
    assert open_session(ask, CPU).config.network.dropout == dropout


def test_a_recipe_that_is_named_is_taken_as_it_is(tiny, tmp_path):
    ask = Ask(tmp_path / "run", "toy:8", "faces-32", tiny, {"length": "1 step"})
    assert open_session(ask, CPU).config.network.dropout == 0.0


@pytest.mark.parametrize(
    "change",
    [
        "data.augment.flip=false",
        "data.augment.crop=0",
        "data.augment.blur=1.0",
        "data.augment.jitter=0.5",
        "schedule=cosine",
        "target=x0",
        "network.dropout=0.1",
        "network.level=add",
        "loss.weight=plain",
        "loss.norm=l1",
        "loss.times.stratified=false",
        "optimizer.rate=1e-4",
        "optimizer.betas=[0.5,0.9]",
        "optimizer.weight_decay=0.5",
        "optimizer.clip_norm=1e-4",
        "optimizer.schedule=cosine",
        "ema.decay=0.01",
        "training.batch=4",
        "training.precision=bf16",
    ],
)
def test_every_setting_of_training_changes_what_is_learned(change, asked, whole):
    ask = asked(change, run="other")
    go(ask)
    averages = [next(v for k, v in end.items() if "ema" in k) for end in (weights(ask.run), whole)]
    assert averages[0] != averages[1]


# --- taken up again -----------------------------------------------------------------------------


def test_a_finished_run_asked_for_again_stays_as_it_is(asked):
    ask = asked()
    go(ask)
    before = tree(ask.run)
    session, reason = go(ask)
    assert (reason, session.resumed, session.trainer.progress.images) == ("finished", 18, 18)
    assert tree(ask.run) == before


def test_a_run_in_minutes_that_is_finished_stays_as_it_is(asked):
    ask = asked("hooks.checkpoints=999", length="0.01 minutes")
    assert go(ask)[1] == "finished"
    before = tree(ask.run)
    session, reason = go(ask)
    assert (reason, session.trainer.done) == ("finished", 1)
    assert tree(ask.run) == before


@pytest.mark.parametrize("step", [1, 2, 3, 5])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(step, asked, whole):
    ask = asked()
    session, reason = go(ask, stop=step)
    assert (reason, session.trainer.progress.images) == ("interrupted", step * BATCH)
    session, reason = go(ask)
    assert (reason, session.resumed) == ("finished", step * BATCH)
    assert weights(ask.run) == whole


LEARNED = (
    "loss.times.kind=loss_moment",
    "loss.times.bins=2",
    "loss.times.warmup=1",
    "loss.uncertainty=true",
)
"""A loss that remembers."""


@pytest.mark.parametrize("step", [1, 3, 5])
def test_what_the_loss_learned_goes_on_where_a_run_was_stopped(step, asked):
    straight, stopped = asked(*LEARNED, run="straight"), asked(*LEARNED)
    go(straight)
    go(stopped, stop=step)
    go(stopped)
    assert "loss.safetensors" in weights(straight.run)
    assert weights(stopped.run) == weights(straight.run)


def test_learned_times_are_read_from_the_checkpoint_and_drawn_on(asked):
    ask = asked(*LEARNED, "sampling.grid=learned", "sampling.steps=4")
    session, reason = go(ask)
    assert reason == "finished"
    learned = session.trainer.loss.times.knots()
    even = session.config.loss.times.build(session.trainer.denoiser.schedule).knots()
    assert learned != even
    assert session.run.drawing().sampling.grid.knots == learned
    assert session.run.learned_times().knots() == learned


def test_a_run_may_be_stopped_after_every_step(asked, whole):
    ask = asked()
    for step in range(1, 7):
        go(ask, stop=step)
    assert weights(ask.run) == whole
    assert [event["reason"] for event in events(ask.run, "end")] == ["interrupted"] * 5 + [
        "finished"
    ]


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_run_that_was_killed_ends_as_one_that_was_not(step, asked, whole):
    ask = asked()
    assert go(ask, kill=step)[1] == "killed"
    session, reason = go(ask)
    assert (reason, session.resumed) == ("finished", {1: None, 3: 6, 5: 12}[step])
    assert weights(ask.run) == whole


def test_steps_that_are_done_again_are_told_once(asked):
    ask = asked()
    go(ask, kill=5)
    (ask.run / "metrics.jsonl").open("a").write('{"event": "train", "ima')  # cut short by a kill
    go(ask)
    assert [event["images"] for event in events(ask.run, "train")] == [3, 6, 9, 12, 15, 18]
    assert [event["images"] for event in events(ask.run, "start")] == [0, 12]
    assert [event["resumed"] for event in events(ask.run, "start")] == [False, True]


def test_a_longer_length_goes_on(asked, whole):
    ask = asked(length="4 steps")
    assert go(ask)[0].trainer.progress.images == 12
    longer = asked(length="8 steps")
    session, reason = go(longer)
    assert (reason, session.resumed, session.trainer.progress.images) == ("finished", 12, 24)
    assert Run.open(ask.run).config.length == "8 steps"


def test_the_same_seed_gives_the_same_run_and_another_seed_another(asked, whole):
    same, other = asked(run="same"), asked("seed=1", run="other")
    go(same)
    go(other)
    assert weights(same.run) == whole
    assert weights(other.run)["model.safetensors"] != whole["model.safetensors"]


# --- what may change and what may not -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.width=16", "network.width = 8 there and 16 now"),
        ("seed=5", "seed = 0 there and 5 now"),
        ("data.size=32", "data.size = 16 there and 32 now"),
        ("optimizer.betas=[0.5,0.9]", "optimizer.betas = [0.9, 0.99] there and [0.5, 0.9] now"),
        ("ema.decay=0.9", "ema.decay = 0.999 there and 0.9 now"),
        ("schedule=flow", "schedule.kind = 'vp_cosine' there and 'flow' now"),
        ("loss.weight=plain", "loss.weight.gamma = 5.0 there and 'not set' now"),
        ("data.source=toy:9", "the pictures of toy:9 have changed since it began"),
    ],
)
def test_a_change_to_what_was_learned_is_refused_and_named(change, words, asked):
    ask = asked(length="1 step")
    go(ask)
    before = tree(ask.run)
    with pytest.raises(ConfigError) as caught:
        open_session(asked(change, length="1 step", source=None), CPU)
    assert f"{ask.run} belongs to another configuration: " in str(caught.value)
    assert words in str(caught.value)
    assert tree(ask.run) == before


def test_another_recipe_is_refused_and_the_first_keys_are_named(asked):
    go(asked(length="1 step"))
    with pytest.raises(ConfigError, match=r"configuration: schedule\.kind = .* and \d+ more"):
        open_session(asked(length="1 step", recipe="anime-64"), CPU)


def test_a_recipe_that_was_edited_since_changes_no_run_and_is_told_of(asked, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[ema]\ndecay = 0.9\n")
    ask = asked(recipe=str(recipe))
    go(ask, stop=2)
    assert go(ask, stop=4)[0].notes == []
    recipe.write_text("[ema]\ndecay = 0.5\n[hooks]\nkeep_last = 3\n[optimizer]\nclip_norm = 2.0\n")
    session, reason = go(ask)
    assert (reason, session.resumed, session.config.ema.decay) == ("finished", 12, 0.9)
    assert session.notes == [
        f"The recipe {recipe} says otherwise now in optimizer.clip_norm, ema.decay; {ask.run} "
        f"keeps its own."
    ]
    with pytest.raises(ConfigError, match=r"ema\.decay = 0\.9 there and 0\.5 now"):
        open_session(asked("ema.decay=0.5", recipe=str(recipe)), CPU)


def test_what_was_not_learned_from_may_change(asked):
    ask = asked()
    go(ask)
    before = weights(ask.run)
    changes = ("sampling.sampler=heun", "sampling.steps=3", "hooks.pictures=3", "hooks.log=6")
    session, reason = go(asked(*changes, "tracking.tensorboard=true", length="5 steps"))
    assert reason == "finished"
    assert "sampling.steps was 2 and is 3 now." in session.notes
    assert "length was '6 steps' and is '5 steps' now." in session.notes
    config = Run.open(ask.run).config
    assert config == session.config
    assert (config.sampling.steps, config.hooks.pictures, config.hooks.log) == (3, 3, 6)
    assert (config.tracking.tensorboard, config.length) == (True, "5 steps")
    assert config.hooks.checkpoints == 6
    assert weights(ask.run) == before
    assert list((ask.run / "tensorboard").glob("events*"))


def test_a_perceptual_network_may_have_moved(asked):
    go(asked("loss.perceptual.network=here.pt", length="1 step"))
    session, reason = go(asked("loss.perceptual.network=there.pt", length="1 step", source=None))
    assert reason == "finished"
    assert session.config.loss.perceptual.network == "there.pt"


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (
            ("sampling.guidance.worse=gone", "sampling.guidance.scale=2"),
            CheckpointError,
            'sampling.guidance.worse = "gone" is neither a run with a checkpoint',
        ),
        (
            ("sampling.sampler.kind=ddpm", "sampling.sampler.variance=learned"),
            ConfigError,
            'sampling.sampler.variance = "learned", but with loss.bound = 0',
        ),
    ],
)
def test_a_way_to_draw_that_cannot_be_is_refused_before_training(words, error, said, asked):
    ask = asked(*words)
    with pytest.raises(error) as caught:
        configure(ask, CPU)
    assert str(caught.value).startswith(said)
    assert not ask.run.exists()


def test_a_grid_during_training_loads_the_worse_model_once(asked, monkeypatch):
    other = asked(length="2 steps", run="other")
    go(other)
    denoiser, loaded = Run.denoiser, []

    def counting(run, *args, **more):
        loaded.append(run.path)
        return denoiser(run, *args, **more)

    monkeypatch.setattr(Run, "denoiser", counting)
    words = (f"sampling.guidance.worse={other.run}", "sampling.guidance.scale=2")
    ask = asked(*words, "hooks.samples=6", length="2 steps")
    assert go(ask)[1] == "finished"
    assert len(list((ask.run / "samples").glob("*.png"))) == 2
    assert loaded == [other.run]


def test_asking_for_auto_again_keeps_what_it_was_resolved_to(asked):
    more = ("training.precision=auto", "hooks.log=auto")
    ask = asked(*more)
    go(ask, stop=2)
    before = Run.open(ask.run).config
    assert go(ask)[1] == "finished"
    assert Run.open(ask.run).config == before


@pytest.mark.parametrize(
    ("key", "value"), [("training.micro_batch", "2"), ("data.keep", "disk"), ("hooks.log", "6")]
)
def test_auto_takes_back_what_was_typed(key, value, asked):
    go(asked(f"{key}={value}"), stop=2)
    session, _ = go(asked(f"{key}=auto"))
    assert any(note.startswith(f"{key} was ") for note in session.notes)
    now = leaves(dump(session.config))[key]
    assert now == (BATCH if key == "hooks.log" else "auto")


def test_a_run_goes_on_without_being_told_what_it_is(asked):
    ask = asked()
    go(ask, stop=2)
    session, reason = go(Ask(ask.run))
    assert (reason, session.resumed, session.trainer.progress.images) == ("finished", 6, 18)


def test_a_run_without_pictures_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"^No pictures are named: give a folder"):
        configure(Ask(tmp_path / "run"), CPU)


@pytest.fixture
def folder(tmp_path):
    """A folder of four pictures."""
    for seed in range(4):
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (tmp_path / "faces").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{seed}.png")
    return tmp_path / "faces"


def test_pictures_that_changed_are_refused(asked, folder):
    ask = asked(source=str(folder))
    go(ask, stop=2)
    shutil.copy(folder / "0.png", folder / "9.png")
    with pytest.raises(ConfigError, match=rf"the pictures of {folder} have changed since it began"):
        open_session(ask, CPU)
    (folder / "9.png").unlink()
    assert go(ask)[1] == "finished"


def test_pictures_may_move_if_they_stay_the_same(asked, folder):
    go(asked(source=str(folder)), stop=2)
    moved = folder.rename(folder.parent / "elsewhere")
    session, reason = go(asked(source=str(moved)))
    assert (reason, session.resumed, session.config.data.source) == ("finished", 6, str(moved))


def test_a_recipes_own_length_is_no_wish_to_change_that_of_a_run(asked):
    go(asked(length="6 steps"), stop=2)
    assert go(asked(length=None))[0].config.length == "6 steps"


def test_a_run_that_came_to_no_checkpoint_begins_anew_with_what_is_asked_for(asked):
    ask = asked("hooks.checkpoints=9999")
    go(ask, kill=2)
    session, reason = go(asked("network.width=16"))
    assert (reason, session.resumed, session.config.network.width) == ("finished", None, 16)


def test_a_run_toml_that_was_edited_is_held_against_the_checkpoint(asked):
    ask = asked()
    go(ask, stop=2)
    file = ask.run / "run.toml"
    file.write_text(file.read_text().replace('kind = "v"', 'kind = "x0"'))
    with pytest.raises(ConfigError, match=r"target\.kind = 'v' there and 'x0' now"):
        open_session(Ask(ask.run), CPU)


def test_two_processes_do_not_train_in_one_directory(asked):
    ask = asked()
    session = open_session(ask, CPU)
    other = (
        "import sys; from pathlib import Path; from kao.files import hold; "
        "hold(Path(sys.argv[1]), tell=print)"
    )
    words = [sys.executable, "-c", other, str(ask.run)]
    refused = subprocess.run(words, capture_output=True, text=True)
    assert "is in use by another process" in refused.stderr
    finish(session)
    assert subprocess.run(words).returncode == 0


# --- a start that is refused --------------------------------------------------------------------


def everything(run):
    return {str(f.relative_to(run)): f.read_bytes() for f in run.rglob("*") if f.is_file()}


@pytest.fixture
def killed(asked):
    """A run that was killed past its newest whole checkpoint: there is much to tidy up."""
    more = ("ema.snapshots=3",)
    ask = asked(*more)
    go(ask, kill=5)
    shutil.copytree(ask.run / "checkpoints" / "000000012", ask.run / "checkpoints" / "000000013")
    cut(ask.run / "checkpoints" / "000000013" / "model.safetensors")
    return more


def test_a_tracker_that_does_not_start_changes_nothing(asked, killed, monkeypatch):
    ask = asked(*killed)
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = everything(ask.run)
    with pytest.raises(MissingExtraError):
        open_session(asked(*killed, "tracking.wandb=true", "hooks.log=6"), CPU)
    assert everything(ask.run) == before
    assert go(ask)[1] == "finished"


def test_a_trainer_that_cannot_be_built_changes_nothing(asked, killed, monkeypatch):
    ask = asked(*killed)
    before = everything(ask.run)

    def refused(*_, **__):
        raise ConfigError("no")

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match=r"^no$"):
        patch.setattr(RunConfig, "build", refused)
        open_session(asked(*killed, "hooks.log=6"), CPU)
    assert everything(ask.run) == before
    assert go(ask)[1] == "finished"


def test_a_new_run_that_was_refused_can_be_started(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError):
        open_session(asked("tracking.wandb=true"), CPU)
    assert go(asked(length="1 step"))[1] == "finished"


@pytest.mark.parametrize("left", ["metrics.jsonl", "snapshots"])
def test_a_run_whose_checkpoints_are_missing_is_not_begun_anew(left, asked):
    ask = asked("ema.snapshots=3")
    go(ask, stop=3)
    for name in {"metrics.jsonl", "snapshots", "checkpoints"} - {left}:
        path = ask.run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = everything(ask.run)
    with pytest.raises(CheckpointError, match=r"its checkpoints are missing: bring them back, or"):
        open_session(ask, CPU)
    assert everything(ask.run) == before


def test_pictures_that_are_gone_are_said_to_be(asked, folder):
    ask = asked(source=str(folder))
    go(ask, stop=2)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=f"There is no folder or ZIP file {folder}"):
        open_session(ask, CPU)


# --- damage -------------------------------------------------------------------------------------


def cut(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


DAMAGES = {
    "cut": ("model.safetensors", cut, r"model\.safetensors has [\d,]+ bytes where [\d,]+ were"),
    "flipped": ("trainer.pt", flip, r"trainer\.pt is not what was written \(its SHA-256 differs\)"),
    "gone": ("ema-0.999.safetensors", lambda f: f.unlink(), r"ema-0\.999\.safetensors is missing"),
    "no card": ("card.json", lambda f: f.unlink(), r"card\.json is missing"),
    "bad card": ("card.json", lambda f: f.write_text("{"), r"card\.json cannot be read"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_told_of_and_the_one_before_is_taken(damage, asked, whole):
    name, spoil, words = DAMAGES[damage]
    ask = asked()
    go(ask, stop=5)
    assert [checkpoint.images for checkpoint in Checkpoint.all(ask.run)] == [6, 12, 15]
    spoil(ask.run / "checkpoints" / "000000015" / name)
    session, reason = go(ask)
    (note,) = session.notes
    assert re.search(rf"{words}.*: going back to 000000012\.$", note)
    assert (reason, session.resumed) == ("finished", 12)
    assert weights(ask.run) == whole
    assert (ask.run / "checkpoints" / "000000015.damaged").is_dir()


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_kept(asked):
    ask = asked()
    go(ask, stop=3)
    for checkpoint in Checkpoint.all(ask.run):
        cut(checkpoint.path / "model.safetensors")
    before = tree(ask.run)
    with pytest.raises(CheckpointError, match=r"has no whole checkpoint to go on from \(.*bytes"):
        open_session(ask, CPU)
    assert tree(ask.run) == before


# --- a run that fails ---------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_ends_the_run_as_failed(asked):
    ask = asked(
        "optimizer.rate=1e30",
        "optimizer.schedule.warmup=0",
        "hooks.checkpoints=9999",
        length="30 steps",
    )
    session = open_session(ask, CPU)
    with pytest.raises(
        TrainingError, match=r"^The loss is (nan|inf) .* lower optimizer\.rate"
    ) as e:
        for _ in session.trainer.steps():
            pass
    images = session.trainer.progress.images
    assert finish(session, e.value) == "failed"
    (saved,) = Checkpoint.all(ask.run)
    assert saved.images == images
    assert all(tensor.abs().max() < 1e3 for tensor in saved.weights().values())  # and not 1e30
    lower = asked(
        "optimizer.rate=1e-4", "optimizer.schedule.warmup=0", "hooks.checkpoints=9999", length=None
    )
    assert open_session(lower, CPU).config.optimizer.rate == 1e-4
    assert events(ask.run, "end")[-1]["reason"] == "failed"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("training.precision=fp16", "training.precision = 'fp16' on a CPU would be emulated"),
        ("optimizer.rate=-1", "optimizer.rate = -1.0; expected a finite number above 0"),
        ("data.source=nowhere", "There is no folder or ZIP file nowhere"),
        ("data.size=20", None),
    ],
)
def test_a_run_that_cannot_start_leaves_no_directory(more, words, asked):
    ask = asked(more, *(["network.levels=[1,2,2,2]"] if words is None else []), source=None)
    with pytest.raises((ConfigError, DataError)) as caught:
        open_session(ask, CPU)
    assert (words or "needs a size that is a multiple of 8") in str(caught.value)
    assert not ask.run.exists()


def test_a_file_in_the_way_of_the_run_is_named(asked):
    ask = asked()
    ask.run.write_text("not a run")
    with pytest.raises(OutputError, match=rf"^{ask.run} cannot be written, since a file or folder"):
        open_session(ask, CPU)
    assert ask.run.read_text() == "not a run"


def test_one_of_several_processes_without_the_others_is_refused(asked, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="WORLD_SIZE = 2 asks for several processes, but RANK"):
        open_session(asked(), CPU)


def test_a_folder_of_something_else_does_not_become_a_run(asked):
    ask = asked()
    ask.run.mkdir()
    (ask.run / "mine.png").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"is no run and holds mine\.png: give an empty"):
        open_session(ask, CPU)
    assert [file.name for file in ask.run.iterdir()] == ["mine.png"]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ((), False),
        (("schedule=linear",), False),
        (("schedule=linear", "schedule.steps=50"), True),
        (("schedule=linear", "schedule.steps=50", "schedule.zero_terminal_snr=true"), False),
    ],
)
def test_a_schedule_that_keeps_signal_at_its_end_is_told_of(tmp_path, overrides, told):
    ask = Ask(run=tmp_path / "run", source="toy:8", recipe="toy-32", overrides=overrides)
    notes = configure(ask, torch.device("cpu")).notes
    assert any("zero_terminal_snr" in note for note in notes) == told


@pytest.mark.parametrize(("asked_for", "room"), [("memory", 1.6), ("auto", 4.5)])
def test_where_pictures_lie_is_decided_before_they_take_the_room(
    asked, asked_for, room, monkeypatch
):
    size, held = 8 * 3 * 16 * 16, []

    def holding(prepared, where, device):
        held.append(prepared.images.nbytes)
        return keep(prepared, where, device)

    def free(device):
        return int(room * size) - sum(held)

    monkeypatch.setattr("kao.config.run.keep", holding)
    monkeypatch.setattr("kao.data.keeping.free_memory", free)
    ask = asked(f"data.keep={asked_for}", length="1 step")
    go(ask)
    assert held == [size]
    assert [event["keep"] for event in events(ask.run, "start")] == ["memory"]


def test_a_program_is_not_warned_of_a_plan_but_may_read_it(tmp_path, tiny, recwarn, caplog):
    words = (*tiny, "hooks.log=auto")
    with caplog.at_level("INFO", logger="kao"):
        kao.train(
            "toy:50", run=tmp_path / "run", recipe="toy-32", length="0.01 minutes", overrides=words
        )
    assert not [w for w in recwarn if issubclass(w.category, UserWarning)]
    assert any("images" in line for line in caplog.messages)
