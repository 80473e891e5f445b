"""q(x_s | x_t, x_0): where a noisy image was one step earlier, if the clean image is known.

For any two levels s < t of a schedule, x_t = alpha_t x_0 + sigma_t eps, noise is added by

    x_t = (alpha_t / alpha_s) x_s + sqrt(beta) z,  beta = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2,

z ~ N(0, I), and Bayes' rule makes the way back a Gaussian: its mean is `posterior_mean`, its
variance beta_tilde = beta sigma_s^2 / sigma_t^2.  For t = s + 1 of a discrete schedule these are
the quantities of Ho et al. (2020), eq. 7.
"""

import math

import torch
from torch import Tensor

from kao.diffusion.schedules import Level


def forward_variance(t: Level, s: Level) -> Tensor:
    """Variance of x_t given x_s, for any two levels s < t; beta_t if t = s + 1 in DDPM.

    Args:
        t: The noisier level, fields of shape () or (B,).
        s: The cleaner level, same shape.

    Returns:
        The levels' shape and dtype, > 0.
    """
    return t.sigma**2 - (t.alpha / s.alpha * s.sigma) ** 2


def posterior_mean(x_t: Tensor, x0: Tensor, t: Level, s: Level) -> Tensor:
    """E[x_s | x_t, x_0], Ho et al. (2020), eq. 7, for any two levels s < t.

    Args:
        x_t: Images at level `t`, (B, C, H, W).
        x0: Clean images, same shape.
        t: The noisier level, fields of shape ().
        s: The cleaner level, fields of shape ().

    Returns:
        (B, C, H, W).
    """
    ratio = t.alpha / s.alpha
    return (ratio * s.sigma**2 * x_t + s.alpha * forward_variance(t, s) * x0) / t.sigma**2


def posterior_log_variance(t: Level, s: Level, share: Tensor) -> Tensor:
    """Between log(beta_tilde) and log(beta): Nichol & Dhariwal (2021), eq. 15.

    log variance = share log(beta) + (1 - share) log(beta_tilde).

    Reverse variances that are right for some data lie between these two: beta_tilde for data that
    is one point, beta for data that is N(0, I).  At sigma_s = 0 the posterior is a point and its
    beta_tilde has no logarithm; beta / 2 stands in for it there, which is beta_tilde of a second
    step with the same beta (the paper takes that of the second step of its chain).

    Args:
        t: The noisier level, float64 on the CPU, fields of shape () or (B,).
        s: The cleaner level, same shape.
        share: (B, C, H, W); 0 is beta_tilde, 1 is beta, and nothing is clamped.

    Returns:
        Natural logarithm of the variance, like `share`.
    """
    log_ratio = torch.where(s.sigma > 0, 2 * (s.sigma / t.sigma).log(), -math.log(2))
    # Not a level, but two coefficients that go to the images the way a level does.
    log_beta, log_ratio = Level(forward_variance(t, s).log(), log_ratio).like(share)
    return log_beta + (1 - share) * log_ratio
