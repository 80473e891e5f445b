import math
import random

import pytest
import torch
from scipy.stats import norm as normal
from scipy.stats import t as student

from kao.evaluation.by_heart import Losses
from kao.evaluation.course import Trend
from kao.evaluation.numbers import number, rounded, signed
from kao.evaluation.trends import Point, change, over_trend, widening
from kao.evaluation.verdict import Forecast, judge

IMAGES = 120_000
SECONDS = 0.01  # an image


def rate(done, *, cooldown):
    return min(1.0, (1 - done) / cooldown) if cooldown else 1.0


def run(
    *,
    score=lambda x: 0.1,
    error=0.002,
    held=lambda x: 0.2,
    train=lambda x: 0.2,
    gap_error=0.002,
    copies=lambda x: (0.0, 0.0),
    cooldown=0.0,
    seed=0,
    points=12,
    held_noise=0.0,
    measure="kernel distance",
):
    """The events of a run whose figures follow these curves of images, and noise."""
    lots = random.Random(seed)
    events = []
    for k in range(1, 121):
        x, done = IMAGES * k // 120, k / 120
        told = {"learning_rate": rate(done, cooldown=cooldown), "seconds": SECONDS * x}
        events.append({"event": "train", "images": x, **told})
    for k in range(1, 41):
        x = IMAGES * k // 40
        shared = lots.gauss(0, held_noise)  # of the weights: both sets feel it
        h, t = (f(x) + shared + lots.gauss(0, held_noise / 4) for f in (held, train))
        events.append(
            {
                "event": "held_out",
                "images": x,
                "held": {"loss": h, "bands": {"0..2": h}},
                "train": {"loss": t, "bands": {"0..2": t}},
                "gap": {"loss": h - t, "error": gap_error, "errors": {"0..2": 2 * gap_error}},
            }
        )
    for k in range(1, points + 1):
        x = IMAGES * k // points
        value, low = copies(x)
        scored = {"value": score(x) + lots.gauss(0, error), "own_error": error}
        events.append(
            {
                "event": "evaluation",
                "images": x,
                "measure": measure,
                "score": scored,
                "copies": {"value": value, "low": low},
            }
        )
    return sorted(events, key=lambda event: event["images"])


def paired(curve, *, seed, shared=0.95, wander=0.0, memory=0.0, points=12, told=True):
    """The scores of a run whose pictures come from the same noise each time.

    A score is the curve, the mean of 64 pictures' own noise (which makes a standard error of 0.03
    and of which a share stays from score to score), and what the run wanders.

    Args:
        curve: Of images.
        seed: Of all noise.
        shared: The part of the pictures' variance that stays.
        wander: Standard deviation of what all pictures of a score have in common.
        memory: Correlation of that from score to score.
        points: How many scores.
        told: Whether the influences of the pictures are.
    """
    generator = torch.Generator().manual_seed(seed)
    common, own = (torch.randn(n, 64, generator=generator) * 0.24 for n in (1, points))
    noise = shared**0.5 * common + (1 - shared) ** 0.5 * own
    influences = (noise - noise.mean(1, keepdim=True)) / (64 * 63) ** 0.5
    steps, off, events = torch.randn(points, generator=generator).tolist(), 0.0, []
    for k in range(points):
        off = (
            wander * steps[k]
            if k == 0
            else memory * off + wander * steps[k] * (1 - memory**2) ** 0.5
        )
        x = IMAGES * (k + 1) // points
        value = curve(x) + float(noise[k].mean()) + off
        events.append(
            {
                "event": "evaluation",
                "images": x,
                "measure": "kernel distance",
                "score": {"value": value, "own_error": float(influences[k].norm())},
                "influences": influences[k].tolist() if told else None,
            }
        )
    return events


def states(curve, *, runs, **how):
    return [judge(paired(curve, seed=seed, **how)).state for seed in range(runs)]


def quick_learning(x):
    """A quarter better over the second half of the run."""
    return 0.01 + 50 / (x + 5_000) ** 0.5


def learning(x):
    """A score that falls for ever, ever more slowly."""
    return 0.02 + 20 / x**0.5


def memorising(x):
    """A held-out loss with its best at a third of the run, 5 % above it at the end."""
    return 0.2 * (1 + 0.05 * math.log(3 * x / IMAGES) ** 2)


def falling(x):
    return 0.2 - 0.03 * x / IMAGES


# --- the four states ----------------------------------------------------------------------------


def test_a_run_whose_score_falls_beyond_its_error_is_improving():
    verdict = judge(run(score=learning))
    assert verdict.state == "improving"
    assert "the score changed by \N{MINUS SIGN}" in verdict.sentence


def test_a_run_whose_score_stays_where_it_is_and_is_known_well_is_flat():
    verdict = judge(run(score=lambda x: 0.1, error=0.002))
    assert verdict.state == "flat"


def near_the_floor(curve, **how):
    """Scores whose error of 0.03 is as large as they are, or larger."""
    return judge(paired(curve, seed=2, shared=0.999, **how))


def test_a_score_that_cannot_be_told_from_that_of_real_pictures_is_flat_where_it_stays():
    verdict = near_the_floor(lambda x: 0.001)
    assert verdict.state == "flat"
    assert "can hardly be told from that of real pictures" in verdict.sentence


def test_a_score_near_that_of_real_pictures_improves_where_its_fall_is_surer_than_itself():
    assert near_the_floor(lambda x: 0.1 - 0.065 * x / IMAGES).state == "improving"


def test_a_score_near_that_of_real_pictures_is_not_flat_where_no_change_could_be_seen():
    assert judge(run(score=lambda x: 0.001, error=0.002, seed=2)).state == "unknown"


def test_a_score_that_rises_beyond_its_error_is_worsening():
    verdict = judge(run(score=lambda x: 0.1 + 0.24 * x / IMAGES, error=0.01))
    assert verdict.state == "worsening"
    assert verdict.sentence.startswith("Growing worse: by a line through the last 7 scores, the ")
    assert verdict.forecast is None


def test_four_scores_at_one_moment_are_one():
    events = [{**event, "images": IMAGES} for event in run(points=4)]
    assert "1 score is too few" in judge(events).sentence


def test_scores_of_before_the_first_image_do_not_count():
    events = [{**e, "images": 0} for e in run(points=4) if e["event"] == "evaluation"]
    assert judge(events).state == "unknown"


def test_errors_that_could_hide_what_matters_leave_it_open():
    verdict = judge(run(score=lambda x: 0.1, error=0.05, seed=1))
    assert verdict.state == "unknown"
    assert "A larger evaluation.pictures" in verdict.sentence


def test_a_held_out_loss_that_rises_away_from_the_training_loss_is_overfitting():
    verdict = judge(run(score=learning, held=memorising, train=falling))
    assert verdict.state == "overfitting"
    assert "the held-out loss has risen by 5" in verdict.sentence
    assert "since 4" in verdict.sentence  # at a third of 120,000
    assert verdict.forecast is None


def test_one_band_alone_can_give_it_away():
    events = run(train=falling)
    for event in events:
        if event["event"] == "held_out":
            event["held"]["bands"]["0..2"] = memorising(event["images"])
    assert "at log-snr 0..2 has risen by 5" in judge(events).sentence


def test_a_loss_that_rises_while_the_score_falls_is_said_with_the_score():
    verdict = judge(run(score=learning, held=memorising, train=falling))
    assert (verdict.state, verdict.improves) == ("overfitting", True)
    assert "The score improves all the same: by a line through" in verdict.sentence
    still = judge(run(score=lambda x: 0.1, held=memorising, train=falling))
    assert (still.state, still.improves) == ("overfitting", False)


def test_a_training_loss_that_rises_by_less_than_half_is_not_said_to_stay():
    verdict = judge(run(held=memorising, train=lambda x: 0.9 * (0.2 + 0.4 * (memorising(x) - 0.2))))
    assert "and that of training pictures by less than half of it" in verdict.sentence
    verdict = judge(run(held=memorising, train=falling))
    assert "and that of training pictures has not" in verdict.sentence


def taken_up(events, **changes):
    """A run that was taken up at a third of its length."""
    first = {"event": "start", "images": 0, "precision": "fp32", "rate": 1e-3}
    again = {**first, "images": IMAGES // 3, **changes}
    at = next(i for i, event in enumerate(events) if event["images"] > IMAGES // 3)
    return [first, *events[:at], again, *events[at:]]


@pytest.mark.parametrize(
    ("changes", "state"),
    [({}, "overfitting"), ({"rate": 1e-2}, "flat"), ({"precision": "bf16"}, "flat")],
)
def test_a_loss_that_jumps_with_the_rate_or_the_precision_is_no_sign(changes, state):
    def jumps(x):
        return 0.2 + 0.02 * (x > IMAGES / 3)

    assert judge(taken_up(run(held=jumps, train=falling), **changes)).state == state


def test_losses_at_any_distances_have_no_noise_on_a_line():
    moments = [float(x) for x in (1, 2, 3, 4, 14, 24, 25, 26, 60)]
    line = Losses(moments, [5 - 0.01 * x for x in moments], moments, moments)
    assert line.noise == pytest.approx(0, abs=1e-9)
    lots = random.Random(0)
    moments = [float(x) for k in range(300) for x in (20 * k + 1, 20 * k + 4)]
    noisy = Losses(moments, [lots.gauss(0, 1) for _ in moments], moments, moments)
    assert noisy.noise * noisy.window**0.5 == pytest.approx(1, rel=0.1)


def test_losses_that_rise_together_are_not_learned_by_heart():
    assert judge(run(held=memorising, train=memorising)).state != "overfitting"


def test_a_gap_within_its_error_is_no_reason():
    assert judge(run(held=memorising, train=falling, gap_error=0.1)).state != "overfitting"


def test_copies_beyond_chance_are_overfitting_and_a_few_are_not():
    assert judge(run(copies=lambda x: (0.02, 0.01))).state != "overfitting"
    verdict = judge(run(score=learning, copies=lambda x: (0.3, 0.2)))
    assert (verdict.state, verdict.improves) == ("overfitting", False)
    assert "30 % of the drawn pictures are copies" in verdict.sentence


def test_copies_in_one_score_alone_are_no_reason():
    def once(x):
        return (0.3, 0.2) if x == IMAGES else (0.02, 0.01)

    assert judge(run(copies=once)).state != "overfitting"


@pytest.mark.parametrize("broken", [None, {}, {"value": None, "low": 0.2}, {"low": None}, "much"])
def test_copies_that_are_no_numbers_are_passed_over(broken):
    events = [
        {**event, "copies": broken} if event["event"] == "evaluation" else event for event in run()
    ]
    assert judge(events).state == "flat"


@pytest.mark.parametrize("points", [0, 1, 3])
def test_few_scores_and_a_still_loss_tell_nothing(points):
    verdict = judge(run(points=points))
    assert verdict.state == "unknown"
    assert f"{points} score{'s are' if points != 1 else ' is'} too few" in verdict.sentence


def test_a_held_out_loss_that_falls_speaks_where_scores_are_too_few():
    verdict = judge(run(points=0, held=falling, train=falling, held_noise=1e-4))
    assert verdict.state == "improving"
    assert verdict.forecast is None


def test_a_held_out_loss_that_wanders_slowly_is_seldom_said_to_fall():
    """Each remembers half of what the one before was off by, as losses of averaged weights do."""
    ever = 0
    for seed in range(100):
        lots, off, losses = random.Random(seed), 0.0, []
        for _ in range(40):
            off = 0.5 * off + lots.gauss(0, 0.002)
            losses.append(0.2 + off)
        moments = [float(x) for x in range(1, 41)]
        told = [Losses(moments[:k], losses[:k], losses[:k], moments[:k]) for k in range(8, 41)]
        ever += any(each.fallen() for each in told)
    assert ever <= 15


def test_a_run_without_events_is_unknown():
    assert judge([]).state == "unknown"


def test_figures_that_are_no_numbers_are_passed_over():
    events = run(score=learning)
    broken = [{**event, "score": {"value": None}, "held": None} for event in events[-3:]]
    assert judge([*events, *broken]).state == "improving"


def test_scores_drawn_in_another_way_do_not_count():
    before = [{**event, "digest": "00000000"} for event in run(score=learning)]
    after = run(score=learning, points=3)
    after = [{**e, "images": e["images"] + IMAGES, "digest": "11111111"} for e in after]
    assert "3 scores are too few" in judge([*before, *after]).sentence


def test_scores_of_another_measure_do_not_count():
    before, after = run(score=learning, measure="a"), run(score=learning, measure="b", points=3)
    after = [{**event, "images": event["images"] + IMAGES} for event in after]
    assert "3 scores are too few" in judge([*before, *after]).sentence


# --- how often it errs --------------------------------------------------------------------------


def test_of_two_hundred_runs_of_nothing_but_noise_few_are_called_overfitting_or_improving():
    told = [
        judge(run(score=lambda x: 0.1, error=0.01, held_noise=0.004, seed=seed)).state
        for seed in range(200)
    ]
    assert told.count("overfitting") <= 2
    assert told.count("improving") <= 10


def test_noise_that_wanders_is_seldom_called_overfitting():
    """An average of the weights moves slowly, so its losses do: noise with a memory."""
    count = 0
    for seed in range(200):
        lots, drift, own = random.Random(seed), 0.0, 0.0
        events = run(seed=seed)
        for event in events:
            if event["event"] == "held_out":
                drift = 0.8 * drift + lots.gauss(0, 0.002)
                own = 0.8 * own + lots.gauss(0, 0.0005)
                event["held"]["loss"], event["train"]["loss"] = 0.2 + drift + own, 0.2 + drift
                event["held"]["bands"] = {}
        count += judge(events).state == "overfitting"
    assert count <= 10


def test_runs_that_learn_by_heart_are_nearly_always_seen():
    told = [
        judge(run(held=memorising, train=falling, held_noise=0.0005, seed=seed)).state
        for seed in range(50)
    ]
    assert told.count("overfitting") >= 48


# --- scores that share their noise --------------------------------------------------------------


def test_an_improvement_well_below_the_error_of_each_score_is_seen_where_they_share_their_noise():
    assert states(quick_learning, runs=60).count("improving") >= 45
    assert states(quick_learning, runs=60, told=False).count("improving") <= 3


def test_a_change_of_the_picture_noise_alone_is_known_as_well_as_the_share_that_does_not_stay():
    events = paired(lambda x: 0.1, seed=0)
    points = [Point(e["images"], e["score"]["value"], 0.03, tuple(e["influences"])) for e in events]
    alone = [point._replace(influences=()) for point in points]
    span = points[0].images, points[-1].images
    assert change(points, *span).noise == pytest.approx(
        0.05**0.5 * change(alone, *span).noise, rel=0.25
    )


@pytest.mark.parametrize("points", [4, 12])
@pytest.mark.parametrize(
    ("shared", "wander", "memory"),
    [(0.0, 0.0, 0.0), (0.95, 0.0, 0.0), (0.95, 0.005, 0.0), (1.0, 0.01, 0.5), (0.95, 0.02, 0.5)],
)
def test_a_run_that_stays_where_it_is_is_seldom_called_improving(points, shared, wander, memory):
    told = states(
        lambda x: 0.2, runs=200, points=points, shared=shared, wander=wander, memory=memory
    )
    assert told.count("improving") <= 10


@pytest.mark.parametrize(
    "how",
    [
        {"shared": 0.0},
        {"wander": 0.02, "memory": 0.33},
        {"wander": 0.02, "memory": 0.5},
        {"shared": 1.0, "wander": 0.01, "memory": 0.5},
    ],
)
def test_of_runs_that_stay_where_they_are_one_in_twenty_is_ever_said_to_improve_or_worsen(how):
    """Nine verdicts, one after each score; the wandering is up to two thirds of a score's error."""
    ever = [0, 0]
    for seed in range(200):
        scores = paired(lambda x: 0.2, seed=seed, **how)
        trends = [Trend.of(scores[:k]) for k in range(4, 13)]
        ever[0] += any(trend.falls for trend in trends)
        ever[1] += any(trend.rises for trend in trends)
    assert max(ever) <= 0.05 * 200


def straight(images, *, error):
    """Scores on a line that falls against log images."""
    told = ((x, {"value": -math.log(x), "own_error": error}) for x in images)
    return [{"event": "evaluation", "images": x, "score": score} for x, score in told]


def test_a_fall_must_be_the_surer_the_more_verdicts_there_are():
    moments = [IMAGES * k // 12 for k in range(1, 13)]
    change = Trend.of(straight(moments, error=1.0)).change
    sigmas = -change.value / change.error  # where a score is off by 1
    said = {
        (z, more): Trend.of(straight([*range(1, more + 1), *moments], error=sigmas / z)).falls
        for z in (2.4, 2.7, 3.8)
        for more in (0, 300)  # of before the second half of the images
    }
    assert said == {
        (2.4, 0): False,
        (2.4, 300): False,
        (2.7, 0): True,
        (2.7, 300): False,
        (3.8, 0): True,
        (3.8, 300): True,
    }


def test_a_run_that_learns_is_called_improving_before_its_end():
    seen = [paired(quick_learning, seed=seed, wander=0.02) for seed in range(40)]
    ever = [any(judge(e[:k]).state == "improving" for k in range(4, 13)) for e in seen]
    assert sum(ever) >= 38


def test_a_curve_that_bends_is_known_no_worse_than_from_independent_errors():
    shared = (0.06, -0.08)
    points = [Point(2.0**k, 1 / 2**k, 0.1, shared) for k in range(4)]
    alone = [point._replace(influences=()) for point in points]
    assert change(points, 1, 8).noise < 1e-12
    assert 0.01 < change(points, 1, 8).error <= change(alone, 1, 8).error


def test_a_run_that_stays_where_it_is_is_called_flat_where_its_scores_share_their_noise():
    assert states(lambda x: 0.2, runs=60, shared=0.98).count("flat") >= 50


def test_where_the_run_wanders_and_not_its_pictures_more_of_these_are_not_advised():
    said = [judge(paired(lambda x: 0.2, seed=s, shared=0.999, wander=0.03)) for s in range(9)]
    unknown = [verdict.sentence for verdict in said if verdict.state == "unknown"]
    assert unknown
    assert all(sentence.endswith("More scores will tell.") for sentence in unknown)


def test_scores_of_more_pictures_share_the_noise_of_the_first_ones():
    points = [
        Point(10, 1.0, 0.1, (0.06, -0.08)),
        Point(20, 1.0, 0.1, (0.06, -0.08, 0.0)),
        Point(40, 1.0, 0.1, (0.06, -0.08, 0.02)),
    ]
    # The line's ends are -1/2 and +1/2 of the outer two: the third picture is in one of them.
    assert change(points, 10, 40).error == pytest.approx(0.02)


def test_forecasts_from_shared_noise_hold_what_comes_as_often_as_they_say():
    truth = learning(2 * IMAGES) - learning(IMAGES)
    made = [judge(paired(learning, seed=seed)).forecast for seed in range(60)]
    inside = [f for f in made if f and abs(f.change - truth) <= 1.96 * f.error]
    assert len(inside) >= 54
    alone = [judge(paired(learning, seed=seed, told=False)).forecast for seed in range(60)]
    assert sum(f.error for f in made) < sum(f.error for f in alone) / 2


@pytest.mark.parametrize("broken", [None, "1, 2", [0.1, None], [0.1, math.nan], {"a": 0.1}])
def test_influences_that_are_no_numbers_are_passed_over(broken):
    events = [{**event, "influences": broken} for event in paired(quick_learning, seed=0)]
    assert judge(events) == judge(paired(quick_learning, seed=0, told=False))


@pytest.mark.parametrize("free", [2, 3, 4, 8, 30])
@pytest.mark.parametrize("level", [0.975, 0.995])
def test_intervals_of_few_points_are_wider_as_students_distribution_says(free, level):
    z = normal.ppf(level)
    exact = student.ppf(level, free) / z
    assert 0.99 * exact <= widening(free, z) <= {2: 1.13, 3: 1.04}.get(free, 1.02) * exact


# --- forecasts ----------------------------------------------------------------------------------


def test_forecasts_hold_what_comes_as_often_as_they_say():
    truth = learning(2 * IMAGES) - learning(IMAGES)
    made = [judge(run(score=learning, seed=seed)).forecast for seed in range(100)]
    inside = [f for f in made if f and abs(f.change - truth) <= 1.96 * f.error]
    assert len(inside) >= 90


def test_a_forecast_is_of_as_much_again_in_the_time_that_it_took():
    forecast = judge(run(score=learning)).forecast
    assert forecast.images == IMAGES
    assert forecast.minutes == pytest.approx(IMAGES * SECONDS / 60)
    assert not forecast.annealed
    assert str(forecast).startswith("Another 20 minutes: score \N{MINUS SIGN}0.0")


def test_nothing_falls_below_the_floor():
    events = run(score=lambda x: 1000 / x, error=1e-4)
    for event in events:
        event["floor"] = {"value": 0.008, "own_error": 1e-4}
    last = events[-1]["score"]["value"]
    assert last + judge(events).forecast.change >= 0.008 - 1e-12


def annealed(x):
    """A score that halves while the rate falls over the last 40 %."""
    fallen = max(0.0, x / IMAGES - 0.6) / 0.4
    return learning(x) * (1 - 0.5 * fallen)


def test_the_fall_that_a_falling_rate_brings_is_not_carried_on():
    events = run(score=annealed, cooldown=0.4)
    plain = run(score=learning)
    forecast, steady = judge(events, finished=True).forecast, judge(plain).forecast
    assert forecast.annealed
    assert "at the end of which the learning rate falls again" in str(forecast)
    assert forecast.change == pytest.approx(steady.change, abs=2 * forecast.error)
    naive = change([Point(x, annealed(x), 0.002) for x in (80_000, 120_000)], IMAGES, 2 * IMAGES)
    assert forecast.change > naive.value / 2


def test_there_is_no_forecast_while_the_rate_falls():
    events = [e for e in run(score=annealed, cooldown=0.4) if e["images"] <= 0.9 * IMAGES]
    assert judge(events).forecast is None


def test_a_rate_that_falls_all_the_time_allows_no_forecast():
    assert judge(run(score=learning, cooldown=1.0), finished=True).forecast is None


# --- lines and numbers --------------------------------------------------------------------------


def test_a_line_in_log_images_is_found():
    points = [Point(x, 3 - 0.5 * math.log(x), 0.1) for x in (10, 20, 40, 70)]
    moved = change(points, 100, 200)
    assert moved.value == pytest.approx(-0.5 * math.log(2))
    assert over_trend(points, 100) == pytest.approx(3 - 0.5 * math.log(100))


def test_the_error_of_a_change_is_that_of_least_squares():
    points = [Point(math.e**u, 1.0, 0.3) for u in (0, 1, 2)]
    assert change(points, 1, math.e).error == pytest.approx(0.3 / math.sqrt(2))


def test_points_off_the_line_make_the_error_larger():
    calm = [Point(math.e**u, u, 0.1) for u in range(4)]
    wild = [Point(math.e**u, u + (-1) ** u, 0.1) for u in range(4)]
    assert change(wild, 1, 2).error > 3 * change(calm, 1, 2).error


def test_numbers_are_shown_with_the_digits_that_are_known():
    assert signed(-0.01234, 0.002) == "\N{MINUS SIGN}0.012 ± 0.004"
    assert signed(8.2, 0.55) == "+8.2 ± 1.1"
    assert number(0.04321, 0.002) == "0.043"
    assert number(431.2, 30.0) == "431"
    assert (rounded(12_345), rounded(87.4)) == (12_000, 87)


def test_long_forecasts_are_in_hours_and_unknown_speeds_in_images():
    told = {"change": -1.0, "error": 0.1, "annealed": False}
    assert "Another 2.5 hours" in str(Forecast(images=1, minutes=150, **told))
    assert "Another 13,000 images" in str(Forecast(images=12_800, minutes=0, **told))
