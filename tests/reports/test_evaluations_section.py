from PIL import Image

from kao.evaluation import Card, Evaluation
from kao.evaluation.results import Measured
from kao.metrics import Score
from kao.reports.evaluations import evaluation_section
from kao.reports.page import page
from kao.reports.record import RunRecord

CARD = Card(
    subject="runs/a",
    n=300,
    size=32,
    reference="faces/",
    reference_hash="0" * 64,
    reals=900,
    features=("faces-1",),
    resize=("to 32 pixels, bilinear",),
    protocol="small-data",
)


def evaluation(value):
    measured = Measured(
        Score("kernel distance faces-1", value, 0.01, 300),
        "faces-1",
        floor=Score("kernel distance faces-1", 0.003, 0.004, 300),
    )
    copies = Measured(Score("copies", 0.02, 0.01, 300, interval=(0.01, 0.05)))
    return Evaluation(
        CARD, (measured,), {"<cat>": (measured,)}, copies, notes=("Colours agree & more.",)
    )


def section(folder, **kept):
    (folder / "run.toml").touch()
    (folder / "evaluations").mkdir(exist_ok=True)
    for name, text in kept.items():
        (folder / "evaluations" / f"{name}.json").write_text(text)
    return evaluation_section(RunRecord.read(folder))


def test_a_run_that_was_not_evaluated_has_no_section(tmp_path):
    assert section(tmp_path) == ""


def test_scores_stand_beside_those_of_real_pictures_with_their_protocol(tmp_path):
    text = section(tmp_path, a=evaluation(0.125).to_json())
    assert "<td>0.125</td><td>0.105 to 0.145</td>" in text
    assert "<td>0.003<small>\N{MINUS SIGN}0.005 to 0.011</small></td><td>300</td>" in text
    assert "<td>0.020</td><td>0.010 to 0.050</td>" in text
    assert "<li>Colours agree &amp; more.</li>" in text and "Class &lt;cat&gt;" in text
    assert "reference  900 pictures: faces/" in text


def test_the_newest_that_can_be_read_is_shown_with_its_pictures(tmp_path):
    section(tmp_path, old=evaluation(0.2).to_json())
    text = section(tmp_path, new=evaluation(0.1).to_json(), worse='{"format": 99}', no="{")
    assert "<td>0.100</td>" in text
    assert "0.200" not in text and "<img" not in text
    Image.new("RGB", (8, 8)).save(tmp_path / "evaluations" / "new-copies.png")
    assert "Samples beside the training pictures nearest to them." in section(tmp_path)


def test_the_page_of_a_run_has_its_evaluation(tmp_path):
    section(tmp_path, a=evaluation(0.125).to_json())
    assert "<h2>Evaluation</h2>" in page(RunRecord.read(tmp_path))
