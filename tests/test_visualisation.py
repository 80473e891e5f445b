import numpy as np
import pytest
import torch
from PIL import Image

from kao.errors import OutputError
from kao.visualisation import (
    gif,
    grid,
    save_picture,
    save_pictures,
    spread,
    strip,
)


@pytest.fixture
def colours():
    """Five 4 x 4 pictures, each of one colour of its own."""
    values = torch.tensor(
        [[250, 0, 0], [0, 250, 0], [0, 0, 250], [9, 99, 199], [0, 0, 0]], dtype=torch.uint8
    )
    return values[:, :, None, None].expand(5, 3, 4, 4)


def noise(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def pixel(picture, x, y):
    return picture.getpixel((x, y))


def test_a_grid_is_near_square_and_reads_from_left_to_right(colours):
    picture = grid(colours, gap=1, scale=1)
    assert picture.size == (3 * 4 + 2, 2 * 4 + 1)
    assert pixel(picture, 5, 0) == (0, 250, 0)
    assert pixel(picture, 0, 5) == (9, 99, 199)


def test_gaps_and_empty_places_of_a_grid_are_white(colours):
    picture = grid(colours, columns=3, gap=2, scale=1)
    assert pixel(picture, 4, 0) == (255, 255, 255)
    assert pixel(picture, picture.width - 1, picture.height - 1) == (255, 255, 255)


def test_a_grid_is_no_wider_than_its_pictures(colours):
    assert grid(colours[:2], columns=8, gap=0, scale=1).size == (8, 4)


def test_enlargement_repeats_pixels():
    images = noise(1, 4)
    small, large = np.asarray(grid(images, scale=1)), np.asarray(grid(images, scale=3))
    assert np.array_equal(large, small.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize(
    ("count", "size", "shown"),
    [(1, 32, 64), (4, 16, 64), (9, 64, 64), (4, 128, 128), (400, 32, 32)],
)
def test_small_pictures_are_enlarged_to_64_pixels_while_the_grid_stays_small(count, size, shown):
    columns = round(count**0.5)
    assert grid(noise(count, size), gap=0).width == columns * shown


def test_a_strip_shows_each_row_in_order_under_its_titles(colours):
    rows = [colours[:3], colours[2:]]
    plain = strip(rows, gap=4, scale=8)
    titled = strip(rows, titles=["0 %", "50 %", "99 %"], row_titles=["a", "b"], gap=4, scale=8)
    assert plain.size == (8 + 3 * 36 - 4 + 8, 8 + 2 * 36 - 4 + 8)
    assert pixel(plain, 8, 8) == (250, 0, 0) and pixel(plain, 8, 44) == (0, 0, 250)
    assert titled.width > plain.width and titled.height > plain.height
    right, bottom = titled.width - 9, titled.height - 9
    assert pixel(titled, right, bottom) == pixel(plain, plain.width - 9, plain.height - 9)


def test_titles_are_dark_on_white(colours):
    titled = strip([colours[:1]], titles=["25 %"], scale=16)
    above = np.asarray(titled.convert("L"))[: titled.height - 8 - 64]
    assert above.min() < 100 and above.max() == 255


def test_rows_of_a_strip_may_differ_in_length(colours):
    picture = strip([colours[:1], colours[:4]], gap=4, scale=8)
    assert pixel(picture, picture.width - 9, 8) == (255, 255, 255)


def test_a_film_plays_for_ever_in_its_time_and_rests_on_its_last_frame(tmp_path):
    frames = [noise(4, 8, seed) for seed in range(6)]
    path = gif(frames, tmp_path / "film.gif", seconds=1.0, hold=2.0)
    with Image.open(path) as film:
        durations = []
        for i in range(film.n_frames):
            film.seek(i)
            durations.append(film.info["duration"])
        assert film.info["loop"] == 0
        assert durations == [200] * 5 + [2000]


def test_a_film_of_many_steps_keeps_ten_frames_a_second_and_ends_on_the_last(tmp_path):
    frames = [noise(1, 8, seed) for seed in range(100)]
    frames[-1] = torch.full((1, 3, 8, 8), 200, dtype=torch.uint8)
    path = gif(frames, tmp_path / "film.gif", seconds=2.0, hold=1.0)
    with Image.open(path) as film:
        assert film.n_frames == 20
        film.seek(19)
        assert film.convert("RGB").getpixel((3, 3)) == (200, 200, 200)


def test_one_frame_makes_a_film(tmp_path):
    with Image.open(gif([noise(1, 8)], tmp_path / "film.gif", seconds=1, hold=1)) as film:
        assert film.n_frames == 1


def test_saved_pictures_read_back_as_they_were(tmp_path):
    images = noise(2, 5)
    paths = save_pictures(images, tmp_path / "new" / "folder", names=["a", "b"])
    assert [path.name for path in paths] == ["a.png", "b.png"]
    for image, path in zip(images, paths, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), image.permute(1, 2, 0).numpy())


def test_as_many_names_as_pictures_are_wanted(tmp_path):
    with pytest.raises(ValueError):
        save_pictures(noise(2, 4), tmp_path, names=["a"])


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"file/a\.png cannot be written"):
        save_picture(grid(noise(1, 4)), tmp_path / "file" / "a.png")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = save_picture(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    old = path.read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        save_picture(Image.new("RGB", (3, 3)), path)
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == old


@pytest.mark.parametrize(
    ("count", "most", "kept"),
    [(3, 5, [0, 1, 2]), (9, 3, [0, 4, 8]), (9, 1, [8]), (1, 4, [0]), (0, 4, [])],
)
def test_spread_keeps_both_ends(count, most, kept):
    assert spread(count, most) == kept
