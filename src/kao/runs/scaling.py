"""How large a network, and which batch, a budget is best spent on.

For a given number of operations there is a best size of network: a smaller one has learned all
it can, a larger one sees too few pictures.  Hoffmann et al. (2022) find for language that
parameters and examples should both grow with the square root of the operations.  The exponent is
borrowed from there; the anchor is measured here: the recipe's width is the best for about
`ANCHOR_IMAGES` images.  Operations a picture go with width^2, so for n images at the recipe's
width w0

    width = w0 (n / ANCHOR_IMAGES)^(1/4)     where time is given: a wider network sees fewer
    width = w0 (n / ANCHOR_IMAGES)^(1/2)     where the images are given

The batch grows with the square root of the images, so that steps do, too; the rate with the
square root of the batch (Malladi et al. 2022) and falls with the width (Yang et al. 2022).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

from kao.config import RunConfig, Table, leaves
from kao.networks import UNetConfig
from kao.training import Constant, CosineRate, InverseSqrt, Length, Trapezoid

ANCHOR_IMAGES = 100_000
"""Images of the budget at which a default recipe is best as it is: ten minutes on two cores."""

NARROWEST, WIDEST = 32, 256
SMALLEST, LARGEST = 16, 256
"""Of the batch."""

_MULTIPLE = 16
"""Of the width: groups and heads divide it, and products of matrices like it."""

Given = Literal["time", "images"]


@dataclass(frozen=True)
class Open:
    """What a user left open.

    Attributes:
        width: network.width.
        batch: training.batch; closed, too, where the length is in steps.
        rate: optimizer.rate.
        warmup: optimizer.schedule.warmup.
    """

    width: bool
    batch: bool
    rate: bool
    warmup: bool

    @classmethod
    def of(cls, config: RunConfig, asked: Table) -> "Open":
        """What is not among the keys that were asked for."""
        typed = leaves(asked)
        schedule = any(key.startswith("optimizer.schedule") for key in typed)
        in_steps = Length.parse(config.length, batch=1) != Length.parse(config.length, batch=2)
        return cls(
            width="network.width" not in typed and isinstance(config.network, UNetConfig),
            batch="training.batch" not in typed and not in_steps,
            rate="optimizer.rate" not in typed,
            warmup=not schedule,
        )

    @property
    def keys(self) -> list[str]:
        """The keys that may be chosen."""
        keys = {
            "network.width": self.width,
            "training.batch": self.batch,
            "optimizer.rate": self.rate,
        }
        return [key for key, left in keys.items() if left]


def scaled(config: RunConfig, open_: Open, *, images: float, given: Given) -> RunConfig:
    """The configuration with what was left open chosen for a budget.

    Args:
        config: Of a default recipe, whose values are the best for `ANCHOR_IMAGES` images.
        open_: What may be chosen.
        images: That the run would see with `config` as it is.
        given: Whether the budget is a time, of which a wider network makes fewer images, or that
            number of images.
    """
    grown = images / ANCHOR_IMAGES
    wider = 1.0
    network = config.network
    if open_.width and isinstance(network, UNetConfig):
        wish = network.width * grown ** (1 / 4 if given == "time" else 1 / 2)
        width = _rounded(wish, multiple=math.lcm(_MULTIPLE, network.heads))
        wider = width / network.width
        config = replace(config, network=replace(network, width=width))
    if open_.batch:
        seen = images / wider**2 if given == "time" else images
        more = _power_of_two(config.training.batch * math.sqrt(seen / ANCHOR_IMAGES))
        times = more / config.training.batch
        config = replace(config, training=replace(config.training, batch=more))
    else:
        times = 1.0
    if open_.rate:
        rate = config.optimizer.rate * math.sqrt(times) / wider
        config = replace(config, optimizer=replace(config.optimizer, rate=_two_digits(rate)))
    return _with_warmup(config, times) if open_.warmup else config


def _with_warmup(config: RunConfig, times: float) -> RunConfig:
    """As many steps of warm-up as before, with a batch that is `times` as large."""
    schedule = config.optimizer.schedule
    if not isinstance(schedule, Constant | CosineRate | InverseSqrt | Trapezoid):
        return config
    longer = replace(schedule, warmup=round(schedule.warmup * times))
    return replace(config, optimizer=replace(config.optimizer, schedule=longer))


def _rounded(width: float, *, multiple: int) -> int:
    least = -(-NARROWEST // multiple)
    most = max(least, WIDEST // multiple)
    return multiple * min(most, max(least, round(width / multiple)))


def _power_of_two(batch: float) -> int:
    return min(LARGEST, max(SMALLEST, 2 ** round(math.log2(batch))))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")
