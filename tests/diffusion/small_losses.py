"""A small denoiser and its losses, for the tests of losses."""

import pytest
import torch
from torch import Tensor, nn

from kao.diffusion.denoiser import Denoiser
from kao.diffusion.losses import DenoisingLoss, Losses
from kao.diffusion.schedules import SCHEDULES, DiscreteSchedule, NoiseSchedule
from kao.diffusion.targets import TARGETS
from kao.diffusion.times import Draw, Times

PURE_NOISE = ("vp_cosine", "flow")
PAIRS = [(s, t) for s in SCHEDULES for t in TARGETS if t != "eps" or s not in PURE_NOISE]
pairs = pytest.mark.parametrize(("schedule", "target"), PAIRS)


class Net(nn.Module):
    """A small fixed network that uses all it is told, and keeps what it saw."""

    def __init__(self, *, channels: int = 1, outputs: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(channels, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        self.double()

    def forward(self, x, label, condition):
        self.seen = x.detach()
        weight, bias = self.conv.weight.to(x), self.conv.bias.to(x)
        y = nn.functional.conv2d(x, weight, bias, padding=1)
        return y.tanh() + (label / 500).sin().reshape(-1, 1, 1, 1).to(x)


class At(Times):
    """Given times, whatever the generator says."""

    def __init__(self, schedule: NoiseSchedule, t: Tensor, weight: float = 1.0):
        super().__init__(schedule)
        self.t, self.importance = t, weight

    def forward(self, batch: int, generator: torch.Generator) -> Draw:
        return Draw(self.t, torch.full_like(self.t, self.importance))


def made(entry):
    """An entry of a registry with its default options."""
    return entry() if isinstance(entry, type) else entry


def denoiser_of(
    schedule: str, target: str, *, channels: int = 1, learned_variance: bool = False
) -> Denoiser:
    network = Net(channels=channels, outputs=channels * (1 + learned_variance))
    curve, row = SCHEDULES[schedule]().build(), made(TARGETS[target])
    return Denoiser(network, curve, row, learned_variance=learned_variance)


def images(batch: int = 6, channels: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(batch, channels, 4, 4, generator=generator, dtype=torch.float64)
    return x * 2 - 1


def at(denoiser: Denoiser, *shares: float) -> At:
    """Times at these shares of the schedule, or six from 0.1 to 0.9."""
    where = torch.tensor(shares or (0.1, 0.26, 0.42, 0.58, 0.74, 0.9), dtype=torch.float64)
    return At(denoiser.schedule, where * denoiser.schedule.t_max)


def from_end_to_end(denoiser: Denoiser) -> At:
    """The cleanest time that can be drawn, the middle, and the noisiest."""
    last = denoiser.schedule.t_max
    first = 1 if isinstance(denoiser.schedule, DiscreteSchedule) else 2**-53 * last
    return At(denoiser.schedule, torch.tensor([first, last / 2, last], dtype=torch.float64))


def draw(loss: DenoisingLoss, denoiser: Denoiser, x0: Tensor) -> Losses:
    return loss(denoiser, x0, None, torch.Generator().manual_seed(2))


def squared_error_of_x0(denoiser: Denoiser, x0: Tensor, t: Tensor) -> Tensor:
    """|x0_hat - x0|^2 a pixel, on the noise that `draw` makes."""
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(2)).to(x0)
    alpha, sigma = denoiser.schedule(t).like(x0)
    prediction = denoiser(alpha * x0 + sigma * eps, t)
    return (prediction.x0 - x0).square().flatten(1).mean(1)


def gradient(loss: DenoisingLoss, denoiser: Denoiser, x0: Tensor) -> Tensor:
    """Of the mean loss, in all of the network's parameters."""
    denoiser.zero_grad()
    draw(loss, denoiser, x0).value.mean().backward()
    return torch.cat([p.grad.flatten() for p in denoiser.parameters()])
