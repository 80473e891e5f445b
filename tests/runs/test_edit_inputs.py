import math
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from kao.config import RunConfig
from kao.config.run import DataConfig
from kao.data.pictures import decode, fit
from kao.diffusion import Flow, Linear
from kao.errors import ConfigError, DataError
from kao.pixels import to_uint8
from kao.runs.editing import choose, mask_of, some_times, time_of

CONFIG = RunConfig(data=DataConfig(size=16))


@pytest.fixture
def photos(tmp_path):
    """Six pictures of 40 x 24, in a folder and in an archive of it."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"inner/{file.name}")
    return folder


def test_pictures_are_cropped_and_resized_as_preparing_does_it(photos):
    chosen = choose([photos / "2.png"], CONFIG, seed=0)
    image = decode((photos / "2.png").read_bytes(), "2.png").image
    assert chosen.names == ["2.png"]
    assert chosen.images.dtype == torch.float32
    assert torch.equal(to_uint8(chosen.images)[0], fit(image, size=16, crop="centre", name="2.png"))


def test_a_folder_and_an_archive_stand_for_their_first_pictures(photos):
    archive = photos.with_suffix(".zip")
    by_folder = choose([photos], CONFIG, seed=0)
    assert by_folder.names == ["0.png", "1.png", "2.png", "3.png"]
    for places in ([archive], [archive / "inner"], [photos / f"{i}.png" for i in range(4)]):
        assert torch.equal(choose(places, CONFIG, seed=0).images, by_folder.images)
    inside = choose([archive / "inner" / "3.png", photos], CONFIG, seed=0, most=1)
    assert inside.names == ["3.png", "0.png"]
    assert torch.equal(inside.images, by_folder.images[[3, 0]])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere.png", "There is no picture, folder or ZIP file .*nowhere.png: check the path"),
        ("x" * 300, "cannot be read"),
        ("photos/text.png", "text.png is not a picture"),
        ("photos/empty.png", r"empty.png is empty \(0 bytes\)"),
        ("photos/cut.png", "cut.png is truncated or damaged"),
        ("nothing", "nothing holds no picture; expected one or more of .avif"),
        ("photos.zip/inner/9.png", "There is no picture 9.png in .*inner: check its name"),
        ("photos.zip/outer", "holds no folder 'outer'"),
    ],
)
def test_what_is_no_picture_is_named(place, said, photos, tmp_path):
    (photos / "text.png").write_text("no picture")
    (photos / "empty.png").write_bytes(b"")
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:600])
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match=said):
        choose([tmp_path / place], CONFIG, seed=0)


def test_a_picture_of_a_shape_that_the_run_refuses_is_refused(photos):
    config = RunConfig(data=DataConfig(size=16, crop="none"))
    with pytest.raises(DataError, match=r"0\.png is 40 x 24, not square"):
        choose([photos], config, seed=0)


# --- masks --------------------------------------------------------------------------------------


def mask(text):
    return mask_of(text, size=16, crop="centre")


def test_a_box_is_in_shares_or_in_pixels():
    expected = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    expected[..., 2:12, 4:8] = True
    assert torch.equal(mask("0.25,0.125,0.5,0.75"), expected)
    assert torch.equal(mask("4,2,8,12"), expected)
    assert mask("0,0,1,0.5").sum() == 128  # all in 0..1: shares, though they might be pixels


@pytest.mark.parametrize(
    "text",
    [
        *("1,2,3", "1,2,3,4,5", "4,2,4,12", "8,2,4,12", "0,0,17,4", "-1,0,4,4", "1.5,2,4,4"),
        *("nan,0,1,1", "0,0,inf,4", "0.5,0.5,0.5,0.9"),
    ],
)
def test_what_is_no_box_is_refused(text):
    with pytest.raises(ConfigError, match="is no box of a picture of 16 x 16 pixels"):
        mask(text)


def test_a_mask_that_covers_everything_or_nothing_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="covers the whole picture"):
        mask("0,0,1,1")
    Image.new("L", (40, 24), 140).save(tmp_path / "grey.png")
    with pytest.raises(ConfigError, match=r"what is white \(lighter than half grey\) is drawn"):
        mask(str(tmp_path / "grey.png"))
    Image.new("L", (40, 24), "black").save(tmp_path / "black.png")
    with pytest.raises(ConfigError, match="leaves nothing to draw"):
        mask(str(tmp_path / "black.png"))


def test_a_drawn_mask_is_white_where_to_draw_and_cut_like_the_pictures(tmp_path):
    drawn = Image.new("L", (32, 16), "black")  # the central square is 8..24
    drawn.paste("white", (12, 0, 32, 8))
    drawn.save(tmp_path / "mask.png")
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[:8, 4:] = True
    assert torch.equal(mask(str(tmp_path / "mask.png"))[0, 0], expected)


def test_the_bars_around_a_padded_picture_are_kept(tmp_path):
    Image.new("L", (32, 16), "white").save(tmp_path / "mask.png")
    padded = mask_of(str(tmp_path / "mask.png"), size=16, crop="pad")[0, 0]
    assert padded[4:12].all() and not padded[:4].any() and not padded[12:].any()


def test_a_mask_that_is_not_there_is_named():
    with pytest.raises(DataError, match=r"There is no mask mask\.png: give a picture file"):
        mask("mask.png")


# --- times --------------------------------------------------------------------------------------


def test_times_are_counted_on_a_discrete_schedule_and_in_thousandths_elsewhere():
    assert time_of(Linear(steps=400).build(), 400).item() == 400
    assert time_of(Flow().build(), 250).item() == 0.25
    assert some_times(Linear(steps=400).build()) == [40, 200, 400]
    assert some_times(Flow().build()) == [100, 500, 1000]
    assert some_times(Linear(steps=2).build()) == [1, 1, 2]


@pytest.mark.parametrize("number", [0, -1, 401, 1.5, math.nan, math.inf])
def test_a_time_that_a_discrete_schedule_does_not_have_is_refused(number):
    with pytest.raises(ConfigError, match="whole numbers from 1 to 400"):
        time_of(Linear(steps=400).build(), number)


@pytest.mark.parametrize("number", [0, -1, 1001, math.nan, math.inf])
def test_a_time_past_the_ends_of_a_continuous_schedule_is_refused(number):
    with pytest.raises(ConfigError, match="thousandths of its end"):
        time_of(Flow().build(), number)
