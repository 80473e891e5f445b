"""From pictures to the noise they would be drawn from, and ways between two noises."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import SeededNoise
from kao.diffusion.samplers import DDIM
from kao.errors import ConfigError


def invert(denoise: Denoise, x0: Tensor, times: Tensor, *, iterations: int = 0) -> Iterator[Tensor]:
    """DDIM inversion (Song et al. 2021a): up the grid, to the noise that DDIM would start from.

    A DDIM step from s down to t makes alpha_t x_0 + sigma_t eps out of what is predicted at
    (x_s, s).  To undo it is to solve for an x_s that is only known afterwards.  The usual
    approximation takes the prediction at (x_t, t) instead, and each step leaves an error of the
    order of its length squared.

    At t = 0 a denoiser cannot be asked: there is no noise for it to see.  But there x_0 is the
    picture itself, so only eps is missing, and it is asked for at the first noisy time, of the
    picture scaled to that level, alpha_s x_0.

    `iterations` then correct x_s by what is missing after the way down,

        x_s <- x_s + k (x_t - down(x_s)),
        k = (alpha_s^2 + sigma_s^2) / (alpha_s alpha_t + sigma_s sigma_t).

    1 / k is the slope of the step for data N(0, I), for which one correction is exact; for other
    data the error shrinks by a factor at each.  Neither alpha_s = 0 (pure noise) nor sigma_t = 0
    (the picture) is a special case.  Of the guesses met, each image keeps the best.

    Invert the plain model: what clipping has cut off cannot be found again.

    Args:
        denoise: Predicts (x_0, eps); carries the schedule.
        x0: Clean images, (B, C, H, W).
        times: Decreasing, float64, (steps + 1,), ending at 0: the grid of the way down.
        iterations: Corrections of each step, each one call of `denoise`; 0: the approximation.

    Yields:
        Images at times[-2], times[-3], ..., times[0], like `x0`.

    Raises:
        ConfigError: iterations is negative.
    """
    if iterations < 0:
        raise ConfigError(
            f"iterations = {iterations}, but it counts the corrections of each step, from 0 up."
        )
    x = x0
    for t, s in pairwise(times.flip(0)):
        x = _undone(denoise, x, t, s, iterations)
        yield x


def _undone(denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, iterations: int) -> Tensor:
    """x_s, such that DDIM's step from s to t < s gives `x`, as nearly as iterations make it."""
    here, there = denoise.schedule(t), denoise.schedule(s)
    if here.sigma > 0:
        prediction = denoise(x, t)
        guess = there.alpha * prediction.x0 + there.sigma * prediction.eps
    else:
        guess = there.alpha * x + there.sigma * denoise(there.alpha * x, s).eps
    if iterations == 0:
        return guess
    k = (there.alpha**2 + there.sigma**2) / (there.alpha * here.alpha + there.sigma * here.sigma)
    best, least = guess, None
    for _ in range(iterations + 1):
        down, _ = DDIM().step(denoise, guess, s, t, noise=torch.zeros_like)
        missing = x - down
        size = missing.square().mean(tuple(range(1, x.ndim)), keepdim=True)
        # Not finite is worse than anything, and compares false.
        better = torch.ones_like(size, dtype=torch.bool) if least is None else size < least
        best, least = (
            guess.where(better, best),
            size if least is None else size.where(better, least),
        )
        guess = guess + k * missing
    return best


def rms_error(a: Tensor, b: Tensor) -> Tensor:
    """Root of the mean squared difference of each pair of images.

    Args:
        a: (B, C, H, W).
        b: Same shape.

    Returns:
        (B,), float64 on the CPU, in the units of the images.
    """
    return (a - b).cpu().double().square().flatten(1).mean(1).sqrt()


def psnr(rms: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of pictures in [-1, 1], whose peak is 2, in decibels.

    Args:
        rms: From `rms_error`, any shape.

    Returns:
        20 log10(2 / rms), same shape; infinite for no error.
    """
    return 20 * (2 / rms).log10()


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Along the great circle from one noise to another (Shoemake 1985), image by image.

    The straight line between two noises leads through shorter ones, on which no network was
    trained: half way, noises of D numbers are sqrt(D / 2) long and not sqrt(D).  The arc
    keeps the length where both have the same.

    Args:
        a: (B, ...).
        b: Same shape.
        share: Of the way, 0 is `a` and 1 is `b`.

    Returns:
        Like `a`.  Where the two have one direction, or opposite ones between which no arc is
        the shortest, a point of the straight line.
    """
    axes = tuple(range(1, a.ndim))
    u, v = (x / x.square().sum(axes, keepdim=True).sqrt() for x in (a, b))
    # Exact for small angles too, unlike the arc cosine (Kahan 2006).
    apart, along = ((u + sign * v).square().sum(axes, keepdim=True).sqrt() for sign in (-1, 1))
    angle = 2 * torch.atan2(apart, along)
    sine = angle.sin()
    arc = ((1 - share) * angle).sin() / sine * a + (share * angle).sin() / sine * b
    return torch.where(sine > 1e-6, arc, torch.lerp(a, b, share))


class BetweenSeeds:
    """Noise on the way from one seed's to another's: every draw is `slerp` of a draw of each.

    Sampling with it, from the first noise to the last step's, gives the first seed's own picture
    at 0, the second's at 1, and pictures in between, whether the sampler is random or not.

    Args:
        a: The first seed, as for `SeededNoise`.
        b: The second.
        shares: One an image.

    Raises:
        ConfigError: A seed is negative.
    """

    def __init__(self, a: int, b: int, shares: Sequence[float]):
        self.a, self.b, self.shares = SeededNoise([a]), SeededNoise([b]), shares

    def __call__(self, x: Tensor) -> Tensor:
        """Draw each image's next noise, like `x` (B, ...), B the number of shares."""
        a, b = self.a(x[:1]), self.b(x[:1])
        return torch.cat([slerp(a, b, share) for share in self.shares])
