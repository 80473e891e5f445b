"""The variational bound on -log p(x_0), by which a network learns the variances of its steps.

Over a chain 0 = t_0 < t_1 < ... < t_T the bound is a sum with one term a step (Ho et al. 2020,
eq. 5): the divergence of the model's step from the true posterior,

    KL( q(x_s | x_t, x_0) || p(x_s | x_t) ),

and for the last step, to s = 0, the negative log-likelihood of the 8-bit image.  The model's step
is q(x_s | x_t, x0_hat) with a variance of its own, between beta_tilde and beta.  The bound's first
term, of x_T, has nothing to learn and is left out.
"""

import math

import torch
from torch import Tensor

from kao.diffusion.posterior import posterior_log_variance
from kao.diffusion.schedules import DiscreteSchedule, Level, NoiseSchedule

HALF_BIN = 1 / 255
"""Half the distance of neighbouring grey levels, in [-1, 1]."""

END = 1 - HALF_BIN
"""Beyond it on either side is an end level."""

LEAST_PROBABILITY = 1e-12
"""Of a grey level.  A wild guess costs 28 nats, not infinitely many, as in the published code."""


def variational_bound(
    x0: Tensor, x0_hat: Tensor, share: Tensor, t: Tensor, schedule: NoiseSchedule
) -> Tensor:
    """One term of the bound for each image, times the number of terms: an estimate of it all.

    For t drawn evenly its mean is the bound; times 0.001 it is what Nichol & Dhariwal (2021),
    eq. 16, add to the plain loss.  As there (sec. 3.1), no gradient flows to the mean: it goes to
    `share` only.

    The chain is that of whole times on a discrete schedule.  On others it has a thousand times,
    one length apart, of which the first lies between one and two lengths from the clean image and
    goes there in one step: so sigma_t is never many times sigma_s, and beta_tilde never next to
    nothing beside beta.  Times below one length are on no such chain, and their term is 0.

    Args:
        x0: Clean images, (B, C, H, W), in [-1, 1].
        x0_hat: Their predictions from x_t, same shape.
        share: The variance of `Prediction`, same shape.
        t: Times of the images, (B,), float64 on the CPU.
        schedule: Whose times.

    Returns:
        Bits per dimension, (B,), like `x0`.
    """
    steps = schedule.t_max if isinstance(schedule, DiscreteSchedule) else 1000
    length = schedule.t_max / steps
    s = torch.where(t < 2 * length, 0.0, t - length)
    here, there = schedule(t), schedule(s)
    x0_hat = x0_hat.detach()

    divergence = step_divergence(x0_hat - x0, share, here, there).flatten(1).mean(1)
    log_variance = posterior_log_variance(here, there, share)
    likelihood = log_likelihood(x0, x0_hat, log_variance).flatten(1).mean(1)
    term = torch.where((s > 0).to(x0.device), divergence, -likelihood)
    return steps / math.log(2) * torch.where((t < length).to(x0.device), 0.0, term)


def step_divergence(error: Tensor, share: Tensor, t: Level, s: Level) -> Tensor:
    """KL( q(x_s | x_t, x_0) || q(x_s | x_t, x0_hat) with another variance ).

    With r = sigma_t^2 / sigma_s^2 = beta / beta_tilde, the logarithm of the model's variance is
    share log(r) above that of the posterior, and the means differ by
    sqrt(beta_tilde (snr_s - snr_t)) |x0_hat - x_0|.  So nothing is divided by alpha or by beta,
    and pure noise at t is no special case.

    Args:
        error: x0_hat - x_0, (B, C, H, W).
        share: The variance of `Prediction`, same shape.
        t: The noisier levels, float64 on the CPU, (B,).
        s: The cleaner levels, same shape.  Where sigma_s = 0 there is no divergence to speak of,
            and the result is 0.

    Returns:
        Nats, (B, C, H, W).
    """
    known = s.sigma > 0
    log_ratio = torch.where(known, 2 * (t.sigma / s.sigma).log(), 0.0)
    gain = torch.where(known, s.snr - t.snr, 0.0)
    # Not a level, but two coefficients that go to the images the way a level does.
    log_ratio, gain = Level(log_ratio, gain).like(error)
    excess = share * log_ratio
    return (excess - 1 + (-excess).exp() * (1 + gain * error**2)) / 2


def log_likelihood(x0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log-probability that N(mean, variance) gives the grey level of x_0: Ho et al. 2020, eq. 13.

    The 256 levels of [-1, 1] share the real line: each has what is nearest to it, so the two
    end levels have a half-line each.

    Args:
        x0: Images whose pixels are among the levels, (B, C, H, W).
        mean: Of the Gaussian, same shape.
        log_variance: Of the Gaussian, same shape, natural logarithm.

    Returns:
        Nats, same shape, in [log(LEAST_PROBABILITY), 0].
    """
    precision = (-log_variance / 2).exp()
    offset = x0 - mean
    far = offset.abs()
    below = _normal_cdf((offset + HALF_BIN) * precision)
    above = _normal_cdf((HALF_BIN - offset) * precision)
    # The bin mirrored to the lower flank of the bell, where the difference keeps its digits.
    inner = _normal_cdf((HALF_BIN - far) * precision) - _normal_cdf((-HALF_BIN - far) * precision)
    probability = torch.where(x0 < -END, below, torch.where(x0 > END, above, inner))
    return probability.clamp(min=LEAST_PROBABILITY).log()


def _normal_cdf(z: Tensor) -> Tensor:
    """By erfc: torch's own, (1 + erf) / 2, has no digits left in float32 at z = -6."""
    return torch.erfc(-math.sqrt(0.5) * z) / 2
