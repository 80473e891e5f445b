"""UniPC: an exponential multi-step predictor, and a corrector that costs no network call."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise
from kao.diffusion.samplers.base import Sampler
from kao.diffusion.samplers.exponential import Past, half_log_snr, hold, is_pure_noise
from kao.diffusion.schedules import Level
from kao.errors import ConfigError


class Memory(NamedTuple):
    """What a step leaves for the next, which corrects it.

    Attributes:
        x: Corrected images where the step began, (B, C, H, W).
        level: Their level.
        past: Predictions there and before, the newest first, at most p.
    """

    x: Tensor
    level: Level
    past: tuple[Past, ...]


@dataclass(frozen=True)
class UniPC(Sampler):
    """UniP-p and UniC-p of Zhao et al. (2023) on the predicted x_0; one network call a step.

    Each step first corrects the one before by the prediction at its end, which is needed anyway,
    and then predicts from p predictions; what is yielded on the way is not yet corrected.  The
    first steps are of lower order, and so is the last, to sigma = 0, where x_0 is held.

    Attributes:
        order: p + 1; with p = 3 the first steps must be small for more than 3.
        p: Predictions that the predictor uses, 2 or 3.  The paper advises 2 where a prediction
            is guided, 3 where it is not.
        variant: B(h) of the paper: "bh2" is e^h - 1, "bh1" is h.  It matters where two
            predictions are used (UniP-2, UniC-1): the paper's weights there are B(h) / 2.  "bh1"
            grows with the step, and in six steps or fewer draws up to five times the contrast.

    Raises:
        ConfigError: p or variant is none of these.
    """

    order: ClassVar[int] = 3

    p: Literal[2, 3] = 2
    variant: Literal["bh1", "bh2"] = "bh2"

    def __post_init__(self) -> None:
        """Refuse other values."""
        if self.p not in (2, 3):
            raise ConfigError(
                f"sampler.p = {self.p}, but UniPC is made for 2 or 3 predictions: 2 is safest."
            )
        if self.variant not in ("bh1", "bh2"):
            raise ConfigError(
                f'sampler.variant = {self.variant!r}, but the choices are "bh1" and "bh2".'
            )

    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`; see `Sampler.step`."""
        here, there = denoise.schedule(t), denoise.schedule(s)
        x0 = denoise(x, t).x0
        if is_pure_noise(here) or there.sigma == 0:
            return hold(x, x0, here, there), None
        now, older = Past(half_log_snr(here), x0), ()
        if memory is not None:
            older = memory.past
            x = self._move(memory.x, memory.level, here, older, [*older[1:], now])
        past = (now, *older[: self.p - 1])
        memory = Memory(x, here, past)
        return self._move(x, here, there, past, list(past[1:])), memory

    def _move(
        self, x: Tensor, t: Level, s: Level, past: tuple[Past, ...], others: list[Past]
    ) -> Tensor:
        """From `t` to `s`, x_0 being past[0] at `t` and bent to pass through `others`.

        hold + alpha_s sum_j w_j (x_0j - x_0) / r_j with r_j = (lambda_j - lambda_t) / h, and w such
        that polynomials in lambda up to the number of others are integrated exactly:

            sum_j w_j r_j^(k-1) = k! psi_k / h^k,   psi_k = integral of e^(u-h) u^k / k! over 0..h.

        One other alone has w = B(h) / 2, which is exact to the order needed.
        """
        x_s = hold(x, past[0].x0, t, s)
        if not others:
            return x_s
        lam = past[0].lam
        h = half_log_snr(s) - lam
        r = torch.stack([(other.lam - lam) / h for other in others])
        psi = [-(-h).expm1()]
        for k in range(1, len(others) + 1):
            psi.append(h**k / math.factorial(k) - psi[-1])
        if len(others) == 1:
            w = ((h if self.variant == "bh1" else psi[0]) / 2).reshape(1)
        else:
            moments = [math.factorial(k) * psi[k] / h**k for k in range(1, len(psi))]
            w = torch.linalg.solve(torch.stack([r**k for k in range(len(r))]), torch.stack(moments))
        for c, other in zip((s.alpha * w / r).unbind(), others, strict=True):
            x_s = x_s + c * (other.x0 - past[0].x0)
        return x_s
