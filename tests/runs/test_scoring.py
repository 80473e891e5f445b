from dataclasses import replace

import pytest
import torch
from several import several

from kao.checkpoints import Checkpoint
from kao.config import RunConfig
from kao.config.sections import EvaluationConfig
from kao.data.keeping import Held
from kao.errors import CheckpointError, ConfigError
from kao.evaluation.verdict import Verdict
from kao.machine import device
from kao.metrics import Wavelets
from kao.runs import Ask, Run, finish, open_session, plan
from kao.runs.averages import BEST_SCORE, facts_of, place
from kao.runs.score_budget import (
    FEWEST_PICTURES,
    MOST_CALLS,
    MOST_PICTURES,
    scores_in_images,
    scores_within,
)
from kao.runs.scoring import PATIENCE, quickly
from kao.runs.timetable import Costs, intervals, timetable
from kao.runs.yardstick import ENOUGH, FEWEST, Yardstick
from kao.tracking import read_events

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

    def ask(*more, length="6 steps", run="run", source="toy:40"):
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
        "kernel distance wavelets-1 to 30 training pictures, dpm++2m in 2 steps"
    }
    for event in scores:
        score, copies = event["score"], event["copies"]
        assert 0 < score["own_error"] <= score["error"]
        assert score["low"] < score["value"] < score["high"]
        assert 0 <= copies["low"] <= copies["value"] <= copies["high"] <= 1
        assert abs(event["floor"]["value"]) < score["value"]
        assert set(event["drift"]) == {"red", "green", "blue"}
    assert len(session.news.take()) == 3


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
    assert go(halved, stop=4)[1] == "interrupted"
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
    assert second == pytest.approx(first, rel=1e-3)
    assert facts_of(two.run, BEST_SCORE).score == min(second)


# --- the best weights ---------------------------------------------------------------------------


def test_the_weights_with_the_best_score_are_kept_to_draw_with(asked):
    ask = asked("optimizer.rate=0.02", length="8 steps")
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
    assert place(ask.run, BEST_SCORE).read_bytes() == before


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
    ask = asked("evaluation.stop=auto", length="20 steps")
    session, reason = go(ask)
    assert reason == "stopped"
    images = session.trainer.progress.images
    assert images == 8 * PATIENCE
    assert Checkpoint.all(ask.run)[-1].images == images
    assert told(ask.run, "end")[-1]["reason"] == "stopped"
    notices = session.notices.take()
    assert notices[0] == "It is overfitting."
    assert notices[1].startswith("Stopped, since 3 verdicts in a row were overfitting")
    assert place(ask.run, BEST_SCORE).is_file()


def test_a_stopped_run_goes_on_where_it_is_told_to(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    go(asked("evaluation.stop=auto", length="8 steps"))
    session, reason = go(asked("evaluation.stop=never", length="8 steps"))
    assert (reason, session.resumed) == ("finished", 8 * PATIENCE)


def test_nobody_is_stopped_who_has_not_asked_for_it(asked, monkeypatch):
    says(monkeypatch, "overfitting")
    session, reason = go(asked(length="10 steps"))
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
    assert go(asked(*words, length="10 steps"))[1] == reason


def test_stopping_by_scores_that_are_not_taken_is_refused(asked):
    with pytest.raises(ConfigError, match=r"evaluation\.stop = \"auto\" goes by scores, and"):
        plan(asked("evaluation.every=0", "evaluation.stop=auto"), CPU)


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
    return Held(images, None)


def yardstick(pictures, *, held_out=0, drawn=16):
    return Yardstick(pictures, Wavelets(), held_out=held_out, drawn=drawn, device=CPU)


@pytest.mark.parametrize(
    ("held_out", "words"),
    [(ENOUGH, f"{ENOUGH} held-out"), (ENOUGH - 1, "285 training"), (0, "484 training")],
)
def test_held_out_pictures_are_the_reference_where_they_are_enough(held_out, words):
    measure = yardstick(noise(500), held_out=held_out).measure
    assert measure == f"kernel distance wavelets-1 to {words} pictures"


def test_the_floor_is_the_score_of_real_pictures():
    stick = yardstick(noise(500), held_out=ENOUGH)
    assert abs(stick.floor.value) < 3 * stick.floor.error


def test_training_pictures_that_are_drawn_again_are_copies_and_new_ones_are_not():
    pictures = noise(300)
    stick = yardstick(pictures)
    for images, share in ((pictures.images[:40], 1.0), (noise(40, seed=1).images, 0.0)):
        assert stick(images, stick.features(images)).copies.value == pytest.approx(share, abs=0.1)


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
