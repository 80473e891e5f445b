"""What ten minutes are best spent on: one choice after the other, at equal cost.

    python bench/search.py anime.zip --runs DIR --images 32000 --seeds 0 1 --settings base rate

Each setting is `faces-32` as it was (below, under "base") with some keys changed.  It sees as many
images as "base" would in the time: the cost of an image relative to base's is measured first, in
processor seconds of one process, both sides in turns, at ten moments of the run (curricula cost
more towards its end), and the number of images divided by it.  So the comparison is one of equal
time on an undisturbed machine, whatever else this one is doing.

Every run is drawn from with the same sampler, steps and seeds, and its pictures are compared with
real ones in a fixed feature space (`kao.metrics.Wavelets`), by the kernel distance with its error
and by the Frechet distance.  A run that stands in --runs already is not trained again.  Prints a
line each and adds them to bench/results/search.json.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

from costs import relative_costs
from pairs import SAMPLING, features_of_real, score

import kao
from kao.config import Request, RunConfig, dump
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.machine import describe, versions
from kao.metrics import Wavelets
from kao.runs import Run

SIZE = 32
BASE = [
    "optimizer.method=adamw",
    "optimizer.rate=1e-3",
    "training.batch=32",
    "network.width=48",
    "loss.weight.floor=0",
]
MUON = ["optimizer.method=muon", "optimizer.rate=4e-3"]
SETTINGS: dict[str, list[str]] = {
    "base": [],
    "rate 2e-3": ["optimizer.rate=2e-3"],
    "rate 4e-3": ["optimizer.rate=4e-3"],
    "muon 1e-3": ["optimizer.method=muon"],
    "muon 2e-3": ["optimizer.method=muon", "optimizer.rate=2e-3"],
    "muon 4e-3": MUON,
    "muon 4e-3, batch 64": [*MUON, "training.batch=64"],
    "muon 7e-3, batch 64": [MUON[0], "optimizer.rate=7e-3", "training.batch=64"],
    "muon 4e-3, batch 64, patches": [*MUON, "training.batch=64", "training.curriculum=patches"],
    "muon 4e-3, batch 64, progressive": [
        *MUON,
        "training.batch=64",
        "training.curriculum=progressive",
    ],
}
"""One after the other, as they were tried; the last three start from the winner, the seventh."""


def config_of(overrides: list[str], *, images: int) -> RunConfig:
    """The recipe with the keys changed, of a length in images."""
    words = [*BASE, *overrides, "training.precision=bf16", f"length={images} images"]
    return Request.of("faces-32", words).over(dump(RunConfig()))


def cost(overrides: list[str], prepared: PreparedSet, *, images: int) -> float:
    """Processor seconds an image, relative to base's, over a whole run."""
    sides = [config_of(words, images=images) for words in ([], overrides)]
    return relative_costs(sides, prepared, images=images)[1]


def trained(
    faces: str, path: Path, overrides: list[str], *, prepared: PreparedSet, seed: int, images: int
) -> tuple[Run, float]:
    """The run of one setting and seed, trained unless it stands there, and its relative cost."""
    noted = path / "cost.json"
    if not noted.exists():
        relative = cost(overrides, prepared, images=images) if overrides else 1.0
        path.mkdir(parents=True, exist_ok=True)
        length = round(images / relative)
        kao.train(
            faces,
            run=path,
            recipe="faces-32",
            length=f"{length} images",
            overrides=[f"seed={seed}", "hooks.samples=1000000", *BASE, *overrides],
        )
        noted.write_text(json.dumps(relative), encoding="utf-8")
    return Run.open(path), json.loads(noted.read_text(encoding="utf-8"))


def main() -> None:
    """Train what is missing, score, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", help="a folder or zip file of pictures")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are or go")
    parser.add_argument("--images", type=int, default=32_000, help="what base sees")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--n", type=int, default=600, help="pictures drawn from each run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/search.json")
    given = parser.parse_args()

    prepared = prepare(open_source(given.faces, size=SIZE), size=SIZE)
    space = Wavelets()
    real = features_of_real(prepared, space)

    before = json.loads(given.out.read_text(encoding="utf-8")) if given.out.exists() else {}
    results: dict[str, list[dict[str, Any]]] = before.get("runs", {})
    for name in given.settings:
        for seed in given.seeds:
            run, relative = trained(
                given.faces,
                given.runs / f"{name.replace(' ', '-').replace(',', '')}-{seed}",
                SETTINGS[name],
                prepared=prepared,
                seed=seed,
                images=given.images,
            )
            told = {"seed": seed, "cost": relative, **score(run, real, space, n=given.n)}
            others = [result for result in results.get(name, []) if result["seed"] != seed]
            results[name] = [*others, told]
            print(
                f"{name}, seed {seed}: cost {relative:.2f}, {told['images']:,} images, kernel "
                f"{told['kernel']:.3f} +- {told['kernel_error']:.3f}, "
                f"Frechet {told['frechet']:.2f}",
                flush=True,
            )
    about = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "faces": Path(given.faces).name,
        "images": given.images,
        "n": given.n,
        "real": len(real),
        "features": space.name,
        "sampler": f"{type(SAMPLING.sampler).__name__}, {SAMPLING.steps} steps",
        "base": BASE,
    }
    text = json.dumps(about | {"settings": SETTINGS, "runs": results}, indent=2)
    given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
