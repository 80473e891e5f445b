"""How the learning rate moves over a run: pure functions of images seen and share done.

The rate of a run in images depends on images alone: not on the batch, the number of processes,
micro-batches or the clock.  In a run measured in minutes the share done is that of the time.
"""

import math
from dataclasses import dataclass
from typing import Protocol

from kao.errors import ConfigError


class RateSchedule(Protocol):
    """The learning rate as a share of its peak."""

    def __call__(self, images: int, done: float) -> float:
        """The share, 0..1, for the step that starts after `images` images.

        Args:
            images: Images seen.
            done: Share of the run's length that is behind, 0..1.
        """


def _check_warmup(warmup: int, share: float) -> None:
    if warmup < 0:
        raise ConfigError(f"optimizer.schedule.warmup = {warmup}; expected 0 images or more.")
    if not 0 < share <= 1:
        raise ConfigError(
            f"optimizer.schedule.warmup_share = {share}; expected a share of the run above 0, "
            f"up to 1."
        )


def _check_cooldown(cooldown: float) -> None:
    if not 0 <= cooldown <= 1:
        raise ConfigError(
            f"optimizer.schedule.cooldown = {cooldown}; expected a share of the run, 0 to 1."
        )


def _warm_up(images: int, done: float, *, warmup: int, share: float) -> float:
    """From one image's share of the warm-up to 1: after `warmup` images, or `share` of the run."""
    return min(1.0, max((images + 1) / warmup, done / share)) if warmup else 1.0


def _cool_down(done: float, cooldown: float) -> float:
    """1, then linearly to 0 over the last `cooldown` of the run."""
    return min(1.0, max(0.0, (1 - done) / cooldown)) if cooldown else 1.0


@dataclass(frozen=True)
class Constant:
    """Linear warm-up, then flat to the end.

    Attributes:
        warmup: Images over which the rate rises.
        warmup_share: Most of the run that the rise may take: a short run warms up faster.

    Raises:
        ConfigError: warmup is negative, or warmup_share is no share.
    """

    warmup: int = 3_200
    warmup_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no number of images, or no share."""
        _check_warmup(self.warmup, self.warmup_share)

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        return _warm_up(images, done, warmup=self.warmup, share=self.warmup_share)


@dataclass(frozen=True)
class Trapezoid:
    """Linear warm-up, flat, then a linear cool-down to zero at the end (Zhai et al. 2022).

    Attributes:
        warmup: Images over which the rate rises.
        cooldown: Share of the run, at its end, over which it falls; 0 keeps it flat.
        warmup_share: Most of the run that the rise may take: a short run warms up faster.

    Raises:
        ConfigError: warmup is negative, or cooldown or warmup_share is no share.
    """

    warmup: int = 3_200
    cooldown: float = 0.4
    warmup_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no number of images, or no share."""
        _check_warmup(self.warmup, self.warmup_share)
        _check_cooldown(self.cooldown)

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        warm = _warm_up(images, done, warmup=self.warmup, share=self.warmup_share)
        return min(warm, _cool_down(done, self.cooldown))


@dataclass(frozen=True)
class CosineRate:
    """Linear warm-up, then half a cosine down to zero (Loshchilov & Hutter 2017, eq. 5).

    Attributes:
        warmup: Images over which the rate rises.
        warmup_share: Most of the run that the rise may take: a short run warms up faster.

    Raises:
        ConfigError: warmup is negative, or warmup_share is no share.
    """

    warmup: int = 3_200
    warmup_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no number of images, or no share."""
        _check_warmup(self.warmup, self.warmup_share)

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        warm = _warm_up(images, done, warmup=self.warmup, share=self.warmup_share)
        return warm * (1 + math.cos(math.pi * min(1.0, done))) / 2


@dataclass(frozen=True)
class InverseSqrt:
    """Flat up to a number of images, then 1 / sqrt(images) (Karras et al. 2024a).

    The rate does not know how long the run will be, so a run can be made longer at any time and
    is the run that had been longer from the start; the averages of the weights do what a
    cool-down would.

    Attributes:
        warmup: Images over which the rate rises.
        reference: Images up to which it is flat; at four times as many it is half.
        cooldown: Share of the run, at its end, over which it falls to zero; 0, as published:
            it does not.
        warmup_share: Most of the run that the rise may take: a short run warms up faster.

    Raises:
        ConfigError: warmup is negative, reference not positive, or a share is none.
    """

    warmup: int = 3_200
    reference: int = 100_000
    cooldown: float = 0.0
    warmup_share: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no number of images, or no share."""
        _check_warmup(self.warmup, self.warmup_share)
        _check_cooldown(self.cooldown)
        if self.reference < 1:
            raise ConfigError(
                f"optimizer.schedule.reference = {self.reference}; expected 1 image or more."
            )

    def __call__(self, images: int, done: float) -> float:
        """See `RateSchedule`."""
        warm = _warm_up(images, done, warmup=self.warmup, share=self.warmup_share)
        falling = 1 / math.sqrt(max(images / self.reference, 1.0))
        return min(warm, falling) * _cool_down(done, self.cooldown)


RATES = {
    "trapezoid": Trapezoid,
    "cosine": CosineRate,
    "constant": Constant,
    "inverse_sqrt": InverseSqrt,
}
