"""What the scores are worth: how fast, how sure, how low for real pictures, how biased by n.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python bench/metrics.py distance --rounds 3
    python bench/metrics.py features --faces anime64.zip
    python bench/metrics.py coverage
    python bench/metrics.py floor --faces anime64.zip
    python bench/metrics.py bias --faces anime64.zip
    python bench/metrics.py errors
    python bench/metrics.py few --faces anime64.zip

distance    the Frechet distance of two sets of 2,048 features, from their means and covariances:
            ours, scipy's `sqrtm` route as pytorch-fid has it and torchmetrics, in one process and
            in turns; ratios as median (smallest to largest) over the rounds.  NumPy and torch
            bring an arithmetic library each, so the number of threads is said twice.
features    pictures a second from bytes to mean and covariance: ours against torchmetrics' FID with
            the same network inside, in turns; and ours when the set was looked at before
coverage    on Gaussians with known distances: how often, of 200 trials, the 95 % interval holds the
            truth, which of FID is its expectation at that number of pictures
floor       real pictures against other real ones, by the number of both
bias        Frechet distance, the same without its bias, and KID, by the number of drawn pictures
errors      on Gaussians: the standard errors of precision, recall, density and coverage as a share
            of the scatter over 200 trials, of all pictures and of the drawn ones alone
few         the kernel distance of 200 real pictures to few others of the same set: 0 without bias

Each part replaces its own in bench/results/metrics.json.
"""

import argparse
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import scipy.linalg
import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from kao.data.prepare import prepare
from kao.data.sources import open_source
from kao.evaluation.looking import look
from kao.evaluation.reading import of_prepared
from kao.machine import describe, versions
from kao.metrics import (
    METRICS,
    Features,
    Gaussian,
    KernelDistance,
    Score,
    Sight,
    features_distance,
    frechet_distance,
    frechet_infinity,
    frechet_score,
    gaussian_distance,
    open_space,
    precision_recall_density_coverage,
)
from kao.seeds import mixed_seed

OUT = Path(__file__).parent / "results/metrics.json"
WIDTH = 2048
FEW = 500
TRIALS = 200
SIZE = 32
SPACES = ("wavelets", "faces")
NOISE = 0.04  # of [0, 1]: standard deviation on the "drawn" pictures of the bias part

# --- distance -----------------------------------------------------------------------------------


def like_inception(n: int, *, seed: int) -> Tensor:
    """Correlated features whose variances fall as those of real networks do: (n, 2048)."""
    generator = torch.Generator().manual_seed(mixed_seed(7))
    fall = torch.arange(1, WIDTH + 1, dtype=torch.float64) ** -0.6
    mix = torch.randn(WIDTH, 256, generator=generator, dtype=torch.float64) / 16
    generator = torch.Generator().manual_seed(mixed_seed(7, seed))
    z = torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) * fall
    z += torch.randn(n, 256, generator=generator, dtype=torch.float64) @ mix.T * 0.3
    return (z * (1 + 0.02 * seed) + 0.01 * seed).float()


def with_sqrtm(a: Gaussian, b: Gaussian) -> float:
    """The route of pytorch-fid: the matrix root of the product."""
    root = scipy.linalg.sqrtm((a.cov @ b.cov).numpy()).real
    apart = (a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()
    return float(apart - 2 * root.trace())


def distance(rounds: int) -> dict[str, Any]:
    """Seconds of each side, and ratios to ours."""
    drawn = Sight("inception-bench", like_inception(5000, seed=0))
    real = Sight("inception-bench", like_inception(5000, seed=1))
    few = drawn.features[:FEW]
    a, b = drawn.gaussian, real.gaussian
    known = Gaussian(b.mean, b.cov)
    _ = known.factor
    torch.linalg.eigvalsh(torch.eye(64).double())  # libraries are loaded
    sides: dict[str, Callable[[], float]] = {
        "kao": lambda: frechet_distance(a.mean, a.cov, b.mean, b.cov),
        "kao, reference known": lambda: gaussian_distance(drawn=a, real=known),
        f"kao, {FEW} pictures": lambda: features_distance(drawn=few, real=known),
        "kao, with its interval": lambda: frechet_score(real=real, drawn=drawn, name="FID").value,
        "torchmetrics": lambda: float(_compute_fid(a.mean, a.cov, b.mean, b.cov)),
        "scipy sqrtm": lambda: with_sqrtm(a, b),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    values = {}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            values[name] = side()
            seconds[name].append(time.perf_counter() - start)
            print(f"{name:26} {seconds[name][-1]:8.2f} s   {values[name]:.9f}", flush=True)
    ratios = {
        f"{theirs} / {ours}": spread(
            [t / o for t, o in zip(seconds[theirs], seconds[ours], strict=True)]
        )
        for theirs in ("torchmetrics", "scipy sqrtm")
        for ours in sides
        if ours.startswith("kao")
    }
    for name, ratio in ratios.items():
        print(f"{name:48} {ratio[0]:.1f} ({ratio[1]:.1f} to {ratio[2]:.1f})")
    return {"threads": torch.get_num_threads(), "seconds": seconds, "ratios": ratios} | {
        "values": values
    }


class Inside(nn.Module):
    """A feature space as torchmetrics wants it."""

    def __init__(self, space: Features):
        super().__init__()
        self.space, self.num_features = space, space.width

    def forward(self, images: Tensor) -> Tensor:
        """Features of uint8 pictures."""
        return self.space(images)


def features(faces: str, rounds: int, *, count: int = 2_000, batch: int = 64) -> dict[str, Any]:
    """Pictures a second of each side and space, and ratios of times to ours."""
    prepared = prepare(open_source(faces, size=SIZE), size=SIZE)
    images = of_prepared(prepared, name=faces).some(count, seed=0)
    found = {}
    folders = {kept: tempfile.mkdtemp() for kept in (False, True)}
    for name in SPACES:
        space = open_space(name)
        other = FrechetInceptionDistance(Inside(space)).eval()

        def theirs(other: FrechetInceptionDistance = other) -> None:
            other.reset()
            for part in images.images.split(batch):
                other.update(part, real=True)

        def ours(space: Features = space, *, kept: bool = False) -> None:
            os.environ["KAO_CACHE"] = folders[kept]  # else what is kept is found again
            _ = look(images, space, device=torch.device("cpu"), batch=batch, kept=kept).gaussian

        def again() -> None:
            ours(kept=True)

        again()
        seconds: dict[str, list[float]] = {"kao": [], "torchmetrics": [], "kao, seen before": []}
        for _ in range(rounds):
            for side, run in zip(seconds, (ours, theirs, again), strict=True):
                start = time.perf_counter()
                run()
                seconds[side].append(time.perf_counter() - start)
        ratios = {
            side: spread([t / o for t, o in zip(taken, seconds["kao"], strict=True)])
            for side, taken in seconds.items()
        }
        rates = {side: count / median(taken) for side, taken in seconds.items()}
        found[name] = {"pictures a second": rates, "ratios": ratios}
        for side, ratio in ratios.items():
            print(f"{name:10} {side:18} {rates[side]:8.0f} a second, {ratio[0]:.2f} of ours")
    return {"threads": torch.get_num_threads(), "pictures": count, "spaces": found}


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, smallest, largest."""
    return median(values), min(values), max(values)


# --- coverage -----------------------------------------------------------------------------------


def normal(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers, float64."""
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def coverage() -> list[dict[str, Any]]:
    """Shares of trials whose interval holds the truth, by dimension and numbers of pictures."""
    rows = []
    for width, n, m in (
        (8, 100, 200),
        (8, 400, 800),
        (32, 100, 1000),
        (32, 400, 1000),
        (64, 100, 1000),
        (64, 150, 1000),
        (64, 400, 1000),
        (64, 1000, 1000),
    ):
        for apart in (0.2, 0.0):
            roots = torch.logspace(0, -0.5, width, dtype=torch.float64)
            real = torch.diag(roots)
            mix = torch.eye(width) + apart * normal(width, width, seed=1) / math.sqrt(width)
            shift = apart * roots.mean() * torch.ones(width, dtype=torch.float64)
            zero = torch.zeros_like(shift)
            model = real @ mix
            truth = frechet_distance(shift, model.T @ model, zero, real.T @ real)
            found: dict[str, list[Score]] = {"fid": [], "fid_infinity": [], "kid": []}
            for k in range(TRIALS):
                drawn = Sight("inception-b", (normal(n, width, seed=2 * k + 2) @ model + shift))
                held = Sight("inception-b", normal(m, width, seed=2 * k + 3) @ real)
                for name, scores in found.items():
                    if name == "fid_infinity" and n <= 2 * width + 1:
                        continue
                    scores += METRICS[name](held, drawn)
            truths = {
                "fid": mean(s.value for s in found["fid"]),
                "fid_infinity": truth,
                "kid": cubic_distance(shift, model.T @ model, zero, real.T @ real),
            }
            row: dict[str, Any] = {"width": width, "n": n, "m": m, "apart": apart, "true": truth}
            for name, scores in found.items():
                if not scores:
                    continue
                held_by = [s.low <= truths[name] <= s.high for s in scores]
                row[name] = {
                    "covered": mean(held_by),
                    "mean": mean(s.value for s in scores),
                    "scatter": stdev(s.value for s in scores),
                    "error": math.sqrt(mean(s.error**2 for s in scores)),
                }
            words = " ".join(f"{k} {row[k]['covered']:.3f}" for k in found if k in row)
            print(f"D {width:3} n {n:5} m {m:5} apart {apart}: {words}", flush=True)
            rows.append(row)
    return rows


def cubic_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The kernel distance of two Gaussians: E (x . y / D + 1)^3 from the moments of x . y."""

    def expected(m: Tensor, c: Tensor, k: Tensor, d: Tensor) -> Tensor:
        first, width = m @ k, len(m)
        second = (c @ d).trace() + m @ d @ m + k @ c @ k
        third = first**3 + 3 * first * second + 6 * m @ d @ c @ k
        return 1 + 3 * first / width + 3 * (second + first**2) / width**2 + third / width**3

    return float(
        expected(mean_a, cov_a, mean_a, cov_a)
        + expected(mean_b, cov_b, mean_b, cov_b)
        - 2 * expected(mean_a, cov_a, mean_b, cov_b)
    )


# --- real pictures ------------------------------------------------------------------------------


def pictures(faces: str, count: int) -> Tensor:
    """Real pictures chosen at random, uint8 (count, 3, 32, 32)."""
    prepared = prepare(open_source(faces, size=SIZE), size=SIZE)
    generator = torch.Generator().manual_seed(mixed_seed(4))
    lot = torch.randperm(len(prepared), generator=generator)[:count]
    return torch.stack([torch.tensor(prepared.images[int(i)]) for i in lot])


def seen(images: Tensor, space: Features) -> Sight:
    """Features of pictures, a batch at a time."""
    return Sight(space.name, torch.cat([space(batch) for batch in images.split(250)]))


def parts(sight: Sight, sizes: tuple[int, ...], *, seed: int) -> list[Sight]:
    """Random parts that share no picture."""
    generator = torch.Generator().manual_seed(mixed_seed(seed))
    lot = torch.randperm(len(sight), generator=generator)[: sum(sizes)]
    return [sight.rows(part) for part in lot.split(list(sizes))]


def summed(scores: list[Score]) -> dict[str, float]:
    """Mean and scatter over repetitions, and the error that the scores gave themselves."""
    return {
        "mean": mean(s.value for s in scores),
        "scatter": stdev(s.value for s in scores),
        "error": math.sqrt(mean(s.error**2 for s in scores)),
    }


def floor(faces: str, repeats: int) -> list[dict[str, Any]]:
    """What real pictures score against other real ones, n of each."""
    images, rows = pictures(faces, 8000), []
    for name in SPACES:
        sight = seen(images, open_space(name))
        for n in (500, 1000, 2000, 4000):
            found: dict[str, list[Score]] = {}
            for k in range(repeats):
                real, other = parts(sight, (n, n), seed=k)
                scores = [*METRICS["kernel"](real, other), *METRICS["kid"](real, other)]
                scores += [*METRICS["frechet"](real, other), *METRICS["manifold"](real, other)]
                if n > 2 * sight.width + 1:
                    scores.append(
                        frechet_infinity(real=real, drawn=other, name="Frechet, unbiased")
                    )
                for score in scores:
                    found.setdefault(score.name, []).append(score)
            row = {key: summed(scores) for key, scores in found.items()}
            rows.append({"space": sight.space, "n": n, "repeats": repeats, "scores": row})
            print(f"{name} n {n}: " + "  ".join(f"{k} {v['mean']:.4g}" for k, v in row.items()))
    return rows


def bias(faces: str, repeats: int) -> list[dict[str, Any]]:
    """The same pictures, more and more of them, against 4,000 real ones.

    "real" are other real pictures, "noisy" those with a little noise, which stands for a model.
    """
    images, rows = pictures(faces, 12_000), []
    noise = torch.randn(8000, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(mixed_seed(5)))
    noisy = (images[4000:] + 255 * NOISE * noise).round().clamp(0, 255).to(torch.uint8)
    for name in SPACES:
        space = open_space(name)
        held, real, spoilt = (seen(part, space) for part in (images[:4000], images[4000:], noisy))
        kernel = KernelDistance(held.features, standardised=False)
        for kind, sight in (("real", real), ("noisy", spoilt)):
            for n in (100, 200, 350, 500, 1000, 2000, 4000):
                values: dict[str, list[float]] = {"frechet": [], "unbiased": [], "kid": []}
                for k in range(repeats):
                    (some,) = parts(sight, (n,), seed=k)
                    values["frechet"].append(
                        features_distance(drawn=some.features, real=held.gaussian)
                    )
                    values["kid"].append(kernel(some.features).value)
                    if n > 2 * sight.width + 1:
                        values["unbiased"].append(
                            frechet_infinity(real=held, drawn=some, name="").value
                        )
                curves = {key: spread(value) for key, value in values.items() if value}
                rows.append({"space": sight.space, "width": sight.width, "kind": kind, "n": n})
                rows[-1] |= curves
                print(f"{name} {kind} n {n}: {curves}", flush=True)
    return rows


def few(faces: str, repeats: int) -> list[dict[str, Any]]:
    """The kernel distance between parts of one set, by the number of real pictures."""
    sight, rows = seen(pictures(faces, 6000), open_space("wavelets")), []
    for n in (30, 50, 100, 300, 1000):
        scores = []
        for k in range(40 * repeats):
            real, drawn = parts(sight, (n, 200), seed=k)
            scores.append(KernelDistance(real.features)(drawn.features))
        rows.append({"n": n, "trials": len(scores), **summed(scores)})
        print(rows[-1], flush=True)
    return rows


def errors(trials: int = 200) -> list[dict[str, Any]]:
    """Errors of the four numbers of manifolds, as a share of how much they scatter."""
    rows = []
    for n, width, shift, scale in (
        *((n, 8, 0.0, 1.0) for n in (100, 200, 500)),
        *((n, 8, 0.2, 0.8) for n in (100, 200, 500)),
        (500, 32, 0.0, 1.0),
        (500, 32, 0.2, 0.8),
    ):
        row: dict[str, Any] = {"n": n, "width": width, "shift": shift, "scale": scale}
        for part in ("error", "own_error"):
            found: dict[str, list[Score]] = {}
            for k in range(trials):
                real = normal(n, width, seed=2 * k if part == "error" else 2 * (k % 4))
                drawn = scale * normal(n, width, seed=2 * k + 1) + shift
                for score in precision_recall_density_coverage(
                    real=Sight("normal", real), drawn=Sight("normal", drawn)
                ):
                    found.setdefault(score.name, []).append(score)
            for name, scores in found.items():
                # Of drawn pictures alone the scatter is that about the mean of each real set.
                sets = [scores[g::4] for g in range(4)] if part == "own_error" else [scores]
                scatter = math.sqrt(mean(stdev(s.value for s in some) ** 2 for some in sets))
                said = math.sqrt(mean(getattr(score, part) ** 2 for score in scores))
                row.setdefault(name, {})[part] = said / scatter
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Run one part and put it among the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts_ = ("distance", "features", "coverage", "floor", "bias", "errors", "few")
    parser.add_argument("part", choices=parts_)
    parser.add_argument("--faces", help="a folder or zip file of pictures; not for the rest")
    parser.add_argument("--rounds", type=int, default=3, help="of distance and features")
    parser.add_argument("--repeats", type=int, default=5, help="of floor and bias")
    given = parser.parse_args()
    if given.part in ("features", "floor", "bias", "few") and not given.faces:
        parser.error(f"{given.part} needs --faces")

    key = given.part
    if given.part == "distance":
        found: Any = distance(given.rounds)
        key = f"distance, {found['threads']} threads"
    elif given.part == "coverage":
        found = coverage()
    elif given.part == "errors":
        found = errors()
    elif given.part == "features":
        found = features(given.faces, given.rounds)
    else:
        found = {"floor": floor, "bias": bias, "few": few}[given.part](given.faces, given.repeats)
    results = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    about = {"date": date.today().isoformat(), "machine": describe(), "versions": versions()}
    results[key] = {**about, "found": found}
    OUT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
