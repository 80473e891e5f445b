"""Networks as papers have them, and what the papers say of their size and cost."""

from dataclasses import dataclass, replace

import torch

from kao.config import Request, RunConfig, dump
from kao.config.run import NetworkConfig
from kao.networks import SHAPES, EDM2Config, Takes, UNetConfig
from kao.networks.cost import flops, parameters

CLASSES = 1000
"""Of ImageNet."""


@dataclass(frozen=True)
class Published:
    """A network as a paper has it.

    Attributes:
        name: For the table.
        source: Author, year.
        config: Its shape.
        channels: Of what it sees.
        size: Of what it sees, pixels.
        parameters: Millions, as the paper says; None where it does not.
        operations: Thousands of millions of multiply-adds, as the paper says; None likewise.
        outputs: Channels of what it says.
        classes: That it tells apart.
    """

    name: str
    source: str
    config: NetworkConfig
    channels: int
    size: int
    parameters: float | None
    operations: float | None = None
    outputs: int | None = None
    classes: int = 0

    def counted(self) -> dict[str, float]:
        """Parameters, and operations of a forward pass."""
        with torch.device("meta"):
            network = self.config.build(
                channels=self.channels,
                size=self.size,
                outputs=self.outputs,
                takes=Takes(classes=self.classes),
            )
        return {
            "parameters": parameters(network),
            "flops": flops(network, (self.channels, self.size, self.size)),
        }


_DDPM = UNetConfig()
_ADM = UNetConfig(
    width=256,
    levels=(1, 1, 2, 2, 4, 4),
    attention=(32, 16, 8),
    head_width=64,
    level="film",
    resample="residual",
    embedding="adm",
    dropout=0.0,
)


def published() -> list[Published]:
    """All of them, in the order of the table."""
    table = [
        Published("DDPM, CIFAR-10", "Ho et al. (2020)", _DDPM, 3, 32, 35.7),
        Published(
            "DDPM, CelebA-HQ 256",
            "Ho et al. (2020)",
            replace(_DDPM, levels=(1, 1, 2, 2, 4, 4), dropout=0.0),
            3,
            256,
            113.7,
        ),
        Published(
            "ADM 64, classes",
            "Dhariwal & Nichol (2021)",
            replace(_ADM, width=192, levels=(1, 2, 3, 4), blocks=3),
            3,
            64,
            296,
            110,
            outputs=6,
            classes=CLASSES,
        ),
        Published(
            "ADM 128, classes",
            "Dhariwal & Nichol (2021)",
            replace(_ADM, levels=(1, 1, 2, 3, 4), heads=4, head_width=0),
            3,
            128,
            422,
            307,
            outputs=6,
            classes=CLASSES,
        ),
        Published(
            "ADM 256, classes",
            "Dhariwal & Nichol (2021)",
            _ADM,
            3,
            256,
            554,
            1120,
            outputs=6,
            classes=CLASSES,
        ),
        *_song(),
    ]
    for name, patch, millions, operations in (
        ("S", 2, 33, 6.06),
        ("B", 2, 130, 23.01),
        ("L", 2, 458, 80.71),
        ("XL", 2, 675, 118.64),
        ("XL", 4, 675, 29.05),
        ("XL", 8, 676, 7.39),
    ):
        table.append(
            Published(
                f"DiT-{name}/{patch}, latents",
                "Peebles & Xie (2023)",
                replace(SHAPES[name], patch=patch),
                4,
                32,
                millions,
                operations,
                outputs=8,
                classes=CLASSES,
            )
        )
    for name, width, millions, operations in (
        ("XS", 128, 125, 46),
        ("S", 192, 280, 102),
        ("M", 256, 498, 181),
        ("L", 320, 777, 282),
        ("XL", 384, 1119, 406),
        ("XXL", 448, 1523, 552),
    ):
        table.append(
            Published(
                f"EDM2-{name}, latents",
                "Karras et al. (2024a)",
                EDM2Config(width=width),
                4,
                64,
                millions,
                operations,
                classes=CLASSES,
            )
        )
    return table


def _song() -> list[Published]:
    """The networks of score-based models as Karras et al. (2022) train them on CIFAR-10."""
    found = []
    for name, recipe, millions in (("DDPM++", "ddpmpp-32", 56), ("NCSN++", "ncsnpp-32", 56)):
        config = config_of(recipe)
        found.append(
            Published(
                f"{name}, CIFAR-10",
                "Karras et al. (2022)",
                config.network,
                3,
                32,
                millions,
            )
        )
    return found


def config_of(recipe: str, *words: str) -> RunConfig:
    """A recipe, with changes."""
    return Request.of(recipe, words).over(dump(RunConfig()))
