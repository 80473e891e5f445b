"""The networks against their papers, and against one another.

    python bench/backbones.py table
    python bench/backbones.py speed --rounds 3 --seconds 4
    python bench/backbones.py quality anime.zip --runs DIR --images 24000 --seeds 0 1

table    Parameters and operations of each published shape, beside what its paper says; counted on
         the meta device, a multiply-add as two.
speed    Images a second of training and the largest memory of each recipe for 32x32, of which
         each differs from `faces-32` in its network alone (and, where the recipe says so, in its
         optimiser), in turns, each in a process of its own.
quality  Each of these trains for as long as `faces-32` takes for --images: the cost of an image is
         measured first, in processor seconds of one process, all in turns, and the images are
         divided by it.  So the comparison is one of equal time on an undisturbed machine.  600
         pictures of each are compared with real ones.  A run that stands in --runs already is
         neither trained nor scored again.

Each part writes its own to bench/results/backbones.json.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import torch
from costs import relative_costs
from pairs import REAL, SIZE, features, features_of_real
from published import config_of, published
from torch import Tensor
from turns import in_turns, ratios, spread

import kao
from kao.config.run import CHANNELS
from kao.data.prepare import prepare
from kao.data.prepared import PreparedSet
from kao.data.sources import open_source
from kao.machine import describe, versions
from kao.metrics import KernelDistance
from kao.metrics.spaces import open_space
from kao.networks.cost import flops, parameters
from kao.runs import Run, draw

OUT = Path(__file__).parent / "results/backbones.json"
RECIPES = ("faces-32", "ddpm-32", "adm-32", "linear-32", "dit-32", "edm2-32")
SPACES = ("wavelets", "faces")


def table(given: argparse.Namespace) -> dict[str, Any]:
    """Print and return what is counted and what the papers say."""
    rows = []
    for each in published():
        counted = each.counted()
        row = {
            "name": each.name,
            "source": each.source,
            **counted,
            "paper_parameters_millions": each.parameters,
            "paper_multiply_adds_billions": each.operations,
        }
        rows.append(row)
        said = "" if each.operations is None else f"(paper: {each.operations:g})"
        print(
            f"{each.name:24} {counted['parameters'] / 1e6:8.2f} M (paper: {each.parameters:g})   "
            f"{counted['flops'] / 2e9:8.2f} G multiply-adds {said}",
            flush=True,
        )
    return {"rows": rows}


class Rung:
    """Steps of one recipe on toy faces, as what is measured in turns."""

    def __init__(self, recipe: str, faces: str):
        config = config_of(recipe, "training.precision=bf16", "length=100M images")
        prepared = prepare(open_source(faces, size=SIZE), size=SIZE)
        self._trainer = config.build(prepared, torch.device("cpu"))
        self._stream = self._trainer.batches(0)
        meta = config.build_denoiser("meta").network
        self.about: dict[str, Any] = {
            "parameters": parameters(meta),
            "flops": flops(meta, (CHANNELS, SIZE, SIZE)),
            "batch": config.training.batch,
            "optimizer": type(config.optimizer.method).__name__,
        }

    def step(self) -> int:
        """One optimiser step."""
        batch = next(self._stream)
        self._trainer.step(batch)
        return batch.count


def speed(given: argparse.Namespace) -> dict[str, Any]:
    """Measure, print and return speed and memory of the recipes."""
    figures = in_turns(
        {name: partial(Rung, name, given.faces) for name in RECIPES},
        rounds=given.rounds,
        seconds=given.seconds,
        threads=given.threads,
        device=torch.device("cpu"),
    )
    rows = {}
    for name, figure in figures.items():
        against = ratios(figure, figures["faces-32"])
        rows[name] = {**figure.table(), "against faces-32": against}
        rate = against["images_per_second"]
        print(
            f"{name:12} {figure.about['parameters'] / 1e6:6.2f} M "
            f"{figure.about['flops'] / 1e9:7.3f} GFLOP  images/s x {rate['median']:.2f} "
            f"({rate['min']:.2f} to {rate['max']:.2f})  memory x {against['memory']:.2f}"
        )
    return {"rounds": given.rounds, "seconds": given.seconds, "recipes": rows}


def costs(recipes: Sequence[str], prepared: PreparedSet, *, images: int) -> dict[str, float]:
    """Of an image, relative to `faces-32`."""
    configs = [
        config_of(recipe, "training.precision=bf16", f"length={images} images")
        for recipe in (RECIPES[0], *recipes)
    ]
    _, *relative = relative_costs(configs, prepared, images=images)
    return dict(zip(recipes, relative, strict=True))


def quality(given: argparse.Namespace) -> dict[str, Any]:
    """Train what is missing, score, print and return."""
    prepared = prepare(open_source(given.faces, size=SIZE), size=SIZE)
    given.runs.mkdir(parents=True, exist_ok=True)
    noted = given.runs / "costs.json"
    relative = json.loads(noted.read_text(encoding="utf-8")) if noted.exists() else {}
    if unknown := [recipe for recipe in given.recipes if recipe not in relative]:
        relative |= costs(unknown, prepared, images=given.images)
        noted.write_text(json.dumps(relative), encoding="utf-8")
    real = {name: features_of_real(prepared, open_space(name)) for name in SPACES}
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for recipe in given.recipes:
            run = kao.train(
                given.faces,
                run=given.runs / f"{recipe}-{seed}",
                recipe=recipe,
                length=f"{round(given.images / relative[recipe])} images",
                overrides=[f"seed={seed}", "training.precision=bf16", "hooks.samples=1000000"],
            )
            scored = given.runs / f"{recipe}-{seed}.json"
            if not scored.exists():
                scored.write_text(json.dumps(_scores(run, real, n=given.n)), encoding="utf-8")
            told = {"seed": seed, **json.loads(scored.read_text(encoding="utf-8"))}
            rows.setdefault(recipe, []).append(told)
            print(f"{recipe}, seed {seed}: cost {relative[recipe]:.2f}, {told}", flush=True)
    return {
        "faces": Path(given.faces).name,
        "images of faces-32": given.images,
        "n": given.n,
        "real": REAL,
        "costs": relative,
        "runs": rows,
        "spread": {
            recipe: {space: spread([row[space] for row in own]) for space in SPACES}
            for recipe, own in rows.items()
        },
    }


def _scores(run: Run, real: Mapping[str, Tensor], *, n: int) -> dict[str, Any]:
    drawn = torch.cat(list(draw(run.denoiser(), run.drawing(), indices=range(n))))
    told: dict[str, Any] = {"images": run.checkpoint()[0].images}
    for name, seen in real.items():
        score = KernelDistance(seen)(features(drawn, open_space(name)))
        told |= {name: score.value, f"{name}_error": score.error}
    return told


def main() -> None:
    """Do one part and write it beside the others."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    parts.add_parser("table").set_defaults(do=table)
    part = parts.add_parser("speed")
    part.add_argument("--faces", default="toy:2000")
    part.add_argument("--rounds", type=int, default=3)
    part.add_argument("--seconds", type=float, default=4)
    part.add_argument("--threads", type=int, default=1)
    part.set_defaults(do=speed)
    part = parts.add_parser("quality")
    part.add_argument("faces", help="a folder or zip file of pictures")
    part.add_argument("--runs", type=Path, required=True, help="where the runs are or go")
    part.add_argument("--images", type=int, default=24_000, help="what faces-32 sees")
    part.add_argument("--recipes", nargs="+", default=list(RECIPES), choices=RECIPES)
    part.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    part.add_argument("--n", type=int, default=600, help="pictures drawn from each run")
    part.set_defaults(do=quality)
    given = parser.parse_args()

    about = {"date": date.today().isoformat(), "machine": describe(), "versions": versions()}
    told = {**about, **given.do(given)}
    before = json.loads(OUT.read_text(encoding="utf-8")) if OUT.exists() else {}
    part = f"quality, {given.images} images" if given.part == "quality" else given.part
    text = json.dumps({**before, part: told}, indent=2)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
