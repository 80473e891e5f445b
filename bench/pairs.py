"""What a choice of the mathematics is worth: pairs of short runs at equal images, several seeds.

    python bench/pairs.py anime.zip --runs /tmp/pairs --images 32000 --seeds 0 1

Every run is the recipe faces-32 with the overrides below, nothing else; each is drawn from with
the same sampler, steps and seeds, and its pictures are compared with real ones in a fixed feature
space (`kao.metrics.Wavelets`).  A run that stands in --runs already is not trained again.

Prints a table of pairs: the distance of each seed on both sides, the difference with its standard
error, and whether it is within the noise: it counts only if every seed of one side is better than
every seed of the other and the difference is more than twice its standard error.  Writes
bench/results/pairs.json.
"""

import argparse
import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import kao
from kao.config import SamplingConfig
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.diffusion import DDIM, grids
from kao.machine import describe, versions
from kao.metrics import KernelDistance, Wavelets, frechet_distance, moments
from kao.runs import Run, draw
from kao.tracking import read_events

SETTINGS: dict[str, list[str]] = {
    "base": ["loss.weight.floor=0"],
    "plain": ["loss.weight=plain"],
    "l1": ["loss.weight.floor=0", "loss.norm=l1"],
    "linear": ["loss.weight.floor=0", "schedule=linear"],
    "eps-linear": ["schedule=linear", "target=eps", "loss.weight=plain"],
    "zero-snr": ["schedule=linear", "schedule.zero_terminal_snr=true", "loss.weight=plain"],
    "moment": ["loss.weight.floor=0", "loss.times=loss_moment"],
    "warped": ["loss.weight.floor=0", "loss.times=warped"],
}
"""base: continuous cosine schedule, v target, min-SNR weight (gamma 5, without the floor that
faces-32 has by now), L2, uniform times."""

PAIRS = [
    ("cosine schedule against linear", "base", "linear"),
    (
        "v on a zero-terminal-SNR linear table against eps on the linear table",
        "zero-snr",
        "eps-linear",
    ),
    ("L1 against L2", "l1", "base"),
    ("min-SNR weight against the plain v loss", "base", "plain"),
    ("times by the loss's second moment against uniform", "moment", "base"),
    ("warped times against uniform", "warped", "base"),
]

SAMPLING = SamplingConfig(sampler=DDIM(), grid=grids.uniform, steps=25)
REAL = 4000
SIZE = 32


def trained(faces: str, folder: Path, *, name: str, seed: int, images: int) -> Run:
    """The run of one setting and seed, trained unless it stands there."""
    path = folder / f"{name}-{seed}"
    return kao.train(
        faces,
        run=path,
        recipe="faces-32",
        length=f"{images} images",
        overrides=[f"seed={seed}", *SETTINGS[name]],
    )


def features(images: Tensor, space: Wavelets) -> Tensor:
    """Of uint8 pictures (N, 3, S, S), a batch at a time."""
    return torch.cat([space(batch) for batch in images.split(250)])


def real_pictures(prepared: PreparedSet) -> Tensor:
    """REAL pictures of the set, uint8 (N, 3, S, S), the same for every bench."""
    lot = torch.randperm(len(prepared), generator=torch.Generator().manual_seed(0))[:REAL]
    return torch.stack([torch.tensor(prepared.images[int(i)]) for i in lot])


def features_of_real(prepared: PreparedSet, space: Wavelets) -> Tensor:
    """Of `real_pictures`."""
    return features(real_pictures(prepared), space)


def score(run: Run, real: Tensor, space: Wavelets, *, n: int) -> dict[str, Any]:
    """Distances of n pictures of a run, and what its training took."""
    config = run.drawing(SAMPLING)
    drawn = features(torch.cat(list(draw(run.denoiser(), config, indices=range(n)))), space)
    kernel = KernelDistance(real)(drawn)
    events = read_events(run.path)
    ends = [event for event in events if event["event"] == "end"]
    return {
        "kernel": kernel.value,
        "kernel_error": kernel.error,
        "frechet": frechet_distance(*moments(drawn), *moments(real)),
        "images": ends[-1]["images"],
        "seconds": ends[-1]["seconds"],
    }


def compared(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """The difference of two settings over their seeds, and whether it counts."""
    a, b = ([run["kernel"] for run in runs] for runs in (one, other))
    difference = sum(a) / len(a) - sum(b) / len(b)
    error = math.sqrt(
        sum(run["kernel_error"] ** 2 for run in one) / len(one) ** 2
        + sum(run["kernel_error"] ** 2 for run in other) / len(other) ** 2
    )
    apart = max(a) < min(b) or max(b) < min(a)
    return {
        "difference": difference,
        "error": error,
        "counts": apart and abs(difference) > 2 * error,
    }


def main() -> None:
    """Train what is missing, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", help="a folder or zip file of pictures")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are or go")
    parser.add_argument("--images", type=int, default=32_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--n", type=int, default=1000, help="pictures drawn from each run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/pairs.json")
    given = parser.parse_args()

    prepared = prepare(open_source(given.faces, size=SIZE), size=SIZE)
    space = Wavelets()
    real = features_of_real(prepared, space)

    results: dict[str, list[dict[str, Any]]] = {}
    for name in SETTINGS:
        for seed in given.seeds:
            run = trained(given.faces, given.runs, name=name, seed=seed, images=given.images)
            results.setdefault(name, []).append(score(run, real, space, n=given.n))
            print(f"{name}-{seed}: {results[name][-1]}", flush=True)

    pairs = []
    for title, one, other in PAIRS:
        verdict = compared(results[one], results[other])
        pairs.append({"title": title, "one": one, "other": other, **verdict})
        sides = [" ".join(f"{r['kernel']:.4f}" for r in results[side]) for side in (one, other)]
        word = "counts" if verdict["counts"] else "within the noise"
        print(
            f"{title:72} {sides[0]} | {sides[1]}   {verdict['difference']:+.4f} +- "
            f"{verdict['error']:.4f}   {word}"
        )
    about = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "faces": Path(given.faces).name,
        "images": given.images,
        "seeds": given.seeds,
        "n": given.n,
        "real": len(real),
        "features": space.name,
    }
    text = json.dumps(about | {"settings": SETTINGS, "runs": results, "pairs": pairs}, indent=2)
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
