import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from several import several

from kao import files
from kao.cli import run as command
from kao.config import SamplingConfig
from kao.diffusion import grids
from kao.evaluation import Card, Evaluation, differences, open_pictures, protocol_of
from kao.files import save_npz
from kao.processes import ALONE
from kao.runs import Run, draw
from kao.runs.averages import Facts, SavedAverage
from kao.runs.evaluating import (
    EVALUATIONS,
    evaluation_file,
    load_evaluations,
    sampling_of,
    save_evaluation,
    subject_of_run,
)
from kao.runs.guiding import sampling_table

FEW = ("--features", "wavelets", "--metrics", "kernel,drift", "--n", 6)


@pytest.fixture
def array(tmp_path):
    """An NPZ file of sixty pictures of 16 pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "drawn.npz", pixels)
    return tmp_path / "drawn.npz"


def test_a_run_is_scored_and_the_evaluation_kept(kao, own_run):
    code, out, err = kao("evaluate", own_run, *FEW)
    assert code == 0, err
    (kept,) = load_evaluations(own_run)
    lines = out.splitlines()
    assert lines[0].split() == ["score", "value", "95", "%", "interval", "floor", "n"]
    assert lines[1].startswith("kernel distance wavelets-1")
    assert f"{kept.scores[0].score.value:.4g}" in lines[1]
    assert [line.split()[0] for line in lines[2:5]] == ["red", "green", "blue"]
    card = kept.card
    assert (card.n, card.reals, card.images, card.sampling["steps"]) == (6, 8, 16, 2)
    assert (card.ema, card.precision) == ("ema-0.999", "fp32")
    assert card.sampling == sampling_table(
        replace(Run.open(own_run).config.sampling, steps=2), None
    )
    assert f"after 16 images\n{card.lines()[2]}" in out
    names = sorted(path.name for path in (own_run / EVALUATIONS).iterdir())
    stem = f"000000016-small-data+n6-{card.question}"
    assert names == [f"{stem}-typical.png", f"{stem}.json"]
    assert "of 8 reference pictures were trained on" in out


def test_the_same_scores_are_printed_as_json(kao, own_run):
    code, out, _ = kao("evaluate", own_run, *FEW, "--json")
    assert code == 0
    assert Evaluation.from_json(out) == load_evaluations(own_run)[0]
    again = json.loads(kao("evaluate", own_run, *FEW, "--json", "--seed", 1)[1])
    assert again["scores"][0]["score"] != json.loads(out)["scores"][0]["score"]


def test_the_seed_chooses_which_pictures_of_a_folder_are_scored(kao, array):
    words = ("evaluate", array, "--real", "toy:30", *FEW, "--json")
    one, other, same = (
        json.loads(kao(*words, *seed)[1]) for seed in ((), ("--seed", 1), ("--seed", 0))
    )
    assert [found["card"]["seed"] for found in (one, other, same)] == [0, 1, 0]
    assert one["scores"] == same["scores"] != other["scores"]


def test_changes_to_the_drawing_are_in_the_name(kao, own_run):
    words = ("--steps", 3, "--sampler", "heun", "--weights", "model")
    code, _, err = kao("evaluate", own_run, *FEW, *words)
    assert code == 0, err
    (kept,) = load_evaluations(own_run)
    assert kept.card.protocol == "small-data+n6+heun+steps3"
    assert kept.card.sampling["sampler"]["kind"] == "heun"
    assert (kept.card.sampling["steps"], kept.card.ema) == (3, "model")
    stem = f"000000016-small-data+n6+heun+steps3-model-{kept.card.question}"
    assert (own_run / EVALUATIONS / f"{stem}.json").is_file()


def test_another_threshold_makes_another_card(kao, own_run):
    toml = own_run / "run.toml"
    for limit in (1.0, 0.5):
        toml.write_text(toml.read_text().replace("limit = 1.0", f"limit = {limit}"))
        assert kao("evaluate", own_run, *FEW)[0] == 0
    one, other = (evaluation.card for evaluation in load_evaluations(own_run))
    (sentence,) = differences(one, other)
    assert "sampling.threshold.limit = 0.5" in sentence
    assert "threshold.limit 0.5" in one.lines()[-1] + other.lines()[-1]


def test_another_question_takes_the_place_of_no_answer(own_run):
    run = Run.open(own_run)
    card = Card(
        subject="run",
        images=16,
        n=6,
        size=16,
        reference=run.config.data.source,
        reference_hash="ab" * 32,
        reals=8,
        features=("faces-1",),
        resize=("none",),
        sampling=sampling_table(SamplingConfig(steps=2), None),
        seed=0,
        metrics=protocol_of("small-data").metrics,
        protocol="small-data+n6",
    )
    plain = own_run / EVALUATIONS / "000000016-small-data+n6.json"
    for _ in range(2):
        assert save_evaluation(run, Evaluation(card, ())) == plain
    others = [
        {"seed": 1},
        {"reference": "elsewhere", "reference_hash": "cd" * 32},
        {"metrics": ("kernel",)},
        {"features": ("wavelets-1",)},
        {"sampling": sampling_table(SamplingConfig(steps=9), None)},
    ]
    for other in others:
        asked = replace(card, **other)
        file = save_evaluation(run, Evaluation(asked, ()))
        assert file.name == f"000000016-small-data+n6-{asked.question}.json"
        assert evaluation_file(run, asked, ending="-copies.png").stem == f"{file.stem}-copies"
    assert len(load_evaluations(own_run)) == 1 + len(others)
    plain.write_text("{")
    assert save_evaluation(run, Evaluation(card, ())) == plain


def test_the_weights_that_are_named_draw(own_run):
    drawn = {}
    for weights in ("ema", "model"):
        run, protocol = Run.open(own_run), protocol_of("small-data").changed(n=2)
        subject = subject_of_run(run, protocol, weights=weights)
        drawn[weights] = subject.drawn(ALONE, lambda done, total: None).images
        config = run.drawing(sampling_of(run.config, protocol))
        denoiser = run.denoiser(weights=weights)
        assert torch.equal(drawn[weights], next(draw(denoiser, config, indices=range(2), seed=0)))
    assert not torch.equal(*drawn.values())


def test_weights_that_were_chosen_by_their_score_are_told_to_be_lucky(own_run):
    run, protocol = Run.open(own_run), protocol_of("small-data").changed(n=2)
    checkpoint = run.checkpoint()[0]
    (tensors,) = (load_file(path) for path in checkpoint.path.rglob("*ema*.safetensors"))
    SavedAverage(Facts("ema-0.999", 16), tensors).save(own_run, "best-score")

    def notes(weights):
        subject = subject_of_run(run, protocol, weights=weights)
        return subject.drawn(ALONE, lambda done, total: None).notes

    assert notes("ema") == ()
    assert notes("best-score")[0].startswith(
        "The weights best-score were chosen by their score while training, so their score is "
    )


def test_a_protocol_says_how_a_run_draws(own_run):
    run = Run.open(own_run)
    sampling = run.config.sampling
    table = protocol_of("ddim-table")
    asked = sampling_of(run.config, replace(table, grid=grids.Karras()))
    assert (asked.sampler, asked.steps, asked.grid) == (table.sampler, 50, grids.Karras())
    assert sampling.grid != grids.Karras()
    assert sampling_of(run.config, protocol_of("small-data")) == sampling


def test_larger_real_pictures_are_brought_to_size_and_smaller_ones_refused(
    kao, refused, array, tmp_path
):
    for side in (8, 24):
        (tmp_path / f"{side}").mkdir()
        for i in range(4):
            pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"{side}" / f"{i}.png")
    words = ("--features", "wavelets", "--metrics", "kernel", "--n", 6)
    code, out, err = kao("evaluate", array, "--real", tmp_path / "24", *words)
    assert code == 0, err
    assert f"4 pictures: {tmp_path / '24'}, resized from 24 x 24 pixels, (sha256" in out
    said = refused("evaluate", array, "--real", tmp_path / "8", *words)
    assert "pictures of 16 pixels and" in said and "4 smaller ones of 4: give" in said
    train = ("--train", tmp_path / "8")
    assert "smaller ones" in refused("evaluate", array, "--real", "toy:20", *train, *words)
    code, out, err = kao("evaluate", array, "--real", tmp_path / "8", "--size", 16, *words)
    assert (code, "smaller than 16 pixels and are enlarged" in out) == (0, True), err


def test_folders_and_arrays_are_scored_against_real_pictures(kao, array, faces):
    for drawn in (array, faces(5)):
        code, out, err = kao("evaluate", drawn, "--real", "toy:100", *FEW[:4])
        assert code == 0, err
        assert f"pictures of 16 pixels: {drawn}" in out
    code, out, err = kao("evaluate", array, "--real", "toy:100", "--size", 16, *FEW)
    assert (code, "6 of 60 drawn pictures" in out) == (0, True), err


def test_copies_of_named_training_pictures_are_found(kao, tmp_path):
    train = open_pictures("toy:100", size=16)
    save_npz(tmp_path / "drawn.npz", train.images[:40].permute(0, 2, 3, 1).numpy())
    words = ("--real", "toy:100", "--train", "toy:100", "--features", "wavelets")
    code, out, err = kao("evaluate", tmp_path / "drawn.npz", *words, "--metrics", "copies,kernel")
    assert code == 0, err
    (row,) = [line.split() for line in out.splitlines() if line.startswith("copies")]
    assert float(row[1]) > 0.9


def test_a_reference_that_was_saved_takes_the_place_of_the_pictures(kao, array, tmp_path):
    file = tmp_path / "made" / "toy.npz"
    words = ("--features", "wavelets", "--metrics", "kernel")
    saving = ("--save-reference", file)
    code, _, err = kao("evaluate", array, "--real", "toy:100", *words, *saving)
    assert code == 0, err
    code, out, err = kao("evaluate", array, "--real", file, *words)
    assert code == 0, err
    assert "100 pictures: " + str(file) in out
    code, _, err = kao("evaluate", array, "--real", file, "--features", "faces", *words[2:])
    assert (code, 'made in the feature space "wavelets-1"' in err) == (2, True)


def score_together(run, file):
    torch.set_num_threads(1)
    assert command(["evaluate", str(run), *map(str, FEW), "--batch", "2"]) == 0


def test_two_processes_find_the_scores_of_one(own_run, kao, tmp_path):
    together = shutil.copytree(own_run, tmp_path / "together")
    several(2, score_together, together, tmp_path)
    assert kao("evaluate", own_run, *FEW, "--batch", "2")[0] == 0
    (one,), (other,) = load_evaluations(own_run), load_evaluations(together)
    assert [m.score.value for m in other.scores] == pytest.approx(
        [m.score.value for m in one.scores], rel=1e-4
    )
    assert one.card.reference_hash == other.card.reference_hash


def test_mistakes_are_told_in_one_line(refused, array, own_run, faces, tmp_path):
    said = refused("evaluate", array)
    assert "name real pictures with --real" in said
    assert "nowhere" in refused("evaluate", "nowhere", "--real", "toy:20")
    assert "leave it out, or name a run" in refused(
        "evaluate", array, "--real", "toy:20", "--steps", 3
    )
    assert "draws at its own size" in refused("evaluate", own_run, "--size", 32)
    assert 'did you mean "kernel"' in refused("evaluate", own_run, "--metrics", "kernl")
    assert 'did you mean "faces"' in refused("evaluate", own_run, "--features", "facs")
    assert 'did you mean "clean-fid"' in refused("evaluate", own_run, "--protocol", "cleanfid")
    assert 'did you mean "heun"' in refused("evaluate", own_run, "--sampler", "huen")
    assert "only in inception" in refused(
        "evaluate", own_run, "--metrics", "fid", "--features", "faces"
    )
    assert "no such file" in refused(
        "evaluate", own_run, "--metrics", "fid", "--weights", "inception=nowhere.pt"
    )
    assert 'weights are given for "inceptoin"' in refused(
        "evaluate", own_run, "--weights", "inceptoin=nowhere.pt"
    )
    assert "one model draws" in refused(
        "evaluate", own_run, "--weights", "ema", "--weights", "best"
    )
    assert "expected ema, model, best-score" in refused("evaluate", own_run, "--weights", "wrong")
    assert "choose one with --features" in refused(
        "evaluate",
        own_run,
        *("--metrics", "kernel", "--features", "wavelets", "--features", "faces"),
        *("--save-reference", tmp_path / "a.npz"),
    )
    text = tmp_path / "text.pt"
    text.write_text("no network")
    assert "cannot be read as TorchScript" in refused(
        "evaluate", own_run, "--protocol", "clean-fid", "--weights", f"inception={text}"
    )
    folder = faces(3)
    shutil.copy(own_run / "samples" / next((own_run / "samples").iterdir()).name, folder / "z.png")
    assert "z.png" in refused("evaluate", folder, "--real", "toy:20")


@pytest.mark.parametrize("full", [EVALUATIONS, "reference.npz"])
def test_scores_are_printed_though_a_file_of_them_finds_no_room(
    kao, own_run, tmp_path, full, monkeypatch
):
    sync = files.sync

    def no_room(path):
        if full in str(path):
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(path)

    monkeypatch.setattr(files, "sync", no_room)
    reference = tmp_path / "reference.npz"
    code, out, err = kao("evaluate", own_run, *FEW, "--save-reference", reference)
    assert code == 2 and "The disk is full" in err
    assert "kernel" in out
