"""A run that begins with another model's weights, from its start to where it is taken up."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kao.checkpoints import MODEL, Checkpoint
from kao.config import RunConfig, SamplingConfig
from kao.config.sections import EMAConfig
from kao.diffusion import Flow, Linear, VPCosine, grids, targets
from kao.errors import ConfigError
from kao.networks.lora import is_adapter
from kao.runs import Ask, Run, configure, finish, open_session
from kao.runs.beginning import RATE, _with_a_grid
from kao.runs.planning import foreseen
from kao.tracking import read_events

CPU = torch.device("cpu")
QUIET = (
    "training.precision=fp32",
    "hooks.pictures=2",
    "hooks.checkpoints=8",
    "hooks.keep_last=9",
    "evaluation.every=0",
    "tracking.tensorboard=false",
    "data.augment.edm=0",
)


@pytest.fixture
def asked(tiny_run, tmp_path):
    """asked("finetune.freeze=2"): four steps of four pictures that begin with tiny_run."""
    base = shutil.copytree(tiny_run, tmp_path / "base")

    def ask(*more, length="4 steps", run="run", size=None):
        flags = {"length": length, **({"data": {"size": size}} if size else {})}
        return Ask(tmp_path / run, "toy:12", None, (*QUIET, *more), flags, base=str(base))

    return ask


def go(ask, *, kill=None):
    session = open_session(ask, CPU)
    for _ in session.trainer.steps():
        if session.trainer.progress.images // 4 == kill:
            session.tracker.close()
            session.lock.close()
            return session
    finish(session)
    return session


def newest(run):
    folder = Checkpoint.all(run)[-1].path
    return {file.name: file.read_bytes() for file in sorted(folder.glob("*.safetensors"))}


def ema_of(run):
    return Run.open(run).denoiser(device=CPU).state_dict()


# --- what it begins with ------------------------------------------------------------------------


def test_it_begins_with_the_averaged_weights_of_its_base(asked):
    ask = asked()
    session = open_session(ask, CPU)
    before = ema_of(Path(ask.base))
    for name, value in session.trainer.denoiser.state_dict().items():
        assert torch.equal(value, before[name])
    assert f"Beginning with {Checkpoint.all(Path(ask.base))[-1].path}." in session.plan


def test_what_makes_the_base_is_kept_and_what_is_of_its_run_is_not(asked):
    ask = asked()
    there, now = Run.open(ask.base).config, configure(ask, CPU).config
    for name in ("schedule", "target", "loss", "sampling", "input_scaling"):
        assert getattr(now, name) == getattr(there, name)
    assert now.network == there.network and now.data.size == there.data.size == 16
    assert now.optimizer.method == there.optimizer.method
    assert now.optimizer.betas == there.optimizer.betas
    assert now.optimizer.rate == pytest.approx(RATE * there.optimizer.rate)
    assert (now.data.source, now.data.fingerprint, now.length) == ("toy:12", "", "4 steps")
    assert configure(asked("optimizer.rate=0.01"), CPU).config.optimizer.rate == 0.01


def test_the_average_begins_with_the_base(asked):
    ask = asked(length="1 step")
    go(ask)
    begun = Checkpoint.all(ask.run)[0]
    assert begun.images == 0
    before = ema_of(Path(ask.base))
    for kind in (MODEL, "ema-0.999"):
        for name, value in begun.weights(kind).items():
            assert torch.equal(value, before[name])


def test_without_a_warm_up_it_keeps_its_full_decay_from_the_first_step(asked):
    ask = asked("ema.warmup=false", length="1 step")
    session = go(ask)
    before = ema_of(Path(ask.base))
    last = Checkpoint.all(ask.run)[-1]
    model, average = last.weights(MODEL), last.weights("ema-0.999")
    assert session.config.ema == EMAConfig(decay=0.999, warmup=False)
    for name, value in average.items():
        torch.testing.assert_close(value, torch.lerp(before[name], model[name], 0.001))


def test_with_one_a_short_run_soon_forgets_its_base(asked):
    ask = asked(length="1 step")
    go(ask)
    before, last = ema_of(Path(ask.base)), Checkpoint.all(ask.run)[-1]
    model, average = last.weights(MODEL), last.weights("ema-0.999")
    name = "network.conv_out.weight"
    kept = 2 / 11  # (1 + 1) / (10 + 1) after one update
    torch.testing.assert_close(average[name], torch.lerp(before[name], model[name], 1 - kept))


def test_the_log_tells_the_base(asked):
    ask = asked(length="1 step")
    go(ask)
    (start,) = [event for event in read_events(ask.run) if event["event"] == "start"]
    assert start["base"] == ask.base
    assert len(Run.open(ask.run).config.finetune.sha256) == 64


# --- what is converted --------------------------------------------------------------------------


def test_another_schedule_and_target_predict_what_the_base_did(asked):
    ask = asked("schedule=flow", "target=velocity")
    session = open_session(ask, CPU)
    tuned = session.config.finetune
    assert (session.config.schedule, session.config.target) == (Flow(), targets.velocity)
    assert (tuned.schedule, tuned.target) == (VPCosine(), targets.v)
    assert any(line.startswith("Converted exactly: schedule = flow for") for line in session.plan)
    base, now = Run.open(ask.base).denoiser(device=CPU), session.trainer.denoiser.eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    level = base.schedule(t)
    t_now = now.schedule.time_at(level.snr.log())
    ratio = (now.schedule(t_now).alpha / level.alpha).float().reshape(-1, 1, 1, 1)
    with torch.no_grad():
        before, after = base(x, t), now(ratio * x, t_now)
    torch.testing.assert_close(after.x0, before.x0, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.eps, before.eps, rtol=1e-4, atol=1e-4)


def test_a_base_that_was_converted_itself_still_knows_what_it_was_made_for(asked, tmp_path):
    go(asked("schedule=flow", "target=velocity", length="1 step"))
    second = replace(asked(run="second"), base=str(tmp_path / "run"))
    tuned = configure(second, CPU).config.finetune
    assert (tuned.schedule, tuned.target) == (VPCosine(), targets.v)
    back = replace(asked("schedule=vp_cosine", "target=v", run="back"), base=str(tmp_path / "run"))
    tuned = configure(back, CPU).config.finetune
    assert (tuned.schedule, tuned.target) == (None, None)


@pytest.mark.parametrize(
    "grid",
    [grids.leading, grids.linspace, grids.Spaced(), grids.Learned((0.0, 0.3, 1.0))],
    ids=["leading", "linspace", "spaced", "learned"],
)
def test_a_grid_that_another_schedule_cannot_have_becomes_even(grid):
    def of(schedule, grid):
        return replace(RunConfig(), schedule=schedule, sampling=SamplingConfig(grid=grid))

    there = of(Linear(), grid)
    assert _with_a_grid(of(Flow(), grid), there).sampling.grid == grids.uniform
    assert _with_a_grid(of(Linear(), grid), there) == there
    asked = of(Flow(), grids.leading)  # refused where it is drawn with, since it was asked for
    assert grid == grids.leading or _with_a_grid(asked, there) == asked


def test_the_scale_of_the_input_is_the_networks_own(asked):
    with pytest.raises(ConfigError, match="input_scaling = true, and the network of"):
        configure(asked("input_scaling=true"), CPU)


# --- what learns --------------------------------------------------------------------------------


def changed(ask):
    before, after = ema_of(Path(ask.base)), Checkpoint.all(ask.run)[-1].weights(MODEL)
    return {
        name
        for name, value in after.items()
        if name in before and not torch.equal(value, before[name])
    }


def test_frozen_blocks_end_as_they_began(asked):
    ask = asked("finetune.freeze=2")
    go(ask)
    moved = changed(ask)
    assert not any(".conv_in." in n and "down.0" in n for n in moved)
    assert "network.conv_in.weight" not in moved and "network.embed.0.weight" not in moved
    assert any(n.startswith("network.up.") for n in moved)


def test_adapters_alone_learn_and_are_merged_for_drawing(asked):
    ask = asked("finetune.train=lora", "finetune.rank=2", "optimizer.method=adamw")
    session = go(ask)
    assert changed(ask) == set()
    trained = {n for n in Checkpoint.all(ask.run)[-1].weights(MODEL) if is_adapter(n)}
    assert trained
    drawn, own = Run.open(ask.run).denoiser(weights="model", device=CPU), session.trainer.denoiser
    assert set(drawn.state_dict()) == set(ema_of(Path(ask.base)))
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    t = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        merged, whole = drawn(x, t).x0, own.eval()(x, t).x0
    torch.testing.assert_close(merged, whole, rtol=1e-4, atol=1e-4)


def test_a_base_with_adapters_is_a_plain_one_to_the_next(asked, tmp_path):
    go(asked("finetune.train=lora", "optimizer.method=adamw", length="1 step"))
    second = replace(asked(run="second", length="1 step"), base=str(tmp_path / "run"))
    session = open_session(second, CPU)
    assert not any(is_adapter(name) for name in session.trainer.denoiser.state_dict())


def test_what_the_base_had_learns_at_its_own_rate(asked):
    session = open_session(asked("finetune.old_rate=0.1", "loss.bound=0.001"), CPU)
    groups = session.trainer.optimizer.param_groups
    scales = {group.get("scale", 1.0) for group in groups}
    assert scales == {1.0, 0.1}
    new = {id(p) for g in groups if g.get("scale", 1.0) == 1 for p in g["params"]}
    network = session.trainer.denoiser.network
    assert new == {id(p) for p in network.conv_out.parameters()}
    assert session.config.finetune.new == ("conv_out.weight", "conv_out.bias")


def test_too_many_frozen_blocks_are_refused(asked):
    with pytest.raises(ConfigError, match=r"finetune.freeze = 99, and this UNet has \d+ blocks"):
        configure(asked("finetune.freeze=99"), CPU)


# --- taken up again -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [(), ("finetune.train=lora", "optimizer.method=adamw", "finetune.old_rate=0.5")],
    ids=["all", "lora"],
)
def test_a_killed_run_ends_with_the_same_bytes_although_its_base_has_vanished(asked, more):
    whole = asked(*more, run="whole")
    go(whole)
    ask = asked(*more)
    go(ask, kill=3)  # after a checkpoint at two steps
    shutil.rmtree(ask.base)
    session = go(ask)
    assert session.resumed == 8
    assert newest(ask.run) == newest(whole.run)


def test_a_run_that_is_killed_at_once_goes_on_without_its_base(asked):
    ask = asked(length="1 step")
    go(ask, kill=1)
    assert Checkpoint.all(ask.run)[0].images == 0
    shutil.rmtree(ask.base)
    assert go(ask).trainer.done == 1


def test_another_base_is_refused_and_so_is_a_run_that_had_none(asked, tiny_run, tmp_path):
    ask = asked(length="1 step")
    go(ask)
    with pytest.raises(ConfigError, match=r"began with .*base, and elsewhere is asked for"):
        configure(replace(ask, base="elsewhere"), CPU)
    other = asked("seed=5", length="1 step", run="trained")
    go(other)
    with pytest.raises(ConfigError, match=r"began with .*base, and .*trained is asked for"):
        configure(replace(ask, base=str(other.run)), CPU)
    copy = shutil.copytree(tiny_run, tmp_path / "other")
    with pytest.raises(ConfigError, match="did not begin with another model"):
        configure(Ask(copy, base="elsewhere"), CPU)


def test_the_same_weights_in_another_place_are_the_same_base(asked, tmp_path, monkeypatch):
    ask = asked(length="1 step")
    monkeypatch.chdir(tmp_path)
    go(replace(ask, base="base"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert configure(replace(ask, base="../base"), CPU).notes == []
    moved = shutil.move(tmp_path / "base", tmp_path / "moved")
    assert configure(replace(ask, base=str(moved)), CPU).notes == []


def test_a_base_that_has_learned_more_since_is_told_and_the_run_goes_on(asked, tmp_path):
    ask = asked(length="1 step")
    go(ask)
    shutil.rmtree(ask.base)
    shutil.copytree(ask.run, ask.base)  # other weights in the same place
    (note,) = configure(ask, CPU).notes
    assert note.endswith("began with it: the run goes on with its own.")


@pytest.mark.parametrize(
    "word", ["base=else", "sha256=00", "schedule=none", "target=eps", 'new=["conv_in.weight"]']
)
def test_what_a_run_began_with_can_neither_be_set_nor_rewritten(word, asked, tmp_path):
    made = ("schedule=flow", "target=velocity")
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"finetune\.{key} is filled in from the base"):
        configure(asked(*made, f"finetune.{word}"), CPU)
    ask = asked(*made, length="1 step")
    go(ask)
    branch = Ask(ask.run, overrides=(f"finetune.{word}",), branch=tmp_path / "branch")
    with pytest.raises(ConfigError, match=rf"began with what that began with: finetune\.{key}"):
        configure(branch, CPU)
    configure(replace(branch, overrides=("optimizer.rate=0.001",)), CPU)


def test_the_configuration_of_a_run_that_began_with_noise_may_be_the_recipe(asked):
    ask = asked()
    assert configure(replace(ask, recipe=f"{ask.base}/run.toml"), CPU).base is not None


def test_what_is_trained_on_is_counted_alike_before_and_at_the_start(asked):
    ask = asked("data.held_out=3", length="1 step")
    (planned,) = (line for line in foreseen(ask, CPU).notes if line.startswith("Chosen"))
    assert planned.startswith("Chosen for 9 pictures")
    assert planned in open_session(ask, CPU).plan


def test_without_a_base_the_section_is_refused(tiny, tmp_path):
    ask = Ask(tmp_path / "run", "toy:8", "toy-32", (*tiny, "finetune.freeze=2"))
    with pytest.raises(ConfigError, match=r"finetune.freeze is set, .* kao finetune BASE FACES"):
        configure(ask, CPU)


def test_the_default_configuration_has_no_base():
    assert RunConfig().finetune.native(VPCosine().build(), targets.v) is None
