"""What of a run is given away: its weights, what is known of them, and nothing of this machine."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from test_importing import model_of

from kao.checkpoints import Checkpoint
from kao.config.finetuning import FinetuneConfig
from kao.diffusion import Linear, targets
from kao.evaluation import Card, Evaluation
from kao.evaluation.results import Measured
from kao.exchange import import_model
from kao.exchange.card import model_card
from kao.metrics.scores import Score
from kao.runs import Run
from kao.runs.evaluating import save_evaluation
from kao.runs.exporting import public, public_source, trained
from kao.runs.importing import write_run
from kao.runs.publishing import Said, copied, facts_of, write_model

ME = Said(name="me/faces")


@pytest.fixture
def run(tiny_run, tmp_path):
    return Run.open(shutil.copytree(tiny_run, tmp_path / "secret" / "cats"))


def rewritten(run, config):
    """The same run, as if it had been of that configuration."""
    checkpoint = Checkpoint.all(run.path)[-1]
    weights = {
        file.stem: checkpoint.weights(file.stem) for file in checkpoint.path.glob("*.safet*")
    }
    told = {"images": checkpoint.images, "config": config.to_toml(), "weights": weights}
    Checkpoint.write(run.path, **told, state={}, card={})
    (run.path / "run.toml").write_text(config.to_toml())


def evaluated(run, *, low=0.0, images=16, ema="ema-0.999", source="/home/someone/faces"):
    card = Card(
        subject=str(run.path),
        images=images,
        n=100,
        size=16,
        reference=source,
        reference_hash="0" * 64,
        reals=50,
        features=("wavelets-1",),
        resize=("as they are",),
        protocol="small-data",
        ema=ema,
    )
    share = Score("copies", low + 0.02, 0.01, 100, interval=(low, low + 0.04))
    floor = Score("copies, real pictures", 0.01, 0.01, 50, interval=(0.0, 0.03))
    evaluation = Evaluation(
        card,
        (Measured(Score("kernel distance", 12.5, 0.5, 100)),),
        copies=Measured(share, floor=floor),
        notes=(f"7 of 100 samples (7.0%) are copies of {source}.",),
    )
    save_evaluation(run, evaluation)


def page_of(run, folder, **said):
    write_model(run, trained(run), folder, said=Said(**{"name": "me/faces", **said}), pictures=2)
    return (folder / "README.md").read_text()


def front_matter(page):
    return yaml.safe_load(page.split("---\n")[1])


def test_the_folder_has_weights_configuration_pictures_and_a_page(run, tmp_path):
    page = page_of(run, tmp_path / "out", licence="mit", data_licence="CC BY 4.0, by: me")
    assert {f.name for f in (tmp_path / "out").iterdir()} >= {
        "README.md",
        "kao.safetensors",
        "run.toml",
        "samples.png",
    }
    told = front_matter(page)
    assert (told["license"], told["library_name"]) == ("mit", "kao")
    assert "diffusion" in told["tags"] and "base_model" not in told
    assert "CC BY 4.0, by: me" in page and "kao import me/faces" in page
    model = import_model(str(tmp_path / "out"))
    ours = Checkpoint.all(run.path)[-1].weights("ema-0.999")
    assert all(torch.equal(t, ours[f"network.{name}"]) for name, t in model.weights.items())


def test_what_was_not_said_or_measured_is_said_not_to_be(run, tmp_path):
    page = page_of(run, tmp_path / "out")
    assert front_matter(page)["license"] == "unknown"
    for words in ("not stated: ask before you share", "were not evaluated", "was not checked"):
        assert words in page
    assert "diffusers cannot load it" in page


def test_scores_of_these_very_weights_are_told_with_their_intervals(run, tmp_path):
    evaluated(run)
    page = page_of(run, tmp_path / "out")
    assert "| kernel distance | 12.5 | 11.5 to 13.5 |" in page
    assert "100 samples (7.0%) are copies of faces." in page
    assert "draws training pictures" not in page


@pytest.mark.parametrize("other", [{"images": 8}, {"ema": "w0.100"}])
def test_scores_of_other_weights_are_not(run, tmp_path, other):
    evaluated(run, **other)
    assert "were not evaluated" in page_of(run, tmp_path / "out")


def test_a_model_that_draws_training_pictures_is_called_one(run, tmp_path):
    evaluated(run, low=0.2)
    assert "are copies" in copied(run, trained(run))
    assert "> **This model draws training pictures.**" in page_of(run, tmp_path / "out")


def test_nothing_that_is_given_away_names_a_folder_of_this_machine(run, tmp_path):
    source = "/home/someone/faces"
    rewritten(run, replace(run.config, data=replace(run.config.data, source=source)))
    evaluated(run)
    page_of(run, tmp_path / "out")
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            assert b"someone" not in file.read_bytes() and b"secret" not in file.read_bytes()


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("/home/me/cats", "cats"),
        ("cats.zip", "cats.zip"),
        ("toy:80", "toy:80"),
        ("toy", "toy"),
        ("hf:owner/cats", "hf:owner/cats"),
        ("hf:/data/saved/cats", "hf:cats"),
        ("hf:./cats", "hf:cats"),
    ],
)
def test_a_source_keeps_its_name_and_loses_its_folder(source, told):
    assert public_source(source) == told


def test_a_network_goes_as_what_it_was_made_for(run):
    tuned = FinetuneConfig(base="/home/someone/base", schedule=Linear(), target=targets.eps)
    rewritten(run, replace(run.config, finetune=tuned))
    given = trained(run)
    assert (given.config.schedule, given.config.target) == (Linear(), targets.eps)
    assert given.config.finetune == FinetuneConfig(base="base")
    assert given.schedule.t_max == 1000 and given.denoiser.native is None


def test_guidance_by_another_run_stays_here(run):
    config = run.config
    guidance = replace(config.sampling.guidance, worse="/home/someone/worse", scale=2.0)
    config = replace(config, sampling=replace(config.sampling, guidance=guidance))
    (run.path / "run.toml").write_text(config.to_toml())
    assert trained(run).config.sampling.guidance.worse == ""
    assert public(config, base="").sampling.guidance.worse == "worse"


def test_the_events_of_the_run_are_told(run, tmp_path):
    start = json.loads((run.path / "metrics.jsonl").read_text().splitlines()[0])
    page = page_of(run, tmp_path / "out")
    assert f"{start['pictures']} of them at 16 pixels" in page and "recipe: toy-32" in page


def test_what_is_published_does_not_depend_on_the_present_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "cats").mkdir(parents=True)
    assert public_source("hf:owner/cats") == "hf:owner/cats"


def test_an_imported_model_is_not_said_to_be_trained_here(tmp_path):
    run = write_run(model_of(licence="apache-2.0"), tmp_path / "imported")
    page = page_of(run, tmp_path / "out")
    told = front_matter(page)
    assert (told["license"], told["base_model"]) == ("apache-2.0", "owner/name")
    assert "imported from owner/name with kao" in page and "not trained here" in page
    assert "licence of owner/name" in page
    for words in (
        "trained with kao",
        "of them at",
        "machine:",
        "images seen",
        "has seen",
        "recipe",
    ):
        assert words not in page
    page = page_of(run, tmp_path / "other", licence="mit")
    assert front_matter(page)["license"] == "mit" and "apache-2.0" in page


def test_a_model_from_a_file_is_told_by_the_file_and_has_no_base_on_the_hub(tmp_path):
    model = replace(model_of(licence="Mine, ask me"), origin="/home/someone/faces.pt")
    page = page_of(write_run(model, tmp_path / "imported"), tmp_path / "out")
    told = front_matter(page)
    assert told["license"] == "unknown" and "base_model" not in told
    assert "imported from faces.pt" in page and "Mine, ask me" in page and "someone" not in page


def test_a_tuned_model_tells_its_base_on_the_hub_and_the_licence_of_that(run, tmp_path):
    tuned = FinetuneConfig(base="runs/celeb", sha256="0" * 64)
    rewritten(run, replace(run.config, finetune=tuned))
    page = page_of(run, tmp_path / "one")
    assert "base_model" not in front_matter(page) and "fine-tuned from: celeb" in page
    log = run.path / "metrics.jsonl"
    start = {"event": "start", "images": 0, "hub": "google/x", "licence": "cc-by-nc-4.0"}
    log.write_text(json.dumps(start) + "\n" + log.read_text())
    page = page_of(run, tmp_path / "two")
    assert front_matter(page)["base_model"] == "google/x"
    assert front_matter(page)["license"] == "unknown"  # it is for who tuned it to say
    assert "fine-tuned from: google/x" in page and "cc-by-nc-4.0" in page
    assert "runs/celeb" not in (tmp_path / "two" / "run.toml").read_text()


def test_what_a_user_typed_cannot_change_the_page(run, tmp_path):
    typed = "mine\n\n# Scores\n| a | b |\n[x](y)"
    facts = facts_of(run, trained(run), said=Said("me/faces", typed), diffusers=True)
    page = model_card(replace(facts, classes=("a|b", "<c>"), recipe="# mine"))
    assert page.count("\n# ") == 1 and page.count("\n## Scores") == 1
    assert "mine # Scores \\| a \\| b \\| \\[x\\](y)" in page
    assert "a\\|b, \\<c\\>" in page and "recipe: \\# mine" in page
