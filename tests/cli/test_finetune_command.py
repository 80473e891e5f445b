import shutil

import pytest

from kao.runs import Run

QUIET = ("training.precision=fp32", "hooks.pictures=2", "evaluation.every=0")


@pytest.fixture
def finetune(tiny_run, tmp_path):
    """The words of a small run that begins with a copy of tiny_run; more may follow."""
    base = shutil.copytree(tiny_run, tmp_path / "base")
    return ("finetune", base, "toy:12", *QUIET, "--run", tmp_path / "tuned")


def test_it_trains_says_what_is_kept_and_goes_on(kao, finetune, tmp_path):
    code, out, err = kao(*finetune, "--steps", 2, "--freeze", 1, "data.augment.edm=0")
    assert (code, out) == (0, "")
    assert "Beginning with" in err and "weights begin as the base has them." in err
    assert "Chosen for 12 pictures" in err and "network.dropout = 0.3" in err
    assert ", 0.5 of the base's rate" in err
    assert " weights learn: those behind the first block.\n" in err
    assert "Finished at 8 images" in err
    tuned = Run.open(tmp_path / "tuned").config
    assert (tuned.finetune.base, tuned.finetune.freeze) == (str(tmp_path / "base"), 1)
    code, _, err = kao(*finetune, "--steps", 2, "--freeze", 1, "data.augment.edm=0")
    assert code == 0 and "is finished; a greater length goes on with it." in err
    _, out, _ = kao(*finetune, "--steps", 3, "--freeze", 1, "data.augment.edm=0", "--dry-run")
    began = f"and began with {tmp_path / 'base'}: it would go on from there, unless its 3 steps"
    assert f"# {tmp_path / 'tuned'} exists, at 8 images, {began} are over.\n" in out
    assert "# length was '2 steps' and is '3 steps' now.\n" in out


def test_what_learns_is_counted(kao, finetune):
    _, out, _ = kao(*finetune, "--steps", 2, "--train", "lora", "--dry-run")
    (told,) = (line for line in out.splitlines() if line.endswith(": adapters of rank 8."))
    learning, total = (int(word) for word in told.replace(",", "").split() if word.isdecimal())
    assert 0 < learning < total / 4
    _, out, _ = kao(*finetune, "--steps", 2, "--dry-run")
    assert " weights learn" not in out


def test_an_imported_base_has_a_rate_of_its_own(kao, finetune, tmp_path):
    file = tmp_path / "base.safetensors"
    assert kao("export", finetune[1], "--to", "safetensors", "--out", file)[0] == 0
    _, out, _ = kao("finetune", file, *finetune[2:], "--steps", 2, "--dry-run")
    assert "# It learns by adamw at 0.0001, since nobody knows how the base was trained" in out


def test_a_rate_that_is_asked_for_is_not_explained(kao, finetune):
    code, out, _ = kao(*finetune, "--steps", 2, "optimizer.rate=1e-3", "--dry-run")
    assert code == 0 and "It learns at" not in out


def test_a_dry_run_of_a_branch_says_what_it_would_begin_with(kao, finetune, tmp_path):
    branch = ("--run", finetune[1], "--branch", tmp_path / "branch")
    _, out, _ = kao("train", "toy:8", *branch, "--steps", 6, "--dry-run")
    assert f"branch would begin with what {finetune[1]} has learned in 16 images.\n" in out


def test_a_dry_run_prints_what_would_be_run_and_writes_nothing(kao, finetune, tmp_path):
    code, out, _ = kao(*finetune, "--steps", 2, "--train", "norms_attention", "--dry-run")
    assert code == 0
    assert 'train = "norms_attention"' in out and "dropout = 0.3" in out
    assert 'new = [\n    "augmented.weight",\n]' in out
    for said in ("# Beginning with ", "# Chosen for 12 pictures", "# The network is told what was"):
        assert said in out
    assert " weights begin as the base has them.\n" in out
    assert " weights learn: norms and attention.\n" in out
    assert not (tmp_path / "tuned").exists()


def test_the_run_is_named_after_its_pictures_and_its_base(kao, finetune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*finetune[: finetune.index("--run")], "--steps", "1"]
    assert kao(*words)[0] == 0
    assert (tmp_path / "runs" / "toy-12-from-base" / "run.toml").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--train", "heads"), "finetune.train = 'heads' in the command line; expected one of"),
        (("--freeze", "-1"), "finetune.freeze = -1; expected 0 or more."),
        (("network.width=16",), "network.width = 8 there and 16 now"),
        (("finetune.old_rate=nan",), "finetune.old_rate = nan; expected a number above 0"),
        (("finetune.alpha=inf",), "finetune.alpha = inf; expected a number above 0"),
        (("finetune.rank=0",), "finetune.rank = 0; expected 1 or more."),
        (
            ("--train", "lora", "finetune.rank=4", "optimizer.method=muon"),
            "set finetune.rank = 8 or more, or optimizer.method",
        ),
        (("--size", "17"), "data.size = 17"),
    ],
)
def test_mistakes_are_told_in_one_line(refused, finetune, words, said):
    assert said in refused(*finetune, "--steps", "1", *words, "--dry-run")


def test_a_base_is_not_written_into(refused, finetune, tmp_path):
    base, words = finetune[1], (*finetune[:-1], finetune[1], "--steps", 1)
    said = "would be written into the same directory: give another --run"
    assert said in refused(*words)
    (checkpoint, *_) = sorted((base / "checkpoints").iterdir())
    assert said in refused(words[0], checkpoint, *words[2:])
    assert said in refused(words[0], tmp_path / "base" / ".", *words[2:])


def test_arguments_in_the_wrong_order_are_told(refused, finetune):
    base = finetune[1]
    assert f"comes first, as in kao finetune {base} toy:12." in refused("finetune", "toy:12", base)
    said = "toy:12 names pictures, and a trained model comes first: kao finetune BASE toy:12."
    assert said in refused("finetune", "toy:12", "toy:9")


def test_a_base_that_is_nowhere_is_told(refused, tmp_path):
    assert "nowhere" in refused("finetune", tmp_path / "nowhere", "toy:12", "--steps", "1")
