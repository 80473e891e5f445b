"""How large a network, and which batch, a budget is best spent on.

For a given number of operations there is a best size of network: a smaller one has learned all
it can, a larger one sees too few pictures.  Hoffmann et al. (2022) find for language that
parameters and examples should both grow with the square root of the operations.  Operations a
picture go with width^2, so in the time that n images take at the recipe's width w0

    width = w0 (n / ANCHOR_IMAGES)^(1/4)

is the best, and sees fewer images.  Where the images are given, the same width sees them all and
takes longer; so there it is at most what takes `LONGER` times as long as the recipe's.

The batch grows with the square root of the images that are seen, so that steps do, too; the rate
with the square root of the batch (Malladi et al. 2022) and falls with the width (Yang et al. 2022).
GroupNorm has as many groups as leave `GROUPED` channels in each (decision 0009).

Measured here is the anchor alone: the recipe for 32x32 pixels, searched over ten minutes on two
cores.  All else is borrowed: the exponents from language models; the rules for the rate from Adam,
though the recipe trains with Muon; the anchor itself for every other size and machine.
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

LONGER = 4
"""Times that the recipe's width would take for the same images: the most that a width may."""

GROUPED = 8
"""Fewest channels of a group of a norm at a width that is chosen."""

_MULTIPLE = 16
"""Of the width: groups and heads divide it, and products of matrices like it."""

_MOST_GROUPS = 32

Given = Literal["time", "images"]


@dataclass(frozen=True)
class Open:
    """What a user left open.

    Attributes:
        width: network.width.
        groups: network.groups, which follow the width.
        batch: training.batch; closed, too, where the length is in steps.
        rate: optimizer.rate.
        warmup: optimizer.schedule.warmup.
    """

    width: bool
    groups: bool
    batch: bool
    rate: bool
    warmup: bool

    @classmethod
    def of(cls, config: RunConfig, asked: Table) -> "Open":
        """What is not among the keys that were asked for."""
        typed = leaves(asked)
        schedule = any(key.startswith("optimizer.schedule") for key in typed)
        in_steps = Length.parse(config.length, batch=1) != Length.parse(config.length, batch=2)
        width = "network.width" not in typed and isinstance(config.network, UNetConfig)
        return cls(
            width=width,
            groups=width and "network.groups" not in typed,
            batch="training.batch" not in typed and not in_steps,
            rate="optimizer.rate" not in typed,
            warmup=not schedule,
        )

    @property
    def keys(self) -> list[str]:
        """The keys that may be chosen."""
        keys = {
            "network.width": self.width,
            "network.groups": self.groups,
            "training.batch": self.batch,
            "optimizer.rate": self.rate,
        }
        return [key for key, left in keys.items() if left]


def scaled(
    config: RunConfig,
    open_: Open,
    *,
    images: float,
    given: Given,
    widest: int = WIDEST,
    world: int = 1,
) -> RunConfig:
    """The configuration with what was left open chosen for a budget.

    Args:
        config: Of a default recipe, whose values are the best for `ANCHOR_IMAGES` images.
        open_: What may be chosen.
        images: That the run would see with `config` as it is.
        given: Whether the budget is a time, of which a wider network makes fewer images, or that
            number of images.
        widest: Largest width that may be chosen.
        world: Processes that share a batch, of which each gets as many pictures.
    """
    grown = images / ANCHOR_IMAGES
    wider = 1.0
    network = config.network
    if open_.width and isinstance(network, UNetConfig):
        if given == "images":
            widest = min(widest, int(math.sqrt(LONGER) * network.width))
        wish = network.width * grown ** (1 / 4)
        multiple = math.lcm(_MULTIPLE, network.head_width or network.heads)
        width = _rounded(wish, multiple=multiple, widest=widest)
        wider = width / network.width
        groups = network.groups
        if open_.groups and width != network.width:
            groups = _groups(width * min(network.levels))
        config = replace(config, network=replace(network, width=width, groups=groups))
    if open_.batch:
        seen = images / wider**2 if given == "time" else images
        more = _power_of_two(config.training.batch * math.sqrt(seen / ANCHOR_IMAGES))
        more = shared(more, world)
        times = more / config.training.batch
        config = replace(config, training=replace(config.training, batch=more))
    else:
        times = 1.0
    if open_.rate:
        rate = config.optimizer.rate * math.sqrt(times) / wider
        config = replace(config, optimizer=replace(config.optimizer, rate=_two_digits(rate)))
    return _with_warmup(config, times) if open_.warmup else config


def shared(batch: int, world: int) -> int:
    """The smallest batch, from this one up, of which all processes get as many pictures."""
    return -(-batch // world) * world


def _with_warmup(config: RunConfig, times: float) -> RunConfig:
    """As many steps of warm-up as before, with a batch that is `times` as large."""
    schedule = config.optimizer.schedule
    if not isinstance(schedule, Constant | CosineRate | InverseSqrt | Trapezoid):
        return config
    longer = replace(schedule, warmup=round(schedule.warmup * times))
    return replace(config, optimizer=replace(config.optimizer, schedule=longer))


def _rounded(width: float, *, multiple: int, widest: int) -> int:
    least = -(-NARROWEST // multiple)
    most = max(least, widest // multiple)
    return multiple * min(most, max(least, round(width / multiple)))


def _groups(channels: int) -> int:
    """The largest power of two that leaves `GROUPED` channels or more in each."""
    return min(_MOST_GROUPS, 2 ** int(math.log2(channels / GROUPED)))


def _power_of_two(batch: float) -> int:
    return min(LARGEST, max(SMALLEST, 2 ** round(math.log2(batch))))


def _two_digits(rate: float) -> float:
    return float(f"{rate:.2g}")
