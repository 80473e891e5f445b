"""Sheets of samples: those that are copies of training pictures, and the most and least typical."""

from PIL import Image, ImageDraw
from torch import Tensor

from kao.evaluation import Examination, PictureSet
from kao.metrics.copies import Copies
from kao.metrics.neighbours import MEANS, PIXELS
from kao.metrics.typicality import Ranking
from kao.reports.sheets import INK, LINE, PAPER, enlarged, wrapped
from kao.visualisation import outline_font

_TILE = 96  # about how wide a picture is drawn, pixels
_MARGIN, _GAP, _BETWEEN = 18, 8, 22
_PAIRS_A_ROW, _TILES_A_ROW = 4, 10


def sheets(found: Examination, train: PictureSet | None) -> dict[str, Image.Image]:
    """What an evaluation has to show, by the endings of file names.

    Args:
        found: What was found.
        train: The pictures that copies were looked for in.

    Returns:
        "-copies.png" and "-typical.png", where they were looked for.
    """
    images, shown = found.drawn.images, {}
    if found.copies and train:
        shown["-copies.png"] = copies_sheet(found.copies, images, train.images)
    if found.ranking:
        shown["-typical.png"] = typical_sheet(images, found.ranking)
    return shown


def copies_sheet(copies: Copies, samples: Tensor, train: Tensor, *, most: int = 24) -> Image.Image:
    """Samples that are flagged, each beside the training picture that it is nearest to.

    Mirrored training pictures are drawn as they were compared, mirrored, and marked so.  Where
    none is flagged those that come nearest to it are shown.

    Args:
        copies: What was found.
        samples: The samples, uint8, (Q, 3, S, S).
        train: The training pictures, uint8, (N, 3, S, S).
        most: At most so many, the most certain first.
    """
    # Those that are flagged have the least surprise, so they come first.
    shown = copies.surprise.argsort(stable=True)[: min(most, len(copies.flagged) or most)]
    tile, font, small = _tile(samples), outline_font(17), outline_font(15)
    cell = 2 * tile + 2
    columns = min(_PAIRS_A_ROW, len(shown))
    which = (
        f"Of {len(copies.flagged)} the first {len(shown)}. "
        if len(copies.flagged) > len(shown)
        else ""
        if len(copies.flagged)
        else "None is flagged; shown are those that are nearest to it. "
    )
    head = (
        f"Left, a sample; right of it, the training picture nearest to it. {which}Below: how they "
        f"were compared, their root mean square difference, and its ratio to that of the fifth "
        f"nearest training picture; m: the mirror image is nearer. {copies.sentence()}"
    )
    width = max(columns * (cell + _BETWEEN) - _BETWEEN, 560)
    lines = wrapped(head, font, width)
    rows = -(-len(shown) // columns)
    top = _MARGIN + len(lines) * LINE + _GAP
    step = tile + 2 * LINE + _GAP
    sheet = Image.new("RGB", (width + 2 * _MARGIN, top + rows * step + _MARGIN - _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + i * LINE), words, font=font, fill=INK)
    for place, number in enumerate(shown.tolist()):
        left = _MARGIN + place % columns * (cell + _BETWEEN)
        up = top + place // columns * step
        picture = train[copies.index[number]]
        mirrored = bool(copies.mirrored[number])
        sheet.paste(enlarged(samples[number], tile), (left, up))
        sheet.paste(
            enlarged(picture.flip(-1) if mirrored else picture, tile), (left + tile + 2, up)
        )
        view, middle = copies.view[number], left + cell // 2
        grey = view in (PIXELS, MEANS)
        units = "grey levels" if grey else "std"
        told = (
            view + (", m" if mirrored else ""),
            f"{copies.distance[number]:.1f} {units}, ratio {copies.ratio[number]:.2f}",
        )
        for i, words in enumerate(told):
            place_of = (middle, up + tile + 4 + i * (LINE - 4))
            draw.text(place_of, words, font=small, fill=INK, anchor="mt")
    return sheet


def typical_sheet(samples: Tensor, ranking: Ranking, *, count: int = 20) -> Image.Image:
    """The samples that look most like real pictures, and those that look least like them.

    Args:
        samples: uint8, (Q, 3, S, S).
        ranking: Of them.
        count: How many of each; fewer where half of the samples are fewer, one at least.
    """
    count = max(1, min(count, len(samples) // 2))
    parts = {
        "Most typical": ranking.order[:count],
        "Least typical, the least first": ranking.order.flip(0)[:count],
    }
    tile, font, small = _tile(samples), outline_font(17), outline_font(15)
    columns, rows = min(_TILES_A_ROW, count), -(-count // _TILES_A_ROW)
    width = max(columns * (tile + _GAP) - _GAP, 560)
    head = wrapped(
        f"Below: realism. At 1 a sample lies on the border of where most real pictures are. "
        f"{ranking.sentence()}",
        font,
        width,
    )
    step = tile + LINE
    top = _MARGIN + len(head) * LINE + _GAP
    block = LINE + rows * step + 2 * _GAP
    sheet = Image.new("RGB", (width + 2 * _MARGIN, top + 2 * block + _MARGIN - 2 * _GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(head):
        draw.text((_MARGIN, _MARGIN + i * LINE), words, font=font, fill=INK)
    for b, (title, numbers) in enumerate(parts.items()):
        start = top + b * block
        draw.text((_MARGIN, start), title, font=font, fill=INK)
        for place, number in enumerate(numbers.tolist()):
            left = _MARGIN + place % columns * (tile + _GAP)
            up = start + LINE + place // columns * step
            sheet.paste(enlarged(samples[number], tile), (left, up))
            below = (left + tile // 2, up + tile + 3)
            draw.text(below, f"{ranking.values[number]:.2f}", font=small, fill=INK, anchor="mt")
    return sheet


def _tile(samples: Tensor) -> int:
    side = samples.shape[-1]
    return side * max(1, round(_TILE / side))
