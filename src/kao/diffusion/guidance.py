"""Denoisers that wrap denoisers: each changes the prediction and is itself a `Denoise`.

    Clipped, DynamicallyClipped    keep predicted images to what pixels can show
    Conditioned                    a model told what to draw
    Guided                         away from one prediction, along another

They nest in this order: `Clipped(Guided(Conditioned(model, cat), Conditioned(model, None)))`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kao.diffusion.denoiser import Denoise, Denoiser, Prediction
from kao.diffusion.schedules import Level, NoiseSchedule
from kao.errors import ConfigError


class Clipped:
    """Clamp predicted images to [-limit, limit], as DDPM does.  eps is left as predicted.

    That is what the published samplers do: DDPM's posterior uses (x_t, clipped x_0), and DDIM
    uses clipped x_0 with the raw eps.

    Args:
        denoise: The denoiser to wrap.
        limit: Largest magnitude of a clean image, in units of the data, above 0.

    Raises:
        ConfigError: limit is not a positive number.
    """

    def __init__(self, denoise: Denoise, limit: float = 1.0):
        _check_limit(limit)
        self.denoise, self.schedule, self.limit = denoise, denoise.schedule, limit

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, with x_0 clamped."""
        prediction = self.denoise(x, t)
        return prediction._replace(x0=prediction.x0.clamp(-self.limit, self.limit))


class DynamicallyClipped:
    """Dynamic thresholding (Saharia et al. 2022, sec. 2.3).  eps is left as predicted.

    Strong guidance drives many pixels past the limit, where clamping makes flat patches.  So each
    image is clamped to its own s, a quantile of |x_0| and at least the limit, and divided by
    s / limit: the few pixels beyond s are cut, the rest comes back into range.

    Args:
        denoise: The denoiser to wrap.
        quantile: Of |x_0| over channels and pixels of one image, in (0, 1].
        limit: Largest magnitude of a clean image, in units of the data, above 0.

    Raises:
        ConfigError: A value is out of range.
    """

    def __init__(self, denoise: Denoise, quantile: float = 0.995, limit: float = 1.0):
        _check_quantile(quantile)
        _check_limit(limit)
        self.denoise, self.schedule = denoise, denoise.schedule
        self.quantile, self.limit = quantile, limit

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, with x_0 brought into range."""
        prediction = self.denoise(x, t)
        x0 = prediction.x0
        reach = x0.abs().flatten(1).quantile(self.quantile, dim=1).clamp(min=self.limit)
        reach = reach[:, None, None, None]
        return prediction._replace(x0=x0.clamp(-reach, reach) * (self.limit / reach))


@dataclass(frozen=True)
class Clip:
    """Configuration of `Clipped`.

    Attributes:
        limit: Largest magnitude of a clean image, in units of the data, above 0.

    Raises:
        ConfigError: limit is not a positive number.
    """

    limit: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a limit that leaves nothing."""
        _check_limit(self.limit)

    def __call__(self, denoise: Denoise) -> Denoise:
        """Wrap a denoiser."""
        return Clipped(denoise, self.limit)


@dataclass(frozen=True)
class Dynamic:
    """Configuration of `DynamicallyClipped`.

    Attributes:
        quantile: Of |x_0| over channels and pixels of one image, in (0, 1].
        limit: Largest magnitude of a clean image, in units of the data, above 0.

    Raises:
        ConfigError: A value is out of range.
    """

    quantile: float = 0.995
    limit: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no quantile or leaves nothing."""
        _check_quantile(self.quantile)
        _check_limit(self.limit)

    def __call__(self, denoise: Denoise) -> Denoise:
        """Wrap a denoiser."""
        return DynamicallyClipped(denoise, self.quantile, self.limit)


Threshold = Callable[[Denoise], Denoise]
"""Wraps a denoiser, to keep predicted images to what pixels can show."""

THRESHOLDS: dict[str, type[Clip] | type[Dynamic] | None] = {
    "none": None,
    "clip": Clip,
    "dynamic": Dynamic,
}
"""A class is instantiated with its options, and then wraps a denoiser."""


class Conditioned:
    """A model that is told what to draw: a `Denoiser` with its condition filled in.

    Args:
        denoiser: The model.
        condition: What its network takes, for the whole batch; None: nothing in particular.
    """

    def __init__(self, denoiser: Denoiser, condition: Any):
        self.denoiser, self.schedule, self.condition = denoiser, denoiser.schedule, condition

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, under the condition."""
        return self.denoiser(x, t, self.condition)


class Guided:
    """Extrapolate from one prediction through another: negative + scale (positive - negative).

    x_0 and eps are both extrapolated, and so is the score: at each level it is that of
    p_positive^scale p_negative^(1 - scale).  What this does depends on the pair:

        positive           negative
        told a class       told nothing     classifier-free guidance (Ho & Salimans 2022)
        the model          a worse one      autoguidance (Karras et al. 2024b)
        told what to do    told what not    a negative prompt

    Args:
        positive: What to follow.  Its predicted variance is kept.
        negative: What to leave; not called where guidance does not act.  Same schedule.
        scale: 0 is the negative, 1 the positive; beyond 1 is guidance.
        interval: Guidance acts where low < sigma / alpha <= high (Kynkäänniemi et al. 2024): at
            high noise it costs variety, at low noise it does nothing.  Elsewhere the positive
            prediction is returned as it is.  high may be infinite, and must be for guidance to
            act on pure noise.
        rescale: phi of Lin et al. (2024), sec. 3.4, in [0, 1]: how far the standard deviation of
            each guided x_0 is brought back to that of the positive one.  eps follows, so that
            x_t = alpha x_0 + sigma eps.

    Raises:
        ConfigError: A value is out of range, or the two denoisers know different schedules.
    """

    def __init__(
        self,
        positive: Denoise,
        negative: Denoise,
        *,
        scale: float = 1.0,
        interval: tuple[float, float] = (0.0, math.inf),
        rescale: float = 0.0,
    ):
        if not 0 <= scale < math.inf:
            raise ConfigError(
                f"guidance.scale = {scale}, but it is a number from 0 up: 1 is no guidance."
            )
        low, high = interval
        if not 0 <= low < high:
            raise ConfigError(
                f"guidance.interval = [{low}, {high}], but it goes from a noise-to-signal ratio "
                f"of 0 or more up to a larger one."
            )
        if not 0 <= rescale <= 1:
            raise ConfigError(
                f"guidance.rescale = {rescale}, but it is a share from 0 to 1: 0.7 is the "
                f"published value."
            )
        _refuse_different(positive.schedule, negative.schedule)
        self.positive, self.negative, self.schedule = positive, negative, positive.schedule
        self.scale, self.interval, self.rescale = scale, interval, rescale

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict (x_0, eps) from `x` (B, C, H, W) at time `t`, with guidance."""
        positive = self.positive(x, t)
        level = self.schedule(t)
        acts = self._acts(level)
        if self.scale == 1 or not acts.any():
            return positive
        guided = self._extrapolated(x, level.like(x), positive, self.negative(x, t))
        if acts.all():
            return guided
        # Only a batch of mixed times comes here.
        acts = acts.to(x.device)[:, None, None, None]
        return guided._replace(
            x0=guided.x0.where(acts, positive.x0), eps=guided.eps.where(acts, positive.eps)
        )

    def _acts(self, level: Level) -> Tensor:
        low, high = self.interval
        ratio = level.sigma / level.alpha
        return (ratio > low) & (ratio <= high)

    def _extrapolated(
        self, x: Tensor, level: Level, positive: Prediction, negative: Prediction
    ) -> Prediction:
        x0 = torch.lerp(negative.x0, positive.x0, self.scale)
        if self.rescale == 0:
            eps = torch.lerp(negative.eps, positive.eps, self.scale)
            return positive._replace(x0=x0, eps=eps)
        x0 = x0 * (1 + self.rescale * (_shrinkage(x0, positive.x0) - 1))
        return positive._replace(x0=x0, eps=(x - level.alpha * x0) / level.sigma)


def _shrinkage(x0: Tensor, like: Tensor) -> Tensor:
    """std(like) / std(x0) of each image, (B, 1, 1, 1); 1 for an image of one colour."""
    axes = tuple(range(1, x0.ndim))
    std = x0.std(axes, keepdim=True)
    return torch.where(std > 0, like.std(axes, keepdim=True) / std, 1.0)


def _refuse_different(positive: NoiseSchedule, negative: NoiseSchedule) -> None:
    """Raise ConfigError where a time of one schedule is another level in the other."""
    same = positive.t_max == negative.t_max
    if same:
        t = positive.t_max * torch.linspace(0, 1, 5, dtype=torch.float64)
        same = all(map(torch.allclose, positive(t), negative(t)))
    if not same:
        raise ConfigError(
            f"Guidance compares two predictions at one time, and these denoisers have different "
            f"schedules ({type(positive).__name__} and {type(negative).__name__}, or other "
            f"options): guide with a model that was trained on the same schedule."
        )


def _check_limit(limit: float) -> None:
    if not 0 < limit < math.inf:
        raise ConfigError(
            f"The clipping limit is {limit}, but it must be a positive number: 1 for pixels."
        )


def _check_quantile(quantile: float) -> None:
    if not 0 < quantile <= 1:
        raise ConfigError(
            f"The quantile of dynamic clipping is {quantile}, but it lies above 0 and at most at "
            f"1: 0.995 is the published value."
        )
