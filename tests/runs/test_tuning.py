import json
import math
import shutil
from dataclasses import replace

import pytest
import torch

import kao
from kao.config import SamplingConfig
from kao.config.sampling import GuidanceConfig
from kao.diffusion import DDIM, Ancestral, EulerAncestral, Heun, grids
from kao.errors import ConfigError, DataError
from kao.metrics import KernelDistance, Score, Wavelets
from kao.runs import Run, draw
from kao.runs.budgets import (
    BUDGETS,
    MEASURED,
    Candidate,
    Conditions,
    Ledger,
    front,
    load_budget,
    load_budgets,
    outdated,
    save_budgets,
    to_json,
)
from kao.runs.tuning import (
    SIZABLE,
    Bench,
    RealPictures,
    counted,
    hopeless,
    latest,
    real_pictures,
    tune,
)
from kao.runs.ways import SWEEP, settings

CONDITIONS = Conditions(
    features="f",
    measure="d",
    real="r",
    reals=8,
    checkpoint=16,
    model="m",
    worse="",
    seed=0,
    batch=4,
    device="cpu",
)


def candidate(calls, score, error=0.1, *, n=64, steps=None):
    sampling = SamplingConfig(steps=steps or calls)
    return Candidate(calls, score, error, n, seconds=0.1 * calls, sampling=sampling)


def bench_of(run, denoiser, real, *, distance=KernelDistance):
    return Bench(
        run,
        denoiser,
        real,
        features=Wavelets(),
        distance=distance,
        measure="kernel distance",
        seed=3,
        batch=4,
        checkpoint=16,
    )


@pytest.fixture(scope="module")
def run(tiny_run):
    return Run.open(tiny_run)


@pytest.fixture(scope="module")
def learning(tiny, tmp_path_factory):
    """A run that learns its training times."""
    path = tmp_path_factory.mktemp("runs") / "learning"
    words = (*tiny, "loss.times=loss_moment")
    kao.train("toy:8", run=path, recipe="toy-32", length="2 steps", overrides=words)
    return Run.open(path)


@pytest.fixture
def guided(own):
    """A run that is guided by itself."""
    config = own.config
    guidance = GuidanceConfig(worse=str(own.path), scale=2.0)
    changed = replace(config, sampling=replace(config.sampling, guidance=guidance))
    (own.path / "run.toml").write_text(changed.to_toml())
    return own


@pytest.fixture
def own(tiny_run, tmp_path):
    return Run.open(shutil.copytree(tiny_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def real(run):
    return real_pictures(run.config, n=8, seed=0)


@pytest.fixture
def bench(run, real):
    return bench_of(run, run.denoiser(device=torch.device("cpu")), real)


# --- which way is best --------------------------------------------------------------------------


def test_the_front_gets_better_with_every_call_that_is_paid():
    cheap, dear = candidate(5, 3.0), candidate(20, 1.0)
    worse, slower = candidate(10, 4.0), candidate(50, 1.5)
    assert front([slower, dear, worse, cheap]) == [cheap, dear]


def test_calls_that_buy_less_than_the_error_are_not_paid():
    cheap = candidate(5, 1.0, 0.1)
    assert front([cheap, candidate(50, 0.95, 0.1)]) == [cheap]
    better = candidate(50, 0.85, 0.1)
    assert front([cheap, better]) == [cheap, better]


def test_a_lucky_score_on_few_pictures_does_not_win():
    sure, lucky = candidate(10, 1.0, 0.05, n=256), candidate(10, 0.9, 0.5, n=16, steps=9)
    assert front([lucky, sure]) == [sure]


def test_a_perfect_score_may_be_negative():
    best = candidate(20, -0.01, 0.02)
    assert front([candidate(5, 0.5), best, candidate(50, 0.01, 0.02)])[-1] == best


def test_nothing_measured_has_no_front():
    assert front([]) == []


def test_only_what_is_beaten_beyond_doubt_at_no_greater_cost_is_hopeless():
    bad = candidate(10, 2.0)
    assert hopeless(bad, [candidate(10, 1.0)])
    assert hopeless(bad, [candidate(5, 1.0)])
    assert not hopeless(bad, [candidate(20, 0.1)])  # it costs more
    assert not hopeless(bad, [candidate(10, 1.7)])  # perhaps luck
    assert not hopeless(bad, [bad])


def test_the_last_measurement_of_a_way_counts():
    early, late, other = candidate(5, 1.0, n=16), candidate(5, 2.0, n=64), candidate(9, 1.0)
    assert latest([early, other, late]) == [late, other]


# --- ways to draw -------------------------------------------------------------------------------


def test_ways_are_every_sampler_on_every_grid_cheap_ones_first(run):
    ways, notes = settings(
        run, samplers=["heun", "ddim"], grids=["uniform", "karras"], steps=[4, 2], etas=[0, 0.5]
    )
    assert notes == []
    assert [way.steps for way in ways] == [2] * 6 + [4] * 6
    assert {way.sampler for way in ways} == {Heun(), DDIM(), DDIM(eta=0.5)}
    assert {way.grid for way in ways} == {grids.uniform, grids.Karras()}
    assert all(way.threshold == run.config.sampling.threshold for way in ways)


def test_unasked_samplers_that_add_noise_are_not_tried_in_few_steps(run):
    ways, _ = settings(run)
    noisy = [way for way in ways if isinstance(way.sampler, Ancestral)]
    assert min(way.steps for way in noisy) == SWEEP[Ancestral()] > min(w.steps for w in ways)
    asked, _ = settings(run, samplers=["ddpm"], steps=[2])
    assert {way.steps for way in asked} == {2}


def test_ways_that_do_not_fit_are_left_out_with_a_reason(own):
    text = (own.path / "run.toml").read_text()
    own.path.joinpath("run.toml").write_text(
        text.replace('kind = "vp_cosine"', 'kind = "cosine"\nsteps = 10')
    )
    ways, notes = settings(own, samplers=["ddim"], grids=["uniform"], steps=[5, 20])
    assert [way.steps for way in ways] == [5]
    assert len(notes) == 1
    assert notes[0].startswith("Left out ddim in 20 steps: steps = 20, but the schedule has 10")
    with pytest.raises(ConfigError, match=r"No way to draw is left to compare\. Left out ddim"):
        settings(own, samplers=["ddim"], grids=["uniform"], steps=[20])


def test_unknown_names_are_told_the_near_miss(run):
    with pytest.raises(ConfigError, match=r'unknown sampler "huen" \(did you mean "heun"\?\)'):
        settings(run, samplers=["huen"])
    with pytest.raises(ConfigError, match=r'unknown grid "karas" \(did you mean "karras"\?\)'):
        settings(run, grids=["karas"])


def test_an_eta_that_cannot_be_is_refused(run):
    with pytest.raises(ConfigError, match=r"eta = 2"):
        settings(run, samplers=["ddim"], etas=[2])


def test_etas_without_a_sampler_that_has_one_are_refused(run):
    with pytest.raises(
        ConfigError, match=r"none of heun, unipc has an eta: add .*\(ddim, euler_a\)"
    ):
        settings(run, samplers=["heun", "unipc"], etas=[0.5])


def test_etas_are_for_every_sampler_that_has_one(run):
    ways, _ = settings(
        run, samplers=["ddim", "euler_a", "heun"], grids=["uniform"], steps=[2], etas=[0.5, 1]
    )
    etas = {DDIM(eta=0.5), DDIM(eta=1.0), EulerAncestral(eta=0.5), EulerAncestral(eta=1.0)}
    assert {way.sampler for way in ways} == {*etas, Heun()}


def test_unasked_ddim_is_tried_with_noise_where_steps_are_many(run):
    ways, _ = settings(run, grids=["uniform"])
    tried = {way.steps: set() for way in ways}
    for way in ways:
        if isinstance(way.sampler, DDIM):
            tried[way.steps].add(way.sampler.eta)
    assert tried == {5: {0}, 10: {0}, 20: {0, 1}, 50: {0, 1}}


def test_asked_etas_take_the_place_of_ddims_own(run):
    ways, _ = settings(run, grids=["uniform"], steps=[5], etas=[0.5])
    assert [way.sampler for way in ways if isinstance(way.sampler, DDIM)] == [DDIM(eta=0.5)]
    assert Heun() in {way.sampler for way in ways}


def test_a_learned_grid_is_tried_with_its_knots_written_out(learning, own):
    ways, _ = settings(learning, samplers=["ddim"], steps=[2])
    (way,) = [way for way in ways if isinstance(way.grid, grids.Learned)]
    assert way.grid.knots == learning.learned_times().knots()
    # So it depends on nothing: here nothing was learned.
    save_budgets(own, CONDITIONS, [replace(candidate(2, 1.0), sampling=way)])
    assert own.drawing(load_budget(own, 2)).sampling == way


# --- measuring ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "calls"), [(DDIM(), 3), (Heun(), 5)], ids=["one a step", "two but for the last"]
)
def test_network_calls_are_counted_and_not_steps(sampler, calls, bench):
    measured = bench.trial(SamplingConfig(sampler=sampler, steps=3)).measure(6)
    assert (measured.calls, measured.n) == (calls, 6)
    assert measured.seconds > 0


def test_counting_leaves_no_trace(bench):
    with counted(bench.denoiser) as calls:
        bench.warm_up()
    assert calls.images == bench.conditions.batch
    bench.warm_up()
    assert calls.images == bench.conditions.batch


def test_the_score_is_that_of_the_pictures_of_the_seed(bench, run, real):
    sampling = SamplingConfig(sampler=Ancestral(), steps=3)
    measured = bench.trial(sampling).measure(6)
    images = torch.cat(list(draw(bench.denoiser, run.drawing(sampling), indices=range(6), seed=3)))
    features = Wavelets()
    expected = KernelDistance(features(real.images))(features(images))
    assert measured.score == pytest.approx(expected.value, rel=1e-2)
    assert measured.error == pytest.approx(expected.error, rel=1e-2)


def test_calls_of_the_model_that_guides_are_paid_too(guided, real):
    bench = bench_of(guided, guided.denoiser(device=torch.device("cpu")), real)
    assert bench.conditions.worse == bench.conditions.model
    measured = bench.trial(replace(guided.config.sampling, steps=3)).measure(6)
    assert (measured.calls, measured.n) == (6, 6)


def test_the_model_that_guides_is_loaded_once(guided, real, monkeypatch):
    bench = bench_of(guided, guided.denoiser(device=torch.device("cpu")), real)

    def never(*args, **more):
        raise AssertionError("loaded again")

    monkeypatch.setattr(Run, "denoiser", never)
    bench.warm_up()
    assert bench.trial(replace(guided.config.sampling, steps=1)).measure(4).n == 4


def test_another_distance_can_be_brought(run, real):
    seen = []

    def distance(features):
        seen.append(len(features))
        return lambda drawn: Score("mine", float(len(drawn)), 0.0, len(drawn))

    bench = bench_of(run, run.denoiser(device=torch.device("cpu")), real, distance=distance)
    assert bench.trial(SamplingConfig(steps=1)).measure(5).score == 5.0
    assert seen == [len(real.images)]


def test_going_on_is_the_same_as_measuring_at_once(bench):
    sampling = SamplingConfig(sampler=DDIM(), steps=2)
    once = bench.trial(sampling).measure(8)
    in_two = bench.trial(sampling)
    assert in_two.measure(4).n == 4
    assert replace(in_two.measure(8), seconds=once.seconds) == once


def test_a_search_measures_the_promising_on_all_pictures_and_drops_the_hopeless(bench):
    n = 4 * SIZABLE
    good, dear = SamplingConfig(steps=1), SamplingConfig(steps=2)

    class Fixed:
        """Scores that are known beforehand."""

        def __init__(self, sampling):
            self.sampling = sampling

        def measure(self, count):
            score = {good: 1.0, dear: 5.0}[self.sampling]
            return Candidate(self.sampling.steps, score, 0.1, count, 0.1, self.sampling)

    bench.trial = Fixed
    met = [(c.sampling.steps, c.n) for c in tune(bench, [good, dear], n=n)]
    assert met == [(1, SIZABLE), (2, SIZABLE), (1, n)]
    few = [(c.sampling.steps, c.n) for c in tune(bench, [good, dear], n=n - 1)]
    assert few == [(1, n - 1), (2, n - 1)]


def test_what_is_known_is_not_measured_again(bench):
    ways = [SamplingConfig(steps=1), SamplingConfig(steps=2)]
    before = {(c.sampling, c.n): c for c in tune(bench, ways, n=4)}
    with counted(bench.denoiser) as calls:
        again = list(tune(bench, ways, n=4, known=before))
    assert again == list(before.values())
    assert calls.images == 0


def test_a_measurement_says_under_which_conditions_it_was_made(bench, run, real):
    same = bench_of(run, run.denoiser(device=torch.device("cpu")), real)
    assert same.conditions == bench.conditions
    assert bench.conditions.real == run.config.data.fingerprint
    other = run.denoiser(weights="model", device=torch.device("cpu"))
    trained = bench_of(run, other, real)
    assert trained.conditions.model != bench.conditions.model


def test_other_real_pictures_can_be_brought(run, real):
    other = real_pictures(run.config, n=5, seed=0, source="toy:9")
    assert other.images.shape == (5, 3, 16, 16)
    assert other.fingerprint != real.fingerprint
    again = real_pictures(run.config, n=5, seed=0, source="toy:9")
    assert torch.equal(other.images, again.images)


def test_too_few_pictures_are_refused(run, bench):
    with pytest.raises(DataError, match=r"^2 pictures \(generated\) are too few"):
        bench.trial(SamplingConfig(steps=1)).measure(2)
    two = RealPictures(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), "two")
    with pytest.raises(DataError, match=r"^2 pictures \(real\) are too few"):
        bench_of(run, bench.denoiser, two)


# --- what is kept -------------------------------------------------------------------------------


def test_budgets_come_back_as_they_were(own):
    best = [
        candidate(5, 2.0),
        replace(
            candidate(9, 1.0, 0.05),
            sampling=SamplingConfig(sampler=Heun(), grid=grids.Karras(rho=5.0), steps=5),
        ),
    ]
    file = save_budgets(own, CONDITIONS, best)
    assert file == own.path / BUDGETS
    assert load_budgets(own) == (CONDITIONS, best)
    assert file.read_text().startswith("# Written by `kao tune-sampler`")


def test_a_budget_buys_the_best_way_that_it_pays_for(own):
    cheap, dear = candidate(5, 2.0), candidate(20, 1.0)
    save_budgets(own, CONDITIONS, [cheap, dear])
    assert load_budget(own, 5) == load_budget(own, 19) == cheap.sampling
    assert load_budget(own, 20) == load_budget(own, 10_000) == dear.sampling


def test_a_budget_that_pays_for_nothing_is_refused(own):
    save_budgets(own, CONDITIONS, [candidate(5, 2.0)])
    with pytest.raises(
        ConfigError, match=r"no way to draw in 4 network calls a picture \(the cheapest takes 5\):"
    ):
        load_budget(own, 4)


def test_a_run_that_was_not_tuned_says_what_to_do(own):
    with pytest.raises(
        ConfigError, match=r"has no samplers\.toml, .*: run `kao tune-sampler .*run` first\.$"
    ):
        load_budget(own, 5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[budget]]", "[[budget", "cannot be read"),
        ("format = 2", "format = 9", "is of format 9, not 2: run `kao tune-sampler"),
        ("calls = 5\n", "", "lacks something"),
        ("seed = 0\n", "", "lacks something"),
        ("[[budget]]", "[[budgets]]", 'unknown key "budgets"'),
        (
            "calls = 5",
            "clals = 5",
            r'unknown key "clals" in \[budget\] of .*\(did you mean "calls"',
        ),
        ('kind = "ddim"', 'kind = "dimd"', r'unknown budget\.sampling\.sampler "dimd"'),
    ],
)
def test_budgets_that_were_edited_wrongly_are_refused(old, new, said, own):
    file = save_budgets(own, CONDITIONS, [candidate(5, 2.0)])
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=said):
        load_budget(own, 5)


def test_budgets_of_a_model_that_learned_on_are_said_to_be_old(own):
    save_budgets(own, CONDITIONS, [candidate(5, 2.0)])
    assert outdated(own) is None
    save_budgets(own, replace(CONDITIONS, checkpoint=8), [candidate(5, 2.0)])
    said = outdated(own)
    assert "was measured at 8 images, and the model has 16 now: `kao tune-sampler" in said
    assert "\n" not in said


def test_a_measurement_with_an_open_interval_is_known_the_next_time(own):
    guidance = GuidanceConfig(worse="x", scale=2.0, interval=(0.5, math.inf))
    first = replace(candidate(5, 2.0), sampling=SamplingConfig(guidance=guidance))
    ledger = Ledger(own.path / MEASURED, CONDITIONS)
    ledger.add(first)
    json.loads(ledger.path.read_text(), parse_constant=pytest.fail)
    assert list(ledger.known().values()) == [first]


def test_every_measurement_is_known_the_next_time(own):
    ledger = Ledger(own.path / MEASURED, CONDITIONS)
    assert ledger.known() == {}
    first, second = candidate(5, 2.0), candidate(5, 1.9, n=256)
    ledger.add(first)
    ledger.add(second)
    again = Ledger(own.path / MEASURED, CONDITIONS)
    assert again.known() == {(first.sampling, 64): first, (second.sampling, 256): second}


def test_measurements_under_other_conditions_do_not_count(own):
    Ledger(own.path / MEASURED, CONDITIONS).add(candidate(5, 2.0))
    others = ("features", "measure", "real", "model", "worse", "device")
    for change in ({"seed": 1}, {"reals": 9}, *({name: "x"} for name in others)):
        assert Ledger(own.path / MEASURED, replace(CONDITIONS, **change)).known() == {}


def test_a_line_that_a_kill_has_cut_costs_only_itself(own):
    ledger = Ledger(own.path / MEASURED, CONDITIONS)
    first, second, third = candidate(5, 2.0), candidate(9, 1.0), candidate(20, 0.5)
    ledger.add(first)
    ledger.add(second)
    text = ledger.path.read_text()
    ledger.path.write_text(text[:-40])
    ledger.add(third)
    assert list(ledger.known().values()) == [first, third]


def test_json_holds_everything_that_was_measured_and_the_front():
    best, worse = candidate(5, 1.0), candidate(9, 3.0)
    table = to_json(CONDITIONS, [worse, best])
    assert [entry["calls"] for entry in table["measured"]] == [9, 5]
    assert [entry["score"] for entry in table["budgets"]] == [1.0]
    assert table["conditions"]["features"] == "f"
    assert table["budgets"][0]["sampling"]["sampler"] == {"kind": "ddim", "eta": 0.0}
