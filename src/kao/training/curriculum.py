"""Curricula: what of each picture a training step looks at.

A step on part of a picture, or on a small one, costs as little as it has pixels, and early in a
run there is enough to learn from it.  A curriculum says how a run goes on from there to whole
pictures; a network without parts that are tied to a size needs to know nothing of it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.errors import ConfigError


class Shown(NamedTuple):
    """What the network is shown of some pictures.

    Attributes:
        x0: (b, C, s, s), float.
        where: Coordinates of its pixels in the whole picture, (b, 2, s, s), see
            `Conditions.where`; None where it is shown all of it.
        noise: Standard deviation of eps.  Where a pixel is the mean of p x p, so is its noise, of
            1 / p: the noise level of what is left then is that of the whole picture.
    """

    x0: Tensor
    where: Tensor | None = None
    noise: float = 1.0


Glance = Callable[[Tensor, slice], Shown]
"""What one step looks at: from some of the batch's pictures, float, (b, C, S, S), and which rows of
the whole batch they are, to what the network is shown of them."""


class Curriculum(Protocol):
    """An entry of `CURRICULA`: a frozen dataclass of options."""

    @property
    def coordinates(self) -> bool:
        """Whether the network is told where in the picture it looks."""

    def check(self, size: int, *, multiple: int) -> None:
        """Refuse what a network cannot be shown.

        Args:
            size: Of the whole pictures, pixels.
            multiple: What the network needs a size to be a multiple of.

        Raises:
            ConfigError: A size is no whole number, or not such a multiple.
        """

    def at(self, done: float, *, batch: int, size: int, generator: torch.Generator) -> Glance:
        """What the next step looks at.

        Args:
            done: Share of the run that is behind, 0..1.
            batch: Pictures in the whole batch, over all processes.
            size: Of the whole pictures, pixels.
            generator: On the CPU; the same state gives the same glance, to every process.
        """


@dataclass(frozen=True)
class Patches:
    """Random patches, of which the network is told where they lie (Wang et al. 2023).

    Each step looks at patches of one size, one a picture.  The steps with whole pictures teach how
    the parts belong together, and are what sampling is like.

    Attributes:
        parts: The patches have 1 / part of the picture's side, for one of these by lot: evenly,
            where the paper takes halves and quarters as 3 to 2.
        whole: Share of steps that look at whole pictures, 0..1; the paper's p.
        until: Share of the run after which all steps do, 0..1.

    Raises:
        ConfigError: There are no parts, one is below 2, or a share is none.
    """

    parts: tuple[int, ...] = (2, 4)
    whole: float = 0.5
    until: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what is no part and no share."""
        _refuse_no_parts(self.parts)
        for name, share in (("whole", self.whole), ("until", self.until)):
            if not 0 <= share <= 1:
                raise ConfigError(f"curriculum.{name} = {share}; expected a share from 0 to 1.")

    @property
    def coordinates(self) -> bool:
        """Whether the network is told where in the picture it looks: it is."""
        return True

    def check(self, size: int, *, multiple: int) -> None:
        """Refuse patches that a network cannot be shown; see `Curriculum.check`."""
        for part in self.parts:
            _refuse_unfit(part, size, multiple=multiple)

    def at(self, done: float, *, batch: int, size: int, generator: torch.Generator) -> Glance:
        """What the next step looks at; see `Curriculum.at`."""
        if done >= self.until or torch.rand((), generator=generator) < self.whole:
            return whole_pictures
        lot = int(torch.randint(len(self.parts), (), generator=generator))
        side = size // self.parts[lot]
        corners = torch.randint(size - side + 1, (batch, 2), generator=generator)
        return _Cut(corners, side)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A glance at one patch of each picture.

    Attributes:
        corners: int64, (B, 2): row and column of the upper left pixel, for the whole batch.
        side: Of the patches, pixels.
    """

    corners: Tensor
    side: int

    def __call__(self, x0: Tensor, rows: slice) -> Shown:
        corners = self.corners[rows].to(x0.device)
        down, right = (corners[:, :, None] + torch.arange(self.side, device=x0.device)).unbind(1)
        batch = torch.arange(len(x0), device=x0.device)[:, None, None]
        patches = x0.permute(0, 2, 3, 1)[batch, down[:, :, None], right[:, None, :]]
        y, x = ((2 * at + 1) / x0.shape[-1] - 1 for at in (down, right))
        where = torch.stack(
            [
                x[:, None, :].expand(-1, self.side, -1),
                y[:, :, None].expand(-1, -1, self.side),
            ],
            dim=1,
        )
        return Shown(patches.permute(0, 3, 1, 2).contiguous(), where)


@dataclass(frozen=True)
class Progressive:
    """Small pictures first, each pixel the mean of those it stands for, then larger ones.

    The noise is averaged with the pixels, so that the coarse parts of a small picture are as
    hard to see at each time as those of the whole one, and what is learned of them holds.

    Attributes:
        parts: The pictures have 1 / part of their side, one part a stage, falling.
        until: Share of the run at which each stage ends, 0..1, rising; whole pictures follow.

    Raises:
        ConfigError: There are no parts, one is below 2, or the two do not belong together.
    """

    parts: tuple[int, ...] = (2,)
    until: tuple[float, ...] = (0.3,)

    def __post_init__(self) -> None:
        """Refuse what is no part, and stages without an end or an order."""
        _refuse_no_parts(self.parts)
        if len(self.until) != len(self.parts):
            raise ConfigError(
                f"curriculum.until = {list(self.until)} must say for each of curriculum.parts = "
                f"{list(self.parts)} at which share of the run it ends."
            )
        if list(self.parts) != sorted(set(self.parts), reverse=True):
            raise ConfigError(
                f"curriculum.parts = {list(self.parts)}; expected falling numbers, so that "
                f"pictures grow."
            )
        rising = list(self.until) == sorted(set(self.until))
        if not rising or not all(0 <= share <= 1 for share in self.until):
            raise ConfigError(
                f"curriculum.until = {list(self.until)}; expected rising shares of the run from "
                f"0 to 1."
            )

    @property
    def coordinates(self) -> bool:
        """Whether the network is told where in the picture it looks: it sees all of it."""
        return False

    def check(self, size: int, *, multiple: int) -> None:
        """Refuse sizes that a network cannot be shown; see `Curriculum.check`."""
        for part in self.parts:
            _refuse_unfit(part, size, multiple=multiple)

    def at(self, done: float, *, batch: int, size: int, generator: torch.Generator) -> Glance:
        """What the next step looks at; see `Curriculum.at`.  Nothing is left to chance."""
        for part, until in zip(self.parts, self.until, strict=True):
            if done < until:
                return _Shrink(part)
        return whole_pictures


@dataclass(frozen=True)
class _Shrink:
    """A glance at pictures of 1 / part of their side."""

    part: int

    def __call__(self, x0: Tensor, rows: slice) -> Shown:
        return Shown(F.avg_pool2d(x0, self.part), noise=1 / self.part)


def whole_pictures(x0: Tensor, rows: slice) -> Shown:
    """The glance that takes everything in."""
    return Shown(x0)


def _refuse_no_parts(parts: tuple[int, ...]) -> None:
    if not parts or min(parts) < 2:
        raise ConfigError(
            f"curriculum.parts = {list(parts)}; expected one or more whole numbers from 2 up: 2 is "
            f"half the side of a picture."
        )


def _refuse_unfit(part: int, size: int, *, multiple: int) -> None:
    if size % part == 0 and size // part % multiple == 0:
        return
    fitting = [p for p in range(2, size // multiple + 1) if size % (p * multiple) == 0]
    raise ConfigError(
        f"training.curriculum.parts names {part}, and 1 / {part} of data.size = {size} is "
        f"{size / part:.4g} pixels, where this network needs a multiple of {multiple}: "
        + (f"take from {fitting}." if fitting else "take a network of fewer levels, or none.")
    )


CURRICULA: dict[str, type[Curriculum] | None] = {
    "none": None,
    "patches": Patches,
    "progressive": Progressive,
}
"""What `training.curriculum` may be; "none" shows whole pictures from the first step on."""
