"""Pictures out: tensors to grids, labelled film strips, animations and files.

Every function takes uint8 tensors, (B, 3, H, W), RGB; `kao.pixels` makes them from floats.
"""

import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kao.files import beside_file, writing

_PAPER = (255, 255, 255)
_INK = (40, 40, 40)
# GIF counts in 10 ms, browsers play delays under 20 ms as 100 ms, and noise does not compress.
_FRAME_SECONDS = 0.1


def grid(
    images: Tensor, *, columns: int | None = None, gap: int = 2, scale: int | None = None
) -> Image.Image:
    """Lay pictures out in rows, left to right and top to bottom.

    Args:
        images: uint8, (B, 3, H, W), B >= 1.
        columns: Pictures a row; None makes the grid near-square, at least as wide as high.
        gap: White pixels between pictures, after enlargement; there is no outer margin.
        scale: Whole factor of nearest-neighbour enlargement.  None takes the smallest that
            makes a picture 64 pixels wide, or less where the grid would pass 1024 pixels.

    Returns:
        An RGB picture.
    """
    columns = min(columns or _near_square(images), len(images))
    scale = scale or _enlargement(images.shape[-1], columns, gap)
    pictures = _enlarged(images, scale)
    height, width = pictures.shape[-2:]
    rows = math.ceil(len(images) / columns)
    sheet = torch.full(
        (3, rows * (height + gap) - gap, columns * (width + gap) - gap), 255, dtype=torch.uint8
    )
    for i, picture in enumerate(pictures):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[:, top : top + height, left : left + width] = picture
    return _to_pil(sheet)


def strip(
    rows: Sequence[Tensor],
    *,
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    gap: int = 4,
    scale: int | None = None,
) -> Image.Image:
    """Film strips, one a row, with titles above the columns and beside the rows.

    Args:
        rows: Each uint8, (N, 3, H, W), of one size throughout.
        titles: Column titles such as "25 %"; none by default.
        row_titles: One a row, or none.
        gap: Pixels between pictures.
        scale: As in `grid`.

    Returns:
        An RGB picture, dark text on white.  Text shrinks where a title is wider than its
        column, to 9 pixels at least.
    """
    columns = max(len(row) for row in rows)
    scale = scale or _enlargement(rows[0].shape[-1], columns, gap)
    height, width = (scale * side for side in rows[0].shape[-2:])
    font = _font(titles, width)
    margin = 2 * gap
    top = margin + (round(font.size * 1.6) if titles else 0)
    gutter = max((round(font.getlength(title)) for title in row_titles), default=0)
    left = margin + (gutter + 2 * gap if row_titles else 0)

    sheet = Image.new(
        "RGB",
        (
            left + columns * (width + gap) - gap + margin,
            top + len(rows) * (height + gap) - gap + margin,
        ),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        x = left + column * (width + gap) + width / 2
        draw.text((x, top - round(font.size * 0.45)), title, font=font, fill=_INK, anchor="ms")
    for r, title in enumerate(row_titles):
        y = top + r * (height + gap) + height / 2
        draw.text((margin + gutter, y), title, font=font, fill=_INK, anchor="rm")
    for r, row in enumerate(rows):
        for column, picture in enumerate(_enlarged(row, scale)):
            place = (left + column * (width + gap), top + r * (height + gap))
            sheet.paste(_to_pil(picture), place)
    return sheet


def gif(
    frames: Sequence[Tensor],
    path: Path,
    *,
    seconds: float,
    hold: float,
    columns: int | None = None,
    scale: int | None = None,
) -> Path:
    """Write an animation of grids that plays for ever and rests on its last frame.

    At most 10 frames a second are kept, evenly spaced, and always the first and the last;
    the last has 256 colours, the others, which pass, 128.

    Args:
        frames: Each uint8, (B, 3, H, W), of one shape; at least one.
        path: The file to write, over what is there.
        seconds: How long the movement takes.
        hold: How long the last frame stays.
        columns: As in `grid`.
        scale: As in `grid`.

    Returns:
        `path`.

    Raises:
        OutputError: The file cannot be written.
    """
    kept = spread(len(frames), max(2, round(seconds / _FRAME_SECONDS)))
    scale = scale or _enlargement(frames[0].shape[-1], columns or _near_square(frames[0]), 0)
    # Reduced to its palette before enlargement: whole blocks of one colour compress.
    small = [
        grid(frames[i], columns=columns, gap=1, scale=1).quantize(256 if i == kept[-1] else 128)
        for i in kept
    ]
    pictures = [
        p.resize((p.width * scale, p.height * scale), Image.Resampling.NEAREST) for p in small
    ]
    moving = max(1, len(pictures) - 1)
    durations = [round(1000 * seconds / moving)] * moving + [round(1000 * hold)]
    data = io.BytesIO()
    pictures[0].save(
        data,
        format="GIF",
        save_all=True,
        append_images=pictures[1:],
        duration=durations[-len(pictures) :],
        loop=0,
    )
    return _written(path, data.getvalue())


def save_pictures(images: Tensor, folder: Path, *, names: Sequence[str]) -> list[Path]:
    """Write one PNG a picture, at its own size.

    Args:
        images: uint8, (B, 3, H, W).
        folder: Made if it is missing.
        names: B file names without ".png".

    Returns:
        The files, in the order of `images`.

    Raises:
        OutputError: The folder or a file cannot be written.
    """
    return [
        save_picture(_to_pil(image), folder / f"{name}.png")
        for image, name in zip(images, names, strict=True)
    ]


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG and return `path`; its folder is made if it is missing.

    Raises:
        OutputError: The file cannot be written.
    """
    data = io.BytesIO()
    picture.save(data, format="PNG", optimize=True)
    return _written(path, data.getvalue())


def spread(count: int, most: int) -> list[int]:
    """Up to `most` of the indices 0..count-1, evenly spaced, the last always and the first too.

    Args:
        count: How many there are.
        most: How many to keep, >= 1; one alone is the last.
    """
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def outline_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of every label, which comes with Pillow, `size` pixels high."""
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # given a size, Pillow brings an outline font
    return font


def _near_square(images: Tensor) -> int:
    return math.ceil(math.sqrt(len(images)))


def _enlargement(width: int, columns: int, gap: int) -> int:
    fits = (1024 - (columns - 1) * gap) // (columns * width)
    return max(1, min(math.ceil(64 / width), fits))


def _enlarged(images: Tensor, scale: int) -> Tensor:
    return images.cpu().repeat_interleave(scale, dim=-2).repeat_interleave(scale, dim=-1)


def _written(path: Path, data: bytes) -> Path:
    beside = beside_file(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    return path


def _to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy())


def _font(titles: Sequence[str], width: int) -> ImageFont.FreeTypeFont:
    """The largest of 15..9 pixels at which every title fits its column."""
    for size in range(15, 9, -1):
        font = outline_font(size)
        if all(font.getlength(title) <= width for title in titles):
            return font
    return outline_font(9)
