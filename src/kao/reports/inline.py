"""Pictures that stand inside a page, as data of the HTML itself."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from kao.reports.parts import escape

# CSS pixels of the column; a wider picture is shrunk, and a shrunk one is better smoothed.
_PAGE_WIDTH, _PHONE_WIDTH = 912, 360
_PICTURE_BYTES, _LIGHT_BYTES = 4_000_000, 500_000
_QUALITY = 85  # of WebP, 0..100


class Inline(NamedTuple):
    """An encoded picture.

    Attributes:
        data: Bytes of its file.
        kind: MIME type.
        width, height: In pixels.
    """

    data: bytes
    kind: str
    width: int
    height: int


def read_picture(path: Path) -> Inline | None:
    """A picture file; None if it cannot be read."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            return Inline(data, str(image.get_format_mimetype()), image.width, image.height)
    except OSError:
        return None


def encoded(picture: Image.Image) -> Inline:
    """A picture as PNG; as lossy WebP where that would weigh a page down."""
    png = io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    image = Inline(png.getvalue(), "image/png", picture.width, picture.height)
    return image if len(image.data) <= _LIGHT_BYTES else lighter(image)


def lighter(image: Inline) -> Inline:
    """The same as lossy WebP, where that is smaller; a frame that passes needs no more."""
    webp = io.BytesIO()
    try:
        with Image.open(io.BytesIO(image.data)) as picture:
            picture.convert("RGB").save(webp, "WEBP", quality=_QUALITY)
    except OSError:  # cut short
        return image
    data = webp.getvalue()
    return image._replace(data=data, kind="image/webp") if len(data) < len(image.data) else image


def figure(image: Inline, caption: str, *, enlarged: bool = False) -> str:
    """The HTML of a picture.

    Args:
        image: What is shown.
        caption: Below it; plain text.
        enlarged: Whether it is drawn as wide as the page, where the screen's height allows.
    """
    width, height = image.width, image.height
    # As wide as the page, but never so high that it does not fit a screen.
    style = f' style="width:min(100%,{85 * width / height:.1f}vh)"' if enlarged else ""
    crisp = "" if width > _PAGE_WIDTH else " crisp wide" if width > _PHONE_WIDTH else " crisp"
    source = f"data:{image.kind};base64,{base64.b64encode(image.data).decode()}"
    return (
        f'<figure><img class="picture{crisp}" width="{width}" height="{height}"{style} '
        f'alt="{escape(caption)}" src="{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def figure_of_file(path: Path, caption: str, *, enlarged: bool = False) -> str:
    """The same of a file; "" if it cannot be read, its name if it is too large."""
    image = read_picture(path)
    if image is None:
        return ""
    if len(image.data) > _PICTURE_BYTES:
        where = f"{path.parent.name}/{path.name}"
        note = f"{caption} Too large for this page ({len(image.data) / 1e6:.0f} MB): see {where}."
        return f"<figure><figcaption>{escape(note)}</figcaption></figure>"
    return figure(image, caption, enlarged=enlarged)
