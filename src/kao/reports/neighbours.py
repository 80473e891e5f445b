"""Is it a copy? Samples beside the training pictures that are nearest to them."""

from PIL import Image, ImageDraw

from kao.metrics.neighbours import Comparison
from kao.reports.sheets import INK, LINE, PAPER, enlarged, upright, wrapped
from kao.visualisation import outline_font

_TILE = 96  # about how wide a neighbour is drawn, pixels


def neighbours_sheet(comparison: Comparison) -> Image.Image:
    """Each sample, large, beside its nearest training pictures: a row a view, distances below.

    Mirrored neighbours are drawn as they were compared, mirrored, and marked so.
    """
    samples = comparison.samples
    scale = max(1, round(_TILE / samples.shape[-1]))
    tile, font, small = samples.shape[-1] * scale, outline_font(17), outline_font(15)
    gap, gutter = 8, 26
    k = next(iter(comparison.found.values())).index.shape[1]
    row = tile + LINE + gap
    rows = len(comparison.found)
    large = rows * row - LINE - gap
    width, height = large + gutter + k * (tile + gap), rows * row + 2 * gap
    columns = 2 if len(samples) > 1 and width < 900 else 1
    margin, between = 18, 34

    total = 2 * margin + columns * width + (columns - 1) * between
    head = wrapped(
        "Left, a sample; right of it, the training pictures nearest to it, one row for each way "
        "to compare. Numbers: root mean square difference in grey levels, 0 to 255; m: the mirror "
        "image is nearer. " + comparison.sentence(),
        font,
        total - 2 * margin,
    )
    top = margin + len(head) * LINE + gap
    deep = -(-len(samples) // columns)
    sheet = Image.new("RGB", (total, top + deep * height + margin - 2 * gap), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, words in enumerate(head):
        draw.text((margin, margin + i * LINE), words, font=font, fill=INK)
    for i, sample in enumerate(samples):
        left = margin + (i % columns) * (width + between)
        up = top + (i // columns) * height
        sheet.paste(enlarged(sample, large), (left, up))
        for r, (name, found) in enumerate(comparison.found.items()):
            y = up + r * row
            label = upright(name, small)
            sheet.paste(label, (left + large + 4, y + (tile - label.height) // 2))
            for j in range(k):
                x = left + large + gutter + j * (tile + gap)
                picture = comparison.others[found.index[i, j]]
                mirrored = bool(found.mirrored[i, j])
                sheet.paste(enlarged(picture.flip(-1) if mirrored else picture, tile), (x, y))
                text = f"{found.distance[i, j]:.1f}" + (" m" if mirrored else "")
                place = (x + tile // 2, y + tile + 4)
                draw.text(place, text, font=font, fill=INK, anchor="mt")
    return sheet
