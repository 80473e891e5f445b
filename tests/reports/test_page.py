import base64
import html
import io
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from html_tree import Tree
from PIL import Image
from torch.nn.functional import interpolate

from kao.config import RunConfig
from kao.config.sections import TrainingConfig
from kao.data.audit import Audit, Duplicates
from kao.errors import CheckpointError, OutputError
from kao.reports import write_report
from kao.reports.charts import Line, Mark, decimated, line_chart, short, smoothed
from kao.reports.record import BANDS, RunRecord
from kao.reports.techniques import techniques
from kao.visualisation import gif, grid, save_picture

HOSTILE = '"><script>alert(1)</script><img src="http://example.com/x.png">'
CONFIGURATION = """length = "10 minutes"
# a <b>comment</b> & "more"
[data]
size = 32
keep = "memory"
held_out = 60
augment = { flip = true, crop = 0, edm = 0.12 }
[optimizer]
rate = 0.001
weight_decay = 0.01
clip_norm = 1.0
schedule = { kind = "trapezoid", warmup = 3200, cooldown = 0.4 }
method = { kind = "muon", momentum = 0.95 }
[ema]
decay = 0.999
widths = [0.05, 0.1]
snapshots = 4_000
offload = true
[training]
batch = 64
precision = "bf16"
micro_batch = 16
gradient_checkpointing = "blocks"
compile = false
channels_last = true
tf32 = true
parallel = "ddp"
curriculum = "none"
"""


def start(images=0, **values):
    return {
        "event": "start",
        "time": "2026-11-21T04:00:00+00:00",
        "images": images,
        "machine": {"cpu": "AMD EPYC", "cores": 2, "memory_gb": 24, "gpu": None, "system": "Linux"},
        "versions": {"kao": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "parameters": 2_500_000,
        "flops": 123_456_789,
        "precision": "bf16",
        "resumed": images > 0,
        **values,
    }


def train(images, **values):
    return {
        "event": "train",
        "images": images,
        "seconds": images / 184,
        "loss": 1 / (1 + images / 1000),
        "bands": {band: 0.1 * (i + 1) for i, band in enumerate(BANDS)},
        "learning_rate": 0.001,
        "gradient_norm": 0.8,
        "images_per_second": 180.2,
        "data_wait": 0.004,
        "ema_distance": {"ema-0.999": 0.02},
        "memory": {"cpu_rss": 812_345_678, "cpu_rss_peak": 912_345_678},
        **values,
    }


def held_out(images, *, gap=0.02, error=0.004):
    """A "held_out" event whose held-out losses lie `gap` above training losses of 0.1."""

    def figures(loss):
        bands = dict.fromkeys(BANDS, loss)
        return {"loss": loss, "error": error, "bands": bands, "errors": dict.fromkeys(BANDS, error)}

    sets = {"held": figures(0.1 + gap), "train": figures(0.1), "gap": figures(gap)}
    return {"event": "held_out", "images": images, "pairs": 60, **sets, "raw": sets}


def happened(kind, images):
    return {"event": kind, "images": images}


def end(images, reason="finished"):
    time = "2026-11-21T04:10:00+00:00"
    return {"event": "end", "time": time, "images": images, "seconds": 600.0, "reason": reason}


def write_events(run, events):
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=generator, dtype=torch.uint8)


def audit(note):
    none = Duplicates(0, 0, ())
    return Audit(
        count=200,
        size=32,
        crop="centre",
        skipped=(),
        classes={},
        captions=0,
        width=(64, 64, 64),
        height=(64, 64, 64),
        sides={"64-127": 200},
        encodings={"PNG RGB": 200},
        enlarged=0,
        not_square=0,
        exact=none,
        near=none,
        repeated=0,
        notes=(note,),
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run of 110,000 pictures, stopped once and resumed, with everything that a run can have."""
    run = tmp_path_factory.mktemp("runs") / "cats"
    before = [start(), *(train(images) for images in range(1000, 51_000, 1000))]
    after = [start(50_000), *(train(images) for images in range(51_000, 111_000, 1000))]
    losses = [held_out(images) for images in range(60_000, 111_000, 10_000)]
    write_events(run, [*before, end(50_000, "interrupted"), *after, *losses, end(110_000)])
    (run / "run.toml").write_text(CONFIGURATION)
    (run / "audit.json").write_text(audit("all of one shelter").to_json())
    save_picture(grid(pictures(12, seed=9)), run / "contact.png")
    for images in (1000, 50_000, 110_000):
        save_picture(grid(pictures(9, seed=images)), run / f"samples/{images:09d}-ema.png")
        save_picture(grid(pictures(4, seed=images)), run / f"samples/{images:09d}-raw.png")
    save_picture(grid(pictures(5)), run / "pictures" / "forward.png")
    save_picture(grid(pictures(7)), run / "pictures" / "ear_close-up.png")
    gif([pictures(4), pictures(4, 1)], run / "pictures" / "denoising.gif", seconds=1, hold=1)
    return run


@pytest.fixture
def run(whole_run, tmp_path):
    """A copy of `whole_run` that a test may change."""
    return shutil.copytree(whole_run, tmp_path / "runs" / "cats")


def report(run):
    return Tree(write_report(run).read_text(encoding="utf-8"))


def size_of(source):
    kind, data = source.removeprefix("data:").split(";base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.get_format_mimetype() == kind
        return image.size


def lines_of(chart):
    """Style -> number of points of each curve."""
    curves = re.findall(r'<polyline class="line ([\w-]+)" points="([^"]*)"', chart)
    return {style: len(points.split()) for style, points in curves}


def test_the_parts_come_in_the_order_in_which_one_asks_about_a_run(run):
    text = report(run).text
    parts = ("110,000", "Drawn by the averaged", "Loss", "Held-out pictures", "Samples over time")
    parts += ("How it draws", "Gradient norm", "How it was trained", "Some of the pictures")
    parts += ("Machine and versions", "run.toml", "Sessions")
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_head_says_what_was_done(run):
    text = report(run).text
    assert "cats" in text and "Finished on 21 Nov 2026, 04:10 UTC" in text
    for figure in ("110,000 pictures seen", "10 minutes", "180 images/s", "2.5\xa0M parameters"):
        assert figure in text


def test_the_page_fetches_nothing(run):
    tree = report(run)
    for _, attributes in tree.elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "data:").startswith("data:")
    assert not tree.all("link") and not tree.all("iframe")
    style_and_script = write_report(run).read_text().partition("</style>")[0]
    assert "url(" not in style_and_script and "@import" not in style_and_script
    policy = next(m["content"] for m in tree.all("meta") if "content" in m and "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_pictures_are_inside_at_their_full_size(run):
    sizes = [size_of(image["src"]) for image in report(run).all("img")]
    newest = Image.open(run / "samples" / "000110000-ema.png").size
    assert sizes[0] == newest
    assert len(sizes) == 1 + 3 + 3 + 1


def test_figures_are_captioned_from_their_names_known_ones_first(run):
    captions = [image["alt"] for image in report(run).all("img")][4:7]
    assert captions[0].startswith("Forward:") and captions[1].startswith("Denoising")
    assert captions[2] == "ear close up"


def test_raw_grids_stand_in_where_no_weights_were_averaged(run):
    for path in (run / "samples").glob("*-ema.png"):
        path.unlink()
    assert "Drawn by the raw weights" in report(run).text


def test_losses_are_drawn_raw_smoothed_and_by_band(run):
    page = write_report(run).read_text()
    overall, bands = re.findall(r'<figure class="chart".*?</figure>', page, re.DOTALL)[:2]
    assert lines_of(overall) == {"faint": 110, "main": 110}
    assert lines_of(bands) == {f"band-{i}": 110 for i in range(6)}


def test_a_band_may_be_missing_from_a_line(run):
    without = {band: 0.5 for band in BANDS[1:]}
    events = [start(), *(train(i * 100, bands=without if i % 2 else {}) for i in range(1, 41))]
    write_events(run, events)
    assert RunRecord.read(run).curve(f"bands/{BANDS[0]}") == []
    page = write_report(run).read_text()
    bands = re.findall(r'<figure class="chart".*?</figure>', page, re.DOTALL)[1]
    assert lines_of(bands) == {f"band-{i}": 20 for i in range(1, 6)}


def test_the_audit_speaks_for_the_data(run):
    text = report(run).text
    assert "200 pictures of 32 x 32 pixels" in text and "all of one shelter" in text


@pytest.mark.parametrize("damage", ["{", "[]", "{}", "null", '{"exact": 3}'])
def test_a_damaged_audit_is_left_out(run, damage):
    (run / "audit.json").write_text(damage)
    assert "pictures of 32 x 32" not in report(run).text


def test_the_configuration_is_there_word_by_word(run):
    assert (run / "run.toml").read_text().strip() in report(run).text


def test_stops_and_resumptions_are_told(run):
    text = report(run).text
    assert "Started; interrupted at 50,000" in text
    assert "Resumed at 50,000 pictures; finished at 110,000" in text


def test_steps_that_a_resumed_run_did_again_are_drawn_once(run):
    first = [start(), *(train(i) for i in (1000, 2000, 3000))]
    write_events(run, [*first, start(2000), *(train(i, loss=0.5) for i in (3000, 4000))])
    assert [x for x, _ in RunRecord.read(run).curve("loss")] == [1000, 2000, 3000, 4000]
    assert RunRecord.read(run).curve("loss")[2] == (3000, 0.5)


def test_a_last_line_cut_short_by_a_kill_is_passed_over(run):
    whole = json.dumps(start()) + "\n" + json.dumps(train(100)) + "\n" + json.dumps(train(200))
    (run / "metrics.jsonl").write_text(whole + "\n" + json.dumps(train(300))[:40])
    text = report(run).text
    assert "200 pictures seen" in text and "no end recorded" in text


def test_losses_that_are_not_finite_are_left_out(run):
    losses = [0.5, float("nan"), float("inf"), 0.25]
    write_events(run, [start(), *(train(100 * i, loss=x) for i, x in enumerate(losses, 1))])
    assert RunRecord.read(run).curve("loss") == [(100, 0.5), (400, 0.25)]
    assert not {"nan", "inf"} & set(report(run).text.split())


@pytest.mark.parametrize(
    "missing", ["run.toml", "metrics.jsonl", "audit.json", "contact.png", "samples", "pictures"]
)
def test_a_run_without_one_of_its_parts_still_gets_a_page(run, missing):
    path = run / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert "cats" in report(run).text


def test_a_run_that_has_only_begun_gets_a_page(tmp_path):
    write_events(tmp_path / "young", [start()])
    tree = report(tmp_path / "young")
    assert "0 pictures seen" in tree.text and "Loss" not in tree.text and not tree.all("img")


def test_pictures_that_cannot_be_read_are_left_out(run):
    (run / "contact.png").write_bytes(b"not a picture")
    (run / "pictures" / "forward.png").write_bytes((run / "contact.png").read_bytes()[:20])
    assert len(report(run).all("img")) == 1 + 3 + 2


def test_a_picture_too_large_for_a_page_is_named_instead(run, monkeypatch):
    monkeypatch.setattr("kao.reports.inline._PICTURE_BYTES", 4000)
    assert "see pictures/denoising.gif" in report(run).text


def test_of_many_grids_the_page_carries_twelve_and_always_the_newest(run):
    for images in range(1000, 111_000, 1000):
        save_picture(Image.new("RGB", (40, 40)), run / f"samples/{images:09d}-ema.png")
    captions = [i["alt"] for i in report(run).all("img") if i["alt"].endswith("pictures seen")]
    assert len(captions) == 12
    assert captions[0] == "1,000 pictures seen" and captions[-1] == "110,000 pictures seen"


def faces_like(seed):
    """A grid of 64 pictures of 64 pixels whose PNG is as large as one of photographs."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(64, 3, 16, 16, generator=generator)
    smooth = interpolate(coarse, size=(64, 64), mode="bicubic", antialias=True)
    noisy = smooth + 3 * torch.randn(smooth.shape, generator=generator)
    return grid(noisy.clamp(0, 255).byte())


def test_grids_of_64_pixels_are_carried_through_the_whole_run(run):
    shutil.rmtree(run / "samples")
    for seed in range(9):
        save_picture(faces_like(seed), run / f"samples/{1000 * (seed + 1):09d}-ema.png")
    sizes = [path.stat().st_size for path in (run / "samples").iterdir()]
    assert min(sizes) > 500_000
    tree = report(run)
    frames = [image for image in tree.all("img") if image["alt"].endswith("pictures seen")]
    assert len(frames) == 9
    assert sum(len(frame["src"]) for frame in frames) < 2_000_000
    first = Image.open(io.BytesIO(base64.b64decode(frames[0]["src"].partition(",")[2])))
    assert (first.format, first.size) == ("WEBP", faces_like(0).size)
    assert "grids; the others" not in tree.text


def test_grids_that_do_not_fit_are_told_of(run, monkeypatch):
    tree = report(run)
    frames = [i["src"] for i in tree.all("img") if i["alt"].endswith("pictures seen")]
    data = [len(base64.b64decode(source.partition(",")[2])) for source in frames]
    assert "the others are in samples" not in tree.text
    monkeypatch.setattr("kao.reports.page._TIMELINE_BYTES", sum(data) - 1)
    assert "2 of 3 grids; the others are in samples" in report(run).text
    monkeypatch.setattr("kao.reports.page._TIMELINE_BYTES", 1)
    assert "The 3 grids do not fit here: see samples" in report(run).text


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"neither run\.toml nor metrics\.jsonl"):
        write_report(tmp_path)
    with pytest.raises(CheckpointError):
        write_report(tmp_path / "nowhere")


def test_a_place_that_cannot_be_written_is_named(run):
    (run / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"report\.html"):
        write_report(run)


def test_hostile_words_stay_words(run):
    hostile = run.parent / "<script>alert(1)<"
    shutil.move(run, hostile)
    versions = {HOSTILE: HOSTILE}
    machine = {"cpu": HOSTILE, "system": HOSTILE}
    events = [start(versions=versions, machine=machine, precision=HOSTILE, time=HOSTILE)]
    write_events(hostile, [*events, train(100), train(200), {**end(200), "reason": HOSTILE}])
    (hostile / "run.toml").write_text(HOSTILE)
    (hostile / "audit.json").write_text(audit(HOSTILE).to_json())
    shutil.copy(hostile / "contact.png", hostile / "pictures" / '"><script>alert(1)<.png')
    tree = report(hostile)
    assert len(tree.all("script")) == 1
    assert all(image["src"].startswith("data:") for image in tree.all("img"))
    assert tree.text.count(HOSTILE) >= 6


def charts_of(run):
    """Title -> HTML of each chart of the page."""
    page = write_report(run).read_text(encoding="utf-8")
    charts = re.findall(r'<figure class="chart".*?</figure>', page, re.DOTALL)
    return {re.search("<b>(.*?)</b>", chart)[1]: chart for chart in charts}


def values_of(chart):
    """What the read-out shows of each named line."""
    return json.loads(html.unescape(re.search('data-chart="([^"]*)"', chart)[1]))["lines"]


def test_spikes_skipped_steps_checkpoints_and_resumptions_are_marked_in_the_loss(run):
    quiet = [start(), *(train(images) for images in range(1000, 11_000, 1000))]
    loud = [happened("checkpoint", 2000), happened("spike", 3000), happened("spike", 4000)]
    loud += [happened("skipped", 5000), start(5000), train(6000), train(7000)]
    write_events(run, quiet)
    chart = charts_of(run)["All noise levels"]
    assert not re.search('class="(mark|sign)', chart) and "spike" not in chart
    write_events(run, [*quiet[:6], *loud])
    chart = charts_of(run)["All noise levels"]
    assert re.findall('class="mark (\\w+)"', chart) == ["resumed", "checkpoint"]
    assert re.findall('class="sign (\\w+)"', chart) == ["spike", "spike", "skipped"]
    for words in ("resumed here", "Ticks below: checkpoints", "2 spikes of", "1 step skipped"):
        assert words in chart


def test_a_mark_lies_where_it_happened():
    points = [(1000.0, 1.0), (4000.0, 2.0)]
    chart = line_chart("t", [Line("a", points)], marks=[Mark(3000.0, "spike")])
    assert 'class="sign spike" style="left:75.00%"' in chart


def test_a_mark_past_the_end_of_the_lines_is_left_out():
    points = [(1000.0, 1.0), (4000.0, 2.0)]
    chart = line_chart("t", [Line("a", points)], marks=[Mark(4001.0, "spike")])
    assert "sign" not in chart


def test_very_many_skipped_steps_do_not_fill_the_page():
    marks = [Mark(float(x), "skipped") for x in range(1, 10_000)]
    chart = line_chart("t", [Line("a", [(1.0, 1.0), (1e4, 2.0)])], marks=marks)
    assert 100 <= chart.count("sign skipped") <= 200


def test_what_happened_in_steps_that_were_done_again_is_left_out(run):
    lost = [train(3000), happened("spike", 3000), held_out(3000)]
    write_events(run, [start(), train(1000), train(2000), *lost, start(2000), train(3000)])
    record = RunRecord.read(run)
    assert record.of("spike") == record.of("held_out") == []


def test_held_out_losses_are_drawn_beside_those_of_training(run):
    charts = charts_of(run)
    raw, training, held = values_of(charts["All noise levels alike"])
    assert [y for _, y in training] == [0.1] * 6
    assert [y for _, y in held] == [y for _, y in raw] == [0.12] * 6
    for band, name in zip(BANDS, ("&lt; \u22124", "\u22124 to \u22122"), strict=False):
        training, held = values_of(charts[f"Log-snr {name}"])
        assert (training[0][1], held[0][1]) == (0.1, 0.12), band


def test_the_gap_is_a_share_of_the_training_loss_with_its_error(run):
    chart = charts_of(run)["Gap, % of training"]
    ((gap,),) = [{y for _, y in line} for line in values_of(chart)]
    assert gap == 20
    heights = [float(y) for y in re.findall(r'faint" points="0*[\d.]+,([\d.]+)', chart)]
    assert len(set(heights)) == 2
    assert lines_of(charts_of(run)["Gap by noise level, % of training"]) == {
        f"band-{i}": 6 for i in range(6)
    }


def test_a_gap_below_zero_stays_inside_its_frame(run):
    write_events(run, [start(), held_out(1000, gap=-0.01), held_out(2000, gap=-0.005)])
    chart = charts_of(run)["Gap, % of training"]
    assert {y for _, y in values_of(chart)[0]} == {-10, -5}
    for points in re.findall('points="([^"]*)"', chart):
        assert all(0 <= float(point.split(",")[1]) <= 400 for point in points.split())


def test_a_run_without_held_out_pictures_has_no_such_part(run):
    write_events(run, [start(), train(1000), train(2000)])
    assert "Held-out pictures" not in report(run).text


def test_what_training_costs_is_drawn(run):
    gpu = {"cpu_rss": 3e9, "allocated": 4e9, "allocated_peak": 5e9, "reserved": 7e9}
    averages = {"ema-0.999": 0.02, "ema-w0.050": 0.01}
    lines = [train(i, memory=gpu, ema_distance=averages, loss_scale=1024.0) for i in (100, 200)]
    write_events(run, [start(), *lines])
    charts = charts_of(run)
    assert [line[-1][1] for line in values_of(charts["Memory, GB"])] == [3, 7, 5, 4]
    distances = values_of(charts["Distance of the averages, share of the weights"])
    assert [line[-1][1] for line in distances] == [0.02, 0.01]
    assert values_of(charts["Time per image, ms"])[0][0][1] == pytest.approx(1000 / 180.2, rel=1e-3)
    assert values_of(charts["Waiting for data, % of the time"])[0][0][1] == 0.4
    assert values_of(charts["Loss scale of fp16"])[0][0][1] == 1024


def test_techniques_are_told_from_the_configuration_and_the_start():
    rows = dict(techniques(CONFIGURATION, [start(processes=2)]))
    assert rows == {
        "Length": "10 minutes",
        "Batch": "64 pictures a step, at most 16 at once",
        "Processes": "2, ddp",
        "Precision": "bf16",
        "Optimiser": "muon (momentum 0.95), rate 0.001, weight decay 0.01, gradients clipped at 1",
        "Learning rate": "trapezoid (warmup 3,200, cooldown 0.4)",
        "Averages": "decay 0.999, power profiles of width 0.05, 0.1, a snapshot every 4,000 "
        "pictures, in the CPU's memory",
        "Gradient checkpointing": "blocks",
        "Channels last": "innermost",
        "Augmentation": "flip, edm 0.12",
        "Pictures kept": "in memory",
        "Held out": "60 pictures",
        "Not used": "curriculum, compiled kernels",
    }


def test_what_changed_when_a_run_was_taken_up_is_told_in_order():
    starts = [start(precision=p, processes=n) for p, n in (("bf16", 2), ("fp32", 2), ("fp32", 1))]
    rows = dict(techniques(CONFIGURATION, starts))
    assert (rows["Precision"], rows["Processes"]) == ("bf16, then fp32", "2, ddp, then 1")


def test_a_branch_says_where_it_came_from():
    branch = start(branched_from="runs/cats/checkpoints/000012800")
    rows = dict(techniques(CONFIGURATION, [branch]))
    assert rows["Branched from"] == "runs/cats/checkpoints/000012800"


def test_pieces_that_memory_made_smaller_are_told(run):
    write_events(run, [start(), train(1000), train(2000, micro_batch=4)])
    assert "at most 4 at once" in report(run).text


def test_grids_of_steps_that_were_done_again_are_left_out(run):
    def drawn(images):
        return {**happened("samples", images), "file": f"samples/{images:09d}-ema.png"}

    assert len(RunRecord.read(run).grids) == 3
    write_events(run, [start(), drawn(1000), drawn(110_000), start(2000), drawn(50_000)])
    assert [grid.images for grid in RunRecord.read(run).grids] == [1000, 50_000]


def test_a_gpu_says_what_it_does_with_float32():
    gpu = start(machine={"gpu": "NVIDIA H100"})
    assert dict(techniques(CONFIGURATION, [gpu]))["Precision"].endswith(
        "TF32 for what stays in float32"
    )


@pytest.mark.parametrize(
    "text", ["", "size =", "training = 3", "[training]\nbatch = 'x'\ncurriculum = 7", "[data]"]
)
def test_a_configuration_of_another_kind_costs_no_page(run, text):
    (run / "run.toml").write_text(text)
    assert "110,000 pictures seen" in report(run).text


def test_every_technique_of_the_configuration_has_its_row():
    config = RunConfig(
        training=replace(
            TrainingConfig(), compile=True, gradient_checkpointing="all", micro_batch=8
        )
    )
    rows = dict(techniques(config.to_toml(), []))
    assert rows["Compiled kernels"] == "torch.compile"
    assert rows["Gradient checkpointing"] == "all"
    assert rows["Batch"] == "32 pictures a step, at most 8 at once"
    assert rows["Optimiser"].startswith("adamw") and rows["Learning rate"].startswith("trapezoid")
    assert rows["Averages"] == "decay 0.999"


def test_charts_keep_spikes_when_they_drop_points():
    points = [(float(x), 1.0) for x in range(10_000)]
    points[4321] = (4321.0, 50.0)
    kept = decimated(points)
    assert len(kept) <= 1000 and points[4321] in kept
    assert kept == sorted(kept)


def test_a_chart_of_a_long_run_has_at_most_a_thousand_points_a_curve():
    points = [(float(x), 1.0 + x % 7) for x in range(1, 100_000)]
    assert lines_of(line_chart("t", [Line("a", points)]))["main"] <= 1000


def test_smoothing_keeps_a_constant_and_the_first_value():
    constant = [(float(x), 0.3) for x in range(200)]
    assert [y for _, y in smoothed(constant)] == pytest.approx([0.3] * 200)
    falling = [(float(x), 1 / (1 + x)) for x in range(200)]
    assert smoothed(falling)[0] == (0.0, 1.0)


def test_smoothing_takes_most_of_the_noise_away():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, generator=generator).tolist()
    calm = torch.tensor([y for _, y in smoothed([(float(x), y) for x, y in enumerate(noise)])])
    assert calm[20:].std() < 0.4


def test_a_line_of_one_point_makes_no_chart():
    assert line_chart("t", [Line("a", [(1.0, 2.0)]), Line("b", [])]) == ""


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("values", [(2.0, 2.0), (1e-9, 1e9), (0.5, 0.5000001), (3.0, 7.0)])
def test_curves_stay_inside_their_frame(values, logarithmic):
    points = list(zip((1.0, 2.0), values, strict=True))
    chart = line_chart("t", [Line("a", points)], logarithmic=logarithmic)
    places = re.search(r'<polyline[^>]*points="([^"]*)"', chart)[1].split()
    heights = [float(place.split(",")[1]) for place in places]
    assert all(0 <= height <= 400 for height in heights)
    assert '<span class="y"' in chart


def test_zeros_are_left_out_of_a_logarithmic_chart():
    chart = line_chart("t", [Line("a", [(1.0, 0.0), (2.0, 1.0), (3.0, 2.0)])], logarithmic=True)
    assert lines_of(chart) == {"main": 2}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0862, "0.0862"),
        (0.5, "0.5"),
        (180.2, "180"),
        (110_000, "110\xa0k"),
        (2_500_000, "2.5\xa0M"),
        (0.0005, "5e-4"),
        (1.31e-9, "1.31e-9"),
        (-3, "-3"),
    ],
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_a_browser_shows_the_page_in_light_and_dark_on_a_desk_and_on_a_phone(run, browser):
    url = write_report(run).as_uri()
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="light")
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)

    def brightness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3]) / 3

    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert brightness() > 230
    page.emulate_media(color_scheme="dark")
    assert brightness() < 60

    seen = page.locator(".scrubber output")
    assert seen.inner_text() == "110,000 pictures seen"
    page.locator(".scrubber input").press("Home")
    assert seen.inner_text() == "1,000 pictures seen"
    assert page.locator(".times figure:visible").count() == 1

    plot = page.locator(".plot").first
    before = page.locator(".chart output").first.inner_text()
    plot.hover(position={"x": 2, "y": 40})
    assert page.locator(".chart output").first.inner_text() != before
    assert page.locator(".cross").first.is_visible()

    page.emulate_media(media="print")
    assert page.locator(".times figure:visible").count() == 3
    assert brightness() > 250
    assert complaints == []
    assert [asked for asked in requests if not asked.startswith("data:")] == [url]
