"""What a network was made for, where it is asked about other levels and for another target.

A network that was trained on one schedule knows the levels of all schedules: x_t of two levels
with the same signal-to-noise ratio are one picture in two sizes.  So x is scaled to the network's
own level of that ratio, the network is asked there as it was when it was trained, and its answer
is read by its own target and said in another.  With a dash for its own level and target,

    x' = c x = alpha' x_0 + sigma' eps        y' = a' x_0 + b' eps        y = a x_0 + b eps

are linear in (x_0, eps), so y follows from x' and y' without any approximation.  c is the ratio of
the norms of the two levels, which is finite where an alpha is 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kao.diffusion.schedules import DiscreteSchedule, Level, NoiseSchedule
from kao.diffusion.targets import Target

_CLEANEST = 2.5e-5
"""Least share of t_max, in continuous time, that a network is told of."""


class Question(NamedTuple):
    """How a network is asked about a level that is not its own; float64 on the CPU, () or (B,).

    Attributes:
        level: Its own level of the same signal-to-noise ratio, or the noisiest that it knows.
        label: What it is told of that, or of the cleanest level that networks are trained on.
        scale: c, by which x is multiplied.
        of_x, of_y: y is of_x times what it was shown, plus of_y times what it says.
    """

    level: Level
    label: Tensor
    scale: Tensor
    of_x: Tensor
    of_y: Tensor


@dataclass(frozen=True)
class Native:
    """The schedule and target that a network was trained with.

    Attributes:
        schedule: Its noise levels.
        target: What it says of them.
    """

    schedule: NoiseSchedule
    target: Target

    def question(self, level: Level, target: Target) -> Question:
        """How to ask for a target at a level of another schedule.

        At levels noisier than it knows the network is asked about its noisiest.  What it then
        says of x_0 is kept, and eps is what x leaves beside that.

        Args:
            level: Fields () or (B,), float64.
            target: What y is to mean.
        """
        t = self.schedule.time_at(level.snr.log())
        own = self.schedule(t)
        scale = torch.hypot(own.alpha, own.sigma) / torch.hypot(level.alpha, level.sigma)
        # x = alpha x_0 + sigma eps is short of these two where the network knows no such level;
        # elsewhere they are nothing.  That much is added to eps.
        sigma = level.sigma.clamp(min=torch.finfo(torch.float64).tiny)
        short_of_x0 = (own.alpha / scale - level.alpha) / sigma
        short_of_eps = (own.sigma / scale - level.sigma) / sigma
        a, b = target(level)
        a, b = a + b * short_of_x0, b + b * short_of_eps
        own_a, own_b = self.target(own)
        det = own.alpha * own_b - own.sigma * own_a
        of_x, of_y = (a * own_b - b * own_a) / det, (b * own.alpha - a * own.sigma) / det
        return Question(own, self._label(t), scale, of_x, of_y)

    def _label(self, t: Tensor) -> Tensor:
        """The label of a time, or of the cleanest that networks are trained on.

        A table has none between its first level and the clean picture.  In continuous time it is
        2.5e-5 of t_max, which is the sigma_min of 0.002 of Karras et al. (2022) for their 80: the
        logarithm of sigma that they tell a network has no end, and no network has seen it.
        """
        discrete = isinstance(self.schedule, DiscreteSchedule)
        first = 1.0 if discrete else _CLEANEST * self.schedule.t_max
        return self.schedule.label(t.clamp(min=first))
