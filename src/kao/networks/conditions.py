"""What a network may be told beside the noise level, and what of it a network takes.

Where in its picture lies what is shown, what was done to it, of which class it is, and a text.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kao.errors import ConfigError


class Conditions(NamedTuple):
    """What a network is told of each picture; None: nothing in particular.

    Attributes:
        where: Coordinates of what is shown, (B, 2, H, W), x to the right and then y downwards, of
            the centres of the pixels; a whole picture reaches from -1 to 1, so a part of one has
            a part of that (Wang et al. 2023, "Patch Diffusion").
        augmentation: What was done to each picture, (B, A), float32, zeros where nothing was
            (Karras et al. 2022, appendix F.2).
        label: Of which class each picture is, (B,), int64, 0 .. classes - 1; `classes` itself
            says nothing of the class, as guidance without a classifier needs (Ho & Salimans
            2022).
        tokens: A text or another sequence, (B, L, T), float32, as an encoder made it.
    """

    where: Tensor | None = None
    augmentation: Tensor | None = None
    label: Tensor | None = None
    tokens: Tensor | None = None


NOTHING = Conditions()
"""Of whole pictures of any class to which nothing was done."""


@dataclass(frozen=True)
class Takes:
    """What a network is built to be told.

    Attributes:
        coordinates: Whether it sees where in the picture each pixel lies.
        augmentations: Numbers that it takes of what was done to each picture; 0: none.
        classes: Of pictures that it tells apart; 0: none.
        tokens: Width of the tokens that it reads; 0: none.
    """

    coordinates: bool = False
    augmentations: int = 0
    classes: int = 0
    tokens: int = 0

    def channels(self, of_pictures: int) -> int:
        """Channels of what the network sees: those of the pictures and the coordinates."""
        return of_pictures + (2 if self.coordinates else 0)

    def refuse_tokens(self, kind: str) -> None:
        """Refuse tokens for a network that reads none.

        Args:
            kind: Its name in `NETWORKS`.

        Raises:
            ConfigError: It is to read some.
        """
        if self.tokens:
            raise ConfigError(
                f'A network of kind "{kind}" reads no tokens, and is to read some of width '
                f'{self.tokens}: take network.kind = "dit", or give it classes.'
            )

    def refuse_unheard(self, given: Conditions) -> None:
        """Refuse a condition that would be lost, or a class that there is not.

        Classes are looked at on the CPU alone: on a GPU the network would have to wait for them.

        Raises:
            ConfigError: It tells of what the network was not built for.
        """
        if given.where is not None and not self.coordinates:
            raise ConfigError(
                "This network does not see where in a picture it looks, and was given "
                "coordinates: build it with coordinates=True, or give it none."
            )
        if given.augmentation is not None and not self.augmentations:
            raise ConfigError(
                "This network takes no numbers of what was done to a picture, and was given some: "
                "build it with as many augmentations, or give it none."
            )
        if given.label is not None and not self.classes:
            raise ConfigError(
                "This network tells no classes apart, and was given labels: build it with as many "
                "classes, or give it none."
            )
        self._refuse_strange(given.label)
        if given.tokens is not None and not self.tokens:
            raise ConfigError(
                "This network reads no tokens, and was given some: build it with their width, or "
                "give it none."
            )

    def _refuse_strange(self, label: Tensor | None) -> None:
        """Refuse classes that there are not, where to look costs nothing and nothing is traced."""
        if label is None or label.device.type != "cpu" or torch.compiler.is_compiling():
            return
        if strange := [i for i in label.tolist() if not 0 <= i <= self.classes]:
            raise ConfigError(
                f"This network tells {self.classes} classes apart, and was given the label "
                f"{strange[0]}: give it 0 to {self.classes - 1}, or {self.classes} for no class."
            )

    def augmented(self, width: int) -> nn.Linear | None:
        """A layer from what was done to a picture to an embedding; None where none is taken."""
        return nn.Linear(self.augmentations, width, bias=False) if self.augmentations else None

    def named(self, width: int) -> nn.Embedding | None:
        """The embeddings of the classes and, last, of no class; None where none are taken.

        They start as zeros: a network that is told classes begins as one that is not.
        """
        if not self.classes:
            return None
        table = nn.Embedding(self.classes + 1, width)
        nn.init.zeros_(table.weight)
        return table


def told(
    embedding: Tensor,
    given: Conditions,
    *,
    augmented: nn.Linear | None,
    classes: nn.Embedding | None,
) -> Tensor:
    """An embedding of the noise level with what else is said of each picture added.

    Args:
        embedding: (B, E).
        given: What is said; a label that is not given stands for no class.
        augmented: From `Takes.augmented`.
        classes: From `Takes.named`.

    Returns:
        (B, E).
    """
    if augmented is not None and given.augmentation is not None:
        embedding = embedding + augmented(given.augmentation)
    if classes is not None:
        label = given.label
        if label is None:
            label = torch.full(
                (embedding.shape[0],), classes.num_embeddings - 1, device=embedding.device
            )
        embedding = embedding + classes(label)
    return embedding


def placed(x: Tensor, where: Tensor | None) -> Tensor:
    """Pictures with the coordinates of their pixels as two more channels.

    Args:
        x: (B, C, H, W).
        where: As in `Conditions`; None: whole pictures.

    Returns:
        (B, C + 2, H, W), in the dtype of `x`.
    """
    if where is None:
        where = whole(*x.shape[2:], device=x.device).expand(x.shape[0], -1, -1, -1)
    return torch.cat([x, where.to(x)], dim=1)


def whole(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Coordinates of a whole picture.

    Args:
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        device: Where to make them; None: the default device.

    Returns:
        (2, H, W), float32, above -1 and below 1, x and then y.
    """
    x = (2 * torch.arange(width, device=device) + 1) / width - 1
    y = (2 * torch.arange(height, device=device) + 1) / height - 1
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
