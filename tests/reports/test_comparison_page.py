"""The page that `kao compare` writes."""

import base64
import html
import io
import json
import re
from dataclasses import replace

import pytest
import torch
from html_tree import Tree
from PIL import Image

from kao.config import SamplingConfig
from kao.errors import OutputError
from kao.evaluation import Card, Evaluation, Measured
from kao.evaluation.comparison import compare
from kao.metrics import Score
from kao.reports.compared_runs import differing_keys, over_minutes, style_of
from kao.reports.comparison import Shown, comparison_page, write_comparison
from kao.reports.record import RunRecord
from kao.runs.guiding import sampling_table

HOSTILE = '"><script>alert(1)</script><img src="http://example.com/x.png">'
CARD = Card(
    subject="x",
    n=1000,
    size=16,
    reference="faces",
    reference_hash="ab" * 32,
    reals=2000,
    features=("faces-1",),
    resize=("none",),
    sampling=sampling_table(SamplingConfig(steps=50), None),
    protocol="small-data",
)
SENTENCE = "Each row is drawn from the same noise."


def evaluation(value, **card):
    score = Score("distance", value, 1.0, 1000)
    floor = Measured(score, "faces-1", Score("distance", 0.5, 0.1, 1000))
    return Evaluation(replace(CARD, **card), (floor,))


def pictures(count=10, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def log(folder, *, speed, scored="kernel distance", digest=None, until=10):
    """A run of `until` thousand images, so many images a second."""
    folder.mkdir(parents=True)
    events = [{"event": "start", "images": 0}]
    for images in range(1000, 1000 * until + 1, 1000):
        loss = 1000 / images
        events += [
            {"event": "train", "images": images, "seconds": images / speed, "loss": loss},
            {"event": "held_out", "images": images, "held": {"loss": loss, "error": 0.01}},
            {
                "event": "evaluation",
                "images": images,
                "measure": scored,
                "digest": digest,
                "score": {"value": loss, "own_error": 0.02},
            },
        ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (folder / "run.toml").write_text(f"seed = 0\n[data]\nsize = 16\n[training]\nbatch = {speed}\n")
    return RunRecord.read(folder)


@pytest.fixture
def two(tmp_path):
    """Two runs of which the first is better."""
    comparison = compare({"slow": evaluation(10), "fast": evaluation(50)})
    subjects = [
        Shown("slow", log(tmp_path / "slow", speed=10), pictures()),
        Shown("fast", log(tmp_path / "fast", speed=40), pictures(seed=1)),
    ]
    return comparison, subjects


def charts_of(page):
    """Title -> what its read-out shows, of each chart."""
    charts = re.findall(r'<figure class="chart".*?</figure>', page, re.DOTALL)
    return {
        re.search("<b>(.*?)</b>", chart)[1]: json.loads(
            html.unescape(re.search('data-chart="([^"]*)"', chart)[1])
        )
        for chart in charts
    }


def test_scores_stand_with_their_intervals_and_what_is_real_of_their_difference(two):
    text = Tree(comparison_page(*two, pictures=SENTENCE)).text
    for words in ("10.0", "8.0 to 12.0", "slow best: real", "\u221240", "real: slow is better"):
        assert words in text, words


def test_scores_that_differ_by_chance_are_within_the_noise(two):
    comparison = compare({"slow": evaluation(10), "fast": evaluation(11)})
    page = comparison_page(comparison, two[1], pictures=SENTENCE)
    assert "within the noise" in page
    assert "real</" not in page and "is better</" not in page.replace("lower is better</", "")


def test_other_protocols_are_told_and_nothing_is_best(two):
    faster = sampling_table(SamplingConfig(steps=5), None)
    comparison = compare({"slow": evaluation(10), "fast": evaluation(50, sampling=faster)})
    page = comparison_page(comparison, two[1], pictures=SENTENCE)
    text = Tree(page).text
    assert (
        "sampling.steps = 50 for slow, sampling.steps = 5 for fast." in text
        and "not ranked" in text
    )
    assert "Differences" not in text and "best:" not in text
    assert not re.search(r"<td><b>", page)


def test_pictures_stand_side_by_side_in_blocks_of_eight_rows(two):
    tree = Tree(comparison_page(*two, pictures=SENTENCE))
    assert SENTENCE in tree.text
    assert [image["alt"] for image in tree.all("img")] == ["slow", "fast"] * 2
    data = tree.all("img")[1]["src"].removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(data))) as column:
        assert column.width == 96
        shown = torch.frombuffer(bytearray(column.convert("RGB").tobytes()), dtype=torch.uint8)
    first = shown.reshape(-1, 96, 3)[:96:6, ::6].permute(2, 0, 1)
    assert torch.equal(first, two[1][1].pictures[0])


def test_large_pictures_do_not_make_the_page_heavy(two):
    large = [replace(subject, pictures=pictures(8, 256)) for subject in two[1]]
    images = Tree(comparison_page(two[0], large, pictures=SENTENCE)).all("img")
    assert {image["src"].partition(";")[0] for image in images} == {"data:image/webp"}
    assert {image["width"] for image in images} == {"256"}


def test_what_has_no_pictures_and_no_log_still_has_its_scores(two):
    bare = [Shown("slow"), Shown("fast")]
    tree = Tree(comparison_page(two[0], bare, pictures=SENTENCE))
    assert not tree.all("img")
    assert "While training" not in tree.text and "differently" not in tree.text
    assert "slow best: real" in tree.text


def test_curves_go_over_images_and_over_minutes(two):
    charts = charts_of(comparison_page(*two, pictures=SENTENCE))
    kinds = ("Training loss", "Held-out loss", "Score: kernel distance")
    assert list(charts) == [f"{k}, over {unit}" for k in kinds for unit in ("pictures", "minutes")]
    for kind in kinds:
        images, minutes = (charts[f"{kind}, over {unit}"] for unit in ("pictures", "minutes"))
        assert images["unit"] == "pictures" and minutes["unit"] == "minutes"
        assert [line[-1][0] for line in images["lines"]] == [10_000, 10_000]
        ends = [line[-1][0] for line in minutes["lines"]]
        assert ends == pytest.approx([10_000 / 10 / 60, 10_000 / 40 / 60])


def test_scores_by_several_measures_are_not_drawn_into_one_chart(two, tmp_path):
    other = log(tmp_path / "other", speed=10, scored="another distance")
    subjects = [two[1][0], replace(two[1][1], record=other)]
    charts = charts_of(comparison_page(two[0], subjects, pictures=SENTENCE))
    assert len(charts["Score: kernel distance, over pictures"]["lines"]) == 1
    assert len(charts["Score: another distance, over pictures"]["lines"]) == 1


def test_scores_of_one_name_that_were_drawn_in_another_way_are_not_drawn_into_one_chart(
    two, tmp_path
):
    other = log(tmp_path / "other", speed=10, digest="0a0b0c0d")
    subjects = [two[1][0], replace(two[1][1], record=other)]
    page = comparison_page(two[0], subjects, pictures=SENTENCE)
    charts = charts_of(page)
    assert len(charts["Score: kernel distance (of before), over pictures"]["lines"]) == 1
    assert len(charts["Score: kernel distance (0a0b0c0d), over pictures"]["lines"]) == 1
    assert "taken in another way" in page


def test_a_score_has_a_faint_band_of_the_colour_of_its_run(two):
    page = comparison_page(*two, pictures=SENTENCE)
    chart = page[page.index("Score: kernel distance, over pictures") :]
    assert re.findall('polyline class="line ([^"]+)"', chart)[:6] == [
        *["faint band-1"] * 2,
        "band-1",
        *["faint band-5"] * 2,
        "band-5",
    ]


def test_time_passes_evenly_between_two_lines_of_the_log(two):
    record = two[1][0].record
    assert over_minutes([(0.0, 7.0), (600.0, 7.0), (1500.0, 7.0)], record) == [
        (0.0, 7.0),
        (1.0, 7.0),
        (2.5, 7.0),
    ]
    assert over_minutes([(10_001.0, 7.0)], record) == []


def test_no_two_of_twelve_things_look_the_same():
    assert len({style_of(i) for i in range(12)}) == 12


def test_keys_that_differ_are_told_with_their_values(two):
    text = Tree(comparison_page(*two, pictures=SENTENCE)).text
    assert re.search(r"training\.batch\s*10\s*40", text)
    assert "data.size" not in text


def test_a_key_that_one_run_has_not_is_a_difference():
    configurations = {"a": "x = 1\n[b]\nc = [1, 2]\nd = true", "b": "x = 1", "c": "x = ["}
    assert differing_keys(configurations) == [
        ["x", "1", "1", "—"],
        ["b.c", "1, 2", "—", "—"],
        ["b.d", "true", "—", "—"],
    ]


def test_equal_configurations_are_said_to_be_equal(two, tmp_path):
    twin = log(tmp_path / "twin", speed=10)
    subjects = [two[1][0], replace(two[1][1], record=twin)]
    assert "started with the same one" in comparison_page(two[0], subjects, pictures=SENTENCE)


def test_the_protocols_are_told_line_by_line(two):
    folder = evaluation(50, sampling=None)
    comparison = compare({"slow": evaluation(10), "fast": folder})
    text = Tree(comparison_page(comparison, two[1], pictures=SENTENCE)).text
    assert re.search(r"Sampler\s*ddim, uniform, 50 steps\s*not known", text)
    assert "Images seen" not in text
    assert "How fast was drawn is not known" in text


def test_a_page_of_hostile_names_fetches_nothing(tmp_path):
    sets = {HOSTILE: evaluation(10, reference=HOSTILE), "b": evaluation(50, reference=HOSTILE)}
    sets = {name: replace(one, notes=(HOSTILE,)) for name, one in sets.items()}
    record = log(tmp_path / "a", speed=10, scored=HOSTILE)
    (record.path / "run.toml").write_text(f"name = '''{HOSTILE}'''")
    subjects = [
        Shown(HOSTILE, RunRecord.read(record.path), pictures()),
        Shown("b", log(tmp_path / "b", speed=10), pictures()),
    ]
    tree = Tree(comparison_page(compare(sets), subjects, pictures=HOSTILE))
    assert len(tree.all("script")) == 1
    assert all(image["src"].startswith("data:") for image in tree.all("img"))
    policy = next(m["content"] for m in tree.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_page_is_written_into_a_new_folder_and_not_over_a_folder(two, tmp_path):
    path = write_comparison(tmp_path / "new" / "c.html", *two, pictures=SENTENCE)
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")
    with pytest.raises(OutputError, match="in the way"):
        write_comparison(tmp_path / "new", *two, pictures=SENTENCE)


def test_a_browser_shows_the_comparison_on_a_desk_and_on_a_phone(two, tmp_path, browser):
    url = write_comparison(tmp_path / "c.html", *two, pictures=SENTENCE).as_uri()
    page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(url)
    for width in (390, 1200):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    tops = page.evaluate("[...document.images].slice(0, 2).map(i => i.getBoundingClientRect().top)")
    assert tops[0] == tops[1]

    plot = page.locator(".plot").nth(1)
    plot.hover(position={"x": 200, "y": 40})
    assert page.locator(".cross").nth(1).get_attribute("data-at").endswith(" minutes")
    assert complaints == []
    assert [asked for asked in requests if not asked.startswith("data:")] == [url]
