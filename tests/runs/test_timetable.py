from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.runs.timetable import COUNTS, Costs, intervals, timetable, with_intervals


def config(*words, length="60 minutes"):
    return Request.of("faces-32", words, {"length": length}).over(dump(RunConfig()))


CHEAP = Costs(image=0.01, hooks={})


def test_where_hooks_cost_nothing_they_are_called_as_often_as_ever():
    _, plan = timetable(config("ema.snapshots=auto"), CHEAP)
    assert plan.images == 360_000
    assert plan.calls == COUNTS
    assert plan.share == 0


@pytest.mark.parametrize("seconds", [0.01, 0.3, 3.0, 10.0, 50.0])
@pytest.mark.parametrize("length", ["1 minute", "10 minutes", "5 hours"])
def test_hooks_that_are_called_more_than_once_take_a_small_share_of_the_time(seconds, length):
    hooks = {"samples": seconds, "checkpoints": seconds / 10, "snapshots": seconds / 20}
    words = ("ema.snapshots=auto", "data.held_out=0")
    resolved, plan = timetable(config(*words, length=length), Costs(image=0.01, hooks=hooks))
    repeated = sum(n * hooks.get(name, 0.0) for name, n in plan.calls.items() if n > 1)
    assert repeated <= 0.04 * 60 * plan.minutes
    assert "auto" not in dump(resolved)["hooks"].values()


def test_a_grid_that_takes_long_is_drawn_at_the_end_alone():
    resolved, plan = timetable(config(), Costs(image=0.01, hooks={"samples": 100.0}))
    assert plan.calls["samples"] == 1
    assert resolved.hooks.samples > plan.images / 2


@pytest.mark.parametrize("every", [300, 1000, 100_000, 10**9])
def test_images_and_calls_fit_each_other_and_the_time(every):
    costs = Costs(image=0.01, hooks={"samples": 5.0, "checkpoints": 1.0})
    _, plan = timetable(config(f"hooks.samples={every}"), costs)
    assert plan.calls["samples"] == max(1, round(plan.images / every))
    spent = sum(plan.calls[name] * seconds for name, seconds in costs.hooks.items())
    assert plan.images * 0.01 + spent == pytest.approx(3600, rel=0.005)


def test_hooks_that_take_more_than_the_time_leave_a_plan():
    _, plan = timetable(config(length="1 minute"), Costs(image=0.01, hooks={"samples": 100.0}))
    assert (plan.images, plan.calls["samples"], plan.share) == (1, 1, 1)


def test_intervals_that_were_asked_for_stay():
    words = (
        "hooks.log=7",
        "hooks.samples=1000",
        "hooks.checkpoints=2000",
        "hooks.held_out=300",
        "evaluation.every=3000",
        "evaluation.pictures=100",
    )
    resolved, _ = timetable(config(*words), CHEAP)
    assert resolved == config(*words)


def test_a_short_run_mostly_trains():
    hooks = with_intervals(config(), 5_000).hooks
    assert hooks.samples == hooks.checkpoints == 100 * config().training.batch


def test_the_plan_is_told_in_words():
    hooks = {"samples": 4.0, "checkpoints": 0.02, "held_out": 0.5}
    _, plan = timetable(config("data.held_out=100"), Costs(image=0.01, hooks=hooks))
    first, second = plan.lines()
    assert first.startswith(f"Planned: about {plan.images:,} images at 100 a second; the learning")
    assert first.endswith("falls from minute 36 on.")
    assert second == (
        "8 sample grids (4 s each), 40 held-out losses (0.5 s each), 10 checkpoints and 12 scores "
        "take 1.5 % of the time."
    )


def test_a_length_in_images_is_planned_with_the_time_that_it_takes():
    costs = Costs(image=0.01, hooks={"samples": 45.0})
    planned, plan = timetable(config(length="1M images"), costs)
    assert planned == with_intervals(config(length="1M images"), 1_000_000)
    assert plan.minutes == pytest.approx((10_000 + 8 * 45) / 60)
    assert plan.lines()[0] == (
        "Planned: about 2.9 hours at 100 images a second; the learning rate falls from image "
        "600,000 on."
    )


def test_a_rate_that_never_falls_is_not_said_to():
    constant = config("optimizer.schedule=constant")
    assert "falls" not in " ".join(timetable(constant, CHEAP)[1].lines())


def test_hooks_that_take_much_of_a_run_are_said_to():
    _, plan = timetable(config(length="1 minute"), Costs(image=0.01, hooks={"samples": 20.0}))
    assert plan.calls["samples"] == 1
    assert plan.lines()[-1].startswith("That is much: a longer run, fewer hooks.pictures")


def test_a_network_of_twice_the_operations_saves_as_fast():
    costs = Costs(image=0.01, hooks={"samples": 2.0, "held_out": 1.0, "checkpoints": 0.5})
    assert costs.times(2) == Costs(0.02, {"samples": 4.0, "held_out": 2.0, "checkpoints": 0.5})


def test_a_run_that_holds_nothing_out_has_no_held_out_losses():
    without = with_intervals(replace(config("data.held_out=0")), 10_000)
    assert intervals(without)["held_out"] == 0


# --- by the clock -------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """The trainer's clock: it stands still until it is moved."""
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("kao.training.trainer.time", fake)
    return clock


class Slow:
    """A hook that takes its time."""

    def __init__(self, clock, every, seconds):
        self.clock, self.every, self.seconds, self.called = clock, every, seconds, 0

    def __call__(self, trainer):
        self.clock.now += self.seconds
        self.called += 1


@pytest.mark.parametrize(("off", "slows"), [(1.0, False), (1.3, False), (0.7, False), (1.0, True)])
def test_a_run_in_minutes_ends_on_time_and_annealed(tiny, tiny_set, clock, off, slows):
    often = ("hooks.samples=120", "hooks.checkpoints=40")
    words = (*tiny, *often, "data.size=8", "optimizer.schedule.warmup=0")
    config = Request.of("toy-32", words, {"length": "10 minutes"}).over(dump(RunConfig()))
    expected = {"samples": 20.0, "checkpoints": 2.0}
    config, plan = timetable(config, Costs(image=6.0 / config.training.batch, hooks=expected))
    every = intervals(config)
    names = ["checkpoints", "samples"]
    hooks = {name: Slow(clock, every[name], off * expected[name]) for name in names}
    trainer = config.build(
        tiny_set,
        torch.device("cpu"),
        lambda config: hooks,
        reserve=expected,
    )
    stream = trainer.batches

    def batches(images):
        for k, batch in enumerate(stream(images)):
            clock.now += 9.0 if slows and k > 30 else 6.0
            yield batch

    trainer.batches = batches
    rates = [trainer.optimizer.param_groups[0]["lr"] for _ in trainer.steps()]
    assert clock.now - 1000 == pytest.approx(600, rel=0.03)
    assert trainer.done == 1
    assert rates[-1] < 0.06 * max(rates)  # a step is a hundredth of the run
    called = [hooks[name].called for name in names]
    planned = [plan.calls[name] for name in names]
    if slows:  # fewer images come by, and fewer intervals
        assert called[0] < planned[0] and 1 <= called[1] <= planned[1]
    else:
        assert called == pytest.approx(planned, abs=1)
    if off == 1 and not slows:
        assert trainer.progress.images == pytest.approx(plan.images, rel=0.03)
