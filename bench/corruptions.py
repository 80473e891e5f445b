"""Does a feature space rank damage?  Graded corruptions of real pictures against other real ones.

    python bench/corruptions.py anime64.zip cats128.zip faces200.zip --untrained UNTRAINED

Two random sets of n pictures without a common one are taken from each file: one is the reference,
the other is damaged by every kind of `kao.metrics.corruptions`, level by level, and held against
it: by the Frechet distance and by the kernel distance, in the bundled space and, at the first
size, in that of the wavelets and that of a network of the same make that has learnt nothing
(`tools/train_features.py --steps 0 --name faces-untrained`).  Level 0 is the floor: real against
real.  Further kinds of damage, of one level only, are there to show what is not seen.

Each seed has other pictures and other damage.  A row says whether both distances rose with every
level in every seed, how many times its floor the Frechet distance is at level 0.25, and how many
standard errors above 0 the kernel distance is there (means over seeds, and the smallest).  Last
comes the speed of the spaces, against that of the wavelets.  Writes bench/results/corruptions.json.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kao.data.pictures import fit
from kao.data.sources import open_source
from kao.machine import describe, versions
from kao.metrics import (
    CORRUPTIONS,
    Faces,
    Features,
    Gaussian,
    KernelDistance,
    Wavelets,
    moments,
)
from kao.metrics.frechet import features_distance
from kao.pixels import to_float, to_uint8
from kao.seeds import mixed_seed

LEVELS = (0.0, 0.25, 0.5, 0.75, 1.0)


def detail_lost(images: Tensor) -> Tensor:
    """Only what half as many pixels can hold."""
    size = images.shape[-1]
    x = F.interpolate(to_float(images), size // 2, mode="bilinear", antialias=True)
    return to_uint8(F.interpolate(x, size, mode="bicubic"))


def mirrored(images: Tensor) -> Tensor:
    """Left for right."""
    return images.flip(3)


def symmetric(images: Tensor) -> Tensor:
    """The right half is the mirror image of the left one."""
    half = images.shape[-1] // 2
    return torch.cat([images[..., :half], images[..., :half].flip(3)], dim=3)


def upside_down(images: Tensor) -> Tensor:
    """On its head."""
    return images.flip(2)


def eye_of_another(images: Tensor) -> Tensor:
    """Where one eye may be, a sixteenth of the picture, is from another face."""
    side = images.shape[-1] // 4
    rows, columns = slice(int(1.5 * side), int(2.5 * side)), slice(side // 2, side // 2 + side)
    spoilt = images.clone()
    spoilt[:, :, rows, columns] = images.roll(1, 0)[:, :, rows, columns]
    return spoilt


BLIND: dict[str, Callable[[Tensor], Tensor]] = {
    "detail lost": detail_lost,
    "mirrored": mirrored,
    "symmetric": symmetric,
    "upside down": upside_down,
    "eye of another": eye_of_another,
}


def pictures(faces: str, *, size: int, count: int, seed: int) -> Tensor:
    """Some pictures of a file, chosen at random: uint8 (count, 3, size, size)."""
    source = open_source(faces, size=size)
    lot = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))[:count]
    items = [source[i] for i in lot.tolist()]
    return torch.stack([fit(i.image, size=size, crop="centre", name=i.key) for i in items])


def seen(space: Features, images: Tensor) -> Tensor:
    """Features, a batch at a time."""
    return torch.cat([space(batch) for batch in torch.split(images, 250)])


class Held:
    """Damaged pictures held against one set of real ones, in one space."""

    def __init__(self, space: Features, real: Tensor):
        features = seen(space, real)
        self._space, self._gaussian = space, Gaussian(*moments(features))
        self._kernel = KernelDistance(features)

    def __call__(self, images: Tensor) -> dict[str, float]:
        """Both distances, and the standard error of the kernel distance."""
        features = seen(self._space, images)
        kernel = self._kernel(features)
        found = {
            "frechet": features_distance(drawn=features, real=self._gaussian),
            "kernel": kernel.value,
            "error": kernel.error,
        }
        return {name: float(f"{value:.6g}") for name, value in found.items()}


def measured(images: Tensor, spaces: list[Features], *, seed: int) -> list[dict[str, Any]]:
    """All damage to the second half of some pictures against their first half."""
    real, others = images.chunk(2)
    held = {space.name: Held(space, real) for space in spaces}
    floor = {name: against(others) for name, against in held.items()}
    rows = []
    for kind, spoil in CORRUPTIONS.items():
        drawn = [
            spoil(others, level, torch.Generator().manual_seed(mixed_seed(seed, 1)))
            for level in LEVELS[1:]
        ]
        for name, against in held.items():
            points = [floor[name], *(against(spoilt) for spoilt in drawn)]
            rows.append({"space": name, "kind": kind, "seed": seed, "points": points})
    for kind, change in BLIND.items():
        changed = change(others)
        for name, against in held.items():
            points = [floor[name], against(changed)]
            rows.append({"space": name, "kind": kind, "seed": seed, "points": points})
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What one kind of damage to one set does in one space, over seeds."""

    def rises(distance: str) -> bool:
        values = [[point[distance] for point in row["points"]] for row in rows]
        return all(a < b for line in values for a, b in pairwise(line))

    times = [row["points"][1]["frechet"] / row["points"][0]["frechet"] for row in rows]
    sure = [row["points"][1]["kernel"] / row["points"][1]["error"] for row in rows]
    return {
        "frechet_rises": rises("frechet"),
        "kernel_rises": rises("kernel"),
        "times_floor": statistics.mean(times),
        "times_floor_least": min(times),
        "errors_above_0": statistics.mean(sure),
        "errors_above_0_least": min(sure),
    }


def written(about: dict[str, Any], table: list[dict[str, Any]]) -> str:
    """JSON with a line for each row of the table, and of each seed the course over levels."""

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.5g}")
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return [rounded(item) for item in value] if isinstance(value, list | tuple) else value

    def line(row: dict[str, Any]) -> str:
        seeds = [
            {"seed": one["seed"]}
            | {name: [point[name] for point in one["points"]] for name in one["points"][0]}
            for one in row["seeds"]
        ]
        return json.dumps(rounded(row | {"seeds": seeds}), separators=(",", ":"))

    head = json.dumps(rounded(about), indent=1).removesuffix("\n}")
    return head + ',\n "table": [\n' + ",\n".join(map(line, table)) + "\n ]\n}\n"


def speeds(spaces: list[Features], *, size: int) -> dict[str, float]:
    """Pictures in the time in which the first space sees one; CPU time, the best of five."""
    images = torch.randint(
        0, 256, (250, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )

    def took(space: Features) -> float:
        began = time.process_time()
        space(images)
        return time.process_time() - began

    # In turns, so that whatever else the machine does falls on all of them.
    rounds = [[took(space) for space in spaces] for _ in range(6)][1:]
    best = [min(column) for column in zip(*rounds, strict=True)]
    return {s.name: best[0] / b for s, b in zip(spaces, best, strict=True)}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("faces", nargs="+", help="folders or zip files of pictures")
    parser.add_argument("--untrained", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--n", type=int, default=500, help="pictures of each of the two sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/corruptions.json"
    )
    given = parser.parse_args()

    torch.set_num_threads(1)
    spaces: list[Features] = [Wavelets(), Faces(given.untrained), Faces()]
    table = []
    for faces in given.faces:
        for size in given.sizes:
            here = spaces if size == given.sizes[0] else spaces[-1:]
            rows: list[dict[str, Any]] = []
            for seed in given.seeds:
                images = pictures(faces, size=size, count=2 * given.n, seed=seed)
                rows += measured(images, here, seed=seed)
            for kind in (*CORRUPTIONS, *BLIND):
                for space in here:
                    of = [r for r in rows if (r["kind"], r["space"]) == (kind, space.name)]
                    line = {"faces": Path(faces).name, "size": size, "kind": kind}
                    line |= {"space": space.name, **summary(of), "seeds": of}
                    table.append(line)
                    print(
                        f"{line['faces']:14} {size:3} {kind:18} {space.name:16} "
                        f"F {'rises' if line['frechet_rises'] else '-----'} "
                        f"K {'rises' if line['kernel_rises'] else '-----'} "
                        f"{line['times_floor']:7.2f} x floor {line['errors_above_0']:7.1f} errors "
                        f"(least {line['times_floor_least']:.2f}, "
                        f"{line['errors_above_0_least']:.1f})",
                        flush=True,
                    )
    about = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions(),
        "n": given.n,
        "levels": LEVELS,
        "speed": {str(size): speeds(spaces, size=size) for size in given.sizes},
    }
    print(about["speed"])
    given.out.write_text(written(about, table), encoding="utf-8")


if __name__ == "__main__":
    main()
