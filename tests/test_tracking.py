import json
import sys
from datetime import datetime
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from kao.errors import ConfigError, MissingExtraError, OutputError
from kao.tracking import FIGURES, METRICS, Jsonl, TensorBoard, Wandb, read_events

TRAIN = {
    "loss": 0.5,
    "bands": {"<-4": 0.25, ">4": 1.0},
    "learning_rate": 1e-3,
    "no_figure": "a text",
    "no_figure_either": True,
}
HELD_OUT = {"gap": {"loss": 0.1, "bands": {"0..2": 0.2}}, "pairs": 24}


def lines(run):
    return (run / METRICS).read_text().splitlines()


def picture(run, name="samples/000000032-ema.png"):
    path = run / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (3, 2), (10, 20, 30)).save(path)
    return {"file": name}


# --- metrics.jsonl ------------------------------------------------------------------------------


def test_an_event_is_one_line_of_json(tmp_path):
    tracker = Jsonl(tmp_path, images=0)
    tracker.event("train", 32, TRAIN)
    tracker.close()
    (line,) = lines(tmp_path)
    event = json.loads(line)
    assert datetime.fromisoformat(event.pop("time")).utcoffset().total_seconds() == 0
    assert event == {"event": "train", "images": 32, **TRAIN}


def test_an_event_is_in_the_file_before_the_run_ends(tmp_path):
    tracker = Jsonl(tmp_path, images=0)
    tracker.event("train", 32, TRAIN)
    assert [event["images"] for event in read_events(tmp_path)] == [32]
    tracker.close()


def test_a_figure_that_is_not_finite_is_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    (tmp_path / METRICS).write_text('{"event": "train", "images": 0, "loss": NaN}\n')
    tracker = Jsonl(tmp_path, images=0)
    tracker.event("train", 32, {"loss": nan, "bands": {">4": -inf}, "both": [inf, 1.0], "n": 1})
    tracker.close()

    def strange(word):
        raise AssertionError(word)

    old, new = (json.loads(line, parse_constant=strange) for line in lines(tmp_path))
    assert old["loss"] is None
    told = (new["loss"], new["bands"], new["both"], new["n"])
    assert told == (None, {">4": None}, [None, 1.0], 1)


def test_events_come_back_in_order(tmp_path):
    tracker = Jsonl(tmp_path, images=0)
    for images in (0, 32, 64):
        tracker.event("train", images, {"text": "größer\u2028line"})
    tracker.close()
    events = read_events(tmp_path)
    assert [event["images"] for event in events] == [0, 32, 64]
    assert events[0]["text"] == "größer\u2028line"


def test_a_run_without_metrics_has_no_events(tmp_path):
    assert read_events(tmp_path) == []


@pytest.mark.parametrize(
    "rest", ['{"event": "train", "ima', "{", "\x00\x00\x00", '"text"', "[1]\n"]
)
def test_a_last_line_that_a_kill_cut_short_is_passed_over(tmp_path, rest):
    tracker = Jsonl(tmp_path, images=0)
    tracker.event("train", 32, {})
    tracker.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write(rest)
    assert [event["images"] for event in read_events(tmp_path)] == [32]


def test_after_a_line_cut_short_a_resumed_run_writes_on_a_line_of_its_own(tmp_path):
    first = Jsonl(tmp_path, images=0)
    first.event("train", 32, {})
    first.close()
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"event": "train", "ima')
    second = Jsonl(tmp_path, images=32)
    second.event("train", 64, {})
    second.close()
    assert [json.loads(line)["images"] for line in lines(tmp_path)] == [32, 64]


def test_a_resumed_run_drops_the_lines_of_steps_that_are_done_again(tmp_path):
    first = Jsonl(tmp_path, images=0)
    for images in (0, 32, 64, 96):
        first.event("train", images, {})
    first.close()
    second = Jsonl(tmp_path, images=64)
    second.event("start", 64, {"resumed": True})
    second.close()
    events = read_events(tmp_path)
    assert [event["images"] for event in events] == [0, 32, 64, 64]
    assert events[-1]["resumed"] is True


def test_metrics_that_cannot_be_written_are_told(tmp_path):
    with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written"):
        Jsonl(tmp_path / "missing", images=0)


# --- TensorBoard --------------------------------------------------------------------------------


def board(run):
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return events


def points(events, name):
    return [(point.step, point.value) for point in events.Scalars(name)]


def test_tensorboard_shows_figures_over_images_seen(tmp_path):
    tracker = TensorBoard(tmp_path, images=0)
    tracker.event("start", 0, {"parameters": 3})
    tracker.event("train", 32, TRAIN)
    tracker.event("train", 64, {**TRAIN, "loss": 0.25})
    tracker.close()
    events = board(tmp_path)
    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/bands/<-4",
        "train/bands/>4",
        "train/learning_rate",
    }
    assert points(events, "train/loss") == [(32, 0.5), (64, 0.25)]
    assert points(events, "train/bands/>4") == [(32, 1.0), (64, 1.0)]


def test_tensorboard_shows_the_pictures_of_both_weights(tmp_path):
    tracker = TensorBoard(tmp_path, images=0)
    for kind in ("raw", "ema"):
        tracker.event("samples", 32, picture(tmp_path, f"samples/000000032-{kind}.png"))
    tracker.close()
    events = board(tmp_path)
    assert sorted(events.Tags()["images"]) == ["samples/ema", "samples/raw"]
    (shown,) = events.Images("samples/ema")
    assert (shown.step, shown.width, shown.height) == (32, 3, 2)


def test_tensorboard_drops_the_points_of_steps_that_are_done_again(tmp_path, monkeypatch):
    # Files of one second are sorted by a counter of the process, as texts: 10 before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    first = TensorBoard(tmp_path, images=0)
    for images in (32, 64, 96):
        first.event("train", images, {"loss": 1.0})
    first.close()
    second = TensorBoard(tmp_path, images=64)
    second.event("train", 96, {"loss": 2.0})
    second.close()
    assert points(board(tmp_path), "train/loss") == [(32, 1.0), (64, 1.0), (96, 2.0)]


# --- Weights & Biases ---------------------------------------------------------------------------


class FakeWandb(ModuleType):
    """The part of wandb that is used; remembers what it was told."""

    def __init__(self):
        super().__init__("wandb")
        self.starts, self.logged, self.finished = [], [], 0
        self.axes = {}
        self.Error = RuntimeError

    def init(self, **options):
        self.starts.append(options)
        return self

    def define_metric(self, name, step_metric=None):
        self.axes[name] = step_metric

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished += 1

    def Image(self, path):
        return np.asarray(Image.open(path)).shape


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_wandb_that_is_not_installed_is_told_with_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[wandb\]'"):
        Wandb(tmp_path, project="kao", config={})


def test_wandb_gets_names_that_have_an_encoding(tmp_path, wandb):
    run = tmp_path / "r\udce4"
    run.mkdir()
    Wandb(run, project="cats", config={"data": {"source": "fl\udce4", "classes": ["a", "\udce4"]}})
    (start,) = wandb.starts
    assert start["name"] == r"r\xe4"
    assert start["config"] == {"data": {"source": r"fl\xe4", "classes": ["a", r"\xe4"]}}


def test_wandb_gets_figures_and_pictures(tmp_path, wandb):
    tracker = Wandb(tmp_path, project="cats", config={"seed": 3})
    tracker.event("start", 0, {"parameters": 3})
    tracker.event("train", 32, TRAIN)
    tracker.event("samples", 32, picture(tmp_path))
    tracker.close()
    (start,) = wandb.starts
    assert (start["project"], start["name"], start["config"]) == (
        "cats",
        tmp_path.name,
        {"seed": 3},
    )
    assert wandb.logged == [
        {
            "images": 32,
            "train/loss": 0.5,
            "train/bands/<-4": 0.25,
            "train/bands/>4": 1.0,
            "train/learning_rate": 1e-3,
        },
        {"images": 32, "samples/ema": (2, 3, 3)},
    ]
    assert wandb.finished == 1


def test_wandb_draws_everything_over_images_seen(tmp_path, wandb):
    Wandb(tmp_path, project="cats", config={})
    assert wandb.axes == {"images": None, "*": "images"}


@pytest.mark.parametrize("kind", FIGURES)
def test_every_tracker_gives_a_figure_the_same_name(tmp_path, wandb, kind):
    for tracker in (TensorBoard(tmp_path, images=0), Wandb(tmp_path, project="p", config={})):
        tracker.event(kind, 32, HELD_OUT)
        tracker.close()
    names = {f"{kind}/gap/loss", f"{kind}/gap/bands/0..2", f"{kind}/pairs"}
    assert set(board(tmp_path).Tags()["scalars"]) == names
    assert set(wandb.logged[0]) == {"images", *names}


def test_a_list_of_figures_is_kept_in_the_log_and_not_plotted(tmp_path, wandb):
    log, values = Jsonl(tmp_path, images=0), {"score": 0.5, "influences": [0.25, -0.25]}
    for tracker in (log, TensorBoard(tmp_path, images=0), Wandb(tmp_path, project="p", config={})):
        tracker.event("evaluation", 32, values)
        tracker.close()
    assert read_events(tmp_path)[0]["influences"] == [0.25, -0.25]
    assert board(tmp_path).Tags()["scalars"] == ["evaluation/score"]
    assert wandb.logged == [{"images": 32, "evaluation/score": 0.5}]


def test_an_event_without_figures_leaves_nothing_to_plot(tmp_path, wandb):
    for tracker in (TensorBoard(tmp_path, images=0), Wandb(tmp_path, project="p", config={})):
        tracker.event("warning", 32, {"text": "the disk is full"})
        tracker.event("checkpoint", 32, {})
        tracker.event("end", 32, {"seconds": 3.0})
        tracker.close()
    assert board(tmp_path).Tags()["scalars"] == [] and wandb.logged == []


def test_wandb_that_does_not_start_is_told_with_what_to_do(tmp_path, wandb, monkeypatch):
    def refuse(**options):
        raise wandb.Error("no API key")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(ConfigError, match=r"does not start \(no API key\): run wandb login"):
        Wandb(tmp_path, project="faces", config={})
    assert list(tmp_path.iterdir()) == []


def test_wandb_goes_on_with_the_same_run_after_a_resume(tmp_path, wandb):
    for run in ("one", "one", "two"):
        (tmp_path / run).mkdir(exist_ok=True)
        Wandb(tmp_path / run, project="cats", config={})
    first, resumed, other = (start["id"] for start in wandb.starts)
    assert first == resumed != other
    assert all(start["resume"] == "allow" for start in wandb.starts)


def test_a_name_of_a_figure_that_has_no_encoding_is_a_tag_with_an_escape(tmp_path):
    tracker = TensorBoard(tmp_path, images=0)
    tracker.event("train", 32, {"classes": {"fl\udce4chen": 1.0}})
    tracker.close()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert read.Tags()["scalars"] == [r"train/classes/fl\xe4chen"]
