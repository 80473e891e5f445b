import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kao.data.pictures import decode
from kao.diffusion import EDM, VE, Ancestral, DPMSolver2M, grids
from kao.reports.edits import Edited
from kao.runs import Run
from kao.runs.editing import Editor
from kao.tracking import read_events

KINDS = ("recover", "sdedit", "inpaint", "interpolate", "invert")


@pytest.fixture
def edit(kao, tiny_run, tmp_path):
    """edit("recover", "--t", 1): edits with the small run into tmp_path; what was printed."""

    def call(kind, *words, run=tiny_run):
        code, out, err = kao("edit", run, kind, *words, "--out", tmp_path / f"{kind}.png")
        assert code == 0, err
        assert f"{tmp_path / kind}.png\n" in err
        return out

    return call


def sheet(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_edit_explains_itself_with_an_example(kind, kao):
    code, out, err = kao("edit", "RUN", kind, "--help")
    assert (code, err) == (0, "")
    assert f"Example: kao edit runs/mine {kind}" in out


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_of_the_runs_own_pictures_goes_into_the_run(kind, kao, own_run):
    code, out, err = kao("edit", own_run, kind)
    path = own_run / "pictures" / f"edit-{kind}.png"
    assert (code, err) == (0, f"{path}\n")
    assert sheet(path).shape[0] > 64
    assert (out != "") == (kind == "invert")


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_a_function_of_its_seed(kind, edit, faces, tmp_path):
    drawn = []
    for seed in (1, 1, 2):
        # The run's own pictures: the seed chooses them, where it does not make the noise.
        edit(kind, "--seed", seed, "--steps", 4)
        drawn.append(sheet(tmp_path / f"{kind}.png"))
    assert np.array_equal(drawn[0], drawn[1])
    assert drawn[0].shape != drawn[2].shape or not np.array_equal(drawn[0], drawn[2])


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_can_be_filmed(kind, edit, tmp_path):
    edit(kind, "--steps", "4", "--gif", tmp_path / "way.gif")
    with Image.open(tmp_path / "way.gif") as film:
        assert film.format == "GIF" and film.n_frames >= 2


def test_recovery_has_a_row_for_each_start(edit, faces, tmp_path):
    heights = []
    for starts in ("500", "200,500", "100,200,500"):
        edit("recover", faces(2) if not heights else tmp_path / "faces", "--t", starts)
        heights.append(sheet(tmp_path / "recover.png").shape[0])
    assert heights[1] - heights[0] == heights[2] - heights[1] > 2 * 64


def test_the_wrong_start_gives_another_picture(edit, faces, tmp_path):
    folder, drawn = faces(2), []
    for start in ("t", "T"):
        edit("recover", folder, "--t", "100", "--start", start)
        drawn.append(sheet(tmp_path / "recover.png"))
    assert not np.array_equal(*drawn)


def test_the_sheet_of_the_wrong_start_has_its_own_name(kao, own_run):
    code, _, err = kao("edit", own_run, "recover", "--t", "100", "--start", "T")
    assert (code, err) == (0, f"{own_run / 'pictures' / 'edit-recover-from-T.png'}\n")
    assert not (own_run / "pictures" / "edit-recover.png").exists()


def test_sdedit_draws_with_noise_whatever_the_sampler_of_the_run(edit, tiny_run, monkeypatch):
    met = {}

    def variations(denoise, sampler, images, times, *, strengths, seed):
        met.update(sampler=sampler, strengths=strengths)
        return Edited(Image.new("RGB", (1, 1)), [], columns=1)

    monkeypatch.setattr("kao.reports.edits.variations", variations)
    edit("sdedit")
    assert Run.open(tiny_run).config.sampling.sampler == DPMSolver2M()
    assert met == {"sampler": Ancestral("beta_tilde"), "strengths": [0.5, 0.7, 0.85]}


def test_edits_go_along_even_times_where_a_run_draws_on_others(tiny_run):
    run = Run.open(tiny_run)
    denoiser, config = run.denoiser(), run.drawing()
    assert isinstance(config.sampling.grid, grids.LogSNR)
    times = Editor.of(run, config, denoiser).times
    assert torch.equal(times, grids.uniform(denoiser.schedule, 25))
    assert len(Editor.of(run, config, denoiser, steps=3).times) == 4
    drawn = Editor.of(run, config, denoiser, steps=3, as_drawn=True).times
    assert torch.equal(drawn, config.sampling.grid(denoiser.schedule, 3))
    exploding = replace(config, schedule=VE(), target=EDM())
    denoiser = exploding.build_denoiser()
    times = Editor.of(run, exploding, denoiser, steps=3).times
    assert torch.equal(times, config.sampling.grid(denoiser.schedule, 3))


def test_any_strength_can_start_on_a_chain(kao, own_run, faces, tmp_path):
    file = own_run / "run.toml"
    file.write_text(file.read_text().replace('kind = "vp_cosine"', 'kind = "cosine"\nsteps = 10'))
    for checkpoint in (own_run / "checkpoints").iterdir():
        (checkpoint / "run.toml").write_text(file.read_text())
        card = json.loads((checkpoint / "card.json").read_text())
        del card["files"]["run.toml"]
        (checkpoint / "card.json").write_text(json.dumps(card))
    folder, drawn = faces(1), []
    for strength in ("0.01", "0.1", "0.33", "0.3"):
        out = tmp_path / "drawn.png"
        words = ("sdedit", folder, "--strength", strength, "--steps", 5, "--out", out)
        code, _, err = kao("edit", own_run, *words)
        assert code == 0, err
        drawn.append(sheet(out)[-64:])
    # Without the titles: a hundredth is the first time, and a third the third.
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[2], drawn[3])
    assert not np.array_equal(drawn[1], drawn[2])


def test_completions_keep_what_is_outside_of_the_box(edit, faces, tmp_path):
    edit("inpaint", faces(2), "--mask", "0,0,8,16", "--n", "2", "--repeats", "2", "--jump", "1")
    picture = sheet(tmp_path / "inpaint.png")
    # Two rows of five pictures of 64 pixels: see `visualisation.strip`.
    width = 64
    left, top = 8, picture.shape[0] - 8 - 2 * width - 4
    columns = [picture[top : top + width, left + i * (width + 4) :][:, :width] for i in range(4)]
    for column in columns[1:]:
        assert np.array_equal(column[:, width // 2 :], columns[0][:, width // 2 :])
        assert not np.array_equal(column[:, : width // 2], columns[0][:, : width // 2])
    original = decode((tmp_path / "faces" / "0.png").read_bytes(), "0.png").image
    assert np.array_equal(columns[0][::4, ::4], original.permute(1, 2, 0).numpy())


def test_a_mask_may_be_a_picture(edit, faces, tmp_path):
    mask = Image.new("L", (16, 16), "black")
    mask.paste("white", (0, 0, 8, 16))
    mask.save(tmp_path / "mask.png")
    drawn = []
    folder = faces(2)
    for way in (tmp_path / "mask.png", "0,0,0.5,1"):
        edit("inpaint", folder, "--mask", way, "--n", "1")
        drawn.append(sheet(tmp_path / "inpaint.png"))
    assert np.array_equal(*drawn)


def test_seeds_are_joined_by_way_of_the_pictures_that_sampling_draws(kao, edit, tiny_run, tmp_path):
    edit("interpolate", "--seeds", "3,4", "--n", "2")
    picture = sheet(tmp_path / "interpolate.png")
    ends = [picture[-8 - 64 : -8, 8 + i * (64 + 4) :][:, :64] for i in range(2)]
    for seed, end in zip((3, 4), ends, strict=True):
        assert (
            kao("sample", tiny_run, "--n", "1", "--seed", seed, "--out", tmp_path / "own")[0] == 0
        )
        own = sheet(tmp_path / "own" / "000000.png")
        assert np.abs(end[::4, ::4].astype(int) - own).max() <= 1


def test_two_pictures_are_joined(edit, faces, tmp_path):
    folder = faces(3)
    edit("interpolate", folder / "0.png", folder / "1.png", "--n", "3")
    by_name = sheet(tmp_path / "interpolate.png")
    edit("interpolate", folder, "--n", "3")
    assert np.array_equal(sheet(tmp_path / "interpolate.png"), by_name)


def test_the_errors_of_an_inversion_are_printed_and_corrections_make_them_smaller(edit, faces):
    folder, errors = faces(2), []
    for iterations in (0, 20):
        words = ("invert", folder, "--steps", "10", "--iterations", iterations)
        told = json.loads(edit(*words, "--json"))
        assert (told["steps"], told["iterations"]) == (10, iterations)
        assert [figure["picture"] for figure in told["pictures"]] == ["0.png", "1.png"]
        for figure in told["pictures"]:
            assert figure["psnr"] == pytest.approx(20 * np.log10(2 / figure["rms"]))
        errors.append([figure["rms"] for figure in told["pictures"]])
        lines = edit(*words).splitlines()
        assert lines == [
            f"{figure['picture']}: RMS {figure['rms']:.2g}, PSNR {figure['psnr']:.1f} dB"
            for figure in told["pictures"]
        ]
    assert all(corrected < plain / 2 for plain, corrected in zip(*errors, strict=True))


def test_editing_leaves_the_run_as_it_was(edit, own_run):
    before = (own_run / "run.toml").read_bytes(), read_events(own_run)
    edit("sdedit", "--steps", "3", run=own_run)
    assert ((own_run / "run.toml").read_bytes(), read_events(own_run)) == before
    assert Run.open(own_run).config.sampling.steps == 2


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recover", "--t", "many"), '--t = "many"; expected numbers with commas between them.'),
        (("recover", "--t", ""), '--t = ""; expected numbers with commas between them.'),
        (("recover", "--t", "0"), "t = 0; on this schedule, which is continuous, a time is given"),
        (("recover", "--t", "100,nan"), "t = nan; on this schedule"),
        (("recover", "--start", "x"), '--start = "x"; expected t (right) or T (noisy pictures'),
        (("sdedit", "--strength", "0.5,2"), "--strength = 2; expected shares above 0 and up to 1."),
        (("sdedit", "--strength", "nan"), "--strength = nan; expected shares above 0"),
        (("inpaint", "--mask", "1,2,3"), "--mask = 1,2,3 is no box of a picture of 16 x 16 pixels"),
        (("inpaint", "--mask", "0,0,1,1"), "The mask 0,0,1,1 covers the whole picture"),
        (("inpaint", "--mask", "none.png"), "There is no mask none.png: give a picture file that"),
        (("inpaint", "--jump", "99"), "jump = 99 is too long for a way of 25 steps"),
        (("inpaint", "--jump", "0"), "--jump = 0; expected 1 or more."),
        (("interpolate", "--seeds", "1"), '--seeds = "1"; expected two whole numbers from 0 up'),
        (("interpolate", "--seeds", "1,-2"), '--seeds = "1,-2"; expected two whole numbers'),
        (("interpolate", "a.png", "--seeds", "1,2"), "--seeds joins drawn pictures, and real ones"),
        (("interpolate", "--n", "1"), "--n = 1; expected 2 or more."),
        (("invert", "--iterations", "-1"), "--iterations = -1; expected 0 or more."),
        (("invert", "nowhere.png"), "There is no picture, folder or ZIP file nowhere.png: check"),
        (("invert", "--steps", "0"), "--steps = 0; expected 1 or more."),
        (("recvor",), "No such command 'recvor'."),
        ((), "Missing command."),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_line(words, said, refused, tiny_run):
    assert refused("edit", tiny_run, *words).startswith(said)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_picture_is_named(kind, refused, tiny_run, tmp_path):
    (tmp_path / "face.png").write_text("no picture")
    said = refused("edit", tiny_run, kind, tmp_path / "face.png")
    assert said.startswith("face.png is not a picture")


def test_one_picture_alone_and_three_cannot_be_joined(refused, tiny_run, faces):
    folder = faces(3)
    for count, places in ((1, [folder / "0.png"]), (3, sorted(folder.iterdir()))):
        said = refused("edit", tiny_run, "interpolate", *places)
        assert said.startswith(f"A way joins two pictures, and there are {count}: name two")


def test_what_is_no_run_cannot_edit(refused, tmp_path):
    assert refused("edit", tmp_path, "invert").startswith(f"{tmp_path} is not a run directory")
    assert refused("edit").startswith("Missing argument 'RUN'.")


def test_a_run_whose_pictures_are_gone_wants_them_named(refused, own_run, monkeypatch, tmp_path):
    monkeypatch.setenv("KAO_CACHE", str(tmp_path / "other"))
    said = refused("edit", own_run, "invert")
    assert said.startswith("The pictures that the run learned from are not here any more")


def test_a_place_that_cannot_be_written_is_named(refused, tiny_run, faces, tmp_path):
    said = refused("edit", tiny_run, "invert", faces(2), "--out", tmp_path)
    assert said.startswith(f"{tmp_path} is in the way, since it is no file")


@pytest.mark.parametrize(
    ("option", "name", "said"),
    [
        ("--out", "x.gif", "the sheet is written as .png: give it that ending."),
        ("--gif", "x.png", "the film is written as .gif: give it that ending."),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_ending_is_refused(kind, option, name, said, refused, tiny_run, tmp_path):
    place = tmp_path / name
    assert refused("edit", tiny_run, kind, option, place) == f"{option} = {place}, but {said}"
    assert not place.exists()


def test_a_sheet_and_a_film_are_two_files(refused, tiny_run, tmp_path):
    place = tmp_path / "x"
    same = tmp_path / "." / "y" / ".." / "x"
    said = refused("edit", tiny_run, "invert", "--out", place, "--gif", same)
    assert said == f"--out and --gif are both {place}: give them two names."
