from itertools import pairwise
from math import isinf, isnan, nan
from types import SimpleNamespace

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kao.checkpoints import MODEL, Checkpoint
from kao.config import RunConfig
from kao.config.loss import LossConfig
from kao.config.sections import DataConfig, EMAConfig, TrainingConfig
from kao.data.augment import AugmentConfig
from kao.diffusion import LossMoment, Warped
from kao.diffusion.times import Draw
from kao.errors import CheckpointError, TrainingError
from kao.networks import UNetConfig
from kao.training import OptimizerConfig, Progressive, Trapezoid
from kao.training.guard import Guard

BATCH = 4
OPTIMIZER = OptimizerConfig(schedule=Trapezoid(warmup=8, warmup_share=1.0))
AUGMENT = AugmentConfig(flip=True, crop=1, jitter=0.1)


def trainer_of(
    prepared,
    *,
    length="12 steps",
    seed=0,
    width=8,
    dropout=0.2,
    augment=AUGMENT,
    optimizer=OPTIMIZER,
    hooks=(),
    training=TrainingConfig(batch=BATCH, precision="fp32"),
):
    config = RunConfig(
        seed=seed,
        length=length,
        data=DataConfig(size=prepared.size, augment=augment),
        network=UNetConfig(width=width, levels=(1, 2), blocks=1, attention=(4,), dropout=dropout),
        optimizer=optimizer,
        ema=EMAConfig(decay=0.9),
        training=training,
    )
    return config.build(prepared, torch.device("cpu"), lambda config: named(hooks))


def named(hooks):
    return hooks if isinstance(hooks, dict) else {f"hook {i}": hook for i, hook in enumerate(hooks)}


def run(trainer, steps=None):
    """Take all steps, or some; returns what they reported."""
    reports = []
    for report in trainer.steps():
        reports.append(report)
        if len(reports) == steps:
            break
    return reports


def weights(trainer):
    """Copies of the weights and of their averages."""
    tensors = {f"{MODEL}/{n}": t.clone() for n, t in trainer.denoiser.state_dict().items()}
    for name, ema in trainer.ema.items():
        tensors |= {f"{name}/{n}": t.clone() for n, t in ema.average.items()}
    return tensors


def differing(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


class Recorder:
    """A hook that remembers when it was called."""

    def __init__(self, every, *, work=lambda: None):
        self.every, self.work, self.called = every, work, []

    def __call__(self, trainer):
        self.called.append(trainer.progress.images)
        self.work()


# --- a run --------------------------------------------------------------------------------------


def test_a_run_sees_as_many_images_as_its_length_says(tiny_set):
    trainer = trainer_of(tiny_set, length="40 images")
    assert len(run(trainer)) == 40 // BATCH
    assert trainer.progress.images == 40
    assert trainer.done == 1


def test_a_length_between_two_steps_is_rounded_up_to_whole_batches(tiny_set):
    trainer = trainer_of(tiny_set, length="41 images")
    run(trainer)
    assert trainer.progress.images == 44
    assert trainer.done == 1


def test_a_run_that_is_done_takes_no_further_step(tiny_set):
    trainer = trainer_of(tiny_set, length="2 steps")
    run(trainer)
    before = weights(trainer)
    assert run(trainer) == []
    assert differing(before, weights(trainer)) == []


def test_the_loss_falls_on_a_tiny_set(tiny_set):
    trainer = trainer_of(
        tiny_set,
        length="150 steps",
        width=16,
        dropout=0.0,
        augment=AugmentConfig(flip=False),
        optimizer=OptimizerConfig(rate=3e-3, schedule=Trapezoid(warmup=40)),
    )
    losses = [step.loss for step in run(trainer)]
    assert sum(losses[-30:]) < 0.75 * sum(losses[:30])


def test_every_weight_and_every_average_learns(tiny_set):
    trainer = trainer_of(tiny_set, length="3 steps")
    before = weights(trainer)
    run(trainer)
    assert differing(before, weights(trainer)) == list(before)


def test_the_meter_counts_every_image(tiny_set):
    trainer = trainer_of(tiny_set, length="5 steps")
    reports = run(trainer)
    told = trainer.meter.take()
    assert told["loss"] == pytest.approx(sum(r.loss for r in reports) / 5)
    assert told["gradient_norm"] == pytest.approx(sum(r.gradient_norm for r in reports) / 5)
    assert 0 <= told["data_wait"] < 1


def test_the_learning_rate_follows_its_schedule_over_the_run(tiny_set):
    optimizer = OptimizerConfig(
        rate=0.01, schedule=Trapezoid(warmup=8, warmup_share=1.0, cooldown=0.5)
    )
    trainer = trainer_of(tiny_set, length="10 steps", optimizer=optimizer)
    rates = []
    for _ in trainer.steps():
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    shares = [1 / 8, 5 / 8, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2]
    assert rates == pytest.approx([0.01 * share for share in shares])


# --- repeating and resuming ---------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run_to_the_bit(tiny_set):
    one, other = trainer_of(tiny_set), trainer_of(tiny_set)
    assert [step.loss for step in run(one, 6)] == [step.loss for step in run(other, 6)]
    assert differing(weights(one), weights(other)) == []


def test_what_else_draws_random_numbers_changes_nothing(tiny_set):
    one, other = trainer_of(tiny_set), trainer_of(tiny_set)
    run(one, 4)
    for _, _ in zip(range(4), other.steps(), strict=False):
        torch.rand(17)
    assert differing(weights(one), weights(other)) == []


@pytest.mark.parametrize("changed", ["weights", "course"])
def test_another_seed_gives_another_run(tiny_set, changed):
    one, other = trainer_of(tiny_set, seed=1), trainer_of(tiny_set, seed=2)
    if changed == "course":
        other.denoiser.load_state_dict(one.denoiser.state_dict())
        run(one, 2)
        run(other, 2)
    assert differing(weights(one), weights(other))


def test_times_and_noise_follow_the_seed_and_the_images_seen(tiny_set):
    def loss(seed, images):
        trainer = trainer_of(tiny_set, seed=seed, dropout=0.0)
        trainer.progress.images = images
        # A new network predicts 0 whatever its seed: the loss is that of the batch's noise.
        return trainer.step(next(trainer_of(tiny_set).batches(0))).loss

    assert loss(1, 0) == loss(1, 0)
    assert len({loss(1, 0), loss(2, 0), loss(1, BATCH)}) == 3


def test_a_step_draws_nothing_from_the_global_generator(tiny_set):
    trainer = trainer_of(tiny_set)
    state = torch.get_rng_state()
    run(trainer, 2)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_differs_from_step_to_step_and_follows_the_seed(tiny_set):
    losses = []
    for _ in range(2):
        trainer = trainer_of(tiny_set, dropout=0.5)
        run(trainer, 3)  # until what was zero at the start no longer hides it
        batch, loss = next(trainer.batches(0)), trainer.loss.forward
        # The same weights, batch, times and noise: dropout is all that is left to differ.
        trainer.optimizer.step = lambda: None
        trainer.loss.forward = lambda denoiser, x0, condition, generator, loss=loss: loss(
            denoiser, x0, condition, torch.Generator().manual_seed(0)
        )
        losses.append([trainer.step(batch).loss for _ in range(3)])
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3


def resumed(trainer, prepared, folder, **options):
    """A new trainer, taken up from a checkpoint of this one."""
    checkpoint = Checkpoint.write(
        folder,
        images=trainer.progress.images,
        config="",
        weights={
            MODEL: trainer.denoiser.state_dict(),
            **{name: ema.average for name, ema in trainer.ema.items()},
        },
        state=trainer.state_dict(),
        card={},
    )
    other = trainer_of(prepared, **options)
    checkpoint.load_into(other.denoiser)
    for name, ema in other.ema.items():
        ema.load(checkpoint.weights(name))
    other.load_state_dict(checkpoint.state())
    return other


@pytest.mark.parametrize("stops", [(5,), (1, 4, 11)], ids=str)
def test_a_run_that_was_stopped_and_resumed_is_the_run_that_was_not_to_the_bit(
    tiny_set, tmp_path, stops
):
    straight = trainer_of(tiny_set)
    losses = [step.loss for step in run(straight)]
    assert len(losses) == 12

    stopped, met = trainer_of(tiny_set), []
    for i, (start, stop) in enumerate(pairwise((0, *stops))):
        met += [step.loss for step in run(stopped, stop - start)]
        stopped = resumed(stopped, tiny_set, tmp_path / str(i))
        assert stopped.progress.images == BATCH * stop
    met += [step.loss for step in run(stopped)]

    assert met == losses
    assert differing(weights(straight), weights(stopped)) == []
    ours, theirs = straight.optimizer.state_dict(), stopped.optimizer.state_dict()
    for index, moments in ours["state"].items():
        for name, value in moments.items():
            assert torch.equal(value, theirs["state"][index][name])


def test_the_clock_of_a_run_goes_on_where_it_stopped(tiny_set, tmp_path):
    trainer = trainer_of(tiny_set, length="10 minutes")
    trainer.progress.seconds = 450.0
    assert resumed(trainer, tiny_set, tmp_path, length="10 minutes").done == 0.75


def test_the_state_of_another_model_is_refused(tiny_set):
    state = trainer_of(tiny_set).state_dict()
    state["optimizer"]["param_groups"][0]["params"].pop()
    with pytest.raises(CheckpointError, match=r"does not fit this model .* the configuration that"):
        trainer_of(tiny_set).load_state_dict(state)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        trainer_of(tiny_set).load_state_dict({})


# --- stopping, hooks, the clock -----------------------------------------------------------------


def test_stop_ends_the_run_after_the_step_in_hand(tiny_set):
    hook = Recorder(10**9)
    trainer = trainer_of(tiny_set, hooks=[hook])
    for k, _ in enumerate(trainer.steps(), 1):
        if k == 3:
            trainer.stop()
    assert trainer.progress.images == 3 * BATCH
    assert trainer.done < 1
    assert hook.called == [3 * BATCH]


def test_a_hook_may_stop_the_run(tiny_set):
    hook = Recorder(2 * BATCH)
    trainer = trainer_of(tiny_set, hooks=[hook])
    hook.work = trainer.stop
    run(trainer)
    assert hook.called == [2 * BATCH]


@pytest.mark.parametrize(
    ("every", "called"),
    [
        (8, [8, 16, 24, 32, 40]),  # 40 is the end, too: once
        (10, [12, 20, 32, 40]),
        (3, [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]),  # two multiples in a step: once
        (16, [16, 32, 40]),
        (1000, [40]),
    ],
)
def test_a_hook_is_called_at_each_multiple_that_a_step_crosses_and_at_the_end(
    tiny_set, every, called
):
    hook = Recorder(every)
    run(trainer_of(tiny_set, length="40 images", hooks=[hook]))
    assert hook.called == called


def test_hooks_are_called_in_order_and_at_the_end_after_the_last_step_is_reported(tiny_set):
    order = []
    hooks = [Recorder(BATCH, work=lambda name=name: order.append(name)) for name in "ab"]
    for _ in trainer_of(tiny_set, length="2 steps", hooks=hooks).steps():
        order.append("step")
    assert order == ["a", "b", "step", "step", "a", "b"]


def test_a_resumed_run_calls_its_hooks_at_the_same_images(tiny_set, tmp_path):
    first, second = Recorder(10), Recorder(10)
    stopped = trainer_of(tiny_set, length="40 images", hooks=[first])
    run(stopped, 4)
    run(resumed(stopped, tiny_set, tmp_path, length="40 images", hooks=[second]))
    assert (first.called, second.called) == ([12], [20, 32, 40])


@pytest.fixture
def clock(monkeypatch):
    """The trainer's clock: it stands still until it is moved."""
    clock = SimpleNamespace(now=1000.0)
    fake = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("kao.training.trainer.time", fake)
    return clock


def taking(seconds, trainer, clock):
    """The trainer, whose steps take that long."""
    stream = trainer.batches

    def batches(images):
        for batch in stream(images):
            clock.now += seconds
            yield batch

    trainer.batches = batches
    return trainer


def test_a_run_in_minutes_ends_at_its_time_with_a_learning_rate_near_zero(tiny_set, clock):
    optimizer = OptimizerConfig(rate=1.0, schedule=Trapezoid(warmup=0, cooldown=0.5))
    trainer = trainer_of(tiny_set, length="1 minute", optimizer=optimizer)
    rates = []
    for _ in taking(2.0, trainer, clock).steps():
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert len(rates) == 30
    assert clock.now == 1060
    assert rates[0] == 1 and rates[-1] == pytest.approx(2 / 30)
    assert trainer.learning_rate == 0


def test_a_run_in_minutes_ends_on_time_with_what_its_hooks_take_at_the_end(tiny_set, clock):
    hook = Recorder(10 * BATCH, work=lambda: setattr(clock, "now", clock.now + 5))
    trainer = trainer_of(tiny_set, length="1 minute", hooks=[hook])
    run(taking(1.0, trainer, clock))
    # 5 s are kept for the last call: 40 steps of 1 s and 3 calls of 5 s come before it.
    assert hook.called == [BATCH * k for k in (10, 20, 30, 40)]
    assert clock.now == 1060
    assert trainer.done == 1


def test_what_the_caller_does_between_steps_counts_as_time_of_the_run(tiny_set, clock):
    trainer = taking(1.0, trainer_of(tiny_set, length="1 minute"), clock)
    steps = 0
    for _ in trainer.steps():
        steps += 1
        clock.now += 2
    assert steps == 20


@pytest.mark.parametrize("every", [BATCH, 10 * BATCH, 1000 * BATCH])
def test_a_finished_run_in_minutes_is_still_finished_when_it_is_taken_up(tiny_set, clock, every):
    saved = []
    hook = Recorder(every)
    trainer = taking(1.0, trainer_of(tiny_set, length="1 minute", hooks=[hook]), clock)

    def save():
        saved.append(trainer.state_dict())
        clock.now += 1

    hook.work = save
    run(trainer)
    other = trainer_of(tiny_set, length="1 minute")
    other.load_state_dict(saved[-1])
    assert other.done == 1


def test_seconds_of_hooks_are_known_by_name(tiny_set, clock):
    def taken(**seconds):
        hooks = {
            name: Recorder(BATCH, work=lambda s=s: setattr(clock, "now", clock.now + s))
            for name, s in seconds.items()
        }
        return trainer_of(tiny_set, length="1 minute", hooks=hooks)

    run(taking(1.0, first := taken(a=1.0, b=3.0), clock), 2)
    other = taken(b=0.0, c=0.0)
    other.load_state_dict(first.state_dict())
    other.progress.seconds = 28.5
    assert other.done == pytest.approx(28.5 / (60 - 3))


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda value: value * torch.nan, "The loss is nan and its gradient nan after 20 images,"),
        # Its gradient is as it should be.
        (lambda value: value + torch.inf, "The loss is inf and its gradient"),
    ],
    ids=["nan", "inf"],
)
def test_a_loss_that_is_not_finite_ends_the_run_and_leaves_the_weights(tiny_set, harm, told):
    trainer = trainer_of(tiny_set)
    run(trainer, 2)
    before, at = weights(trainer), trainer.loss.at

    def broken(*arguments):
        losses = at(*arguments)
        return losses._replace(value=harm(losses.value))

    trainer.loss.at = broken
    with pytest.raises(TrainingError) as caught:
        run(trainer)
    words = str(caught.value)
    assert words.startswith(told)
    assert "4 steps in a row; at the last good step the loss was" in words
    assert "was kept: go on with a lower optimizer.rate (now 0.001" in words
    assert differing(before, weights(trainer)) == []
    assert trainer.progress.images == 6 * BATCH  # seen, and not learned from


def test_a_step_that_is_not_finite_is_skipped_and_training_goes_on(tiny_set):
    trainer = trainer_of(tiny_set)
    run(trainer, 2)
    before, at = weights(trainer), trainer.loss.at
    trainer.loss.at = lambda *arguments: at(*arguments)._replace(value=at(*arguments).value * nan)
    skipped = trainer.step(next(trainer.batches(trainer.progress.images)))
    assert isnan(skipped.loss) and skipped.skipped
    assert differing(before, weights(trainer)) == []
    assert trainer.progress.images == 3 * BATCH
    trainer.loss.at = at
    assert not trainer.step(next(trainer.batches(trainer.progress.images))).skipped
    assert differing(before, weights(trainer)) == list(before)


def test_a_step_whose_gradient_alone_is_not_finite_is_skipped_with_a_loss_that_is(tiny_set):
    trainer = trainer_of(tiny_set)
    trainer.denoiser.network.conv_in.weight.register_hook(lambda g: g + torch.inf)
    report = trainer.step(next(trainer.batches(0)))
    assert report.skipped and report.loss > 0


def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_the_weights(tiny_set):
    trainer = trainer_of(tiny_set)
    run(trainer, 1)
    before = weights(trainer)
    trainer.denoiser.network.conv_in.weight.register_hook(lambda g: g * torch.inf)
    with pytest.raises(TrainingError, match=r"gradient (inf|nan) after 16 images"):
        run(trainer)
    assert differing(before, weights(trainer)) == []


@pytest.mark.parametrize(("limit", "left"), [(1e-3, 1e-3), (0.0, None), (1e9, None)])
def test_gradients_are_clipped_to_their_norm_all_together(tiny_set, limit, left):
    trainer = trainer_of(tiny_set, optimizer=OptimizerConfig(clip_norm=limit))
    run(trainer, 3)  # until gradients have come through what was zero at the start
    norms = []

    def measured():
        gradients = [p.grad.flatten() for p in trainer.denoiser.parameters()]
        norms.append(torch.cat(gradients).norm().item())

    trainer.optimizer.step = measured
    report = trainer.step(next(trainer.batches(trainer.progress.images)))
    assert report.gradient_norm > 1e-2
    assert norms == [pytest.approx(report.gradient_norm if left is None else left, rel=1e-3)]


# --- what hooks take ---------------------------------------------------------------------------


def test_a_hook_that_passes_keeps_the_time_for_its_last_call(tiny_set):
    scores = Recorder(BATCH, work=lambda: trainer.passed())
    trainer = trainer_of(tiny_set, hooks={"scores": scores})
    trainer.load_state_dict({**trainer.state_dict(), "hook_seconds": {"scores": 5.0}})
    run(trainer)
    assert trainer.state_dict()["hook_seconds"] == {"scores": 5.0}


def test_what_hooks_take_does_not_count_as_slow_training(tiny_set, monkeypatch):
    clock = SimpleNamespace(now=0.0)

    def tick():
        clock.now += 1
        return clock.now

    monkeypatch.setattr("kao.training.meter.time", SimpleNamespace(perf_counter=tick))

    def work():
        clock.now += 1e9

    trainer = trainer_of(tiny_set, length="3 steps", hooks=[Recorder(BATCH, work=work)])
    run(trainer)
    assert trainer.meter.take()["images_per_second"] > 0.1


def test_a_call_that_is_cut_short_says_nothing_of_the_next(tiny_set):
    trainer = trainer_of(tiny_set)
    trainer.hooks = {"samples": Recorder(BATCH, work=trainer.stop)}
    trainer.load_state_dict({**trainer.state_dict(), "hook_seconds": {"samples": 50.0}})
    run(trainer)
    assert trainer.state_dict()["hook_seconds"] == {"samples": 50.0}


# --- one batch in pieces ------------------------------------------------------------------------


def pieces_of(prepared, micro_batch, seed=0, **training):
    config = RunConfig(
        seed=seed,
        length="6 steps",
        data=DataConfig(size=prepared.size, augment=AUGMENT),
        network=UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(4,), dropout=0.2),
        loss=LossConfig(offset_noise=0.1, input_perturbation=0.1),
        optimizer=OPTIMIZER,
        training=TrainingConfig(batch=12, precision="fp32", micro_batch=micro_batch, **training),
    )
    return config.build(prepared, torch.device("cpu"))


@pytest.mark.parametrize("micro_batch", [1, 5, 8])
def test_a_batch_in_pieces_teaches_what_the_whole_does(tiny_set, micro_batch):
    whole, pieces = pieces_of(tiny_set, "auto"), pieces_of(tiny_set, micro_batch)
    losses = [[step.loss for step in run(trainer)] for trainer in (whole, pieces)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    one, other = weights(whole), weights(pieces)
    for name in one:
        torch.testing.assert_close(other[name], one[name], rtol=1e-3, atol=1e-5)


def test_no_noise_is_seen_twice(tiny_set):
    trainer, seen = pieces_of(tiny_set, "auto"), []
    at = trainer.loss.at

    def watched(denoiser, x0, conditions, drawn):
        seen.extend(drawn.eps)
        return at(denoiser, x0, conditions, drawn)

    trainer.loss.at = watched
    run(trainer, 3)
    other = pieces_of(tiny_set, "auto", seed=1)
    other.loss.at = watched
    run(other, 1)
    assert len(seen) == 4 * 12
    assert len({eps.numpy().tobytes() for eps in seen}) == len(seen)


def small_memory(trainer, most):
    """A machine that holds the activations of so many images."""
    at, tried = trainer.loss.at, []

    def limited(denoiser, x0, conditions, drawn):
        tried.append(len(x0))
        if len(x0) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return at(denoiser, x0, conditions, drawn)

    trainer.loss.at = limited
    return tried


def test_pieces_are_halved_until_they_fit_and_no_number_changes(tiny_set):
    whole, pieces = pieces_of(tiny_set, "auto"), pieces_of(tiny_set, "auto")
    tried = small_memory(pieces, 3)
    losses = [[step.loss for step in run(trainer)] for trainer in (whole, pieces)]
    assert tried[:6] == [12, 6, 3, 3, 3, 3]
    assert set(tried[6:]) == {3}  # it is not tried again
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize(("micro_batch", "most", "tried"), [(8, 3, 8), ("auto", 0, 1)])
def test_what_does_not_fit_is_said_with_what_might(tiny_set, micro_batch, most, tried):
    trainer = pieces_of(tiny_set, micro_batch)
    small_memory(trainer, most)
    with pytest.raises(TrainingError, match=f"A step of {tried} images at once does not fit"):
        run(trainer)
    assert trainer.progress.images == 0


@pytest.mark.parametrize("mode", ["blocks", "all"])
def test_gradient_checkpointing_changes_no_byte_of_a_run(tiny_set, mode, monkeypatch):
    twice = []

    def watched(run, *inputs, **options):
        twice.append(run)
        return checkpoint(run, *inputs, **options)

    monkeypatch.setattr("kao.networks.recompute.checkpoint", watched)
    plain, sparing = (
        trainer_of(tiny_set, training=TrainingConfig(batch=BATCH, precision="fp32", **options))
        for options in ({}, {"gradient_checkpointing": mode})
    )
    losses = [step.loss for step in run(plain, 4)]
    assert not twice
    assert [step.loss for step in run(sparing, 4)] == losses
    assert twice
    assert differing(weights(plain), weights(sparing)) == []


def test_channels_innermost_teach_the_same(tiny_set):
    plain, laid = pieces_of(tiny_set, "auto"), pieces_of(tiny_set, "auto", channels_last=True)
    kernel = laid.denoiser.network.conv_in.weight
    assert kernel.is_contiguous(memory_format=torch.channels_last)
    losses = [[step.loss for step in run(trainer)] for trainer in (plain, laid)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


class Listener(torch.nn.Module):
    """Remembers the standard deviation of what it is shown at each size."""

    def __init__(self):
        super().__init__()
        self.scale, self.heard = torch.nn.Parameter(torch.ones(())), {}

    def forward(self, x, label, condition):
        self.heard.setdefault(x.shape[-1], []).append(x.std().item())
        return self.scale * x


def test_a_small_picture_is_as_noisy_as_the_large_one_that_it_stands_for(tiny_set):
    curriculum = Progressive(parts=(2,), until=(0.5,))
    trainer = pieces_of(tiny_set, "auto", curriculum=curriculum)
    trainer.denoiser.network = Listener()
    trainer.loss.times.forward = lambda batch, generator: Draw(
        torch.full((batch,), 0.999, dtype=torch.float64), torch.ones(batch, dtype=torch.float64)
    )
    for done in (0.0, 0.9):
        trainer.gradients.of(next(trainer.batches(0)), images=0, done=done)
    (small,), (large,) = trainer.denoiser.network.heard[4], trainer.denoiser.network.heard[8]
    assert small == pytest.approx(large / 2, rel=0.1)


def test_times_do_not_listen_while_pictures_are_small(tiny_set):
    trainer = pieces_of(tiny_set, "auto", curriculum=Progressive(parts=(2,), until=(0.5,)))
    told = []
    trainer.loss.times.update = lambda *figures: told.append(trainer.progress.images)
    run(trainer)
    assert told == [48, 60, 72]


@pytest.mark.parametrize("words", ["CUDA out of memory.", "CUBLAS_STATUS_ALLOC_FAILED"])
def test_an_optimiser_that_finds_no_memory_ends_the_run_and_leaves_nothing_half_done(
    tiny_set, words
):
    trainer = trainer_of(tiny_set)
    before, step = weights(trainer), trainer.optimizer.step

    def full():
        step()
        if trainer.progress.images == 3 * BATCH:
            raise RuntimeError(words) if "CUBLAS" in words else torch.OutOfMemoryError(words)

    trainer.optimizer.step = full
    with pytest.raises(TrainingError, match=r"step after 8 images does not fit into memory \(CU"):
        run(trainer)
    assert differing(before, weights(trainer)) == []
    assert all(parameter.grad is None for parameter in trainer.denoiser.parameters())


def test_an_error_of_the_optimiser_that_is_not_of_memory_is_not_hidden(tiny_set):
    trainer = trainer_of(tiny_set)

    def broken():
        raise RuntimeError("shapes differ")

    trainer.optimizer.step = broken
    with pytest.raises(RuntimeError, match="shapes differ"):
        run(trainer)


def test_a_network_that_cannot_be_compiled_ends_the_run_with_what_to_do(tiny_set):
    from torch._inductor.exc import InductorError, InvalidCxxCompiler

    trainer = trainer_of(tiny_set)

    def uncompiled(*_):
        raise InductorError(InvalidCxxCompiler(), None)

    trainer.gradients.module = uncompiled
    with pytest.raises(TrainingError, match=r"No working C\+\+ .*training\.compile = false"):
        run(trainer)


# --- the loss scaler ----------------------------------------------------------------------------


def scaled(prepared, **options):
    """A trainer with the loss scaler of fp16, which a CPU has for nothing but tests."""
    trainer = trainer_of(prepared, **options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    trainer.gradients.scaler = scaler
    trainer.guard = Guard(
        trainer.gradients.objective, trainer.optimizer, trainer.ema, scaler=scaler
    )
    return trainer


def overflowing(trainer, *, above):
    """Gradients of one layer are infinite while the scale is larger."""
    scaler = trainer.gradients.scaler
    trainer.denoiser.network.conv_in.weight.register_hook(
        lambda g: torch.full_like(g, torch.inf) if scaler.get_scale() > above else g
    )


def test_with_finite_gradients_a_loss_scaler_changes_no_step(tiny_set):
    plain, other = trainer_of(tiny_set), scaled(tiny_set)
    reports = [[(s.loss, s.gradient_norm) for s in run(t, 5)] for t in (plain, other)]
    for one, two in zip(*reports, strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    one, two = weights(plain), weights(other)
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)
    assert other.gradients.scaler.get_scale() == 2.0**11  # after three steps, and so in the fourth


def test_an_infinite_gradient_is_left_out_by_the_scaler_and_its_scale_halves(tiny_set):
    trainer = scaled(tiny_set)
    run(trainer, 1)
    before = {name: tensor.clone() for name, tensor in trainer.denoiser.state_dict().items()}
    overflowing(trainer, above=2.0**9)
    left_out = trainer.step(next(trainer.batches(trainer.progress.images)))
    assert isinf(left_out.gradient_norm) or isnan(left_out.gradient_norm)
    assert (left_out.skipped, trainer.guard.streak) == (False, 0)
    assert trainer.gradients.scaler.get_scale() == 2.0**9
    assert differing(before, trainer.denoiser.state_dict()) == []
    trainer.step(next(trainer.batches(trainer.progress.images)))
    assert differing(before, trainer.denoiser.state_dict()) != []


def test_the_loss_scaler_is_part_of_what_is_saved(tiny_set, tmp_path):
    straight, stopped = scaled(tiny_set), scaled(tiny_set)
    overflowing(straight, above=2.0**9)
    overflowing(stopped, above=2.0**9)
    run(straight, 5)
    run(stopped, 2)
    other = scaled(tiny_set)
    other.denoiser.load_state_dict(stopped.denoiser.state_dict())
    for name, average in other.ema.items():
        average.load(stopped.ema[name].average)
    other.load_state_dict(stopped.state_dict())
    assert other.gradients.scaler.state_dict() == stopped.gradients.scaler.state_dict()
    overflowing(other, above=2.0**9)
    run(other, 3)
    assert other.gradients.scaler.state_dict() == straight.gradients.scaler.state_dict()
    assert differing(weights(straight), weights(other)) == []


def test_the_layer_that_overflows_is_looked_for_at_the_scale_at_which_it_did(tiny_set):
    trainer = scaled(tiny_set)
    trainer.gradients.scaler = trainer.guard._scaler = torch.amp.GradScaler("cpu", init_scale=0.75)
    told = []
    trainer.guard.tell = told.append
    overflowing(trainer, above=0.5)
    trainer.step(next(trainer.batches(0)))
    assert told[0].layer == "the gradient of denoiser.network.conv_in.weight"
    assert told[0].scale == 0.75
    assert trainer.gradients.scaler.get_scale() == 0.375


# --- what the loss learns -----------------------------------------------------------------------


def learning(prepared, length="12 steps", hooks=(), times=None, **loss):
    """A trainer whose loss has something to remember."""
    config = RunConfig(
        length=length,
        data=DataConfig(size=prepared.size, augment=AUGMENT),
        network=UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(4,)),
        loss=LossConfig(times=times or LossMoment(bins=4, warmup=2), **loss),
        optimizer=OPTIMIZER,
        ema=EMAConfig(decay=0.9),
        training=TrainingConfig(batch=BATCH, precision="fp32"),
    )
    return config.build(prepared, torch.device("cpu"), lambda config: named(hooks))


@pytest.mark.parametrize("times", [LossMoment(bins=4, warmup=2), Warped(bins=4, warmup=2)])
def test_times_follow_what_each_step_found(tiny_set, times):
    trainer = learning(tiny_set, times=times)
    before = trainer.loss.times.knots(5)
    run(trainer)
    after = trainer.loss.times.knots(5)
    assert after != before
    assert (after[0], after[-1]) == (0.0, 1.0)


def test_times_are_told_the_pull_and_the_error_of_each_image(tiny_set):
    trainer = learning(tiny_set, uncertainty=True)
    with torch.no_grad():
        trainer.loss.uncertainty.offset.fill_(1.0)  # so that the pull is not the shown loss
    seen, told, at = [], [], trainer.loss.at

    def watched(*arguments):
        seen.append(at(*arguments))
        return seen[-1]

    trainer.loss.at = watched
    trainer.loss.times.update = lambda *figures: told.append(figures)
    trainer.step(next(trainer.batches(0)))
    ((t, pull, error),), (losses,) = told, seen
    assert torch.equal(t, losses.t)
    assert torch.equal(pull, losses.pull.double()) and torch.equal(error, losses.error.double())
    assert not torch.equal(pull, losses.shown.double())


def test_the_uncertainty_is_trained_with_the_model(tiny_set):
    trainer = learning(tiny_set, uncertainty=True)
    run(trainer)
    assert all(parameter.any() for parameter in trainer.loss.uncertainty.parameters())


def test_the_limit_of_the_gradient_counts_the_parameters_of_the_loss(tiny_set):
    trainer = learning(tiny_set, uncertainty=True)
    trainer.clip_norm = 1e-3
    trainer.optimizer.step = lambda: None
    trainer.optimizer.zero_grad = lambda set_to_none: None
    trainer.step(next(trainer.batches(0)))
    every = [*trainer.denoiser.parameters(), *trainer.loss.parameters()]
    norms = torch.stack([p.grad.norm() for p in every])
    assert norms.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert trainer.loss.uncertainty.offset.grad.abs() > 0


def test_what_the_loss_learned_survives_a_stop_to_the_byte(tiny_set):
    straight = learning(tiny_set, uncertainty=True)
    run(straight)
    first = learning(tiny_set, uncertainty=True)
    run(first, 5)
    second = learning(tiny_set, uncertainty=True)
    second.denoiser.load_state_dict(first.denoiser.state_dict())
    second.loss.load_state_dict(first.loss.state_dict())
    for name, average in second.ema.items():
        average.load(first.ema[name].average)
    second.load_state_dict(first.state_dict())
    run(second)
    assert differing(weights(straight), weights(second)) == []
    assert differing(straight.loss.state_dict(), second.loss.state_dict()) == []
