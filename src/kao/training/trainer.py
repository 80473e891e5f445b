"""The training loop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator

from kao.data.loading import Batch
from kao.diffusion import Denoiser, DenoisingLoss
from kao.errors import CheckpointError, TrainingError
from kao.machine import Precision
from kao.pixels import to_float
from kao.seeds import mixed_seed
from kao.training.ema import EMA
from kao.training.length import Length, Progress
from kao.training.meter import Meter
from kao.training.optimizer import RateSchedule

_LOSS, _LAYERS = 2, 3


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
    """

    loss: float
    gradient_norm: float
    waited: float


class Trainer:
    """Trains one denoiser on one stream of batches.

    The run is a function of its configuration and seed: batch k and its noise are drawn from
    generators seeded with (seed, images so far), so stopping and resuming changes no number.

    Args:
        denoiser: The model; trained in place, on the accelerator's device.
        loss: Loss of each image; it may learn, too.
        batches: From images seen to the stream of batches that follows.
        optimizer: Over the parameters of the denoiser and of the loss.
        rate: Learning rate at its peak.
        schedule: Share of the peak at each step.
        accelerator: Device, and the loss scaler of fp16.
        precision: What the network computes in.
        length: How long to train.
        ema: Running averages of the weights, by name.
        hooks: Called in order.
        clip_norm: Largest gradient norm; 0 leaves gradients alone.
        seed: Of the run.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        loss: DenoisingLoss,
        batches: Callable[[int], Iterator[Batch]],
        optimizer: torch.optim.Optimizer,
        *,
        rate: float,
        schedule: RateSchedule,
        accelerator: Accelerator,
        precision: Precision,
        length: Length,
        ema: dict[str, EMA],
        hooks: Sequence[Hook] = (),
        clip_norm: float = 1.0,
        seed: int = 0,
    ):
        self.denoiser, self.loss, self.batches, self.optimizer = denoiser, loss, batches, optimizer
        self.rate, self.schedule, self.length = rate, schedule, length
        self.accelerator, self.precision = accelerator, precision
        self.ema, self.hooks = ema, hooks
        self.clip_norm, self.seed = clip_norm, seed
        self.progress, self.meter = Progress(), Meter()
        self.stopping = False
        self._last_loss = float("nan")
        self._hook_seconds: dict[int, float] = {}

    @property
    def done(self) -> float:
        """Share of the run that is behind, 0..1; hooks that end the run are counted in."""
        return self.length.done(self.progress, reserve=sum(self._hook_seconds.values()))

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        return self.rate * self.schedule(self.progress.images, self.done)

    def autocast(self) -> torch.autocast:
        """The context in which the network computes in this run's precision.

        Of our own, since accelerate's follows whatever run was built last in the process.
        """
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(
            self.accelerator.device.type,
            dtype[self.precision],
            enabled=self.precision != "fp32",
        )

    def stop(self) -> None:
        """End the run after the step in hand, as if it were interrupted there."""
        self.stopping = True

    def steps(self) -> Iterator[Step]:
        """Train until the length is reached or `stop` is called; yield after each step.

        Hooks run in here; at the end all run once more, unless they just did.
        """
        clock = time.perf_counter()
        stream = self.batches(self.progress.images)
        called = {i: self.progress.images for i in range(len(self.hooks))}
        while self.done < 1 and not self.stopping:
            asked = time.perf_counter()
            batch = next(stream)
            waited = time.perf_counter() - asked

            try:
                step = self.step(batch, waited=waited)
            except torch.OutOfMemoryError as error:
                raise TrainingError(
                    f"A step of {len(batch.images)} images does not fit into memory: lower "
                    f"training.batch or network.width."
                ) from error
            clock = self._clocked(since=clock)
            before = self.progress.images - len(batch.images)
            for i, hook in enumerate(self.hooks):
                # With the last step they wait until the run is known to be over, below.
                if self.done < 1 and before // hook.every < self.progress.images // hook.every:
                    self._call(i)
                    called[i] = self.progress.images

            yield step
            clock = self._clocked(since=clock)

        ended = self.progress.seconds
        if self.done >= 1:
            # What was kept for these calls is spent: a run that is taken up from what they save
            # knows that it is over.
            self.progress.seconds = max(ended, 60 * self.length.minutes)
        for i in called:
            if called[i] != self.progress.images:
                self._call(i)
        self.progress.seconds = max(self.progress.seconds, ended + time.perf_counter() - clock)

    def _clocked(self, *, since: float) -> float:
        """Count the seconds since a moment as time of the run; returns this moment."""
        now = time.perf_counter()
        self.progress.seconds += now - since
        return now

    def _call(self, index: int) -> None:
        started = time.perf_counter()
        self.hooks[index](self)
        self._hook_seconds[index] = time.perf_counter() - started

    def step(self, batch: Batch, *, waited: float = 0.0) -> Step:
        """One optimiser step.

        Args:
            batch: Its pictures are moved to the device here.
            waited: Seconds it took to get the batch, for the log.

        Raises:
            TrainingError: The loss or its gradient is no longer finite; the model and its
                averages are still those of the step before.
        """
        self.denoiser.train()
        images = self.progress.images
        generator = torch.Generator().manual_seed(mixed_seed(_LOSS, self.seed, images))
        # Dropout is the one draw in torch that takes no generator, so the global one is set.
        torch.manual_seed(mixed_seed(_LAYERS, self.seed, images))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate

        x0 = to_float(batch.images.to(self.accelerator.device, non_blocking=True))
        with self.autocast():
            losses = self.loss(self.denoiser, x0, None, generator)
        loss = losses.value.mean()
        self.accelerator.backward(loss)
        limit = self.clip_norm or float("inf")
        learned = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = self.accelerator.clip_grad_norm_(learned, limit)

        # One transfer for all that the host wants to know of the images.
        figures = torch.stack([losses.value.detach(), losses.shown, losses.error, losses.pull])
        descended, shown, error, pull = figures.cpu().double()
        values = descended.tolist()
        report = Step(loss=sum(values) / len(values), gradient_norm=float(norm), waited=waited)
        # With fp16 an infinite gradient is the loss scaler's business: it skips the step itself.
        scaled = self.accelerator.scaler is not None
        if not math.isfinite(report.loss) or not (scaled or math.isfinite(report.gradient_norm)):
            raise TrainingError(
                f"The loss is {report.loss:g} and its gradient {report.gradient_norm:g} after "
                f"{images:,} images; before that step the loss was {self._last_loss:g}. Nothing of "
                f"that step was kept: go on with a lower optimizer.rate (now {self.rate:g}), or "
                f"with training.precision=fp32."
            )
        self._last_loss = report.loss
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

        self.progress.images += len(batch.images)
        for average in self.ema.values():
            average.update(self.progress.images, len(batch.images))
        self.loss.times.update(losses.t, pull, error)
        self.meter.add(
            values, shown.tolist(), losses.level, norm=report.gradient_norm, waited=waited
        )
        return report

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs beside the weights, their averages and what the loss learned."""
        scaler = self.accelerator.scaler
        return {
            "images": self.progress.images,
            "seconds": self.progress.seconds,
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was called.

        Raises:
            CheckpointError: The state is of another model.
        """
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None and state["scaler"]:
                self.accelerator.scaler.load_state_dict(state["scaler"])
            self.progress = Progress(images=state["images"], seconds=state["seconds"])
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"The optimiser's state does not fit this model ({error}): resume with the "
                f"configuration that the run was started with."
            ) from error
