from typing import ClassVar

import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.data.prepare import prepare
from kao.data.sources import open_source
from kao.errors import TrainingError
from kao.runs import speed
from kao.runs.ladder import changed, plain, rungs, settled
from kao.runs.speed import Contender, Effort, Spread, climb

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONFIG = Request.of(
    "toy-32",
    [
        "network.width=4",
        "network.levels=[1]",
        "network.attention=[]",
        "network.heads=1",
        "optimizer.method=adamw",
        "training.batch=32",
    ],
).over(dump(RunConfig()))
EFFORT = Effort(rounds=3, steps=2)


class Scripted:
    """A contender whose seconds a step, by round, and whose loss are told beforehand."""

    seconds: ClassVar = {}
    losses: ClassVar = {}
    built: ClassVar = []

    def __init__(self, config, prepared, device):
        self.config = config
        self.name = next((n for n, on in TECHNIQUES.items() if on(config)), "plain")
        told = self.seconds.get(self.name, 1.0)
        if isinstance(told, Exception):
            raise told
        self.built.append(self.name)
        self.memory, self.seconds_a_step = 7, 1.0
        self.losses = [self.losses.get(self.name, 0.5)] * 4
        self._rounds = iter(told if isinstance(told, list) else [])
        self._always = told if isinstance(told, float) else None

    def round(self, steps):
        return self._always if self._always is not None else next(self._rounds)


TECHNIQUES = {  # the newest first, since they are put on top of each other
    "progressive": lambda c: dump(c)["training"]["curriculum"]["kind"] == "progressive",
    "patches": lambda c: dump(c)["training"]["curriculum"]["kind"] == "patches",
    "16 at once": lambda c: c.training.micro_batch == 16,
    "recompute all": lambda c: c.training.gradient_checkpointing == "all",
    "recompute blocks": lambda c: c.training.gradient_checkpointing == "blocks",
    "pictures in memory": lambda c: c.data.keep == "memory",
    "channels_last": lambda c: c.training.channels_last,
    "bf16": lambda c: c.training.precision == "bf16",
}


@pytest.fixture
def climbed(monkeypatch):
    """climbed(seconds, losses): the outcomes by name, of contenders that do as they are told."""

    def go(seconds, losses=None, **options):
        scripted = type("Scripted", (Scripted,), {"seconds": seconds, "losses": losses or {}})
        monkeypatch.setattr(speed, "Contender", scripted)
        monkeypatch.setattr(speed, "release", lambda device: None)  # which takes long
        monkeypatch.setattr(speed, "peak_flops", lambda device, dtype: 1e12)
        monkeypatch.setattr("kao.runs.ladder.best_precision", lambda device: "bf16")
        outcomes = climb(CONFIG, None, CPU, effort=EFFORT, **options)
        return {outcome.rung.name: outcome for outcome in outcomes}

    return go


# --- who is taken -------------------------------------------------------------------------------


def test_what_is_faster_in_every_round_is_taken_and_built_upon(climbed):
    outcomes = climbed({"plain": 1.0, "bf16": 0.5, "pictures in memory": 0.4})
    assert outcomes["bf16"].taken
    assert outcomes["bf16"].measured.gain == Spread(2, 2, 2)
    assert outcomes["pictures in memory"].taken
    assert outcomes["pictures in memory"].config.training.precision == "bf16"
    assert outcomes["pictures in memory"].measured.gain.median == pytest.approx(1.25)


def test_speed_is_in_images_a_second(climbed):
    assert climbed({"plain": 0.25})["plain loop"].measured.speed.median == CONFIG.training.batch * 4


def test_what_loses_one_round_is_no_clear_gain(climbed):
    outcome = climbed({"plain": 1.0, "bf16": [0.5, 1.1, 0.5]})["bf16"]
    assert outcome.verdict == "no clear gain"
    assert outcome.measured.gain == Spread(2, pytest.approx(1 / 1.1), 2)


def test_two_percent_are_no_clear_gain_and_four_are(climbed):
    assert climbed({"plain": 1.02, "bf16": 1.0})["bf16"].verdict == "no clear gain"
    assert climbed({"plain": 1.04, "bf16": 1.0})["bf16"].taken


def test_what_loses_every_round_is_slower_and_not_built_upon(climbed):
    outcomes = climbed({"plain": 1.0, "bf16": 2.0})
    assert outcomes["bf16"].verdict == "slower"
    assert outcomes["pictures in memory"].config.training.precision == "fp32"


@pytest.mark.parametrize(("loss", "taken"), [(0.504, True), (0.506, False), (float("nan"), False)])
def test_what_moves_the_loss_by_more_than_a_percent_is_not_taken(climbed, loss, taken):
    outcome = climbed({"plain": 1.0, "bf16": 0.5}, {"plain": 0.5, "bf16": loss})["bf16"]
    assert outcome.taken is taken
    assert taken or outcome.verdict.startswith("faster, but moves the loss by")


def test_what_changes_the_learning_is_shown_and_never_taken(climbed):
    outcomes = climbed({"plain": 1.0, "patches": 0.1, "progressive": 0.1})
    for name in ("patches", "progressive"):
        assert outcomes[name].measured.gain.median == pytest.approx(10)
        assert outcomes[name].verdict == "shown only: it changes how the model learns"
        assert outcomes[name].measured.share is None


def test_memory_that_runs_out_is_told_and_the_climb_goes_on(climbed):
    full = TrainingError("A step of 32 images at once does not fit into memory: buy more.")
    outcomes = climbed({"plain": 1.0, "bf16": full, "pictures in memory": 0.5})
    assert outcomes["bf16"].measured is None
    assert outcomes["bf16"].verdict == f"does not run: {full}"
    assert outcomes["pictures in memory"].taken


def test_where_the_plain_loop_fails_the_first_that_runs_is_taken(climbed):
    outcomes = climbed({"plain": RuntimeError("CUDA out of memory.\nmore"), "bf16": 1.0})
    assert outcomes["plain loop"].verdict == "does not run: CUDA out of memory."
    assert outcomes["bf16"].taken


def test_the_share_of_the_peak_counts_three_forward_passes(climbed):
    measured = climbed({"plain": 1.0})["plain loop"].measured
    forward = speed._forward(CONFIG)
    assert measured.share == pytest.approx(3 * forward * CONFIG.training.batch / 1e12)


def test_what_is_barred_is_listed_with_its_reason_and_not_built(climbed):
    Scripted.built.clear()
    outcomes = climbed({})
    assert "'fp16' on a CPU" in outcomes["fp16"].verdict
    assert outcomes["tf32"].verdict == "CUDA only, and this is cpu"
    assert "--all tries it" in outcomes["channels_last"].verdict
    assert "channels_last" not in Scripted.built
    assert climbed({}, everything=True)["channels_last"].measured is not None


# --- the ladder ---------------------------------------------------------------------------------


def test_the_plain_loop_has_no_technique_whatever_the_configuration_says():
    own = changed(
        CONFIG,
        {
            "data": {"keep": "memory"},
            "training": {
                "precision": "bf16",
                "compile": True,
                "channels_last": True,
                "micro_batch": 4,
                "gradient_checkpointing": "all",
                "curriculum": "patches",
            },
        },
    )
    assert plain(own) == plain(CONFIG)
    assert plain(CONFIG).network == CONFIG.network


@pytest.mark.parametrize("device", [CPU, GPU])
def test_every_rung_changes_the_plain_loop(device):
    start = plain(CONFIG)
    for rung in rungs(CONFIG, device, everything=True):
        assert changed(start, rung.changes) != start


def test_on_a_gpu_nothing_is_barred_for_being_a_cpus_loss(monkeypatch):
    monkeypatch.setattr("kao.runs.ladder.best_precision", lambda device: "bf16")
    assert [r.name for r in rungs(CONFIG, GPU, everything=False) if r.barred] == []


def test_eight_bit_moments_are_those_of_adamw_only():
    config = changed(CONFIG, {"optimizer": {"method": "muon"}})
    barred = {r.name: r.barred for r in rungs(config, GPU, everything=True)}
    assert barred["adamw8bit"] == "the optimiser is another than adamw"


def test_an_emulated_bf16_is_barred_until_all_is_asked_for(monkeypatch):
    monkeypatch.setattr("kao.runs.ladder.best_precision", lambda device: "fp32")
    barred = {r.name: r.barred for r in rungs(CONFIG, CPU, everything=False)}
    assert "emulates bf16" in barred["bf16"]
    assert {r.name: r.barred for r in rungs(CONFIG, CPU, everything=True)}["bf16"] == ""


def test_what_was_settled_on_a_cpu_leaves_tf32_and_the_pictures_open():
    start = plain(CONFIG)
    assert set(settled(start, CPU)) == {"training"}
    assert "tf32" not in settled(start, CPU)["training"]
    assert settled(start, GPU)["training"]["tf32"] is False
    moved = changed(start, {"data": {"keep": "memory"}})
    assert settled(moved, CPU)["data"] == {"keep": "memory"}


# --- real contenders ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contender(tiny):
    config = plain(Request.of("toy-32", tiny).over(dump(RunConfig())))
    prepared = prepare(open_source("toy:8", size=16), size=16)
    return lambda **training: Contender(changed(config, {"training": training}), prepared, CPU)


@pytest.mark.parametrize("training", [{"gradient_checkpointing": "all"}, {"micro_batch": 2}])
def test_what_changes_no_number_has_the_same_losses(contender, training):
    one, other = contender(), contender(**training)
    one.round(3)
    other.round(3)
    assert len(one.losses) == len(other.losses) == 6
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert one.losses[-1] != one.losses[0]


def test_a_contender_takes_at_least_its_weights_moments_and_averages(contender):
    one = contender()
    weights = sum(p.nbytes for p in one.trainer.denoiser.parameters())
    assert one.memory is None or one.memory >= 4 * weights
