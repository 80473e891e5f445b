"""DPM-Solver++: exponential integrators on the predicted x_0 (Lu et al. 2022b).

All step in lambda = log(alpha / sigma), by the midpoint variants of the paper.  Where lambda is
infinite, x_0 is held: on a step from pure noise, which it hardly changes on, and on the last
step, to clean images.  A prediction at pure noise is not remembered.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.exponential import Past, half_log_snr, hold, is_pure_noise


@dataclass(frozen=True)
class DPMSolver2M(Sampler):
    """Second order from two predictions, this step's and the last's: DPM-Solver++(2M).

    Lu et al. (2022b), algorithm 2.  One network call a step; the first step is first-order.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        x0 = denoise(x, t).x0
        if is_pure_noise(here) or there.sigma == 0:
            return hold(x, x0, here, there), None
        now = Past(half_log_snr(here), x0)
        middle = _middle(now, memory, half_log_snr(there))
        return hold(x, middle, here, there), now


@dataclass(frozen=True)
class DPMSolver2MSDE(Sampler):
    """2M on the reverse diffusion instead of the ODE: SDE-DPM-Solver++(2M).

    Lu et al. (2022b), SDE-DPM-Solver++(2M).  Without the extrapolation to the middle it would be
    the ancestral sampler with beta_tilde: x_t fades by e^-h more than on the ODE, and fresh noise
    makes up for it, so that errors of earlier steps fade too.  One network call a step.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        x0 = denoise(x, t).x0
        if there.sigma == 0:
            return there.alpha * x0, None
        now, middle = None, x0
        if not is_pure_noise(here):
            now = Past(half_log_snr(here), x0)
            middle = _middle(now, memory, half_log_snr(there))
        q = here.alpha * there.sigma / (there.alpha * here.sigma)  # e^-h
        mean = q * there.sigma / here.sigma * x + there.alpha * (1 - q**2) * middle
        return mean + there.sigma * (1 - q**2).sqrt() * noise(x), now


@dataclass(frozen=True)
class DPMSolver3M(Sampler):
    """Third order from three predictions: the multi-step method of Lu et al. (2022b) with k = 3.

    Newton's polynomial through x_0 at this level and the two before it is integrated exactly.
    One network call a step; the first step is first-order and the second second-order, so the
    third order shows where the first steps are small or x_0 hardly changes on them, as it does
    next to pure noise; in fewer than some 12 steps 2M is safer.  Published code halves the term of
    the second derivative, and by that is of second order; here it is whole.
    """

    order: ClassVar[int] = 3

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        x0 = denoise(x, t).x0
        if is_pure_noise(here) or there.sigma == 0:
            return hold(x, x0, here, there), None
        now, end = Past(half_log_snr(here), x0), half_log_snr(there)
        older: tuple[Past, ...] = memory or ()
        memory = (now, *older[:1])
        if len(older) < 2:
            return hold(x, _middle(now, older[0] if older else None, end), here, there), memory
        h, (one, two) = end - now.lam, older
        slope = (x0 - one.x0) / (now.lam - one.lam)
        bend = (slope - (one.x0 - two.x0) / (one.lam - two.lam)) / (now.lam - two.lam)
        slope = slope + (now.lam - one.lam) * bend
        first = h + (-h).expm1()  # integral of e^(u - h) u du from 0 to h
        second = h**2 - 2 * first  # and of e^(u - h) u^2
        return hold(x, x0, here, there) + there.alpha * (first * slope + second * bend), memory


@dataclass(frozen=True)
class DPMSolver2S(Sampler):
    """Second order by a prediction half-way: DPM-Solver++(2S), algorithm 1 with r = 1/2.

    Two network calls a step, the second at the middle in lambda; on a discrete schedule that
    lies between whole times.  It needs no memory, so steps may be of any size.
    """

    order: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        schedule = denoise.schedule
        here, there = schedule(t), schedule(s)
        x0 = denoise(x, t).x0
        if not is_pure_noise(here) and there.sigma > 0:
            half = schedule.time_at(half_log_snr(here) + half_log_snr(there))
            x0 = denoise(hold(x, x0, here, schedule(half)), half).x0
        return hold(x, x0, here, there), None


def _middle(now: Past, last: Past | None, end: Tensor) -> Tensor:
    """x_0 extrapolated to the middle between `now` and lambda = `end`; as it is without a last."""
    if last is None:
        return now.x0
    return now.x0 + (end - now.lam) / (2 * (now.lam - last.lam)) * (now.x0 - last.x0)
