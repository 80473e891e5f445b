import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from several import several

from kao.checkpoints import Checkpoint
from kao.config import RunConfig
from kao.config.sampling import GuidanceConfig
from kao.config.sections import EvaluationConfig
from kao.data import open_source, prepare
from kao.data.keeping import Held
from kao.diffusion import SCHEDULES
from kao.diffusion.grids import LogSNR
from kao.errors import CheckpointError, ConfigError, OutputError
from kao.evaluation.verdict import Verdict, judge
from kao.machine import device
from kao.metrics import Wavelets
from kao.runs import Ask, Run, finish, hooks, open_session, plan
from kao.runs.averages import BEST_SCORE, SavedAverage, facts_of, place
from kao.runs.probe import probe
from kao.runs.score_budget import (
    FEWEST_PICTURES,
    MOST_CALLS,
    MOST_PICTURES,
    scores_in_images,
    scores_within,
)
from kao.runs.score_drawing import NOISE, digest_of, quickly
from kao.runs.sizing import Resolved
from kao.runs.stopping import FEWEST_SCORES, PATIENCE, grounds, since_start
from kao.runs.timetable import Costs, intervals, timetable
from kao.runs.yardstick import ENOUGH, FEWEST, Yardstick, seconds_to_look
from kao.tracking import Jsonl, read_events
from kao.training import Trainer

CPU = torch.device("cpu")
BATCH = 4
SCORED = (
    "evaluation.every=8",
    "evaluation.pictures=16",
    "evaluation.steps=2",
    "evaluation.features=wavelets",
)


@pytest.fixture
def asked(tiny, tmp_path):
    """asked("seed=3", length="6 steps"): a run on forty pictures that is scored each other step."""

    def ask(*more, length="4 steps", run="run", source="toy:40"):
        rare = ("hooks.log=4", "hooks.samples=9999", "hooks.checkpoints=8", "hooks.keep_last=9")
        words = (*tiny, f"training.batch={BATCH}", "network.dropout=0.2", *rare, *SCORED, *more)
        return Ask(tmp_path / run, source, "toy-32", words, {"length": length})

    return ask


def go(ask, *, stop=None):
    session = open_session(ask, CPU)
    for _ in session.trainer.steps():
        if session.trainer.progress.images // BATCH == stop:
            session.trainer.stop()
    return session, finish(session)


def told(run, kind):
    return [event for event in read_events(run) if event["event"] == kind]


def learned(run):
    folder = Checkpoint.all(run)[-1].path
    return {file.name: file.read_bytes() for file in folder.glob("*.safetensors")}


def says(monkeypatch, state):
    """All verdicts from now on."""
    monkeypatch.setattr(
        "kao.runs.scoring.judge", lambda events, finished: Verdict(state, f"It is {state}.")
    )


# --- what is told -------------------------------------------------------------------------------


def test_a_run_is_scored_and_judged_every_so_many_images_and_at_its_end(asked):
    ask = asked(length="5 steps")
    session, _ = go(ask)
    scores = told(ask.run, "evaluation")
    assert [event["images"] for event in scores] == [8, 16, 20]
    assert [event["images"] for event in told(ask.run, "verdict")] == [8, 16, 20]
    assert {event["measure"] for event in scores} == {
        "kernel distance wavelets-1 to 30 training pictures, dpm++2m in 2 steps on the log_snr grid"
    }
    for event in scores:
        score, copies = event["score"], event["copies"]
        assert 0 < score["own_error"] <= score["error"]
        assert score["low"] < score["value"] < score["high"]
        assert 0 <= copies["low"] <= copies["value"] <= copies["high"] <= 1
        assert abs(event["floor"]["value"]) < score["value"]
        assert set(event["drift"]) == {"red", "green", "blue"}
        assert len(event["influences"]) == event["pictures"] == 16
        assert math.hypot(*event["influences"]) == pytest.approx(score["own_error"], rel=1e-4)
    first, *others = session.news.take()
    assert "(kernel distance to real pictures: lower is better; ± what" in first.replace("±:", "±")
    assert len(others) == 2
    assert not any("kernel distance" in line for line in others)


def test_scores_change_no_bit_of_what_is_learned(asked):
    go(asked(run="scored"))
    go(asked("evaluation.every=0", run="plain"))
    scored, plain = asked(run="scored").run, asked(run="plain").run
    assert told(scored, "evaluation") and not told(plain, "evaluation")
    assert learned(scored) == learned(plain)


def test_weights_that_stay_have_one_score(asked):
    ask = asked("optimizer.rate=1e-30")
    go(ask)
    assert len({event["score"]["value"] for event in told(ask.run, "evaluation")}) == 1


def test_a_run_that_is_taken_up_has_the_scores_of_one_that_was_not_stopped(asked):
    whole, halved = asked(run="whole"), asked(run="halved")
    go(whole)
    assert go(halved, stop=2)[1] == "interrupted"
    go(halved)
    first, second = (
        {event["images"]: event["score"] for event in told(ask.run, "evaluation")}
        for ask in (whole, halved)
    )
    assert first == second
    assert learned(whole.run) == learned(halved.run)


def test_nothing_is_scored_on_the_way_out_of_a_stopped_run(asked):
    ask = asked("evaluation.every=9999")
    go(ask, stop=2)
    assert not told(ask.run, "evaluation")


def test_too_few_pictures_are_not_scored(asked):
    ask = asked(source=f"toy:{FEWEST - 1}")
    session, reason = go(ask)
    assert (session.scoring, reason) == (None, "finished")
    assert not told(ask.run, "evaluation")


def _scored(path, words):
    session = open_session(Ask(path, "toy:40", "toy-32", words, {"length": "4 steps"}), device())
    for _ in session.trainer.steps():
        pass
    return finish(session)


def test_two_processes_score_as_one_does(asked):
    one, two = asked(length="4 steps", run="one"), asked(run="two")
    go(one)
    assert several(2, _scored, two.run, two.overrides) == ["finished"] * 2
    first, second = (
        [event["score"]["value"] for event in told(ask.run, "evaluation")] for ask in (one, two)
    )
    assert second == pytest.approx(first, rel=1e-2)
    assert facts_of(two.run, BEST_SCORE).score == min(second)


# --- the best weights ---------------------------------------------------------------------------


def test_the_weights_with_the_best_score_are_kept_to_draw_with(asked):
    ask = asked("optimizer.rate=0.02", length="6 steps")
    go(ask)
    best = min(told(ask.run, "evaluation"), key=lambda event: event["score"]["value"])
    facts = facts_of(ask.run, BEST_SCORE)
    assert (facts.name, facts.images) == ("ema-0.999", best["images"])
    assert (facts.score, facts.error) == (best["score"]["value"], best["score"]["own_error"])
    drawn = Run.open(ask.run).denoiser(weights="best-score", device=CPU).state_dict()
    saved = next(c for c in Checkpoint.all(ask.run) if c.images == best["images"])
    average = saved.weights("ema-0.999")
    assert all(torch.equal(drawn[name], tensor) for name, tensor in average.items())


def test_better_weights_of_before_outlive_a_run_that_is_taken_up(asked, monkeypatch):
    ask = asked(length="4 steps")
    go(ask)
    facts = replace(facts_of(ask.run, BEST_SCORE), score=-9.0)
    monkeypatch.setattr("kao.runs.scoring.facts_of", lambda run, name: facts)
    before = place(ask.run, BEST_SCORE).read_bytes()
    go(asked(length="6 steps"))
    assert told(ask.run, "evaluation")[-1]["images"] == 24
    assert not told(ask.run, "evaluation")[-1]["best"]
    assert place(ask.run, BEST_SCORE).read_bytes() == before


def test_the_best_weights_of_a_future_that_was_given_up_are_dropped(asked):
    """With the newest checkpoint damaged the run goes back to the one before."""
    ask = asked("optimizer.rate=1e-30", length="4 steps")
    go(ask)
    assert facts_of(ask.run, BEST_SCORE).images == 16  # of equal scores the last is the best
    newest = Checkpoint.all(ask.run)[-1]
    (newest.path / "model.safetensors").write_bytes(b"nothing")
    session = open_session(ask, CPU)
    assert session.resumed == 8
    assert not place(ask.run, BEST_SCORE).exists()
    finish(session)


def test_a_branch_does_not_inherit_the_best_weights(asked, tmp_path):
    go(asked(length="4 steps"))
    branch = replace(asked(length="6 steps"), branch=tmp_path / "branch")
    finish(open_session(branch, CPU))
    assert not place(tmp_path / "branch", BEST_SCORE).exists()
    go(replace(branch, run=tmp_path / "branch", branch=None))
    assert facts_of(tmp_path / "branch", BEST_SCORE).images > 16
    first = told(tmp_path / "branch", "evaluation")[0]
    assert (first["images"], first["best"]) == (24, True)


def test_the_best_weights_are_there_before_the_log_says_so(asked, monkeypatch):
    there = []
    event = Jsonl.event

    def watched(self, kind, images, values):
        if kind == "evaluation":
            there.append(facts_of(self.path.parent, BEST_SCORE).images == images)
        event(self, kind, images, values)

    monkeypatch.setattr(Jsonl, "event", watched)
    go(asked("optimizer.rate=1e-30"))
    assert there == [True, True]


def test_best_weights_that_cannot_be_written_are_not_said_to_be_kept(asked, monkeypatch):
    def full(self, run, name=""):
        raise OutputError("The disk is full.")

    monkeypatch.setattr(SavedAverage, "save", full)
    session, reason = go(asked())
    assert reason == "finished"
    assert [event["best"] for event in told(session.run.path, "evaluation")] == [False, False]
    assert session.notices.take()[0] == "The disk is full. The run goes on without it."


def test_scores_of_another_measure_beat_nothing(asked):
    ask = asked(length="4 steps")
    go(ask)
    go(asked("evaluation.steps=3", length="6 steps"))
    assert "in 3 steps" in facts_of(ask.run, BEST_SCORE).measure


def test_damaged_best_weights_give_way_to_the_next_score(asked):
    go(asked(length="2 steps"))
    ask = asked(length="4 steps")
    place(ask.run, BEST_SCORE).write_bytes(b"nothing")
    go(ask)
    assert facts_of(ask.run, BEST_SCORE).images == 16


def test_best_weights_that_are_not_there_are_said_to_come_of_scores(asked):
    ask = asked("evaluation.every=0", length="2 steps")
    go(ask)
    with pytest.raises(CheckpointError, match=r"has no average best-score: scores while training"):
        Run.open(ask.run).denoiser(weights="best-score")


# --- stopping -----------------------------------------------------------------------------------


def test_a_run_that_learns_by_heart_is_stopped_and_saved(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    ask = asked("evaluation.stop=auto", length="8 steps")
    session, reason = go(ask)
    assert reason == "stopped"
    images = session.trainer.progress.images
    assert images == 8 * PATIENCE
    assert Checkpoint.all(ask.run)[-1].images == images
    assert told(ask.run, "end")[-1]["reason"] == "stopped"
    notices = session.notices.take()
    assert notices[0] == "It is overfitting."
    assert notices[1].startswith(
        "Stopped, since the last 3 verdicts were overfitting (evaluation.stop"
    )
    assert place(ask.run, BEST_SCORE).is_file()


def test_a_stopped_run_goes_on_where_it_is_told_to(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    go(asked("evaluation.stop=auto", length="8 steps"))
    session, reason = go(asked("evaluation.stop=never", length="8 steps"))
    assert (reason, session.resumed) == ("finished", 8 * PATIENCE)


def test_nobody_is_stopped_who_has_not_asked_for_it(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    session, reason = go(asked(length="5 steps"))
    assert reason == "finished"
    assert session.notices.take() == ["It is overfitting."]  # told once


@pytest.mark.parametrize(
    ("schedule", "reason"), [("constant", "stopped"), ("trapezoid", "finished")]
)
def test_a_flat_run_is_stopped_only_where_its_rate_does_not_fall(
    asked, monkeypatch, schedule, reason
):
    says(monkeypatch, "flat")
    words = ("evaluation.stop=auto", f"optimizer.schedule={schedule}")
    session, ended = go(asked(*words, length="20 steps"))
    assert ended == reason
    if reason == "stopped":
        assert session.trainer.progress.images == 8 * FEWEST_SCORES


def verdicts(*states, last=None, **more):
    """One every 1,000 images, up to `last`."""
    last = len(states) if last is None else last
    return [
        {"event": "verdict", "images": 1000 * (last - len(states) + k), "state": state, **more}
        for k, state in enumerate(states, 1)
    ]


LATE = {"scores": 12, "done": 0.99, "anneals": False}


@pytest.mark.parametrize("state", ["flat", "worsening"])
def test_a_late_row_of_scores_that_do_not_fall_is_ground_to_stop(state):
    assert grounds(verdicts("improving", *[state] * 4, last=12), **LATE) == (4, (state,))


@pytest.mark.parametrize(
    "less", [{"done": 0.49}, {"scores": FEWEST_SCORES - 1}, {"anneals": True}], ids=str
)
def test_early_or_before_the_rate_falls_it_is_none(less):
    row = verdicts(*["flat"] * 4, last=12)
    assert grounds(row, **LATE) and not grounds(row, **{**LATE, **less})


def test_verdicts_that_share_nearly_all_their_scores_count_as_one():
    assert not grounds(verdicts("improving", *["flat"] * 3, last=12), **LATE)
    assert grounds(verdicts("improving", *["flat"] * 3, last=8), **LATE)


def test_a_plateau_at_the_start_is_not_stopped():
    """The score stays at 1 for half of the scores, and falls from there on."""
    events = []
    for k in range(1, 13):
        lots = random.Random(k)
        value = max(0.05, 1.0 if k <= 6 else 1.0 - 0.15 * (k - 6)) + lots.gauss(0, 0.01)
        score = {"value": value, "own_error": 0.01}
        events.append({"event": "evaluation", "images": 1000 * k, "measure": "m", "score": score})
        row = [*since_start(events), {"images": 1000 * k, **judge(events).to_event()}]
        assert not grounds(row, scores=k, done=k / 12 - 0.01, anneals=False)
        events.append({"event": "verdict", **row[-1]})


def test_learning_by_heart_is_none_while_the_score_improves():
    assert grounds(verdicts(*["overfitting"] * 3, improves=False), **LATE) == (3, ("overfitting",))
    assert not grounds(verdicts(*["overfitting"] * 3, improves=True), **LATE)


def test_verdicts_of_before_a_run_was_taken_up_do_not_count():
    events = [*verdicts(*["overfitting"] * 3), {"event": "start"}, *verdicts("overfitting")]
    assert len(since_start(events)) == 1


def test_a_run_that_was_stopped_and_is_taken_up_is_stopped_by_new_verdicts(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    ask = asked("evaluation.stop=auto", length="16 steps")
    assert go(ask)[1] == go(ask)[1] == "stopped"
    assert [event["images"] for event in told(ask.run, "end")] == [
        8 * PATIENCE,
        16 * PATIENCE,
    ]


def test_a_score_that_grows_worse_is_told_once(asked, monkeypatch):
    says(monkeypatch, "worsening")
    assert go(asked(length="5 steps"))[0].notices.take() == ["It is worsening."]


def test_stopping_by_scores_that_are_not_taken_is_refused(asked):
    with pytest.raises(ConfigError, match=r"evaluation\.stop = \"auto\" goes by scores, and"):
        plan(asked("evaluation.every=0", "evaluation.stop=auto"), CPU)


# --- how it is drawn ----------------------------------------------------------------------------


def test_a_stop_while_pictures_are_drawn_ends_the_drawing(asked, monkeypatch):
    seen = []
    drawing = hooks.draw

    def stopped(denoiser, config, **more):
        for batch in drawing(denoiser, config, **more):
            seen.append(len(batch))
            session.trainer.stop()
            yield batch

    monkeypatch.setattr("kao.runs.hooks.draw", stopped)
    session = open_session(asked(), CPU)
    for _ in session.trainer.steps():
        pass
    assert finish(session) == "interrupted"
    assert seen == [8]  # of 16
    assert not told(session.run.path, "evaluation")


def test_scores_are_drawn_in_the_precision_of_the_run(asked, monkeypatch):
    seen = []
    drawing = hooks.draw

    def watched(denoiser, config, **more):
        if more["seed"] == NOISE:  # no grid's
            seen.append(torch.is_autocast_enabled("cpu"))
        return drawing(denoiser, config, **more)

    monkeypatch.setattr("kao.runs.hooks.draw", watched)
    for precision in ("bf16", "fp32"):
        go(asked(f"training.precision={precision}", length="2 steps", run=precision))
    assert seen == [True, False]


def test_the_verdict_knows_that_a_run_has_ended(asked, monkeypatch):
    seen = []

    def judged(events, finished):
        seen.append(finished)
        return Verdict("unknown", "It is unknown.")

    monkeypatch.setattr("kao.runs.scoring.judge", judged)
    go(asked(length="4 steps"))
    assert seen == [False, True]


def digest(*, stick=None, average="ema", worse=None, **changes):
    config = RunConfig(evaluation=EvaluationConfig(pictures=64))
    config = replace(config, **changes)
    return digest_of(config, stick or yardstick(noise(100)), average=average, worse=worse)


@pytest.mark.parametrize(
    "other",
    [
        {"sampling": replace(RunConfig().sampling, threshold=None)},
        {
            "sampling": replace(
                RunConfig().sampling, guidance=GuidanceConfig(worse="runs/w", scale=2.0)
            )
        },
        {"training": replace(RunConfig().training, precision="bf16")},
        {"evaluation": EvaluationConfig(pictures=65)},
        {"evaluation": EvaluationConfig(pictures=64, steps=9)},
        {"average": "ema-0.9"},
        {"worse": torch.nn.Linear(1, 1)},
    ],
    ids=["threshold", "guidance", "precision", "pictures", "steps", "average", "worse"],
)
def test_what_changes_a_score_changes_its_digest(other):
    assert len(digest()) == 8
    assert digest() == digest() != digest(**other)


def test_another_reference_of_as_many_pictures_changes_the_digest():
    assert digest() != digest(stick=yardstick(noise(100, seed=1)))


def test_what_does_not_change_a_score_does_not_change_its_digest():
    more = replace(RunConfig().evaluation, pictures=64, every=77, stop="auto", share=0.5)
    assert digest() == digest(evaluation=more, length="7 minutes")


def test_a_digest_is_told_with_each_score(asked):
    ask = asked()
    go(ask)
    told_, kept = told(ask.run, "evaluation"), facts_of(ask.run, BEST_SCORE).digest
    assert {event["digest"] for event in told_} == {kept}


# --- runs of before -----------------------------------------------------------------------------


def test_a_run_of_before_there_were_scores_goes_on(asked):
    ask = asked("evaluation.every=0", length="4 steps")
    go(ask)
    file = ask.run / "run.toml"
    before, _, after = file.read_text().partition("[evaluation]")
    file.write_text(before + after[after.index("\n[") + 1 :])
    assert "evaluation" not in file.read_text()
    session, reason = go(asked(length="6 steps"))
    assert (session.resumed, reason) == (16, "finished")


# --- the real pictures --------------------------------------------------------------------------


def noise(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return Held(images, np.arange(len(images)), None)


def yardstick(pictures, *, held_out=0, drawn=16):
    return Yardstick(pictures, Wavelets(), held_out=held_out, drawn=drawn, device=CPU)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [(ENOUGH, f"{ENOUGH} held-out"), (ENOUGH - 1, "285 training"), (0, "484 training")],
)
def test_held_out_pictures_are_the_reference_where_they_are_enough(held_out, words):
    measure = yardstick(noise(500), held_out=held_out).measure
    assert measure == f"kernel distance wavelets-1 to {words} pictures"


def test_a_reference_of_training_pictures_has_no_duplicates_of_those_that_give_the_floor():
    everything = noise(500)
    in_pairs = Held(everything.images, np.arange(500) // 2 * 2, None)
    # 16 pictures give the floor, and about as many others are the other halves of their pairs.
    apart = yardstick(everything).measure, yardstick(in_pairs).measure
    counts = [int(measure.split()[4]) for measure in apart]
    assert counts[0] == 484 and 468 <= counts[1] < 480


def test_the_floor_is_the_score_of_real_pictures():
    stick = yardstick(noise(500), held_out=ENOUGH)
    assert abs(stick.floor.value) < 3 * stick.floor.error


def test_training_pictures_that_are_drawn_again_are_copies_and_new_ones_are_not():
    pictures = noise(300)
    stick = yardstick(pictures)
    for images, share in ((pictures.images[:40], 1.0), (noise(40, seed=1).images, 0.0)):
        assert stick(images, stick.features(images)).copies.value == pytest.approx(share, abs=0.1)


def test_copies_are_not_counted_where_less_than_half_of_the_set_is_searched(monkeypatch):
    pictures = noise(300)
    for kept, known in ((149, False), (150, True)):
        monkeypatch.setattr("kao.runs.yardstick._BYTES", kept * 3 * 16 * 16)
        stick = yardstick(pictures)
        assert (stick.searched, stick.trained) == (kept, 300)
        images = pictures.images[:40]
        assert (stick(images, stick.features(images)).copies is not None) == known


def test_how_many_pictures_were_searched_for_copies_is_told(asked):
    ask = asked("data.held_out=10")
    go(ask)
    assert {(e["searched"], e["of"]) for e in told(ask.run, "evaluation")} == {(30, 30)}


def test_drawn_pictures_that_are_too_red_drift_there():
    pictures = noise(100)
    red = pictures.images[:40].clone()
    red[:, 0] = 255
    stick = yardstick(pictures)
    drift = stick(red, stick.features(red)).drift
    assert drift[0].value > 100 > abs(drift[1].value)


# --- what it may cost ---------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [0.0, 10.0, 63.9, 64.0, 500.0, 5_000.0, 1e6])
def test_scores_stay_within_their_budget(budget):
    calls, pictures = scores_within(EvaluationConfig(), budget=budget, drawn=1.0, images=100_000)
    assert calls * pictures <= budget
    assert 0 <= calls <= MOST_CALLS
    assert FEWEST_PICTURES <= pictures <= MOST_PICTURES
    assert (calls == 0) == (budget < FEWEST_PICTURES)


def test_what_is_asked_for_stays():
    asked = EvaluationConfig(every=1_000, pictures=300)
    assert scores_within(asked, budget=1.0, drawn=1.0, images=10_000) == (10, 300)
    fewer = scores_within(replace(asked, every="auto"), budget=700.0, drawn=1.0, images=10_000)
    assert fewer == (2, 300)


@pytest.mark.parametrize("images", [10_000, 100_000, 2_000_000])
def test_in_images_the_work_of_the_network_stays_within_the_share(images):
    config = RunConfig()
    calls, pictures = scores_in_images(config, images)
    passes = calls * pictures * config.evaluation.steps
    assert passes / 3 <= config.evaluation.share * images


def test_a_run_in_minutes_plans_its_scores_within_the_share():
    config = replace(RunConfig(), length="60 minutes")
    resolved, planned = timetable(config, Costs(image=0.01, hooks={}, drawn=0.1))
    each = planned.costs.hooks["evaluation"]
    assert planned.calls["evaluation"] * each <= 0.05 * 3600
    assert each == pytest.approx(0.1 * resolved.evaluation.pictures)
    assert intervals(resolved)["evaluation"] == resolved.evaluation.every > 0


def test_a_run_that_is_too_short_to_be_scored_says_so():
    config = replace(RunConfig(), length="1 minute")
    resolved, planned = timetable(config, Costs(image=0.01, hooks={}, drawn=1.0))
    assert resolved.evaluation.every == 0
    assert any("too short to be scored in 5 % of its time" in line for line in planned.lines())


def test_scores_draw_with_the_few_step_sampler_and_the_guidance_of_the_run():
    config = replace(RunConfig(), evaluation=EvaluationConfig(steps=7))
    sampling = quickly(config).sampling
    assert (type(sampling.sampler).__name__, sampling.steps) == ("DPMSolver2M", 7)
    assert sampling.guidance == config.sampling.guidance
    assert sampling.grid == LogSNR()


@pytest.mark.parametrize("kind", SCHEDULES)
def test_scores_are_drawn_on_even_steps_of_log_snr_on_every_schedule(kind):
    config = replace(RunConfig(input_scaling=kind == "ve"), schedule=SCHEDULES[kind]())
    quick = quickly(config)
    times = quick.times(quick.schedule.build())
    assert quick.sampling.grid == LogSNR()
    assert len(times) == config.evaluation.steps + 1
    assert (times.diff() < 0).all()


def test_a_schedule_without_that_range_of_log_snr_is_drawn_from_on_its_own_grid(monkeypatch):
    monkeypatch.setattr("kao.runs.score_drawing.LogSNR", lambda: LogSNR(1e-6, 1e-5))
    config = replace(RunConfig(), schedule=SCHEDULES["linear"]())
    assert quickly(config).sampling.grid == config.sampling.grid


def test_looking_at_real_pictures_is_taken_off_what_scores_may_cost():
    config = replace(RunConfig(), length="60 minutes")
    _, free = timetable(config, Costs(0.01, {}, drawn=0.1))
    resolved, looked = timetable(config, Costs(0.01, {}, drawn=0.1, looked=0.1, reals=90.0))
    spent = looked.calls["evaluation"] * looked.costs.hooks["evaluation"] + 90
    assert spent <= 0.05 * 3600
    assert looked.costs.hooks["evaluation"] == pytest.approx(0.2 * resolved.evaluation.pictures)
    assert free.costs.hooks["evaluation"] > 0


def test_scores_that_were_asked_for_too_often_are_said_to_be():
    def lines(every):
        asked = replace(RunConfig(), length="10 minutes", evaluation=EvaluationConfig(every=every))
        return " ".join(timetable(asked, Costs(image=0.01, hooks={}, drawn=0.1))[1].lines())

    assert "Scores of 64 pictures every 1,000 images would take" in lines(1_000)
    assert "some will be left out" not in lines(20_000)


def test_what_a_yardstick_takes_is_measured():
    looks = seconds_to_look(noise(150), Wavelets(), held_out=20, device=CPU)
    assert min(looks) > 0
    assert looks.once > looks.seen


def test_the_probe_measures_what_scores_take_besides_drawing(asked):
    config = plan(asked("training.precision=fp32", "data.held_out=0"), CPU)
    prepared = prepare(open_source("toy:40", size=config.data.size), size=config.data.size)
    costs = probe(config, prepared, CPU, seconds=0.1)
    assert min(costs.drawn, costs.looked, costs.reals) > 0
    few = prepare(open_source("toy:19", size=config.data.size), size=config.data.size)
    costs = probe(config, few, CPU, seconds=0.1)
    assert costs.looked == costs.reals == 0


def test_scores_past_their_share_of_the_time_are_left_out_but_for_the_last(asked, monkeypatch):
    monkeypatch.setattr(Trainer, "done", property(lambda self: self.progress.images / 40))
    monkeypatch.setattr(
        "kao.runs.deciding.resolve",
        lambda config, prepared, device, **more: Resolved(
            replace(config, data=replace(config.data, fingerprint=prepared.fingerprint)), [], {}
        ),
    )
    ask = asked(
        "evaluation.share=1e-9", "data.held_out=0", "training.precision=fp32", length="9 minutes"
    )
    session, _ = go(ask)
    # The first costs nothing yet, and the end has one in any case.
    assert [event["images"] for event in told(ask.run, "evaluation")] == [8, 40]
    assert [line[:60] for line in session.notices.take()] == [
        "Scores have had their 1e-07 % of the time (evaluation.share)"
    ]


def test_weights_that_draw_copies_are_never_the_best(asked, monkeypatch):
    """A distance to training pictures would take them for that."""
    monkeypatch.setattr("kao.runs.scoring.COPIED", -1.0)  # so every score is one of copies
    ask = asked()
    go(ask)
    assert [event["best"] for event in told(ask.run, "evaluation")] == [False, False]
    assert not place(ask.run, BEST_SCORE).exists()
