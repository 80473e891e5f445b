"""The training loop."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch

from kao.data.loading import Batch
from kao.diffusion import Denoiser, DenoisingLoss
from kao.errors import CheckpointError, LoneError
from kao.machine import out_of_memory
from kao.processes import meeting
from kao.training.gradients import Figures, Gradients
from kao.training.guard import Guard, Met
from kao.training.length import Length, Progress
from kao.training.meter import Meter
from kao.training.optimizers import Average
from kao.training.parallel import clip_gradients, shard_state
from kao.training.rates import RateSchedule


class Hook(Protocol):
    """Something that happens every so many images: log, draw, save.

    Hooks read the trainer; only the trainer changes the model.
    """

    @property
    def every(self) -> int:
        """Images between calls.  Called at every multiple that a step crosses, and at the end."""

    def __call__(self, trainer: "Trainer") -> None:
        """Do it."""


@dataclass(frozen=True)
class Step:
    """What one optimiser step reports.

    Attributes:
        loss: Mean over the batch.
        gradient_norm: Of all gradients together, before clipping.
        waited: Seconds spent waiting for the batch.
        skipped: Whether loss or gradient was not finite, and nothing of the step was applied: see
            `Guard`.  What fp16's loss scaler leaves out to find its scale does not count.
    """

    loss: float
    gradient_norm: float
    waited: float
    skipped: bool


class Trainer:
    """Trains one denoiser on one stream of batches.

    The run is a function of its configuration and seed: batch k and its noise are drawn from
    generators seeded with (seed, images so far), so stopping and resuming changes no number.

    Args:
        gradients: Denoiser and loss, and how their gradient is computed.
        batches: From images seen to the stream of batches that follows.
        optimizer: Over the parameters of the denoiser and of the loss; a group's "scale"
            multiplies its learning rate.
        rate: Learning rate at its peak.
        schedule: Share of the peak at each step.
        length: How long to train.
        ema: Running averages of the weights, by name; the first is the one to draw with.
        hooks: Called in order; what each takes is known by its name, in a run that is taken up or
            branched from, too.
        clip_norm: Largest gradient norm; 0 leaves gradients alone.
        retries: Steps in a row that may be skipped for a loss that is not finite.
        reserve: Seconds that a call of a hook is expected to take, by its name, until it was
            called: a run in minutes keeps that time for the calls at its end.
    """

    def __init__(
        self,
        gradients: Gradients,
        batches: Callable[[int], Iterator[Batch]],
        optimizer: torch.optim.Optimizer,
        *,
        rate: float,
        schedule: RateSchedule,
        length: Length,
        ema: Mapping[str, Average],
        hooks: Mapping[str, Hook] = MappingProxyType({}),
        clip_norm: float = 1.0,
        retries: int = 3,
        reserve: Mapping[str, float] = MappingProxyType({}),
    ):
        self.gradients, self.batches, self.optimizer = gradients, batches, optimizer
        self.rate, self.schedule, self.length = rate, schedule, length
        self.ema, self.hooks, self.clip_norm = ema, hooks, clip_norm
        self.processes, self.device = gradients.processes, gradients.device
        self.progress, self.meter = Progress(), Meter()
        self.stopping, self._asked, self._passed = False, False, False
        self.guard = Guard(
            gradients.objective,
            optimizer,
            ema,
            scaler=gradients.scaler,
            retries=retries,
            processes=gradients.processes,
        )
        self._last_loss = float("nan")
        self._hook_seconds = {name: reserve[name] for name in hooks if name in reserve}

    @property
    def denoiser(self) -> Denoiser:
        """The model under training."""
        return self.gradients.objective.denoiser

    @property
    def loss(self) -> DenoisingLoss:
        """The loss, which may learn, too."""
        return self.gradients.objective.loss

    @property
    def done(self) -> float:
        """Share of the run that is behind, 0..1; hooks that end the run are counted in."""
        return self.length.done(self.progress, reserve=sum(self._hook_seconds.values()))

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate * self.schedule(self.progress.images, self.done)

    def stop(self) -> None:
        """End the run after the step in hand, as if it were interrupted there.

        Of several processes any may ask, and all end after the same step.
        """
        self._asked = True
        self.stopping = self.stopping or self.processes.world == 1

    def leaving(self) -> bool:
        """Whether the run ends before its length: for a hook that takes long, while it works.

        A meeting of all processes, which are told the same: a stop that came to one of them a
        moment ago counts for all from here on.
        """
        self.stopping = self.stopping or self.processes.any(self._asked)
        return self.stopping and self.done < 1

    def passed(self) -> None:
        """For a hook that does nothing this time: the time for its call at the end stays reserved.

        Of several processes all must say so.
        """
        self._passed = True

    def steps(self) -> Iterator[Step]:
        """Train until the length is reached or `stop` is called; yield after each step.

        Hooks run in here; at the end all run once more, unless they just did.
        """
        self.guard.remember(self.progress.images)
        clock = time.perf_counter()
        stream = self.batches(self.progress.images)
        called = {name: self.progress.images for name in self.hooks}
        while self.done < 1 and not self.stopping:
            asked = time.perf_counter()
            batch = next(stream)
            waited = time.perf_counter() - asked

            step = self.step(batch, waited=waited)
            clock = self._clocked(since=clock)
            before = self.progress.images - batch.count
            for name, hook in self.hooks.items():
                # With the last step they wait until the run is known to be over, below.
                if self.done < 1 and before // hook.every < self.progress.images // hook.every:
                    self._call(name)
                    called[name] = self.progress.images

            yield step
            clock = self._clocked(since=clock)

        ended = self.progress.seconds
        if self.done >= 1:
            # What was kept for these calls is spent: a run that is taken up from what they save
            # knows that it is over.
            self.progress.seconds = max(ended, 60 * self.length.minutes)
        for name in called:
            if called[name] != self.progress.images:
                self._call(name)
        seconds = max(self.progress.seconds, ended + time.perf_counter() - clock)
        self.progress.seconds = self.processes.broadcast(seconds)

    def _clocked(self, *, since: float) -> float:
        """Count the seconds since a moment as time of the run; returns this moment.

        Of several processes the first one's clock counts, and a stop that any was asked for: who
        ended a step before the others would leave them waiting.
        """
        now = time.perf_counter()
        mine = now - since if self.processes.main else 0.0
        told = self.processes.sum(torch.tensor([mine, self._asked], dtype=torch.float64))
        seconds, asked = told.tolist()
        self.progress.seconds += seconds
        self.stopping = self.stopping or asked > 0
        return now

    def _call(self, name: str) -> None:
        started = time.perf_counter()
        among = meeting() if self.processes.world > 1 else nullcontext()
        with self.meter.paused(), among:
            self.hooks[name](self)
        seconds = self.processes.broadcast(time.perf_counter() - started)
        # What is cut short, or passed, says nothing of the next call.
        if not self.stopping and not self._passed:
            self._hook_seconds[name] = seconds
        self._passed = False

    def step(self, batch: Batch, *, waited: float = 0.0) -> Step:
        """One optimiser step.

        Args:
            batch: This process's pictures; they are moved to the device here.
            waited: Seconds it took to get the batch, for the log.

        A step whose loss or gradient is not finite changes nothing but the count of images: see
        `Guard`.

        Raises:
            TrainingError: Too many steps in a row were not finite.
            LoneError: Memory does not hold one, or another process is gone.
        """
        self.denoiser.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * group.get("scale", 1.0)

        images, done = self.progress.images, self.done
        figures = self.gradients.of(batch, images=images, done=done)
        norm = self._clipped_norm()
        losses = figures.value.tolist()
        loss = sum(losses) / len(losses)
        skipped = not self.guard.sound(loss, norm)
        report = Step(loss=loss, gradient_norm=norm, waited=waited, skipped=skipped)
        self.progress.images += batch.count
        if skipped:
            met = self._met(batch, figures, norm, images)
            self._skip(met, lambda: self.gradients.of(batch, images=images, done=done))
            return report
        self.guard.cleared()
        self._last_loss = loss
        self._update(batch.count)

        if figures.usual:
            self.loss.times.update(figures.t, figures.pull, figures.error)
        self.meter.add(
            losses,
            figures.shown.tolist(),
            figures.level,
            images=self.progress.images,
            norm=norm,
            waited=waited,
        )
        return report

    def _clipped_norm(self) -> float:
        """Limit the norm of all gradients together; returns what it was."""
        if self.gradients.scaler is not None:
            self.gradients.scaler.unscale_(self.optimizer)
        learned = [p for group in self.optimizer.param_groups for p in group["params"]]
        return clip_gradients(learned, self.clip_norm)

    def _met(self, batch: Batch, figures: Figures, norm: float, images: int) -> Met:
        return Met(
            images=images,
            indices=self.processes.gather(batch.indices).tolist(),
            t=figures.t.tolist(),
            log_snr=figures.level.snr.log().tolist(),
            losses=figures.value.tolist(),
            gradient_norm=norm,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            precision=self.gradients.precision,
            seeds=self.gradients.seeds(images),
            last_loss=self._last_loss,
        )

    def _skip(self, met: Met, rerun: Callable[[], object]) -> None:
        try:
            self.guard.skip(met, rerun)
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _update(self, count: int) -> None:
        """Move the weights and their averages.

        Raises:
            LoneError: Memory runs out; what was moved by half goes back to the restore point.
        """
        try:
            self._move()
            for average in self.ema.values():
                average.update(self.progress.images, count)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        else:
            return
        # Outside of the handler, whose traceback holds the optimiser's temporaries.
        self.optimizer.zero_grad(set_to_none=True)
        back_to = self.guard.go_back() or 0
        raise LoneError(
            f"The optimiser's step after {self.progress.images - count:,} images does not fit into "
            f"memory ({reason}), and what is learned goes back to {back_to:,} images: set "
            f"ema.offload = true or a smaller training.micro_batch, take an optimizer.method that "
            f"keeps less, or a smaller network.width."
        )

    def _move(self) -> None:
        """The optimiser's step, which leaves no gradient behind."""
        scaler = self.gradients.scaler
        if scaler is None:
            self.optimizer.step()
        else:
            scaler.step(self.optimizer)
            scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the weights, their averages and what the loss learned."""
        scaler = self.gradients.scaler
        return {
            "images": self.progress.images,
            "seconds": self.progress.seconds,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "guard": self.guard.state_dict(),
            "hook_seconds": self._hook_seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called.

        Raises:
            CheckpointError: The state is of another model.
        """
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            shard_state(self.optimizer)
            if self.gradients.scaler is not None and state["scaler"]:
                self.gradients.scaler.load_state_dict(state["scaler"])
            self.progress = Progress(images=state["images"], seconds=state["seconds"])
            self.guard.load_state_dict(state["guard"])
            # A branch may have other hooks.
            told = state["hook_seconds"].items()
            self._hook_seconds |= {name: took for name, took in told if name in self.hooks}
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"The optimiser's state does not fit this model ({error}): resume with the "
                f"configuration that the run was started with."
            ) from error
