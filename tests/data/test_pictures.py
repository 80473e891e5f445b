import io
import struct
import sys
import zipfile
import zlib

import numpy as np
import pillow_heif
import pytest
import simplejpeg
import torch
from PIL import Image, ImageOps

from kao.data import pictures
from kao.data.pictures import HEAD, begins_as_picture, decode, fit
from kao.errors import ConfigError, DataError


def scene(width=40, height=28, seed=0):
    """A smooth coloured picture: JPEG keeps it well, and no symmetry hides a wrong turn."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def stored(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def shown(picture):
    """(H, W, 3) int16, for comparing."""
    return picture.image.permute(1, 2, 0).numpy().astype(np.int16)


LOSSLESS = {
    "PNG": {},
    "BMP": {},
    "TIFF": {},
    "TIFF ": {"compression": "tiff_lzw"},
    "WEBP": {"lossless": True},
}


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_back_their_pixels(form):
    image = scene()
    picture = decode(stored(image, form.strip(), **LOSSLESS[form]), "x")
    assert (shown(picture) == np.asarray(image)).all()
    assert picture.encoding == f"{form.strip()} RGB"


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_decodes_as_pillow_decodes_it(mode, options):
    data = stored(scene().convert(mode), "JPEG", quality=90, **options)
    picture = decode(data, "x")
    there = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
    assert np.abs(shown(picture) - there).max() <= 1
    assert picture.encoding == f"JPEG {mode}"


def test_cmyk_jpeg_falls_back_to_pillow():
    picture = decode(stored(scene().convert("CMYK"), "JPEG", quality=95), "x")
    assert picture.encoding == "JPEG CMYK"
    assert np.abs(shown(picture) - np.asarray(scene()).astype(np.int16)).mean() < 6


def test_palettes_and_two_level_pictures_become_rgb():
    palette = scene().quantize(16)
    two_levels = scene().convert("1")
    for image in (palette, two_levels):
        picture = decode(stored(image, "PNG"), "x")
        assert (shown(picture) == np.asarray(image.convert("RGB"))).all()


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (10, 6), (255, 0, 0, 0))
    half = Image.new("LA", (10, 6), (0, 128))
    indexed = Image.new("P", (10, 6), 0)
    assert (shown(decode(stored(clear, "PNG"), "x")) == 255).all()
    assert np.abs(shown(decode(stored(half, "PNG"), "x")) - 127).max() <= 1
    assert (shown(decode(stored(indexed, "PNG", transparency=0), "x")) == 255).all()


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_to_eight(form):
    levels = np.arange(0, 256, dtype=np.uint16).reshape(16, 16)
    picture = decode(stored(Image.fromarray(levels * 257), form), "x")
    assert (shown(picture) == levels[:, :, None]).all()


def test_32_bit_grey_is_refused_with_the_reason():
    floats = Image.fromarray(np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match=r"deep\.tif holds 32-bit grey"):
        decode(stored(floats, "TIFF"), "deep.tif")


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    data = stored(first, "GIF", save_all=True, append_images=[second])
    assert decode(data, "x").image[:, 0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_by_every_path(form, orientation):
    image = scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(form, {})
    data = stored(image, form, exif=exif, **options)
    upright = Image.open(io.BytesIO(stored(image, form, **options))).convert("RGB")
    upright.getexif()[0x0112] = orientation
    there = np.asarray(ImageOps.exif_transpose(upright)).astype(np.int16)
    assert shown(decode(data, "x")).shape == there.shape
    assert np.abs(shown(decode(data, "x")) - there).max() <= 1


def test_a_damaged_exif_block_does_not_cost_the_picture():
    data = stored(scene(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(data, "x").image.shape == (3, 28, 40)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
def test_a_truncated_file_is_named_and_refused(form):
    data = stored(scene(200, 160), form)
    for part in (0.05, 0.5):
        with pytest.raises(DataError, match=r"cut\.jpg is"):
            decode(data[: int(len(data) * part)], "cut.jpg")


def test_no_bytes_no_picture_and_wrong_bytes_are_told_apart():
    with pytest.raises(DataError, match=r"a\.png is empty \(0 bytes\)"):
        decode(b"", "a.png")
    with pytest.raises(DataError, match=r"a\.png is not a picture .* begins with b'<!DOCTYPE ht"):
        decode(b"<!DOCTYPE html><title>404</title>", "a.png")
    with pytest.raises(DataError, match=r"a\.jpg is not a picture"):
        decode(b"\xff\xd8\xff", "a.jpg")


def test_random_damage_is_a_data_error_or_a_picture():
    rng = np.random.default_rng(0)
    for form in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"):
        whole = np.frombuffer(stored(scene(), form), np.uint8)
        for _ in range(40):
            data = whole.copy()
            data[rng.integers(0, len(data), 6)] = rng.integers(0, 256, 6)
            try:
                picture = decode(data.tobytes(), "x")
            except DataError:
                continue
            assert picture.image.dtype == torch.uint8
            assert picture.image.shape[0] == 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(form, monkeypatch):
    data = stored(scene(50, 40), form)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50 * 40 - 1)
    with pytest.raises(DataError, match=r"big\.png claims 50 x 40 pixels; at most 1,999"):
        decode(data, "big.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 50 * 40)
    decode(data, "big.png")


def test_pillow_refusing_a_bomb_is_our_error_and_its_limit_stays():
    head = b"IHDR" + struct.pack(">IIBBBBB", 65536, 65536, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\r" + head + struct.pack(">I", zlib.crc32(head))
    data += b"\0\0\0\1IDAT"
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match="decompression bomb"):
        decode(data, "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("shape", [(200, 200), (178, 218), (64, 64), (31, 47), (512, 300)])
@pytest.mark.parametrize("size", [16, 64, 96])
def test_resizing_equals_pillows_bicubic_to_one_level_but_for_one_value_in_a_thousand(shape, size):
    height, width = shape
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for image in (scene(width, height), Image.fromarray(noise)):
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        cropped = image.crop((left, top, left + side, top + side))
        there = np.asarray(cropped.resize((size, size), Image.Resampling.BICUBIC)).astype(int)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        here = fit(pixels, size=size, crop="centre", name="x").permute(1, 2, 0).numpy()
        gap = np.abs(here - there)
        assert gap.max() <= 2
        assert (gap > 1).mean() < 1e-3
        assert gap.mean() < 0.03


def test_the_fast_path_keeps_the_pixels_of_real_photographs(real_data):
    archive = zipfile.ZipFile(real_data("afhq_demo.zip"))
    for name in archive.namelist()[:10]:
        data = archive.read(name)
        there = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").resize((64, 64), 3))
        here = fit(decode(data, name).image, size=64, crop="centre", name=name)
        assert np.abs(here.permute(1, 2, 0).numpy() - there.astype(int)).max() <= 1


def test_centre_keeps_the_central_square():
    image = torch.arange(10, dtype=torch.uint8).expand(3, 4, 10)
    assert fit(image, size=4, crop="centre", name="x")[0, 0].tolist() == [3, 4, 5, 6]


def test_pad_keeps_all_between_white_bars():
    image = torch.zeros(3, 4, 10, dtype=torch.uint8)
    padded = fit(image, size=10, crop="pad", name="x")
    assert padded[0, :, 0].tolist() == [255] * 3 + [0] * 4 + [255] * 3


def test_pad_resizes_the_picture_before_it_is_laid_between_bars():
    image = torch.zeros(3, 40, 100, dtype=torch.uint8)
    padded = fit(image, size=10, crop="pad", name="x")
    assert padded[0, :, 0].tolist() == [255] * 3 + [0] * 4 + [255] * 3


@pytest.mark.parametrize("shape", [(3, 1, 40_000_000), (3, 40_000_000, 1), (3, 2, 9_999_999)])
@pytest.mark.parametrize("crop", ["centre", "pad"])
def test_a_line_of_millions_of_pixels_is_made_square_too(shape, crop):
    image = torch.full((1, 1, 1), 100, dtype=torch.uint8).expand(shape)
    square = fit(image, size=64, crop=crop, name="x")
    assert square.shape == (3, 64, 64)
    assert (square == 100).sum() == (3 * 64 if crop == "pad" else 3 * 64 * 64)


def test_crop_none_takes_squares_only():
    square = torch.zeros(3, 12, 12, dtype=torch.uint8)
    assert fit(square, size=12, crop="none", name="x").shape == (3, 12, 12)
    with pytest.raises(DataError, match=r"wide\.jpg is 10 x 4, not square"):
        fit(torch.zeros(3, 4, 10, dtype=torch.uint8), size=8, crop="none", name="wide.jpg")


def test_an_unknown_crop_is_refused_with_those_that_exist():
    with pytest.raises(ConfigError, match="choose one of centre, pad, none"):
        pictures.check_crop("center")


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (3, 2)])
def test_tiny_and_thin_pictures_can_be_prepared(shape):
    picture = decode(stored(Image.new("RGB", shape, "green"), "PNG"), "x")
    for crop in ("centre", "pad"):
        assert fit(picture.image, size=16, crop=crop, name="x").shape == (3, 16, 16)


def test_simplejpeg_is_not_asked_for_what_it_would_get_wrong(monkeypatch):
    asked = []
    original = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda *args: asked.append(args) or original(*args)
    )
    decode(stored(scene(), "JPEG"), "x")
    decode(stored(scene().convert("CMYK"), "JPEG"), "x")
    assert len(asked) == 1


# ----------------------------------------------------------- sound pictures in unusual wrappings


def png_with(kind, data, *, before=b"IDAT", checksum=None, **options):
    """A PNG file with another chunk in it."""
    file = stored(scene(), "PNG", **options)
    at = file.index(before) - 4
    right = zlib.crc32(kind + data) if checksum is None else checksum
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right)
    return file[:at] + chunk + file[at:]


LONG = b"workflow\0\0" + zlib.compress(b"x" * (2 << 20))
SOUND = {
    "a long text": png_with(b"zTXt", LONG),
    "a long text at the end": png_with(b"zTXt", LONG, before=b"IEND"),
    "a large profile": stored(scene(), "PNG", icc_profile=b"\0" * (2 << 20)),
    "a damaged profile": png_with(b"iCCP", b"abc"),
    "a text with a wrong checksum": png_with(b"tEXt", b"a\0b", checksum=5),
    "a chunk that is too short": png_with(b"pHYs", b"z"),
    "no end": stored(scene(), "PNG")[:-12],
    "an orientation with a wrong checksum": png_with(b"eXIf", b"II*\0", checksum=5),
    "something behind it": stored(scene(), "PNG") + b"x" * 1000,
}


@pytest.mark.parametrize("data", SOUND.values(), ids=SOUND)
def test_a_picture_is_used_whatever_stands_beside_its_pixels(data):
    assert (shown(decode(data, "x")) == np.asarray(scene())).all()


def test_a_text_that_is_passed_over_does_not_cost_the_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(png_with(b"zTXt", LONG, exif=exif), "x").image.shape == (3, 40, 28)


def test_damaged_pixels_are_refused_whatever_stands_beside_them():
    file = stored(scene(), "PNG")
    at = file.index(b"IDAT") + 40
    with pytest.raises(DataError, match=r"x is truncated or damaged"):
        decode(file[:at] + b"\0" * 40 + file[at + 40 :], "x")


def test_a_jpeg_without_its_last_mark_is_whole_and_one_that_lacks_more_is_not():
    file = stored(scene(), "JPEG", quality=90)
    assert torch.equal(decode(file[:-2], "x").image, decode(file, "x").image)
    with pytest.raises(DataError, match="truncated"):
        decode(file[:-40], "x")


def test_a_progressive_jpeg_that_is_cut_between_two_scans_is_refused():
    file = stored(scene(200, 160), "JPEG", quality=90, progressive=True)
    scans = [at for at in range(len(file)) if file[at : at + 2] == b"\xff\xc4"]
    for at in scans[2:]:
        with pytest.raises(DataError, match="truncated"):
            decode(file[:at], "x")


def heic():
    file = io.BytesIO()
    pillow_heif.from_pillow(scene()).save(file, quality=95)
    return file.getvalue()


def avif():
    return stored(scene(), "AVIF", quality=95)


@pytest.mark.parametrize("make", [heic, avif])
def test_pictures_of_phones_are_read(make):
    picture = decode(make(), "x")
    assert np.abs(shown(picture) - np.asarray(scene()).astype(np.int16)).mean() < 12


def test_a_heic_picture_names_the_extra_where_it_cannot_be_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    for brand in (b"heic", b"heis", b"hevx", b"mif1"):
        with pytest.raises(DataError, match=r"photo.jpg is a HEIC picture: pip install .*\[heif\]"):
            decode(branded(heic(), brand), "photo.jpg")


def branded(data, brand):
    return data[:8] + brand + data[12:]


@pytest.mark.parametrize("brand", [b"avif", b"mif1"])
def test_avif_needs_no_extra_whatever_its_brand(brand, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.setattr(pictures, "EXTENSIONS", pictures.EXTENSIONS - pictures.HEIC)
    data = branded(avif(), brand)
    assert begins_as_picture(data[:HEAD])
    assert decode(data, "x").encoding == "AVIF RGB"
    assert not begins_as_picture(heic()[:HEAD])


BEGINNINGS = {
    **{form: stored(scene(), form) for form in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")},
    "AVIF": avif(),
    "HEIC": heic(),
    **{brand: branded(heic(), brand.encode()) for brand in ("heis", "hevx", "hevm", "mif1")},
    "big TIFF": stored(scene(), "TIFF", big_tiff=True),
}


@pytest.mark.parametrize("data", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_is_read_is_known_by_its_beginning(data):
    assert begins_as_picture(data[:HEAD])
    decode(data, "x")


@pytest.mark.parametrize(
    "data",
    [b"", b"BM is the beginning of a text", b"RIFF....WAVE", b"\0\0\0\x18ftypmp42", b"PK\3\4"],
)
def test_what_is_no_picture_does_not_begin_as_one(data):
    assert not begins_as_picture(data)
