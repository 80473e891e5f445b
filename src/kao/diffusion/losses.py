"""The training loss: regression on what the network outputs, weighted, and what may be added.

What published losses have in common, and how a weight on the error of x_0 becomes one on y, is told
in `weights`.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kao.diffusion.bound import variational_bound
from kao.diffusion.denoiser import Denoiser, determinant
from kao.diffusion.norms import Norm, l2
from kao.diffusion.perceptual import Perceptual
from kao.diffusion.schedules import Level
from kao.diffusion.times import Times
from kao.diffusion.uncertainty import Uncertainty
from kao.diffusion.weights import Weight
from kao.errors import ConfigError


class Losses(NamedTuple):
    """The loss of each image, and where on the schedule it was taken.

    Attributes:
        value: What to average and descend, (B,), in the images' dtype and on their device.
        level: Noise level of each image, fields (B,), float64 on the CPU.
        t: Time of each image, (B,), float64 on the CPU.
        shown: The weighted norm alone, without what options add to it and without the weight of
            the drawn time, (B,), like `value` but without gradient: what runs are compared by.
        error: Mean squared error of x0_hat a pixel, (B,), like `shown`; at most that of a grey
            picture, which needs no model.
        pull: What the gradient of `value` grows with, (B,), like `shown`: everything that is
            descended, but without the weight of the drawn time and without the uncertainty itself.
    """

    value: Tensor
    level: Level
    t: Tensor
    shown: Tensor
    error: Tensor
    pull: Tensor


class Drawn(NamedTuple):
    """What is drawn for a batch before its loss is taken.

    Attributes:
        t: Time of each image, (B,), float64 on the CPU.
        importance: Weight of each drawn time, (B,), float64 on the CPU: see `Draw`.
        eps: The noise that is asked for, (B, C, H, W), like the images.
        seen: The noise that the network is shown, (B, C, H, W): eps, or a little more.
    """

    t: Tensor
    importance: Tensor
    eps: Tensor
    seen: Tensor

    def rows(self, rows: slice) -> "Drawn":
        """What was drawn for some of the images."""
        return Drawn(self.t[rows], self.importance[rows], self.eps[rows], self.seen[rows])


class DenoisingLoss(nn.Module):
    """Weighted regression on the denoiser's target.

    A module, because times and uncertainty may have numbers of their own to learn and to save.

    Args:
        times: Where on the schedule to train.
        weight: Weight on the squared error of x_0.  None: the plain mean of the norm over
            whatever the network itself says, which is what most papers write.  A network that is
            asked at its own levels (`Native`) so keeps the loss that it was trained with, level
            by level, whatever the denoiser's target.  With a norm other than `l2` the factor
            that carries a weight from x_0 to y multiplies that norm.
        norm: Penalty of the residual in the network's output.
        offset_noise: Standard deviation of a constant added to the noise of each image and
            channel, so that an image's mean is learned too (Guttenberg 2023); 0.1 is customary.
        input_perturbation: Standard deviation, in units of the noise, of more noise that the
            network sees and is not asked for (Ning et al. 2023, gamma); 0.1 in the paper.
        bound: Weight of the variational bound in bits per dimension, for a denoiser with learned
            variance only; 0.001 in Nichol & Dhariwal (2021), eq. 16.
        uncertainty: Divides levels by the loss they have.
        perceptual: Adds a distance between images.

    Raises:
        ConfigError: A number is negative or not finite.
    """

    def __init__(
        self,
        times: Times,
        *,
        weight: Weight | None = None,
        norm: Norm = l2,
        offset_noise: float = 0.0,
        input_perturbation: float = 0.0,
        bound: float = 0.0,
        uncertainty: Uncertainty | None = None,
        perceptual: Perceptual | None = None,
    ):
        super().__init__()
        _refuse_out_of_range("offset_noise", offset_noise, customary="0.1")
        _refuse_out_of_range("input_perturbation", input_perturbation, customary="0.1")
        _refuse_out_of_range("bound", bound, customary="0.001")
        self.times, self.weight, self.norm = times, weight, norm
        self.offset_noise, self.input_perturbation = offset_noise, input_perturbation
        self.bound, self.uncertainty, self.perceptual = bound, uncertainty, perceptual

    def forward(
        self, denoiser: Denoiser, x0: Tensor, condition: Any, generator: torch.Generator
    ) -> Losses:
        """Loss of each image at a random time.

        Args:
            denoiser: The model under training.
            x0: Clean images or latents, (B, C, H, W), float32.
            condition: Whatever the network takes.
            generator: Source of t and all noise, on the CPU: the same seed draws the same loss
                on every device.

        Returns:
            Values and levels, in batch order.

        Raises:
            ConfigError: There is a bound and the denoiser has no learned variance, or the reverse.
        """
        t, importance = self.times(len(x0), generator)
        drawn = Drawn(t, importance, *self.noise(x0, generator))
        return self.at(denoiser, x0, condition, drawn)

    def noise(self, x0: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The noise that is asked for, and what the network is shown instead.

        Args:
            x0: Gives shape, dtype and device, (B, C, H, W).
            generator: On the CPU.

        Returns:
            eps and seen of `Drawn`; one tensor twice where there is no input perturbation.
        """
        eps = torch.randn(x0.shape, generator=generator).to(x0)
        if self.offset_noise > 0:
            shift = torch.randn(*x0.shape[:2], 1, 1, generator=generator).to(x0)
            eps = eps + self.offset_noise * shift
        if self.input_perturbation == 0:
            return eps, eps
        xi = torch.randn(x0.shape, generator=generator).to(x0)
        return eps, eps + self.input_perturbation * xi

    def at(self, denoiser: Denoiser, x0: Tensor, condition: Any, drawn: Drawn) -> Losses:
        """Loss of each image at times and with noise that are drawn already.

        An image's loss does not depend on the others in the batch.

        Args:
            denoiser: The model under training.
            x0: Clean images or latents, (B, C, H, W), float32.
            condition: Whatever the network takes.
            drawn: For these images.

        Returns:
            Values and levels, in batch order.

        Raises:
            ConfigError: There is a bound and the denoiser has no learned variance, or the reverse.
        """
        _refuse_without_a_use(self.bound, denoiser)
        t, importance, eps, seen = drawn
        level = denoiser.schedule(t)
        here = level.like(x0)
        a, b = denoiser.target(here)
        output = denoiser.output(here.alpha * x0 + here.sigma * seen, t, condition)
        y, variance = denoiser.split(output)
        residual = y - (a * x0 + b * eps)
        wrong = residual
        if self.weight is None:
            # In y an error of what the network says may count thousands of times near pure noise.
            wrong = denoiser.own_residual(residual, level, unasked=seen - eps)
        value = self.norm(wrong).flatten(1).mean(1)
        if self.weight is not None:
            # MSE on y already weighs x_0 by (det / sigma)^2; divide that out, put ours in.
            natural = (determinant(level, denoiser.target) / level.sigma) ** 2
            value = value * (self.weight(level) / natural).to(value)
        shown = value.detach()
        # Equation (6) of docs/mathematics.md, for the x_t that the network was shown.
        off = here.sigma / determinant(here, denoiser.target) * (b * (seen - eps) - residual)
        x0_hat = x0 + off
        # Being worse than a grey picture shows what is untrained, not what can be known.
        grey = x0.square().flatten(1).mean(1)
        error = off.detach().square().flatten(1).mean(1).minimum(grey)

        u = self.uncertainty(level) if self.uncertainty is not None else None
        if u is not None:
            value = value / u.exp()
        if self.perceptual is not None:
            value = value + self.perceptual(x0_hat, x0, level)
        if variance is not None:
            bits = variational_bound(x0, x0_hat, variance, t, denoiser.schedule)
            value = value + self.bound * bits
        pull = value.detach()
        if u is not None:
            value = value + u
        return Losses(value * importance.to(value), level, t, shown, error, pull)


def _refuse_out_of_range(name: str, value: float, *, customary: str) -> None:
    if not 0 <= value < math.inf:
        raise ConfigError(
            f"loss.{name} = {value}, but it must be a number from 0 up: 0 turns it off, "
            f"{customary} is customary."
        )


def _refuse_without_a_use(bound: float, denoiser: Denoiser) -> None:
    """Raise ConfigError if a variance would go unlearned, or a bound have nothing to teach."""
    if bound > 0 and not denoiser.learned_variance:
        raise ConfigError(
            f"loss.bound = {bound}, but this denoiser has no learned variance for the bound to "
            f"teach: build it with one, or set loss.bound = 0."
        )
    if bound == 0 and denoiser.learned_variance:
        raise ConfigError(
            "This denoiser has a learned variance, but loss.bound = 0 would never teach it: set "
            "loss.bound = 0.001, or build it without."
        )
