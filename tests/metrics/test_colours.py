"""Colour casts, how sure they are, and in words."""

import pytest
import torch

from kao.errors import DataError
from kao.metrics import Score, channel_drift, drift_sentence


def pictures(n, *, seed=0, offset=(0, 0, 0), spread=20.0):
    """Pictures of differing brightness and colour, means 120 plus the offset."""
    generator = torch.Generator().manual_seed(seed)
    of_picture = spread * torch.randn(n, 1, 1, 1, generator=generator)
    of_channel = 5 * torch.randn(n, 3, 1, 1, generator=generator)
    detail = 10 * torch.randn(n, 3, 4, 4, generator=generator)
    x = 120 + of_picture + of_channel + detail + torch.tensor(offset).view(3, 1, 1)
    return x.round().clamp(0, 255).byte()


def scores(*values, error=0.1):
    return tuple(Score("drift", value, error, 100) for value in values)


def test_drift_is_the_difference_of_channel_means():
    real, drawn = pictures(30), pictures(20, seed=1, offset=(12, 0, -5))
    found = channel_drift(real=real, drawn=drawn)
    expected = drawn.double().mean((0, 2, 3)) - real.double().mean((0, 2, 3))
    assert [s.value for s in found] == pytest.approx(expected.tolist())
    assert [s.name for s in found] == ["red drift", "green drift", "blue drift"]
    assert all(s.samples == 20 and s.better == "neither" for s in found)


def test_a_set_agrees_with_itself():
    real = pictures(30)
    assert [s.value for s in channel_drift(real=real, drawn=real)] == [0, 0, 0]


def test_intervals_of_drift_cover():
    offset = (4.0, -7.0, 0.0)
    hits = [
        score.low <= true <= score.high
        for trial in range(200)
        for score, true in zip(
            channel_drift(
                real=pictures(60, seed=2 * trial),
                drawn=pictures(40, seed=2 * trial + 1, offset=offset),
            ),
            offset,
            strict=True,
        )
    ]
    assert 0.92 <= sum(hits) / len(hits) <= 0.98


def test_the_error_falls_with_more_drawn_pictures_and_the_rest_is_of_the_real_ones():
    real = pictures(50)
    few, many = (channel_drift(real=real, drawn=pictures(n, seed=1))[0] for n in (50, 800))
    assert many.own < few.own / 3
    assert many.error > few.error / 2


def test_the_error_is_that_of_two_means_of_pictures():
    real, drawn = pictures(30, spread=40), pictures(20, seed=1, spread=5)
    theirs, ours = (x.double().mean((2, 3)).var(0) / len(x) for x in (real, drawn))
    found = channel_drift(real=real, drawn=drawn)
    assert [s.own for s in found] == pytest.approx(ours.sqrt().tolist())
    assert [s.error for s in found] == pytest.approx((ours + theirs).sqrt().tolist())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ((12.3, 0, 0), "12.3 grey levels too red and 4.1 too bright"),
        ((8, -4, -4), "12.0 grey levels too red."),
        ((-8, 4, 4), "12.0 grey levels too cyan."),
        ((4, -8, 4), "12.0 grey levels too magenta."),
        ((0, 0, -6), "6.0 grey levels too yellow and 2.0 too dark."),
        ((-9, -9, -9), "9.0 grey levels too dark."),
        ((-9, -9, -3), "7.0 grey levels too dark and 6.0 too blue."),
    ],
)
def test_a_cast_has_a_name(values, words):
    assert words in drift_sentence(scores(*values))


def test_what_chance_may_have_made_has_no_name():
    assert drift_sentence(scores(2, -1, 1, error=2)) == (
        "Colours agree with those of real pictures, within 5.9 grey levels."
    )
    assert "Colours agree" in drift_sentence(scores(0.2, 0.2, 0.2, error=0.01))


def test_colours_that_may_be_far_apart_do_not_agree():
    assert drift_sentence(scores(5, -3, 1, error=4)) == (
        "Colours cannot be told from those of real pictures with so few: the means may be 13 grey "
        "levels apart."
    )


def test_a_channel_whose_interval_leaves_out_0_is_named():
    sentence = drift_sentence(scores(1, 0.5, -4.2, error=2))
    assert "4.2 grey levels too little blue, by the interval" in sentence
    assert "red" not in sentence and "agree" not in sentence


def test_a_cast_is_no_surer_than_the_channels_that_it_is_held_against():
    errors = (0.1, 6.0, 6.0)
    found = tuple(Score("drift", v, e, 100) for v, e in zip((8, 0, 0), errors, strict=True))
    assert "8.0 grey levels too much red, by the interval of a channel" in drift_sentence(found)


def test_a_cast_of_drawn_pictures_is_told_and_chance_rarely():
    cast = channel_drift(real=pictures(200), drawn=pictures(200, seed=1, offset=(10, -5, -5)))
    assert "too red" in drift_sentence(cast)
    plain = [
        drift_sentence(
            channel_drift(real=pictures(60, seed=2 * t), drawn=pictures(60, seed=2 * t + 1))
        )
        for t in range(100)
    ]
    assert sum("too " in sentence for sentence in plain) <= 10


def test_one_picture_has_no_error_and_is_refused():
    with pytest.raises(DataError, match="1 drawn pictures are too few"):
        channel_drift(real=pictures(5), drawn=pictures(1))
