"""From the bytes of a picture file to square uint8 RGB pixels.

Files are recognised by their content, never by their name.  Plain grey and RGB JPEG goes
through libjpeg-turbo (simplejpeg), everything else through Pillow.  Along the way

    EXIF orientation      is applied, so that faces stand upright
    transparency          is laid over white
    16-bit grey           is scaled to 8 bits
    CMYK and palettes     become RGB
    animations            give their first frame
    colour profiles       are ignored: pixels are taken to be sRGB

HEIC is read where pillow-heif is installed (the extra "heif").
"""

import zlib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate, pad

from kao.errors import ConfigError, DataError

Crop = Literal["centre", "pad", "none"]
CROPS: tuple[Crop, ...] = get_args(Crop)

MAX_PIXELS = 89_478_485
"""Largest picture that is decoded: 256 MiB of RGB, where Pillow begins to warn of bombs."""

HEIC = frozenset({".heic", ".heif", ".hif"})
"""Endings of pictures of phones, in lower case, which are read with the extra "heif"."""

HEIC_EXTRA = "pip install -e '.[heif]' lets kao read HEIC"
"""What to do about them, for a message."""

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
) | (HEIC if find_spec("pillow_heif") else frozenset())
"""Which files of a folder are tried, in lower case; what they are is decided by content."""

RAW = frozenset(
    {".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw"}
    | {".orf", ".pef", ".rw2", ".sr2", ".srf", ".srw"}
)
"""Endings of cameras' raw files, in lower case: they begin as TIFF, and what a reader of TIFF finds
in them is a small preview."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

HEAD = 64
"""Bytes at the beginning of a file by which `begins_as_picture` knows it."""

_PNG = b"\x89PNG\r\n\x1a\n"
_BEGINNINGS = (b"\xff\xd8\xff", _PNG, b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITMAP_HEADS = (12, 40, 52, 56, 64, 108, 124)  # sizes of the header that follows "BM"
_AVIF = (b"avif", b"avis")
_HEIF = tuple(map(str.encode, "heic heix heim heis hevc hevx hevm hevs mif1 msf1".split()))
"""Brands of files in boxes (ISO 23008-12); the last two are those of AVIF pictures too."""

_PIXELS_OF_PNG = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf", b"IEND")
"""Chunks of a PNG file that decide what is seen (W3C PNG, sec. 5.6), with its orientation."""

_EXIF_ORIENTATION = 0x0112

_REDUCTION = 1000  # largest factor by which the resizing filter is asked to reduce

_Pixels = NDArray[np.uint8]

# What a viewer does for each value of the EXIF tag "Orientation", on (H, W, 3) arrays.
_UPRIGHT: dict[int, Callable[[_Pixels], _Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a[::-1].transpose(1, 0, 2),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: a[:, ::-1].transpose(1, 0, 2),
}


class Picture(NamedTuple):
    """A decoded picture and how it was stored.

    Attributes:
        image: uint8, (3, H, W), RGB, 0..255, upright; a view of channels-last memory.
        encoding: Format and colour mode of the file, as "JPEG RGB" or "PNG RGBA".
    """

    image: Tensor
    encoding: str


def decode(data: bytes, name: str) -> Picture:
    """Decode a JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC file, whatever it is called.

    Args:
        data: The whole file.
        name: What to call the picture in error messages.

    Raises:
        DataError: The bytes are empty, truncated, damaged, no picture, or more than
            `MAX_PIXELS` pixels, or HEIC where pillow-heif is not installed; the message names the
            picture and says why.
    """
    if not data:
        raise DataError(f"{name} is empty (0 bytes): copy it again or delete it.")
    if _is_heic(data[:HEAD]):
        _register_heif(name)
    pixels, encoding = _decode_plain_jpeg(data, name) or _decode_with_pillow(data, name)
    return Picture(torch.from_numpy(pixels).permute(2, 0, 1), encoding)


def begins_as_picture(head: bytes) -> bool:
    """Whether a file begins as those do that `decode` reads.

    Args:
        head: Its first `HEAD` bytes, or all.
    """
    if head[4:8] == b"ftyp":
        return head[8:12] in (*_AVIF, *_HEIF) and (EXTENSIONS >= HEIC or not _is_heic(head))
    bitmap = head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BITMAP_HEADS
    webp = head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return head.startswith(_BEGINNINGS) or bitmap or webp


def _is_heic(head: bytes) -> bool:
    named = head[4:8] == b"ftyp" and head[8:12] in _HEIF
    return named and not any(brand in head for brand in _AVIF)


def _register_heif(name: str) -> None:
    """Let Pillow read HEIC, for a picture of that name.

    Raises:
        DataError: pillow-heif is not installed.
    """
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise DataError(f"{name} is a HEIC picture: {HEIC_EXTRA}.") from None
        register_heif_opener()


def _decode_plain_jpeg(data: bytes, name: str) -> tuple[_Pixels, str] | None:
    """The quick way; None where Pillow should have a look, be it only for a better reason."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "RGB", "Gray"):
            return None
        _refuse_bomb(width, height, name)
        try:
            pixels = simplejpeg.decode_jpeg(data, "RGB")
        except ValueError:  # all is there but the mark of the end, or so it will say again
            if b"\xff\xc2" in data:  # progressive: it may be cut where a coarse picture is whole
                return None
            pixels = simplejpeg.decode_jpeg(data + b"\xff\xd9", "RGB")
    except ValueError:
        return None
    # Opening costs as much as decoding a thumbnail, so the tag is looked for only where it can be.
    if b"Exif" in data or b"tiff:Orientation" in data:
        pixels = _upright(pixels, _orientation_in(data))
    return pixels, "JPEG L" if colours == "Gray" else "JPEG RGB"


def _decode_with_pillow(data: bytes, name: str) -> tuple[_Pixels, str]:
    try:
        return _opened(data, name)
    except DataError:
        if not data.startswith(_PNG):
            raise
    # Pillow refuses a sound picture for a comment that is long or damaged.
    return _opened(b"".join(_chunks(data)), name)


def _chunks(data: bytes) -> Iterator[bytes]:
    """The signature of a PNG file and its chunks that decide what is seen."""
    yield data[:8]
    at = 8
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        # Of these the orientation alone may be damaged, and the picture is still sound.
        whole = data[end - 4 : end] == zlib.crc32(data[at + 4 : end - 4]).to_bytes(4, "big")
        if kind in _PIXELS_OF_PNG and (whole or kind != b"eXIf"):
            yield data[at:end]
        at = end


def _opened(data: bytes, name: str) -> tuple[_Pixels, str]:
    try:
        formats = (*FORMATS, *({"HEIF"} & Image.OPEN.keys()))
        with Image.open(BytesIO(data), formats=formats) as image:
            _refuse_bomb(*image.size, name)
            encoding = f"{image.format} {image.mode}"
            image.load()
            # After loading, for Pillow turns TIFF by itself and then drops the tag.
            return _upright(_rgb(image, name), _orientation(image)), encoding
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(
            f"{name} is not a picture of a kind that is read, or its head is damaged: it begins "
            f"with {data[:12]!r}; expected JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF or HEIC. "
            f"Copy it again, convert it or delete it."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(_bomb(name)) from None
    # Damaged files make Pillow's readers raise nearly anything: struct.error, IndexError, ...
    except Exception as error:
        raise DataError(
            f"{name} is truncated or damaged ({_reason(error)}): copy it again or delete it."
        ) from error


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".") or type(error).__name__


def _bomb(name: str, met: str = "too many pixels") -> str:
    return (
        f"{name} claims {met}; at most {MAX_PIXELS:,} are decoded, "
        f"as more may be a decompression bomb. Make it smaller or delete it."
    )


def _refuse_bomb(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise DataError(_bomb(name, f"{width} x {height} pixels"))


def _rgb(image: Image.Image, name: str) -> _Pixels:
    """uint8 (H, W, 3) of a loaded picture of any mode."""
    # Pillow before 11 calls 16-bit grey PNG "I", which otherwise means 32 bits.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        grey = np.rint(np.asarray(image, np.float32) / 257).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError(
            f"{name} holds 32-bit grey values, for which black and white are not defined: "
            f"save it with 8 or 16 bits."
        )
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), above)
    return np.array(image.convert("RGB"))


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a picture whose EXIF block alone is damaged is still a picture
        return 1


def _orientation_in(data: bytes) -> Any:
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            return _orientation(image)
    except Exception:  # as above: libjpeg has already decoded the pixels
        return 1


def _upright(pixels: _Pixels, orientation: Any) -> _Pixels:
    turn = _UPRIGHT.get(orientation)
    # torch reads no negative strides, hence the copy.
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def fit(image: Tensor, *, size: int, crop: Crop, name: str) -> Tensor:
    """Make a picture square and resize it with an antialiased bicubic filter.

    The filter is Pillow's (Keys 1981, a = -1/2, widened by the factor of reduction), in torch's
    quicker uint8 arithmetic.  On 3,000 photographs reduced from 200 to 64 pixels the two differed
    by 1 of 255 in one value of 270, by 2 in two values of 37 million, and never by more;
    where noise is enlarged, by 2 in about one value of 25,000.

    Args:
        image: uint8, (3, H, W), of any proportions.
        size: Side of the result in pixels.
        crop: "centre" keeps the central square; "pad" keeps all, between white bars; "none"
            takes only pictures that are square already.
        name: What to call the picture in error messages.

    Returns:
        uint8, (3, size, size).

    Raises:
        DataError: `crop` is "none" and the picture is not square.
    """
    _, height, width = image.shape
    if height != width and crop == "none":
        raise DataError(
            f"{name} is {width} x {height}, not square, and crop is 'none': "
            f"use crop 'centre' or 'pad', or make it square."
        )
    # Bars come last: a square around a thin picture as it is may be too large for any memory.
    return _barred(_resized(_central(image) if crop == "centre" else image, size), size)


def _central(image: Tensor) -> Tensor:
    """The largest square in the middle."""
    _, height, width = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[:, top : top + side, left : left + side]


def _resized(image: Tensor, size: int) -> Tensor:
    """As large as fits a square of `size`, in its own proportions but never without width."""
    _, height, width = image.shape
    longer = max(height, width)
    if longer == size:
        return image
    shape = [max(1, round(side * size / longer)) for side in (height, width)]
    # The filter's weights have 22 bits and take 32 bytes of memory for each pixel of a side.
    # Pictures reduced more than a thousandfold, which are but lines, lose pixels before.
    rows, columns = (max(1, side // (_REDUCTION * size)) for side in (height, width))
    image = image[:, ::rows, ::columns]
    return interpolate(image[None], size=shape, mode="bicubic", antialias=True)[0]


def _barred(image: Tensor, size: int) -> Tensor:
    """In the middle of a white square."""
    _, height, width = image.shape
    top, left = (size - height) // 2, (size - width) // 2
    return pad(image, (left, size - width - left, top, size - height - top), value=255)


def check_crop(crop: str) -> Crop:
    """The crop policy of that name.

    Raises:
        ConfigError: There is none; names those that exist.
    """
    for known in CROPS:
        if crop == known:
            return known
    raise ConfigError(f"crop = {crop!r} is not known: choose one of {', '.join(CROPS)}.")
