"""What a floor under the Min-SNR weight gives, and how the same models are best drawn from.

    python bench/floor.py anime.zip --runs DIR --images 15000 --floors 0 0.03 0.1 --seeds 0 1

Without a floor nearly pure noise counts next to nothing, and the mean of all pictures, which is all
that can be said there, is learned badly.  Every run is `faces-32` with another loss.weight.floor,
at equal images and so at equal time; each is drawn from in two ways.  Told are two kernel distances
to real pictures, the offset of the mean colour in grey levels, and the contrast (standard deviation
of all values) relative to real pictures; and, of what the model says of noisy pictures at t = 1 and
t = 0.9, the offset of the mean colour.

A run that stands in --runs already is neither trained nor drawn from again.  Prints a line for each
and writes bench/results/floor.json.
"""

import argparse
import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import torch
from pairs import REAL, SAMPLING, SIZE, features, real_pictures
from torch import Tensor

import kao
from kao.config import SamplingConfig
from kao.data.prepare import prepare
from kao.data.sources import open_source
from kao.diffusion import DPMSolver2M, grids
from kao.machine import describe, versions
from kao.metrics import KernelDistance
from kao.metrics.spaces import open_space
from kao.pixels import to_float
from kao.runs import Run, draw

OUT = Path(__file__).parent / "results/floor.json"
SPACES = ("wavelets", "faces")
WAYS = {
    "ddim, uniform, 25 steps": SAMPLING,
    "dpm++2m, log_snr, 16 steps": SamplingConfig(DPMSolver2M(), grids.LogSNR(), 16),
}


TIMES = (1.0, 0.9)
ASKED = 256


def trained(given: argparse.Namespace, floor: str, seed: int) -> Run:
    """The run of a floor and a seed, trained unless it stands there."""
    words = [f"seed={seed}", "training.precision=bf16", f"loss.weight.floor={floor}"]
    return kao.train(
        given.faces,
        run=given.runs / f"floor-{floor}-{given.images}-{seed}",
        recipe="faces-32",
        length=f"{given.images} images",
        overrides=[*words, "hooks.samples=1000000", "evaluation.every=0"],
    )


def scores(
    run: Run, sampling: SamplingConfig, real: Mapping[str, Tensor], pictures: Tensor, *, n: int
) -> dict[str, Any]:
    """What n pictures of a run are, drawn in one way."""
    drawn = torch.cat(list(draw(run.denoiser(), run.drawing(sampling), indices=range(n))))
    told: dict[str, Any] = {}
    for space, seen in real.items():
        score = KernelDistance(seen)(features(drawn, open_space(space)))
        told |= {space: score.value, f"{space}_error": score.error}
    offset = drawn.float().mean((0, 2, 3)) - pictures.float().mean((0, 2, 3))
    contrast = drawn.float().std() / pictures.float().std()
    return {**told, "offset": offset.tolist(), "contrast": contrast.item()}


@torch.no_grad()
def answers(run: Run, pictures: Tensor) -> dict[str, list[float]]:
    """How far the mean colour of what is said of noisy pictures is off, in grey levels, by t."""
    denoiser = run.denoiser().eval()
    clean = to_float(pictures[:ASKED])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    told = {}
    for t in TIMES:
        level = denoiser.schedule(torch.tensor(t, dtype=torch.float64))
        noisy = level.alpha.float() * clean + level.sigma.float() * noise
        said = denoiser(noisy, torch.full((len(clean),), t, dtype=torch.float64)).x0
        told[str(t)] = (127.5 * (said - clean).mean((0, 2, 3))).tolist()
    return told


def main() -> None:
    """Train what is missing, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", help="a folder or zip file of pictures")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are or go")
    parser.add_argument("--images", type=int, default=15_000)
    parser.add_argument("--floors", nargs="+", default=["0", "0.03", "0.1"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--n", type=int, default=600, help="pictures drawn from each run")
    given = parser.parse_args()

    prepared = prepare(open_source(given.faces, size=SIZE), size=SIZE)
    pictures = real_pictures(prepared)
    real = {name: features(pictures, open_space(name)) for name in SPACES}
    rows = {}
    for floor in given.floors:
        for seed in given.seeds:
            run = trained(given, floor, seed)
            kept = run.path.with_name(f"{run.path.name}.json")
            told = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
            if "said" not in told:
                told["said"] = answers(run, pictures)
                kept.write_text(json.dumps(told), encoding="utf-8")
            print(f"floor {floor}, seed {seed}: said of noise {told['said']}", flush=True)
            for way, sampling in WAYS.items():
                if way not in told:
                    told[way] = scores(run, sampling, real, pictures, n=given.n)
                    kept.write_text(json.dumps(told), encoding="utf-8")
                print(f"floor {floor}, seed {seed}, {way}: {told[way]}", flush=True)
            rows[f"floor {floor}, seed {seed}"] = told
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    part = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "faces": Path(given.faces).name,
        "n": given.n,
        "real": REAL,
        "runs": rows,
    }
    text = json.dumps({**before, f"{given.images} images": part}, indent=2)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
