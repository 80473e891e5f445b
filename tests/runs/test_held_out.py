import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from several import several

from kao.config import RunConfig
from kao.config.sections import DataConfig, TrainingConfig
from kao.data import prepare
from kao.data.folders import FolderSource
from kao.data.keeping import Held
from kao.data.prepared import PreparedSet
from kao.data.split import split
from kao.diffusion import SCHEDULES, DiscreteSchedule
from kao.networks import UNetConfig
from kao.processes import ALONE, Processes, join
from kao.runs.held_out import (
    LEAST_INTERVAL,
    HeldOut,
    affordable_pairs,
    images_a_call,
    pairs,
    shares,
    summary,
)
from kao.runs.weights import lent
from kao.shards import whole
from kao.training import Trainer
from kao.training.meter import BAND_EDGES, band_names

CPU = torch.device("cpu")
HELD = 6
CONFIG = RunConfig(
    data=DataConfig(size=8, held_out=HELD),
    network=UNetConfig(width=8, levels=(1, 2), attention=(4,), groups=2, dropout=0.2),
    training=TrainingConfig(batch=4, precision="fp32"),
    length="100 steps",
)


class Told:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.events = []

    def event(self, kind, images, values):
        self.events.append((kind, images, dict(values)))

    def close(self):
        pass

    @property
    def figures(self):
        """Of the last event, without what the clock says."""
        return {name: value for name, value in self.events[-1][2].items() if name != "seconds"}


def trainer_of(prepared, *, processes=ALONE, **changes) -> Trainer:
    return replace(CONFIG, **changes).build(prepared, CPU, processes=processes)


def take(trainer, images, *, every=1000):
    told = Told()
    HeldOut(images, told, held_out=HELD, every=every)(trainer)
    return told.figures


def steps(trainer, count):
    for batch in itertools.islice(trainer.batches(trainer.progress.images), count):
        trainer.step(batch)


# --- times --------------------------------------------------------------------------------------


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return SCHEDULES[request.param]().build()


def test_the_first_pairs_are_those_of_any_longer_list(schedule):
    few, many = pairs(schedule, 24, pictures=300), pairs(schedule, 252, pictures=300)
    for a, b in zip(few, many, strict=True):
        assert torch.equal(a, b[:24])


def test_all_times_can_be_trained_on(schedule):
    t = pairs(schedule, 252, pictures=300).t
    assert t.dtype == torch.float64 and t.device.type == "cpu"
    assert ((t > 0) & (t <= schedule.t_max)).all()
    if isinstance(schedule, DiscreteSchedule):
        assert torch.equal(t, t.round())


def test_bands_are_told_as_the_log_tells_them_and_each_gets_its_share(schedule):
    seen = pairs(schedule, 252, pictures=300)
    log_snr = schedule(seen.t).snr.log().tolist()
    assert seen.band.tolist() == [sum(x >= edge for edge in BAND_EDGES) for x in log_snr]
    counts = seen.band.unique(return_counts=True)[1]
    assert counts.tolist() == pytest.approx([252 / len(counts)] * len(counts), abs=3)


def test_times_lie_evenly_over_a_band():
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 252, pictures=300)
    log_snr = SCHEDULES["vp_cosine"]().build()(seen.t).snr.log()
    inside = log_snr[seen.band == 3].sort().values  # 0..2
    assert len(inside) == 42
    assert inside.diff().max() < 2 * 2 / 42 and inside[0] < 0.1 and inside[-1] > 1.9


def test_a_band_that_the_schedule_does_not_reach_has_no_pairs():
    seen = pairs(DiscreteSchedule(torch.full((100,), 0.01)), 60, pictures=60)
    assert sorted(seen.band.unique().tolist()) == [2, 3, 4, 5]


def test_of_few_pictures_each_is_seen_in_every_band():
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 72, pictures=6)
    met = {(int(p), int(b)) for p, b in zip(seen.picture, seen.band, strict=True)}
    assert len(met) == 36


# --- means and errors ---------------------------------------------------------------------------


def test_the_loss_is_the_mean_of_the_bands_means():
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 24, pictures=24)
    losses = torch.arange(24, dtype=torch.float64) + 100 * seen.band
    told = summary(losses, seen)
    assert list(told["bands"]) == band_names()
    for band, name in enumerate(band_names()):
        assert told["bands"][name] == pytest.approx(losses[seen.band == band].mean().item())
    assert told["loss"] == pytest.approx(sum(told["bands"].values()) / 6)


def test_the_error_of_a_band_is_that_of_a_mean():
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 60, pictures=60)
    losses = torch.rand(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = losses[seen.band == 2]
    expected = inside.std().item() / len(inside) ** 0.5
    assert summary(losses, seen)["errors"]["-2..0"] == pytest.approx(expected)


@pytest.mark.parametrize("pictures", [12, 60, 252])
def test_errors_are_the_scatter_of_the_means_over_other_pictures(pictures):
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 252, pictures=pictures)
    generator = torch.Generator().manual_seed(0)
    means, errors = [], []
    for _ in range(300):
        own = torch.randn(pictures, generator=generator, dtype=torch.float64)
        noise = torch.randn(252, generator=generator, dtype=torch.float64)
        told = summary(own[seen.picture] * (1 + seen.band) + 0.5 * noise, seen)
        means.append(told["loss"])
        errors.append(told["error"] ** 2)
    scatter = torch.tensor(means).std().item()
    assert torch.tensor(errors).mean().sqrt().item() == pytest.approx(scatter, rel=0.15)


def test_one_picture_gives_no_errors():
    seen = pairs(SCHEDULES["vp_cosine"]().build(), 24, pictures=1)
    told = summary(torch.ones(24, dtype=torch.float64), seen)
    assert set(told) == {"loss", "bands"}


def test_pairs_are_bounded_and_cost_a_small_share_of_an_interval():
    assert affordable_pairs(1) == 24 and affordable_pairs(10**9) == 252
    for every in (LEAST_INTERVAL, 3000, 10_000, 10**6):
        assert images_a_call(every) <= 0.0301 * every


# --- the hook -----------------------------------------------------------------------------------


def test_held_out_pictures_are_never_trained_on(tiny_set):
    stream = trainer_of(tiny_set).batches(0)
    seen = torch.cat([batch.indices for batch in itertools.islice(stream, len(tiny_set))])
    train, _ = split(tiny_set.groups, HELD)
    assert set(seen.tolist()) == set(train.tolist())


@pytest.fixture
def mirrored_set(tmp_path):
    """Twenty pictures and their mirror images, as sets are that somebody has augmented."""
    coarse = np.random.default_rng(0).integers(0, 256, (20, 5, 5, 3), dtype=np.uint8)
    for number, colours in enumerate(coarse):
        picture = Image.fromarray(colours).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"{number}.png")
        ImageOps.mirror(picture).save(tmp_path / f"{number}-mirrored.png")
    return prepare(FolderSource(tmp_path), size=8, out=tmp_path / "set")


def test_no_held_out_picture_has_its_mirror_image_trained_on(mirrored_set):
    stream = trainer_of(mirrored_set).batches(0)
    met = torch.cat([batch.indices for batch in itertools.islice(stream, len(mirrored_set))])
    trained = {
        mirrored_set.keys[i].partition(".")[0].removesuffix("-mirrored") for i in met.tolist()
    }
    assert len(set(met.tolist())) == 40 - HELD and len(trained) == 20 - HELD // 2


def test_held_out_pictures_are_compared_with_pictures_that_are_trained_on(tiny_set):
    train, held = split(np.arange(40), HELD)
    images = torch.empty(40, 3, 8, 8, dtype=torch.uint8)
    images[train], images[held] = 255, 128
    # A network that has learned nothing says 0, and a grey picture is 0: only noise is left of it.
    told = take(trainer_of(tiny_set), Held(images, np.arange(len(images)), None))
    for band, gap in told["gap"]["bands"].items():
        held_out, trained = told["held"]["bands"][band], told["train"]["bands"][band]
        assert held_out < trained and gap == pytest.approx(held_out - trained)


def test_near_duplicates_are_no_independent_samples(tiny_set):
    """With a single group held out there is no error to tell, however many pictures it has."""
    images = torch.randint(0, 256, (5 * HELD, 3, 8, 8), dtype=torch.uint8)
    groups = np.arange(5 * HELD) // HELD * HELD
    told = take(trainer_of(tiny_set), Held(images, groups, None))
    assert "error" in told["train"]
    assert not {"error", "errors"} & {*told["held"], *told["gap"]}


def test_every_kind_of_figure_is_told(tiny_set):
    trainer, told = trainer_of(tiny_set), Told()
    trainer.progress.images = 640
    HeldOut(tiny_set, told, held_out=HELD, every=2000)(trainer)
    ((kind, images, values),) = told.events
    assert (kind, images, values["pairs"]) == ("held_out", 640, 45)
    for sets in (values, values["raw"]):
        for name in ("held", "train", "gap"):
            assert set(sets[name]) == {"loss", "error", "bands", "errors"}
            assert list(sets[name]["bands"]) == list(sets[name]["errors"]) == band_names()


def test_the_same_weights_have_the_same_losses_whatever_the_seed_and_dropout(tiny_set):
    one, other = trainer_of(tiny_set), trainer_of(tiny_set, seed=1)
    other.denoiser.load_state_dict(one.denoiser.state_dict())
    next(iter(other.ema.values())).load(one.denoiser.state_dict())
    first = take(one, tiny_set)
    torch.manual_seed(5)
    assert take(other, tiny_set) == take(one, tiny_set) == first


def test_the_first_average_and_the_raw_weights_are_both_looked_at(tiny_set):
    trainer = trainer_of(tiny_set)
    told = take(trainer, tiny_set)
    assert told["raw"] == {name: told[name] for name in ("held", "train", "gap")}
    average = {name: value + 0.1 for name, value in trainer.denoiser.state_dict().items()}
    next(iter(trainer.ema.values())).load(average)
    moved = take(trainer, tiny_set)
    assert moved["raw"] == told["raw"] and moved["held"] != told["held"]


def test_looking_changes_no_byte_of_the_training(tiny_set):
    quiet, watched = trainer_of(tiny_set), trainer_of(tiny_set)
    steps(quiet, 4)
    for _ in range(4):
        steps(watched, 1)
        take(watched, tiny_set)
    assert watched.denoiser.training
    for name, value in quiet.denoiser.state_dict().items():
        assert torch.equal(watched.denoiser.state_dict()[name], value)
    for one, other in zip(quiet.ema.values(), watched.ema.values(), strict=True):
        for name, value in one.average.items():
            assert torch.equal(other.average[name], value)


def test_nothing_is_measured_on_the_way_out_of_a_stopped_run(tiny_set):
    trainer, told = trainer_of(tiny_set), Told()
    trainer.stop()
    HeldOut(tiny_set, told, held_out=HELD, every=1000)(trainer)
    assert told.events == []


def _among_processes(folder, parallel):
    """Step, look, compute with other weights, step: what was told, and the weights."""
    prepared, processes = PreparedSet.open(folder), join(CPU)
    network = replace(CONFIG.network, dropout=0.0)
    training = replace(CONFIG.training, parallel=parallel)
    trainer = trainer_of(prepared, processes=processes, network=network, training=training)
    steps(trainer, 2)
    told = take(trainer, prepared)
    others = {name: value + 1 for name, value in trainer.denoiser.state_dict().items()}
    with lent(trainer.denoiser, others), torch.no_grad():
        trainer.denoiser(torch.zeros(1, 3, 8, 8), torch.tensor(0.5, dtype=torch.float64))
    steps(trainer, 2)
    return told, {n: v.clone() for n, v in whole(trainer.denoiser.state_dict()).items()}


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_tell_what_one_does(tiny_set, parallel):
    told, weights = _among_processes(tiny_set.path, "ddp")
    for figures, after in several(2, _among_processes, tiny_set.path, parallel):
        for name in ("held", "train", "gap"):
            for kind in ("bands", "errors"):
                assert figures[name][kind] == pytest.approx(told[name][kind], rel=1e-4, abs=1e-7)
        for key, value in weights.items():
            assert torch.allclose(after[key], value, atol=1e-5)


@pytest.mark.parametrize("count", [24, 61, 252])
@pytest.mark.parametrize("world", [1, 2, 7, 30])
def test_all_processes_compute_equally_often_on_parts_of_one_size(count, world):
    ranks = [Processes(rank, world) for rank in range(world)]
    parts = [shares(count, processes) for processes in ranks]
    assert len({len(own) for own in parts}) == 1
    assert len({len(part) for own in parts for part in own}) == 1 and len(parts[0][0]) <= 32
    for processes, own in zip(ranks, parts, strict=True):
        rows = torch.arange(count)[processes.rows(count)]
        assert torch.equal(torch.cat(own)[: len(rows)], rows)
        assert 0 <= torch.cat(own).min() and torch.cat(own).max() < count


def test_weights_are_lent_and_given_back_even_after_an_error():
    model = torch.nn.Linear(2, 2)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    others = {name: value + 1 for name, value in own.items()}
    with pytest.raises(RuntimeError, match="on the way"), lent(model, others):
        assert not model.training
        assert torch.equal(model.weight, others["weight"])
        raise RuntimeError("on the way")
    assert model.training
    assert all(torch.equal(model.state_dict()[name], value) for name, value in own.items())
