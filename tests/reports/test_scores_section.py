import html
import json
import math
import re

import pytest
import torch
from safetensors.torch import save

from kao.reports.record import RunRecord
from kao.reports.scores import scores_section


def start(images=0):
    return {"event": "start", "time": "2026-11-21T04:00:00+00:00", "images": images}


def evaluation(images, value, **more):
    def scored(value, error):
        low, high = value - 2 * error, value + 2 * error
        return {"value": value, "error": error, "own_error": error, "low": low, "high": high}

    return {
        "event": "evaluation",
        "images": images,
        "minutes": images / 1000,
        "measure": "kernel distance faces-1 to 256 held-out pictures",
        "pictures": 64,
        "score": scored(value, 0.002),
        "floor": scored(0.0005, 0.002),
        "drift": {name: scored(1.5, 0.5) for name in ("red", "green", "blue")},
        "copies": {"value": 0.02, "low": 0.005, "high": 0.08},
        **more,
    }


def section(path, events):
    path.mkdir(exist_ok=True)
    lines = "".join(json.dumps(event) + "\n" for event in (start(), *events))
    (path / "metrics.jsonl").write_text(lines)
    return scores_section(RunRecord.read(path))


def charts(text):
    """The values of each chart, by its title."""
    titles = re.findall(r"<figcaption><b>(.*?)</b>", text)
    values = [json.loads(html.unescape(v)) for v in re.findall(r'data-chart="(.*?)"', text)]
    return dict(zip(titles, values, strict=True))


LEARNING = [evaluation(1000 * k, 0.02 + 0.2 / math.sqrt(k)) for k in range(1, 13)]


def test_a_run_without_scores_has_no_section(tmp_path):
    assert section(tmp_path / "run", []) == ""


def test_the_verdict_and_its_forecast_are_said(tmp_path):
    text = section(tmp_path / "run", LEARNING)
    assert "<p>Improving: by a line through the last 7 scores, the score changed by" in text
    assert "Another 12,000 images: score" in text
    assert "The score is the kernel distance faces-1 to 256 held-out pictures, of 64 pictur" in text


def keep_best(run, **facts):
    (run / "averages").mkdir(parents=True)
    place = run / "averages" / "best-score.safetensors"
    place.write_bytes(save({"x": torch.zeros(1)}, {"facts": json.dumps(facts)}))


def test_the_best_score_is_that_of_the_weights_that_are_kept(tmp_path):
    measure = LEARNING[0]["measure"]
    keep_best(tmp_path / "run", score=0.1, images=5_000, measure=measure, digest=None)
    text = section(tmp_path / "run", LEARNING)
    assert "The best, 0.1, was taken at 5,000 pictures: --weights best-score draws" in text


def test_a_best_score_by_another_measure_is_said_to_be_one(tmp_path):
    keep_best(tmp_path / "run", score=0.1, images=5_000, measure="another", digest="0a0b0c0d")
    assert "at 5,000 pictures in another way:" in section(tmp_path / "run", LEARNING)


@pytest.mark.parametrize("content", [None, b"", b"no weights"])
def test_no_best_score_is_named_where_no_weights_are_kept(tmp_path, content):
    (tmp_path / "run" / "averages").mkdir(parents=True)
    if content is not None:
        (tmp_path / "run" / "averages" / "best-score.safetensors").write_bytes(content)
    assert "best-score" not in section(tmp_path / "run", LEARNING)


def test_a_search_of_a_part_of_the_set_is_told(tmp_path):
    few = {"searched": 682, "of": 70_000}
    unknown = evaluation(13_000, 0.1, **few)
    del unknown["copies"]
    said = section(tmp_path / "a", [*LEARNING, unknown])
    assert "among 682 of the 70,000 training pictures, too few to tell their rate" in said
    said = section(tmp_path / "b", [*LEARNING, evaluation(13_000, 0.1, searched=6, of=9)])
    assert "among 6 of the 9 training pictures, so copies of the others are not counted" in said
    said = section(tmp_path / "c", [*LEARNING, evaluation(13_000, 0.1, searched=9, of=9)])
    assert "Copies were looked for" not in said


def test_scores_stand_over_images_and_over_minutes_beside_their_floor(tmp_path):
    drawn = charts(section(tmp_path / "run", LEARNING))
    over_images, over_time = drawn["Score over pictures seen"], drawn["Score over time"]
    assert (over_images["unit"], over_time["unit"]) == ("pictures", "minutes")
    assert (over_images["range"][1], over_time["range"][1]) == (12_000, 12)
    floor, score = over_time["lines"]
    assert floor[-1] == [12, 0.0005]
    assert score[0] == [1, 0.22]


def test_the_band_of_the_score_is_drawn_and_not_named(tmp_path):
    text = section(tmp_path / "run", LEARNING)
    first = text[: text.index("Score over time")]
    assert first.count('class="line faint"') == 2
    assert "Faint: 95 % interval" in first


def test_copies_and_colours_have_charts(tmp_path):
    drawn = charts(section(tmp_path / "run", LEARNING))
    assert drawn["Copies of training pictures, %"]["lines"][0][-1] == [12_000, 2.0]
    assert len(drawn["Colours, grey levels off"]["lines"]) == 3


def test_scores_below_zero_are_shown(tmp_path):
    drawn = charts(section(tmp_path / "run", [*LEARNING, evaluation(13_000, -0.001)]))
    assert drawn["Score over pictures seen"]["lines"][-1][-1] == [13_000, -0.001]


def test_what_a_run_says_of_itself_is_no_html(tmp_path):
    hostile = [{**event, "measure": "<script>alert(1)</script>"} for event in LEARNING]
    assert "<script>" not in section(tmp_path / "run", hostile)


def test_figures_that_are_missing_leave_charts_out_and_not_the_page(tmp_path):
    events = [evaluation(1000, 0.1, score=None, minutes=None), *LEARNING[1:3]]
    drawn = charts(section(tmp_path / "run", events))
    assert len(drawn["Score over time"]["lines"][-1]) == 2
