"""Parts of sheets: pictures enlarged, and words beside and above them."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kao.files import readable

INK, PAPER = (42, 40, 38), (255, 255, 255)

LINE = 24
"""Height of a line of text, pixels."""


def enlarged(picture: Tensor, side: int) -> Image.Image:
    """A picture, uint8, (3, S, S), `side` pixels wide, its own pixels to be seen."""
    array = picture.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).resize((side, side), Image.Resampling.NEAREST)


def upright(text: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """A line of text that reads from below."""
    label = Image.new("RGB", (round(font.getlength(text)) + 2, 20), PAPER)
    ImageDraw.Draw(label).text((0, 1), text, font=font, fill=INK)
    return label.rotate(90, expand=True)


def wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> Sequence[str]:
    """A text in lines that are at most `width` pixels long, if no word is longer."""
    lines = [""]
    for word in readable(" ".join(text.split())).split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
