"""From a network to a prediction of the clean image and the noise.

Samplers and losses see `Prediction`s only, so they work with any schedule, target and network.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kao.diffusion.native import Native
from kao.diffusion.schedules import Level, NoiseSchedule, like
from kao.diffusion.targets import Target
from kao.errors import ConfigError


class Prediction(NamedTuple):
    """What a network knows about x_t.

    x_0 and eps are both kept because samplers clip one and not the other.  Read them by name.

    Attributes:
        x0: Predicted clean image, (B, C, H, W), in the units of the data ([-1, 1] for pixels).
        eps: Predicted noise, same shape, unit variance.
        variance: Where the variance of a reverse step lies, same shape, by and large in [0, 1]:
            0 is beta_tilde, 1 is beta, in logarithms (v of Nichol & Dhariwal 2021, eq. 15; see
            `posterior.posterior_log_variance`).  None: the network was not taught to say.
    """

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None


def determinant(level: Level, target: Target) -> Tensor:
    """Determinant of the 2 x 2 matrix of `targets`: alpha b - sigma a.

    Plain MSE on y weighs the squared error of x_0 by (det / sigma)^2.

    Args:
        level: Any level, shape () or (B,) or broadcastable to images.
        target: What y means.

    Returns:
        Same shape and dtype as the level's fields.
    """
    a, b = target(level)
    return level.alpha * b - level.sigma * a


def solve(x: Tensor, y: Tensor, level: Level, target: Target) -> Prediction:
    """Invert the 2 x 2 system of `targets`: (x_t, y) -> (x_0, eps).

    Args:
        x: Noisy images at `level`, (B, C, H, W).
        y: The network's outputs, same shape.
        level: Brought to `x` by `Level.like`.
        target: What y means.

    Returns:
        The prediction; not finite where the determinant is 0.
    """
    a, b = target(level)
    det = determinant(level, target)
    return Prediction((b * x - level.sigma * y) / det, (level.alpha * y - a * x) / det)


class Denoise(Protocol):
    """Anything samplers can integrate: a Denoiser, a guided one, a closed form in a test."""

    schedule: NoiseSchedule

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict from `x` (B, C, H, W) at time `t`, float64, shape () or (B,)."""


class Denoiser(nn.Module):
    """A network, told what it sees (schedule) and what it says (target).

    Args:
        network: Called as network(x, label, condition) -> y; x and y are (B, C, H, W),
            label is float32 (B,).  With `learned_variance`, y is (B, 2C, H, W).
        schedule: The levels it is trained on.
        target: What y means.
        sigma_data: Standard deviation of the data.  If given, inputs are divided by
            sqrt(alpha^2 sigma_data^2 + sigma^2) (c_in of Karras et al. 2022); if None, they are
            left alone.
        label: What the network is told about the time.  None: the schedule's own `label`.
        learned_variance: The second C channels of y are 2 variance - 1, with the variance of
            `Prediction` (Nichol & Dhariwal 2021, sec. 3.1); they are not clamped.
        native: What the network was trained with, if that is not `schedule` and `target`.  It is
            asked at its own level of the same signal-to-noise ratio, with its own label and, with
            `sigma_data`, its own scale; what it says is expressed in `target`, exactly.

    Raises:
        ConfigError: Where the schedule ends, x_0 cannot be told from (x, y): the eps target on
            a schedule that ends in pure noise.  Or sigma_data is not a positive number, or a
            label is given with `native`, which has its own.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        target: Target,
        *,
        sigma_data: float | None = None,
        label: Callable[[Tensor], Tensor] | None = None,
        learned_variance: bool = False,
        native: Native | None = None,
    ):
        super().__init__()
        _refuse_singular(schedule, target)
        if native is not None:
            _refuse_singular(native.schedule, native.target)
            if label is not None:
                raise ConfigError(
                    "A label was given for a network that is asked at its own levels and told of "
                    "them as it was trained: leave out label, or native."
                )
        if sigma_data is not None and not 0 < sigma_data < math.inf:
            raise ConfigError(
                f"sigma_data = {sigma_data}, but the data's standard deviation is a positive "
                f"number: 0.5 fits most pictures in [-1, 1]."
            )
        self.network, self.schedule, self.target = network, schedule, target
        self.sigma_data, self.learned_variance = sigma_data, learned_variance
        self.label = schedule.label if label is None else label
        self.native = native

    @property
    def seen(self) -> NoiseSchedule:
        """The levels at which the network is asked: its own, where it was made for others."""
        return self.schedule if self.native is None else self.native.schedule

    def output(self, x: Tensor, t: Tensor, condition: Any = None) -> Tensor:
        """What the network says, y, in the units of the target.

        Args:
            x: Noisy images, (B, C, H, W).
            t: Times, float64 on the CPU, shape () or (B,).
            condition: Whatever the network takes.

        Returns:
            (B, C, H, W), or (B, 2C, H, W) with a learned variance, in `x`'s dtype: autocast ends
            here.

        Raises:
            ConfigError: The network returns another number of channels.
        """
        if self.native is None:
            return self._asked(x, self.schedule(t), self.label(t), condition)
        asked = self.native.question(self.schedule(t), self.target)
        shown = like(asked.scale, x) * x
        output = self._asked(shown, asked.level, asked.label, condition)
        said, *variance = torch.tensor_split(output, [x.shape[1]], dim=1)
        y = like(asked.of_x, x) * shown + like(asked.of_y, x) * said
        return torch.cat([y, *variance], dim=1)  # of no channels where none is learned

    def gain(self, level: Level) -> Tensor:
        """By how much y moves where the network itself says one more.

        1 without `native`; else (det / sigma) / (det' / sigma'), with a dash for the network's own
        level and target.

        Args:
            level: Of the schedule, fields () or (B,), float64.

        Returns:
            Same shape and dtype, not 0; inf at levels so clean that float64 has no other for them
            than the clean picture.
        """
        if self.native is None:
            return torch.ones_like(level.sigma)
        of_y = self.native.question(level, self.target).of_y
        return of_y.where(of_y != 0, math.inf)

    def own_residual(self, residual: Tensor, level: Level, *, unasked: Tensor) -> Tensor:
        """What the network itself said wrong, of what was wrong in y.

        Args:
            residual: y - (a x_0 + b eps), (B, C, H, W).
            level: Of the schedule, fields (B,), float64.
            unasked: What the network was shown of noise beyond eps, like the residual.

        Returns:
            y' - (a' x_0 + b' eps) of the network's own level, like the residual.
        """
        if self.native is None:
            return residual
        _, b = self.target(level)
        _, own_b = self.native.target(self.native.question(level, self.target).level)
        gain = self.gain(level)
        more = own_b - b / gain  # since x' holds what is not asked for, too
        return residual / like(gain, residual) + like(more, residual) * unasked

    def natural_weight(self, level: Level) -> Tensor:
        """What plain MSE on the network's own words weighs the squared error of x_0 by.

        Args:
            level: Of the schedule, fields () or (B,), float64, sigma above 0.

        Returns:
            (det / sigma)^2 of the network's own level and target; same shape and dtype.
        """
        return (determinant(level, self.target) / (level.sigma * self.gain(level))) ** 2

    def _asked(self, x: Tensor, level: Level, label: Tensor, condition: Any) -> Tensor:
        """The network's own words on images at a level of its own."""
        scaled = x
        if self.sigma_data is not None:
            alpha, sigma = level.like(x)
            scaled = x / (alpha**2 * self.sigma_data**2 + sigma**2).sqrt()
        y = self.network(scaled, label.to(x.device, torch.float32).expand(len(x)), condition)
        channels = (2 if self.learned_variance else 1) * x.shape[1]
        if y.shape[1] != channels:
            means = "learned" if self.learned_variance else "fixed"
            raise ConfigError(
                f"The network returns {y.shape[1]} channels for images of {x.shape[1]}, but with a "
                f"{means} variance it must return {channels}: build it with that many."
            )
        return y.to(x.dtype)

    def split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the network says of the images, and of the variance.

        Args:
            output: From `output`.

        Returns:
            y in the units of the target, and the variance of `Prediction`; both (B, C, H, W).
        """
        if not self.learned_variance:
            return output, None
        y, v = output.chunk(2, dim=1)
        return y, (v + 1) / 2

    def forward(self, x: Tensor, t: Tensor, condition: Any = None) -> Prediction:
        """Predict (x_0, eps) and the variance; arguments as in `output`."""
        y, variance = self.split(self.output(x, t, condition))
        return solve(x, y, self.schedule(t).like(x), self.target)._replace(variance=variance)


def _refuse_singular(schedule: NoiseSchedule, target: Target) -> None:
    """Raise ConfigError if (x, y) do not determine x_0 at the schedule's noisiest level.

    The discrete cosine table ends at a determinant of 5e-5 for eps, which float32 still
    inverts; schedules that end in pure noise give less than 1e-16.
    """
    end = schedule(torch.tensor(float(schedule.t_max), dtype=torch.float64))
    det = determinant(end, target).item()
    if abs(det) < 1e-6:
        name = getattr(target, "__name__", repr(target))
        where = "pure noise" if abs(end.alpha) < 1e-6 else f"alpha = {end.alpha:.2g}"
        raise ConfigError(
            f'target = "{name}" does not go with a schedule that ends in {where}, since it does '
            f'not tell the clean image there: choose target = "v" or "velocity", or a schedule '
            f'that keeps some signal, as "cosine" with zero_terminal_snr = false does.'
        )
