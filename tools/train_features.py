"""Train the feature network that comes with kao, on drawn pictures alone.

    python tools/train_features.py --out src/kao/metrics/spaces/faces-1.safetensors

No real picture is read.  The pictures are toy faces (with textures, light and colours of their own
laid over them), dead leaves (Lee et al. 2001) and noise with the spectrum of natural pictures
(Field 1987).  From linear readings of its features the network learns three things at once:

* what was done to a picture, and how much of it: eleven kinds of damage, up to several at a time;
* what a toy face is: species, colours, expression, accessories, pose, eyes;
* which two of the views in a batch are of the same picture (van den Oord et al. 2018).

One core takes some minutes.  The same seed gives the same file on the same machine and PyTorch.
`--steps 0` writes a network that has learnt nothing, to compare with.
"""

import argparse
import math
import time
from dataclasses import astuple
from pathlib import Path

import torch
from damage import DAMAGES, damaged, uniform
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from kao.data.toy.attributes import ToyFace
from kao.data.toy_faces import ToyFaces, toy_face
from kao.metrics.spaces.faces import SIDE, Layers
from kao.pixels import to_float
from kao.seeds import mixed_seed

DRAWN = 48  # pixels of a side of the pictures that views are cut from
WORDS = ("species", "coat", "skin", "eyes", "expression", "style", "accessory", "background")
BATCH = 96
FACES = 72  # of a batch; the rest are leaves and noise
RATE = 2e-3
TEMPERATURE = 0.2


# --- pictures ---------------------------------------------------------------------------------


def toy_faces(count: int, *, seed: int) -> tuple[Tensor, list[tuple[Tensor, int]], Tensor]:
    """Toy faces, and what they are.

    Returns:
        Pictures, (N, 3, 48, 48) in [-1, 1]; for each of WORDS the answers (N,) and how many
        different ones there are; numbers about pose and eyes, (N, 11), standardised.
    """
    source = ToyFaces(count, size=DRAWN, seed=seed)
    images = torch.stack([source[i].image for i in range(count)])
    faces = [toy_face(seed, i) for i in range(count)]
    answers = []
    for word in WORDS:
        said = [getattr(face, word) for face in faces]
        index = {value: k for k, value in enumerate(sorted(set(said)))}
        answers.append((torch.tensor([index[value] for value in said]), len(index)))
    numbers = torch.tensor([_numbers(face) for face in faces])
    return to_float(images), answers, (numbers - numbers.mean(0)) / numbers.std(0)


def _numbers(face: ToyFace) -> tuple[float, ...]:
    return (*astuple(face.pose), *face.gaze, face.eye_size, face.eye_gap)


def dead_leaves(count: int, generator: Generator) -> Tensor:
    """Opaque discs of all sizes over each other: edges, corners, flat colours, (N, 3, 48, 48)."""
    axis = torch.linspace(0, 1, DRAWN)
    x = uniform((count, 3, 1, 1), -1, 1, generator).expand(-1, -1, DRAWN, DRAWN)
    for _ in range(50):
        centre = uniform((count, 2, 1, 1), -0.1, 1.1, generator)
        # Areas follow a power law, between a twentieth and half of the picture's side.
        radius = 0.05 / uniform((count, 1, 1), 0.1, 1, generator)
        colour = uniform((count, 3, 1, 1), -1, 1, generator)
        far = (axis[:, None] - centre[:, 0]).square() + (axis - centre[:, 1]).square()
        x = torch.where((far < radius.square())[:, None], colour, x)
    return x


def natural_noise(count: int, generator: Generator) -> Tensor:
    """Noise whose spectrum falls as 1 / f^a, a about 1, with its own colours, (N, 3, 48, 48)."""
    v, u = torch.meshgrid(torch.fft.fftfreq(DRAWN), torch.fft.rfftfreq(DRAWN), indexing="ij")
    frequency = (u.square() + v.square()).sqrt().clamp(min=1 / DRAWN)
    power = uniform((count, 1, 1, 1), 0.5, 2, generator)
    white = torch.fft.rfft2(torch.randn(count, 3, DRAWN, DRAWN, generator=generator))
    x = torch.fft.irfft2(white * frequency**-power, s=(DRAWN, DRAWN))
    x = x / x.std((2, 3), keepdim=True)
    # Channels of a picture go together: a strong common part, and a weaker one of each.
    mixing = torch.ones(3, 3) / 3 + 0.3 * torch.randn(count, 3, 3, generator=generator)
    x = torch.einsum("nij,njhw->nihw", mixing, x) * uniform((count, 1, 1, 1), 0.2, 0.8, generator)
    return (x + uniform((count, 3, 1, 1), -0.4, 0.4, generator)).clamp(-1, 1)


def views(x: Tensor, texture: Tensor, generator: Generator) -> Tensor:
    """Cut, turned and lit a little differently each time: (N, 3, 48, 48) to (N, 3, 32, 32)."""
    n = len(x)
    angle = uniform((n,), -0.1, 0.1, generator)
    zoom = uniform((n,), 0.85, 1.05, generator)
    cos, sin, shift = (
        angle.cos() * zoom,
        angle.sin() * zoom,
        uniform((n, 2), -0.08, 0.08, generator),
    )
    affine = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(n, 2, 3)
    grid = F.affine_grid(affine, [n, 3, DRAWN, DRAWN], align_corners=False)
    # Half of the faces get a texture, since toy faces are flatter than skin, fur and hair.
    amount = uniform((n, 1, 1, 1), -0.3, 0.3, generator).clamp(min=0)
    x = F.grid_sample(x + amount * texture, grid, padding_mode="reflection", align_corners=False)
    x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
    light = F.interpolate(torch.randn(n, 1, 2, 2, generator=generator), SIDE, mode="bilinear")
    x = x + 0.1 * light + uniform((n, 3, 1, 1), -0.05, 0.05, generator)
    return (x * uniform((n, 1, 1, 1), 0.85, 1.1, generator)).clamp(-1, 1)


class Bank:
    """The pictures of the training, drawn once."""

    def __init__(self, *, seed: int, faces: int = 6000, others: int = 2000):
        generator = Generator().manual_seed(mixed_seed(seed, 0))
        self.faces, self.answers, self.numbers = toy_faces(faces, seed=seed)
        self.noise = natural_noise(others, generator)
        self.others = torch.cat([dead_leaves(others, generator), self.noise])

    def some(self, generator: Generator) -> tuple[Tensor, Tensor]:
        """Which faces, and a batch of pictures of which those are the first FACES."""
        faces = torch.randint(len(self.faces), (FACES,), generator=generator)
        others = torch.randint(len(self.others), (BATCH - FACES,), generator=generator)
        return faces, torch.cat([self.faces[faces], self.others[others]])

    def seen(self, x: Tensor, generator: Generator) -> Tensor:
        """New views of pictures."""
        texture = torch.randint(len(self.noise), (len(x),), generator=generator)
        return views(x, self.noise[texture], generator)


# --- learning ---------------------------------------------------------------------------------


class Readings(nn.Module):
    """What is read off the features while training; thrown away after it."""

    def __init__(self, width: int, *, answers: list[int], numbers: int):
        super().__init__()
        self.units = nn.BatchNorm1d(width, affine=False)
        self.answers = nn.ModuleList(nn.Linear(width, count) for count in answers)
        self.numbers = nn.Linear(width, numbers)
        self.damage = nn.Linear(width, len(DAMAGES))
        self.identity = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64))


def same_picture(a: Tensor, b: Tensor) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, eq. 4): which of the b is of the picture of each a."""
    close = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / TEMPERATURE
    own = torch.arange(len(a))
    return (F.cross_entropy(close, own) + F.cross_entropy(close.T, own)) / 2


def train(layers: Layers, *, steps: int, seed: int, bank: Bank) -> None:
    """Change `layers` in place; see the file's docstring."""
    torch.manual_seed(mixed_seed(seed, 1))  # the readings' first weights
    generator = Generator().manual_seed(mixed_seed(seed, 2))
    counts = [count for _, count in bank.answers]
    readings = Readings(layers.means, answers=counts, numbers=bank.numbers.shape[1])
    parameters = [*layers.parameters(), *readings.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    began = time.process_time()
    for step in range(steps):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 50)
            group["lr"] = RATE * warm * (1 + math.cos(math.pi * step / steps)) / 2
        faces, x = bank.some(generator)
        pairs = [damaged(bank.seen(x, generator), generator) for _ in range(2)]
        found = readings.units(layers.averages(torch.cat([pair[0] for pair in pairs])))
        levels = torch.cat([pair[1] for pair in pairs])
        told = torch.cat([found[:FACES], found[BATCH : BATCH + FACES]])
        losses = {
            "damage": 10 * F.mse_loss(readings.damage(found), levels),
            "answers": torch.stack(
                [
                    F.cross_entropy(head(told), answer[faces].repeat(2))
                    for head, (answer, _) in zip(readings.answers, bank.answers, strict=True)
                ]
            ).mean(),
            "numbers": 0.5 * F.mse_loss(readings.numbers(told), bank.numbers[faces].repeat(2, 1)),
            "same": same_picture(*readings.identity(found).chunk(2)),
        }
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        if step % 50 == 0 or step == steps - 1:
            told_now = "  ".join(
                f"{name} {float(loss.detach()):.3f}" for name, loss in losses.items()
            )
            print(f"{step:5}  {time.process_time() - began:5.0f} s  {told_now}", flush=True)


@torch.no_grad()
def calibrate(layers: Layers, bank: Bank, *, seed: int) -> None:
    """Turn the averages to their principal axes over whole pictures of the training.

    Each axis is divided by the root of its standard deviation: half way between units in which
    brightness drowns all else and units in which all axes count alike, empty ones too.
    """
    generator = Generator().manual_seed(mixed_seed(seed, 3))
    pictures = (bank.seen(bank.some(generator)[1], generator) for _ in range(40))
    found = torch.cat([layers.averages(x) for x in pictures]).double()
    std = found.std(0)
    # A filter that hardly ever answers would otherwise drown the others when it does.
    scale = std.clamp(min=0.1 * float(std.median()))
    variances, axes = torch.linalg.eigh(torch.cov((found / scale).T))  # rising
    variances, axes = variances[-layers.width :], axes[:, -layers.width :]
    # Which way an axis points is the solver's choice: its largest part is to be positive.
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    layers.centre.copy_(found.mean(0))
    layers.axes.copy_(axes * largest.sign() / scale[:, None] / variances**0.25)


def main() -> None:
    """Draw, train, round to float16, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--name", default="faces-1", help="of the feature space")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    bank = Bank(seed=given.seed)
    torch.manual_seed(mixed_seed(given.seed, 4))
    layers = Layers()
    for convolution in layers.convolutions:
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
    train(layers, steps=given.steps, seed=given.seed, bank=bank)
    # Calibrated as it will be used: with the rounded weights.
    layers.half().float()
    calibrate(layers, bank, seed=given.seed)
    weights = {key: tensor.half().contiguous() for key, tensor in layers.state_dict().items()}
    save_file(weights, given.out, metadata={"name": given.name})
    print(f"{given.out}: {layers.width} features, {given.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
