"""The interface of every sampler."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise


class Sampler(ABC):
    """One step of integration from time t down to time s.

    A sampler holds numbers, never tensors; what it must remember between steps it returns.
    It integrates dx = x_0 d(alpha) + eps d(sigma), or a diffusion with the same marginals,
    over any schedule, from pure noise (alpha = 0) if the schedule ends there, to clean images
    (sigma = 0).  Its coefficients are 0-d float64 tensors on the CPU: they multiply float32
    images on any device and leave them float32.

    Attributes:
        order: Order of global accuracy on the probability-flow ODE, between two levels of which
            the cleaner has noise left, where steps are small and smoothly spaced in lambda; that
            of the law of the images for samplers that draw noise.  lambda is infinite at the
            clean image, so what the last steps of an even grid in t leave limits the order: to 2
            on schedules whose sigma is about proportional to t there, to 1 where sigma^2 is, as
            in the chains of DDPM.
            0: not an integrator, its law does not come nearer with the number of steps.
    """

    order: ClassVar[int] = 1

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Tensor, t: Tensor, s: Tensor, *, noise: Noise, memory: Any = None
    ) -> tuple[Tensor, Any]:
        """Move `x` from `t` to `s`.

        Args:
            denoise: Predicts (x_0, eps); carries the schedule.  Never called at time 0.
            x: Images at time `t`, (B, C, H, W).
            t: Time of `x`, float64, shape ().
            s: Time to reach, float64, shape (), t > s >= 0.
            noise: Source of randomness; not called by deterministic samplers.
            memory: What the previous step returned; None at the first.

        Returns:
            Images at time `s`, and the memory for the next step.
        """
