"""Heun's second-order method along the probability-flow ODE."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.samplers.churn import Churning


@dataclass(frozen=True)
class Heun(Churning):
    """Trapezoid along the path dx = x_0 d(alpha) + eps d(sigma); two network calls a step.

    With alpha = 1 this is algorithm 2 of Karras et al. (2022), and without churn algorithm 1;
    with alpha = 1 - t, sigma = t it is Heun's method on the flow's velocity.  No division by
    alpha, so it may start at pure noise.  The last step, to sigma = 0, is Euler's, as in the
    paper.

    Attributes:
        churn, churn_min, churn_max, churn_noise: As in `Churning`.

    Raises:
        ConfigError: A value is out of range.
    """

    order: ClassVar[int] = 2

    def onward(self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Move `x` from `t` to `s`; see `Churning.onward`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        p = denoise(x, t)
        euler = there.alpha * p.x0 + there.sigma * p.eps
        if there.sigma == 0:
            return euler
        q = denoise(euler, s)
        x = x + (there.alpha - here.alpha) * (p.x0 + q.x0) / 2
        return x + (there.sigma - here.sigma) * (p.eps + q.eps) / 2
