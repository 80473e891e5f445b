import numpy as np
from PIL import ImageColor

from kao.reports.front import Mark, front_plot
from kao.reports.plots import INK


def mark(family, seconds, score, *, chosen=False):
    return Mark(family, f"{family}, 5 steps", seconds, score, error=0.05, chosen=chosen)


def colours(image):
    """How many pixels are about of which colour."""
    pixels = np.asarray(image).reshape(-1, 3)
    return {
        tuple(c): n for c, n in zip(*np.unique(pixels, axis=0, return_counts=True), strict=True)
    }


def test_each_sampler_has_a_colour_of_its_own():
    one = front_plot([mark("ddim", 0.1, 1.0), mark("ddim", 0.2, 0.5)], title="")
    two = front_plot([mark("ddim", 0.1, 1.0), mark("heun", 0.2, 0.5)], title="")
    assert one.mode == two.mode == "RGB"
    assert len(colours(two).keys() - colours(one).keys()) > 20


def test_the_front_is_a_line_with_labels():
    marks = [mark("ddim", 0.1, 1.0), mark("ddim", 0.2, 0.5)]
    best = [mark("ddim", 0.1, 1.0, chosen=True), mark("ddim", 0.2, 0.5, chosen=True)]
    ink = ImageColor.getrgb(INK)
    labelled, bare = (colours(front_plot(m, title="")).get(ink, 0) for m in (best, marks))
    assert labelled > bare + 100


def test_a_single_way_and_a_score_below_zero_are_drawn():
    image = front_plot([mark("ddim", 0.1, -0.01, chosen=True)], title="one")
    assert image.width > 600 and image.height > 300
    assert np.asarray(image).std() > 5


def test_a_chart_is_the_same_each_time():
    marks = [mark("ddim", 0.1, 1.0), mark("heun", 0.2, 0.5, chosen=True)]
    assert front_plot(marks, title="t").tobytes() == front_plot(marks, title="t").tobytes()
