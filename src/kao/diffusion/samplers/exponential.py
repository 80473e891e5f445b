"""What exponential integrators share (Lu et al. 2022b, DPM-Solver++; Zhao et al. 2023, UniPC).

With lambda = log(alpha / sigma) the probability-flow ODE has the exact solution

    x_s = (sigma_s / sigma_t) x_t + sigma_s * integral of e^lambda x_0(lambda) d(lambda),

so only the way x_0 changes along the path need be approximated, by a polynomial in lambda.
"""

from typing import NamedTuple

from torch import Tensor

from kao.diffusion.schedules import Level


class Past(NamedTuple):
    """A prediction made earlier on the path.

    Attributes:
        lam: lambda where it was made, float64 on the CPU, shape (), finite.
        x0: The predicted clean images, (B, C, H, W).
    """

    lam: Tensor
    x0: Tensor


def half_log_snr(level: Level) -> Tensor:
    """The lambda of a level, log(alpha / sigma): -inf at pure noise, inf at clean images."""
    return level.alpha.log() - level.sigma.log()


def is_pure_noise(level: Level) -> bool:
    """Whether there is no signal: lambda is -inf, or would be but for cos(pi / 2) = 6e-17."""
    return bool(level.alpha < 1e-12 * level.sigma)


def hold(x: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """Move `x` from `t` to `s` as if x_0 stayed what it is: exact if it does, else first order.

    This is DPM-Solver++-1 of Lu et al. (2022b), (sigma_s / sigma_t) x - alpha_s (e^-h - 1) x_0,
    with h = lambda_s - lambda_t written out: both ends of a schedule are as good as any level.

    Args:
        x: Images at level `t`, (B, C, H, W).
        x0: Clean images, same shape.
        t: The noisier level, fields of shape ().
        s: The cleaner level, fields of shape ().

    Returns:
        (B, C, H, W).
    """
    ratio = s.sigma / t.sigma
    return ratio * x + (s.alpha - ratio * t.alpha) * x0
