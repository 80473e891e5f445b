"""PNDM: multi-step formulas on eps, moved by the step of DDIM."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from kao.diffusion.denoiser import Denoise, Prediction
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.schedules import Level
from kao.errors import ConfigError

ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the newest eps and those before it, by how many there are."""

FAINT = 1e-3
"""alpha / sigma below which eps is taken as it is: x_0 = (x - sigma eps) / alpha would blow up what
is extrapolated wrongly.  The cosine table ends at 5e-5, and its Runge-Kutta start at 1e7."""


@dataclass(frozen=True)
class PNDM(Sampler):
    """Pseudo linear multi-step sampling (Liu et al. 2022b).

    The noise of a step is extrapolated from the last four predictions by the Adams-Bashforth
    formula, and DDIM's step moves x along it.  One network call a step after the start.  The
    formulas are for steps of equal size in t, four or more: in fewer, or in few steps of equal
    log-snr, x may grow a thousandfold, and the configuration refuses both.  DDIM's step is
    exact in sigma / alpha and not in t, which leaves the whole second-order; where sigma / alpha
    falls in equal steps, fourth.

    At pure noise, and where alpha / sigma is below 1e-3, the step is DDIM's, the only one without
    a division by alpha; next to it sigma / alpha bends most, and paths that begin there come short
    of second order (1.6 to 2).
    The last step, to sigma = 0, extrapolates as any other.

    Attributes:
        start: How the first three steps are made, before there are four predictions.
            "runge_kutta": the paper's, four network calls each.  "plms": one step of Heun's
            kind with two calls, then the formulas for two and three predictions, as Stable
            Diffusion does.

    Raises:
        ConfigError: start is neither.
    """

    order: ClassVar[int] = 2

    start: Literal["plms", "runge_kutta"] = "plms"

    def __post_init__(self) -> None:
        """Refuse another start."""
        if self.start not in ("plms", "runge_kutta"):
            raise ConfigError(
                f'sampler.start = {self.start!r}, but the choices are "plms" and "runge_kutta".'
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        older: tuple[Tensor, ...] = memory or ()
        p = denoise(x, t)
        if here.alpha < FAINT * here.sigma:
            eps = p.eps
        elif self.start == "runge_kutta" and len(older) < 3 and s > 0:
            eps = _runge_kutta(denoise, p, here, t, s)
        elif self.start == "plms" and not older and s > 0:
            eps = (p.eps + denoise(_transfer(p, p.eps, here, there), s).eps) / 2
        else:
            newest, *weights = ADAMS_BASHFORTH[len(older)]
            eps = newest * p.eps
            for w, e in zip(weights, older, strict=True):
                eps = eps + w * e
        return _transfer(p, eps, here, there), (p.eps, *older[:2])


def _transfer(p: Prediction, eps: Tensor, t: Level, s: Level) -> Tensor:
    """DDIM's step with `eps` in the place of p.eps (Liu et al. 2022b).

    Written as DDIM's own step plus a correction, which is left out where there is none.
    """
    moved = s.alpha * p.x0 + s.sigma * p.eps
    if eps is p.eps:
        return moved
    return moved + (s.sigma - s.alpha * t.sigma / t.alpha) * (eps - p.eps)


def _runge_kutta(denoise: Denoise, p: Prediction, here: Level, t: Tensor, s: Tensor) -> Tensor:
    """The eps of a pseudo Runge-Kutta step (Liu et al. 2022b), by three more calls."""
    half = (t + s) / 2
    middle, there = denoise.schedule(half), denoise.schedule(s)
    two = denoise(_transfer(p, p.eps, here, middle), half).eps
    three = denoise(_transfer(p, two, here, middle), half).eps
    four = denoise(_transfer(p, three, here, there), s).eps
    return (p.eps + 2 * two + 2 * three + four) / 6
