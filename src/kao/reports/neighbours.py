"""Is it a copy? Samples beside the training pictures that are nearest to them.

Distances are root mean squares over the values compared, in grey levels 0..255.  A picture and
its mirror image count as one: training may have shown either.  Many sets hold pictures twice,
often mirrored; such a *twin* is passed over, else it would take the place of a neighbour and
make real pictures seem to be copies of each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from kao.errors import DataError
from kao.visualisation import outline_font

View = Callable[[Tensor], Tensor]
"""What of pictures is compared: uint8 (B, 3, S, S) -> float32 (B, D), in grey levels."""

_INK, _PAPER = (42, 40, 38), (255, 255, 255)
_TILE = 96  # about how wide a neighbour is drawn, pixels
_MEANS = 8

TWIN = 2.0
"""Pictures nearer than this by pixels, in grey levels, are the same one, coded anew."""

_EXACT = "donot_use_mm_for_euclid_dist"  # differences, not a product that cancels

_SPARE = 3  # times as many are searched as are wanted, to have enough where twins are dropped


def pixels(images: Tensor) -> Tensor:
    """All values of uint8 pictures, (B, 3, S, S) -> float32 (B, 3 * S * S)."""
    return images.float().flatten(1)


def coarse(images: Tensor) -> Tensor:
    """Means over 8 x 8 places: composition and colours without detail or small shifts.

    Args:
        images: uint8, (B, 3, S, S).

    Returns:
        float32, (B, 192).
    """
    return adaptive_avg_pool2d(images.float(), _MEANS).flatten(1)


VIEWS: dict[str, View] = {"by pixels": pixels, f"by {_MEANS} x {_MEANS} means": coarse}
"""The rows of the figure."""


@dataclass(frozen=True)
class Neighbours:
    """The K pictures nearest to each of Q, the nearest first.

    Attributes:
        distance: Root mean square difference, grey levels, float32, (Q, K).
        index: Which of the others, int64, (Q, K).
        mirrored: Whether its mirror image is what is near, bool, (Q, K).
    """

    distance: Tensor
    index: Tensor
    mirrored: Tensor


def nearest(
    pictures: Tensor,
    others: Tensor,
    view: View,
    *,
    k: int,
    own: Tensor | None = None,
    chunk: int = 2048,
) -> Neighbours:
    """Search all others, mirrored ones included, a chunk at a time.

    |q - x|^2 = |q|^2 - 2 q.x + |x|^2 makes the search a matrix product.  It cancels where q and
    x are nearly equal, so the distances of those found are then computed from differences.

    Args:
        pictures: uint8, (Q, 3, S, S).
        others: uint8, (N, 3, S, S); each counts once, by the nearer of itself and its mirror
            image.
        view: What is compared.
        k: How many, at least 1; all that there are, if they are fewer.
        own: Index in `others` of each of `pictures`, int64, (Q,), which is passed over; None
            where they are no part of them.
        chunk: Others at a time: memory is chunk * D floats.
    """
    k = min(k, len(others) - (own is not None))
    count = len(pictures)
    both = torch.cat([view(pictures), view(pictures.flip(-1))])
    middle = both.mean(0)  # differences stay, and squares lose no digits to a common brightness
    both = both - middle
    squares = both.square().sum(1, keepdim=True)
    best = both.new_full((count, 0), 0.0)
    index = torch.zeros(count, 0, dtype=torch.int64)
    for start in range(0, len(others), chunk):
        part = view(others[start : start + chunk]) - middle
        distance = torch.addmm(part.square().sum(1), both, part.T, alpha=-2) + squares
        distance = distance.view(2, count, len(part)).amin(0)
        if own is not None:
            mine = ((own >= start) & (own < start + len(part))).nonzero().flatten()
            distance[mine, own[mine] - start] = torch.inf
        numbers = torch.arange(start, start + len(part)).expand(count, -1)
        best, index = torch.cat([best, distance], dim=1), torch.cat([index, numbers], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1, largest=False)
        index = index.gather(1, kept)
    return _measured(pictures, others, view, index)


def _measured(pictures: Tensor, others: Tensor, view: View, index: Tensor) -> Neighbours:
    """The distances of those found, from differences, and their order by them."""
    distances, mirrored = [], []
    for straight, flipped, found in zip(
        view(pictures), view(pictures.flip(-1)), index, strict=True
    ):
        seen = view(others[found])
        pair = torch.stack([straight - seen, flipped - seen]).square().mean(2).sqrt()
        distances.append(pair.amin(0))
        mirrored.append(pair[1] < pair[0])
    distance, order = torch.stack(distances).sort(dim=1, stable=True)
    return Neighbours(distance, index.gather(1, order), torch.stack(mirrored).gather(1, order))


def without_twins(found: Neighbours, others: Tensor, *, k: int) -> Neighbours:
    """The first k neighbours of each picture that are no twins of nearer ones.

    Args:
        found: More than k, for some will go.
        others: What was searched, uint8, (N, 3, S, S).
        k: How many to keep; a picture with too few is filled up with twins, the nearest first.
    """
    kept = []
    for numbers in found.index:
        seen = pixels(others[numbers])
        gaps = torch.cdist(
            seen, torch.cat([seen, pixels(others[numbers].flip(-1))]), compute_mode=_EXACT
        )
        twins = (gaps / seen.shape[1] ** 0.5 < TWIN).view(len(seen), 2, -1).any(1)
        again = twins.tril(-1).any(1)
        kept.append(again.int().sort(stable=True).indices[:k].sort().values)
    order = torch.stack(kept)
    columns = (found.distance, found.index, found.mirrored)
    return Neighbours(*(column.gather(1, order) for column in columns))


class Usual(NamedTuple):
    """What is usual among real pictures.

    Attributes:
        distance: Median distance to the nearest other picture that is no twin, grey levels.
        asked: Of how many pictures.
        twins: Share of them that occur again in the set, mirrored or not, 0..1.
    """

    distance: float
    asked: int
    twins: float


def usual_distance(images: Tensor, view: View, *, most: int = 256, seed: int = 0) -> Usual:
    """How far real pictures are from each other, to compare samples with.

    Args:
        images: uint8, (N, 3, S, S), at least two.
        view: What is compared.
        most: At most so many, chosen at random, are asked; they are compared with all.
        seed: Of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    asked = torch.randperm(len(images), generator=generator)[:most]
    found = nearest(images[asked], images, view, k=8, own=asked)
    gaps = []
    for picture, numbers in zip(images[asked], found.index, strict=True):
        both = torch.stack([picture, picture.flip(-1)])
        differences = pixels(both)[:, None] - pixels(images[numbers])
        gaps.append(differences.square().mean(2).sqrt().amin(0))
    twins = torch.stack(gaps) < TWIN
    # Where all eight are twins, the last is the best that is known.
    first = (
        twins.int().argmin(1, keepdim=True).where(~twins.all(1, keepdim=True), -1 + twins.shape[1])
    )
    distance = found.distance.gather(1, first).median()
    return Usual(float(distance), len(asked), float(twins.any(1).double().mean()))


@dataclass(frozen=True)
class Comparison:
    """Samples, their neighbours in each view, and what is usual among real pictures.

    Attributes:
        samples: uint8, (Q, 3, S, S).
        others: The real pictures, uint8, (N, 3, S, S).
        found: By the names of `VIEWS`.
        usual: By the same names.
    """

    samples: Tensor
    others: Tensor
    found: dict[str, Neighbours]
    usual: dict[str, Usual]

    def sentence(self) -> str:
        """The medians in words."""
        names = list(self.found)
        samples = [
            f"{found.distance[:, 0].median():.1f} {name}" for name, found in self.found.items()
        ]
        real = [f"{self.usual[name].distance:.1f}" for name in names]
        usual = self.usual[names[0]]
        again = f" ({usual.twins:.0%} of them occur again, mirrored or not, which is not counted)"
        return (
            f"Median distance to the nearest of {len(self.others):,} training pictures: "
            f"{' and '.join(samples)} for {len(self.samples)} samples, {' and '.join(real)} for "
            f"{usual.asked} real pictures{again if usual.twins else ''}."
        )


def compare(samples: Tensor, others: Tensor, *, k: int, seed: int = 0) -> Comparison:
    """Find the neighbours of samples in every view, and what is usual.

    Args:
        samples: uint8, (Q, 3, S, S), at least one.
        others: The training pictures, uint8, (N, 3, S, S).
        k: Neighbours a sample and view.
        seed: Of the choice of real pictures to compare with.

    Raises:
        DataError: There are fewer than two training pictures.
    """
    if len(others) < 2:
        raise DataError(
            f"Neighbours are compared with those of real pictures, and there is {len(others)}: "
            f"train on two pictures or more."
        )
    found = {
        name: without_twins(nearest(samples, others, view, k=_SPARE * k), others, k=k)
        for name, view in VIEWS.items()
    }
    usual = {name: usual_distance(others, view, seed=seed) for name, view in VIEWS.items()}
    return Comparison(samples, others, found, usual)


def neighbours_sheet(comparison: Comparison) -> Image.Image:
    """Each sample, large, beside its nearest training pictures: a row a view, distances below.

    Mirrored neighbours are drawn as they were compared, mirrored, and marked so.
    """
    samples = comparison.samples
    scale = max(1, round(_TILE / samples.shape[-1]))
    tile, font, small = samples.shape[-1] * scale, outline_font(17), outline_font(15)
    line, gap, gutter = 24, 8, 26
    k = next(iter(comparison.found.values())).index.shape[1]
    row = tile + line + gap
    rows = len(comparison.found)
    large = rows * row - line - gap
    width, height = large + gutter + k * (tile + gap), rows * row + 2 * gap
    columns = 2 if len(samples) > 1 and width < 900 else 1
    margin, between = 18, 34

    total = 2 * margin + columns * width + (columns - 1) * between
    head = _wrapped(
        "Left, a sample; right of it, the training pictures nearest to it, one row for each way "
        "to compare. Numbers: root mean square difference in grey levels, 0 to 255; m: the mirror "
        "image is nearer. " + comparison.sentence(),
        font,
        total - 2 * margin,
    )
    top = margin + len(head) * line + gap
    deep = -(-len(samples) // columns)
    sheet = Image.new("RGB", (total, top + deep * height + margin - 2 * gap), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(head):
        draw.text((margin, margin + i * line), words, font=font, fill=_INK)
    for i, sample in enumerate(samples):
        left = margin + (i % columns) * (width + between)
        up = top + (i // columns) * height
        sheet.paste(_enlarged(sample, large), (left, up))
        for r, (name, found) in enumerate(comparison.found.items()):
            y = up + r * row
            label = _upright(name, small)
            sheet.paste(label, (left + large + 4, y + (tile - label.height) // 2))
            for j in range(k):
                x = left + large + gutter + j * (tile + gap)
                picture = comparison.others[found.index[i, j]]
                mirrored = bool(found.mirrored[i, j])
                sheet.paste(_enlarged(picture.flip(-1) if mirrored else picture, tile), (x, y))
                text = f"{found.distance[i, j]:.1f}" + (" m" if mirrored else "")
                place = (x + tile // 2, y + tile + 4)
                draw.text(place, text, font=font, fill=_INK, anchor="mt")
    return sheet


def _enlarged(picture: Tensor, side: int) -> Image.Image:
    array = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).resize((side, side), Image.Resampling.NEAREST)


def _upright(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A line of text that reads from below."""
    label = Image.new("RGB", (round(font.getlength(text)) + 2, 20), _PAPER)
    ImageDraw.Draw(label).text((0, 1), text, font=font, fill=_INK)
    return label.rotate(90, expand=True)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> Sequence[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
