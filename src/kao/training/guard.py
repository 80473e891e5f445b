"""What happens when a loss, or its gradient, is not finite.

Nothing of such a step is applied: weights, averages, optimiser and learned times stay as they
were.  Its images count as seen, so the run goes on with later ones.  One bad picture costs one
step.  At the second bad step in a row it is the model that is taken to be broken, and all that is
learned goes back to the last restore point.  After too many in a row, or where going back to the
same point helped too often for a while only, the run ends, and says which layer went first.

A restore point is taken where the run starts, where it is taken up, and with each checkpoint.  So
a run that is killed and taken up from its newest checkpoint goes back to where it would have gone
without the kill, and ends with the same bytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from kao.errors import TrainingError
from kao.processes import ALONE, Processes
from kao.shards import local
from kao.training.bad_layer import first_bad_layer
from kao.training.optimizers import Average
from kao.training.restore_point import RestorePoint

_ROLL_BACK = 2
"""Bad steps in a row after which the model is put back."""

_SMALLEST_SCALE = 1.0
"""Loss scale of fp16 below which an infinite gradient is no longer the scale's doing."""


@dataclass(frozen=True)
class Met:
    """A step whose loss or gradient is not finite, before anything is done about it.

    Lists have one entry for each image of the whole batch, in batch order.

    Attributes:
        images: Images seen before the step.
        indices: Pictures of the batch.
        t: Times.
        log_snr: Noise levels, log(alpha^2 / sigma^2).
        losses: What was descended.
        gradient_norm: Of all gradients together, before clipping.
        learning_rate: Of the step.
        precision: What the network computed in.
        seeds: Of the generators that the step drew from, by what they drew.
        last_loss: Mean loss of the last good step; nan before the first.
    """

    images: int
    indices: list[int]
    t: list[float]
    log_snr: list[float]
    losses: list[float]
    gradient_norm: float
    learning_rate: float
    precision: str
    seeds: Mapping[str, int]
    last_loss: float


@dataclass(frozen=True)
class Skipped:
    """A step that was skipped, and what was done about it.

    Attributes:
        met: The step.
        streak: Which bad step in a row it was, from 1.
        layer: What went first: see `first_bad_layer`.
        largest_weight: Largest magnitude of any parameter, and its name.
        scale: Of the loss in that step, with fp16.
        back_to: Images seen by the weights that were put back; None where they stayed.
    """

    met: Met
    streak: int
    layer: str
    largest_weight: tuple[str, float]
    scale: float | None
    back_to: int | None

    @property
    def loss(self) -> float:
        """Mean over the batch; not finite, or the gradient was not."""
        return math.fsum(self.met.losses) / len(self.met.losses)

    def sentence(self) -> str:
        """What happened, for the user."""
        kept = (
            "nothing of it was kept"
            if self.back_to is None
            else f"what is learned goes back to {self.back_to:,} images"
        )
        return (
            f"The step after {self.met.images:,} images was skipped: its loss is {self.loss:g} "
            f"and its gradient {self.met.gradient_norm:g}, first in {self.layer}; {kept}."
        )


class Guard:
    """Decides about steps whose loss or gradient is not finite.

    With several processes all of them make the same calls with the same figures.

    Args:
        objective: Denoiser and loss, not what shares them between processes.
        optimizer: Over the parameters of the objective.
        averages: Running averages of the weights, by name.
        scaler: Of fp16; it mends an infinite gradient by itself, so that alone is no bad step
            while the scale is 1 or more.
        retries: Steps in a row that may be skipped, and times that the same restore point may be
            gone back to.
        processes: Which of several this is.

    Attributes:
        streak: Bad steps in a row, up to now.
        tell: Called with each step that is skipped, in every process.
    """

    def __init__(
        self,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        averages: Mapping[str, Average],
        *,
        scaler: torch.amp.GradScaler | None = None,
        retries: int = 3,
        processes: Processes = ALONE,
    ):
        self.streak = 0
        self.tell: Callable[[Skipped], None] = _tell_nobody
        self._objective, self._optimizer, self._averages = objective, optimizer, averages
        self._scaler, self._retries, self._processes = scaler, retries, processes
        self._point = RestorePoint(objective, averages, optimizer, scaler)
        self._returns = 0  # to the restore point

    def remember(self, images: int) -> None:
        """Take what is learned now as what to go back to.

        After a bad step the restore point before stays, if there is one: a run that is taken up
        within a streak has none.  It also stays if a weight is not finite.

        Args:
            images: Images seen.
        """
        if self.streak and self._point.images is not None:
            return
        if not self._processes.any(not self._point.worth):
            self._point.take(images)
            self._returns = 0

    def sound(self, loss: float, gradient_norm: float) -> bool:
        """Whether a step may be applied.

        Args:
            loss: Mean over the whole batch.
            gradient_norm: Of all gradients together, before clipping.
        """
        return math.isfinite(loss) and (math.isfinite(gradient_norm) or self._scale_mends())

    def cleared(self) -> None:
        """A step was sound: a streak of those that were not is over."""
        self.streak = 0

    def _scale_mends(self) -> bool:
        return self._scaler is not None and self._scaler.get_scale() >= _SMALLEST_SCALE

    def skip(self, met: Met, rerun: Callable[[], object]) -> None:
        """Find out what went wrong, put back what is learned where that is due, tell of it.

        Leaves no gradient behind.

        Args:
            met: The step.
            rerun: Computes the gradient of the same step once more.

        Raises:
            TrainingError: More than `retries` steps in a row were bad, or that many times a
                restore point did not help.
        """
        self.streak += 1
        layer = first_bad_layer(self._objective, rerun, processes=self._processes)
        largest = self._largest_weight()
        scale = None if self._scaler is None else self._scaler.get_scale()
        if self._scaler is not None:
            # Ends the step that unscaling its gradient began: after the rerun, which is to
            # overflow as the step did, and before the scaler's state is put back.
            self._scaler.update()
        back_to = None
        if self.streak == _ROLL_BACK and (back_to := self.go_back()) is not None:
            self._returns += 1
        skipped = Skipped(met, self.streak, layer, largest, scale, back_to)
        self.tell(skipped)
        if self.streak > self._retries:
            self._give_up(skipped, f"as in {self.streak} steps in a row")
        if self._returns > self._retries:
            self._give_up(
                skipped, f"though it went back to {back_to:,} images {self._returns} times"
            )

    def go_back(self) -> int | None:
        """Put back all that was learned by the restore point.

        Returns:
            Images seen then; None where there is no restore point, and nothing is changed.
        """
        if self._point.images is not None:
            self._point.restore()
        return self._point.images

    def _give_up(self, skipped: Skipped, why: str) -> NoReturn:
        self.streak = self._returns = 0  # who takes the run up gets as many tries again
        met = skipped.met
        advice = f"lower optimizer.rate (now {met.learning_rate:g} at that step)"
        if met.precision != "fp32":
            advice += f", or training.precision=fp32 (now {met.precision})"
        raise TrainingError(
            f"The loss is {skipped.loss:g} and its gradient {met.gradient_norm:g} after "
            f"{met.images:,} images, {why}; at the last good step the loss was "
            f"{met.last_loss:g}, and {skipped.layer} is what went first. Nothing of bad steps was "
            f"kept: go on with a {advice}."
        )

    def _largest_weight(self) -> tuple[str, float]:
        """Name and magnitude; a parameter that is not a number is larger than any.

        Over all processes, each of which may hold a part only.
        """
        named = list(self._objective.named_parameters())
        here = torch.tensor([[_largest(local(parameter.detach())) for _, parameter in named]])
        sizes = self._processes.gather(here).amax(0)
        largest = int(sizes.argmax())
        return named[largest][0], sizes[largest].item()

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs, beside the restore point, which is the checkpoint itself."""
        return {"streak": self.streak}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up where `state_dict` was called; an empty state is a new guard's."""
        self.streak = int(state.get("streak", 0))


def _largest(part: Tensor) -> float:
    """Largest magnitude; 0 of nothing, which is what a process may hold of a small tensor."""
    size = torch.linalg.vector_norm(part, math.inf).item() if part.numel() else 0.0
    return math.inf if math.isnan(size) else size


def _tell_nobody(skipped: Skipped) -> None:
    pass
