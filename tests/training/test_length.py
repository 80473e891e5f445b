import pytest

from kao.errors import ConfigError
from kao.training import Length, Progress


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("10 minutes", Length(minutes=10)),
        ("1 minute", Length(minutes=1)),
        ("1.5 hours", Length(minutes=90)),
        ("100 images", Length(images=100)),
        ("100k images", Length(images=100_000)),
        ("1.5M images", Length(images=1_500_000)),
        (".5k images", Length(images=500)),
        ("640,000 images", Length(images=640_000)),
        ("1,234,567 images", Length(images=1_234_567)),
        ("640_000 images", Length(images=640_000)),
        ("1000 steps", Length(images=32_000)),
        ("1 step", Length(images=32)),
        ("  2k  steps ", Length(images=64_000)),
        ("5minutes", Length(minutes=5)),
        # Whatever is asked for, there is something to do.
        ("0.1 images", Length(images=1)),
        ("0.1 steps", Length(images=32)),
    ],
)
def test_a_length_is_a_number_and_a_unit(text, length):
    assert Length.parse(text, batch=32) == length


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "minutes",
        "ten minutes",
        "0 images",
        "0.0 minutes",
        "-5 images",
        "10 epochs",
        "1e3 images",
        "1.5.2 hours",
        "1,5M images",
        "10,0 minutes",
        "1,0000 images",
        "10 minutes 5",
        "10 G images",
        "nan images",
    ],
)
def test_what_is_no_length_is_refused_with_examples(text):
    with pytest.raises(ConfigError) as caught:
        Length.parse(text, batch=32)
    assert str(caught.value) == (
        f'length = "{text}"; expected a number above 0 and a unit, such as "10 minutes", '
        f'"100k images" or "1000 steps".'
    )


@pytest.mark.parametrize(("images", "done"), [(0, 0.0), (50, 0.25), (200, 1.0), (900, 1.0)])
def test_a_run_in_images_is_done_by_its_images(images, done):
    assert Length(images=200).done(Progress(images=images)) == done


def test_a_run_in_images_does_not_look_at_the_clock():
    length = Length(images=200)
    assert length.done(Progress(images=50, seconds=1e9), reserve=1e9) == 0.25


@pytest.mark.parametrize(("seconds", "done"), [(0, 0.0), (150, 0.25), (600, 1.0), (601, 1.0)])
def test_a_run_in_minutes_is_done_by_the_clock(seconds, done):
    assert Length(minutes=10).done(Progress(images=12345, seconds=seconds)) == done


@pytest.mark.parametrize(
    ("reserve", "done"),
    [
        (60, 270 / 540),
        (150, 270 / 450),
        # A preview that takes longer than a quarter of the run is not worth the rest of it.
        (300, 270 / 450),
        (1e9, 270 / 450),
    ],
)
def test_time_is_kept_for_what_follows_the_last_step_but_a_quarter_at_most(reserve, done):
    progress = Progress(seconds=270)
    assert Length(minutes=10).done(progress, reserve=reserve) == pytest.approx(done)


def test_the_images_of_a_run_in_minutes_follow_from_its_speed():
    assert Length(minutes=2).expected_images(50.0) == 6000
    assert Length(minutes=2).expected_images(1e-9) == 1
    assert Length(images=70).expected_images(50.0) == 70


@pytest.mark.parametrize("number", ["9" * 20, "9" * 400, "1000000000M"])
def test_a_length_that_no_run_comes_to_is_refused(number):
    for unit in ("images", "steps", "minutes"):
        with pytest.raises(ConfigError, match="expected fewer"):
            Length.parse(f"{number} {unit}", batch=2)
