"""Heun's second-order method along the probability-flow ODE."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.churn import Churn


@dataclass(frozen=True)
class Heun(Sampler):
    """Trapezoid along the path dx = x_0 d(alpha) + eps d(sigma); two network calls a step.

    With alpha = 1 this is algorithm 2 of Karras et al. (2022), and without churn algorithm 1;
    with alpha = 1 - t, sigma = t it is Heun's method on the flow's velocity.  No division by
    alpha, so it may start at pure noise.  The last step, to sigma = 0, is Euler's, as in the
    paper.

    Attributes:
        churn: Share of noise added before each step, the paper's S_churn / steps, in
            [0, sqrt(2) - 1].  It must shrink with the steps for the error to vanish.
        churn_min, churn_max: Ratios sigma / alpha between which it is added.
        churn_noise: Standard deviation of what is added, the paper's S_noise, above 0.

    Raises:
        ConfigError: A value is out of range.
    """

    order: ClassVar[int] = 2

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = 1e6
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        self._churn()

    def _churn(self) -> Churn:
        return Churn(self.churn, self.churn_min, self.churn_max, self.churn_noise)

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        x, t = self._churn()(denoise.schedule, x, t, noise)
        here, there = denoise.schedule(t), denoise.schedule(s)
        p = denoise(x, t)
        euler = there.alpha * p.x0 + there.sigma * p.eps
        if there.sigma == 0:
            return euler, None
        q = denoise(euler, s)
        x = x + (there.alpha - here.alpha) * (p.x0 + q.x0) / 2
        x = x + (there.sigma - here.sigma) * (p.eps + q.eps) / 2
        return x, None
