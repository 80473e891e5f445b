from dataclasses import replace

import pytest
import torch

from kao.config import RunConfig
from kao.config.sections import DataConfig, EMAConfig, TrainingConfig
from kao.networks import UNetConfig
from kao.runs import hooks
from kao.runs.hooks import Log
from kao.training.meter import band_names

CPU = torch.device("cpu")
CONFIG = RunConfig(
    data=DataConfig(size=8),
    network=UNetConfig(width=8, levels=(1,), attention=(), groups=2),
    training=TrainingConfig(batch=4, precision="fp32"),
    ema=replace(EMAConfig(), widths=(0.1,)),
    length="100 steps",
)


class Told(list):
    """A tracker that keeps what it is told."""

    def event(self, kind, images, values):
        self.append((kind, images, dict(values)))

    def close(self):
        pass


@pytest.fixture
def trainer(tiny_set):
    trainer = CONFIG.build(tiny_set, CPU)
    trainer.step(next(iter(trainer.batches(0))))
    return trainer


def logged(trainer):
    told = Told()
    Log(told, every=4)(trainer)
    return told


def test_a_line_holds_what_the_charts_are_drawn_from(trainer):
    ((kind, images, values),) = logged(trainer)
    assert (kind, images) == ("train", 4)
    assert set(values) == {
        "seconds",
        "loss",
        "bands",
        "gradient_norm",
        "images_per_second",
        "data_wait",
        "learning_rate",
        "ema_distance",
        "memory",
    }
    assert set(values["bands"]) <= set(band_names())
    assert values["memory"]["cpu_rss"] > 2**20


def test_the_distance_of_every_average_is_told_by_its_name(trainer):
    ((*_, values),) = logged(trainer)
    assert list(values["ema_distance"]) == list(trainer.ema) == ["ema-0.999", "ema-w0.100"]
    for name, average in trainer.ema.items():
        assert values["ema_distance"][name] == average.distance() >= 0


def test_nothing_is_written_where_nothing_was_trained(trainer):
    assert len(logged(trainer)) == 1
    assert logged(trainer) == []


def test_the_loss_scale_is_told_where_there_is_one(trainer):
    trainer.gradients.scaler = torch.amp.GradScaler("cpu", init_scale=512.0)
    ((*_, values),) = logged(trainer)
    assert values["loss_scale"] == 512


def test_pieces_of_a_batch_are_told_where_memory_made_them_smaller(trainer):
    trainer.gradients.micro_batch = 2
    ((*_, values),) = logged(trainer)
    assert values["micro_batch"] == 2


def test_spikes_are_told_before_the_line_that_they_are_in(trainer):
    level = trainer.denoiser.schedule(torch.full((4,), 0.5, dtype=torch.float64))
    for loss in (*[1.0] * 100, 7.0, 1.0):
        trainer.progress.images += 4
        images = trainer.progress.images
        trainer.meter.add([loss] * 4, [loss] * 4, level, images=images, norm=1.0, waited=0.0)
    spike, line = logged(trainer)
    assert spike == ("spike", 408, {"loss": 7.0, "usual": pytest.approx(1.0)})
    assert line[:2] == ("train", 412)


def test_peaks_of_memory_are_those_since_the_line_before(trainer, monkeypatch):
    done = []
    monkeypatch.setattr(hooks, "memory", lambda device: done.append("told") or {})
    monkeypatch.setattr(hooks, "reset_peaks", lambda device: done.append(device))
    logged(trainer)
    assert done == ["told", CPU]
    logged(trainer)
    assert len(done) == 2  # nothing was written, so nothing begins anew
