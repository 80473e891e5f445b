"""How fast pictures come in: prepared once and mapped, against decoded by Pillow in every epoch.

    python bench/data.py faces.zip --size 64 --n 4000

In one process, with files in the page cache, and in turns, so that a slow minute of the machine
hits all alike:

    prepare     decode, resize, digest, audit and write, with a thread for each core
    load        an epoch of shuffled batches from the memory map
    pillow      an epoch of batches of the same pixels, each file read, decoded, cropped and
                resized by Pillow: in one thread, and with a thread for each core

Prints images per second and ratios, each as median (smallest to largest), and writes them to
bench/results/data.json.  Exits 1 if the pixels differ from Pillow's by more than the resizing
arithmetic explains.
"""

import argparse
import json
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from importlib.metadata import version
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kao.data.folders import FolderSource
from kao.data.item import Item
from kao.data.loading import batches
from kao.data.prepare import Preparation
from kao.data.prepared import PreparedSet
from kao.machine import describe, usable_cores, versions

BATCH = 32


class Sample:
    """Some pictures of a source, drawn by lot: neighbours in a file are often alike."""

    def __init__(self, source: FolderSource, count: int):
        lot = np.random.default_rng(0).permutation(len(source))[:count]
        self._source, self._rows = source, np.sort(lot).tolist()
        self.fingerprint = f"sample-{count}-{source.fingerprint}"
        self.classes = source.classes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        return self._source[self._rows[index]]


class PillowEpochs:
    """What one writes first: a ZIP file, Pillow, and a stack of arrays for each batch."""

    def __init__(self, archive: Path, keys: Sequence[str], size: int):
        self._zip, self._keys, self._size = zipfile.ZipFile(archive), keys, size

    def picture(self, index: int) -> NDArray[np.uint8]:
        """uint8, (3, S, S)."""
        image = Image.open(BytesIO(self._zip.read(self._keys[index]))).convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        small = square.resize((self._size, self._size), Image.Resampling.BICUBIC)
        return np.asarray(small).transpose(2, 0, 1)

    def epoch(self, seed: int, pool: ThreadPoolExecutor | None = None) -> Iterator[Tensor]:
        """Shuffled batches, uint8, (B, 3, S, S)."""
        order = np.random.default_rng(seed).permutation(len(self._keys)).tolist()
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            pictures = pool.map(self.picture, batch) if pool else map(self.picture, batch)
            yield torch.from_numpy(np.stack(list(pictures)))


def images_per_second(count: int, work: Callable[[], object]) -> float:
    """Of one run."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def mapped_epoch(prepared: PreparedSet, seed: int) -> None:
    """Go through as many batches as an epoch has; a byte of each is looked at."""
    for batch in islice(batches(prepared, batch=BATCH, seed=seed), -(-len(prepared) // BATCH)):
        batch.images[0, 0, 0, 0].item()


def exhaust(epoch: Iterator[Tensor]) -> None:
    """Go through batches, keeping none."""
    for _ in epoch:
        pass


def differences(prepared: PreparedSet, pillow: PillowEpochs) -> dict[str, float]:
    """Prepared pixels against Pillow's, in levels of 0..255."""
    largest, total, above_one = 0, 0.0, 0
    for index in range(len(prepared)):
        gap = np.abs(prepared.images[index].astype(np.int16) - pillow.picture(index))
        largest, total = max(largest, int(gap.max())), total + float(gap.mean())
        above_one += int((gap > 1).sum())
    return {
        "max": largest,
        "mean": total / len(prepared),
        "share_above_1": above_one / prepared.images.size,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def measure(archive: Path, *, size: int, count: int, repeats: int) -> dict[str, Any]:
    """All figures of one archive at one size."""
    source = Sample(FolderSource(archive), count)
    rates: dict[str, list[float]] = {
        name: [] for name in ("prepare", "load", "pillow", "pillow_threads")
    }
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(usable_cores()) as pool:
        prepared = Preparation(source, size=size, out=Path(folder) / "first").finish()
        pillow = PillowEpochs(archive, prepared.keys, size)
        pixels = differences(prepared, pillow)
        n = len(prepared)
        for turn in range(repeats):
            out = Path(folder) / str(turn)
            work: dict[str, Callable[[], object]] = {
                "prepare": Preparation(source, size=size, out=out).finish,
                "load": partial(mapped_epoch, prepared, turn),
                "pillow": partial(exhaust, pillow.epoch(turn)),
                "pillow_threads": partial(exhaust, pillow.epoch(turn, pool)),
            }
            for name, run in work.items():
                rates[name].append(images_per_second(n, run))
    ratios = {
        f"{over}_over_{under}": spread(np.divide(rates[over], rates[under]).tolist())
        for over, under in (
            ("load", "pillow"),
            ("load", "pillow_threads"),
            ("prepare", "pillow"),
            ("prepare", "pillow_threads"),
        )
    }
    return {
        "archive": archive.name,
        "n": n,
        "size": size,
        "batch": BATCH,
        "repeats": repeats,
        "images_per_second": {name: spread(values) for name, values in rates.items()},
        "ratios": ratios,
        "difference_from_pillow": pixels,
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path, help="a ZIP file of pictures")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--n", type=int, default=4000, help="pictures, drawn by lot")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/data.json")
    given = parser.parse_args()

    load_before = os.getloadavg()[0]
    figures = measure(given.archive, size=given.size, count=given.n, repeats=given.repeats)
    for kind in ("images_per_second", "ratios"):
        for name, value in figures[kind].items():
            print(
                f"{name:28} {value['median']:10,.1f} ({value['min']:,.1f} to {value['max']:,.1f})"
            )
    pixels = figures["difference_from_pillow"]
    print(f"{'difference from Pillow':28} max {pixels['max']}, mean {pixels['mean']:.5f} of 255")

    packages = {name: version(name) for name in ("pillow", "simplejpeg", "numpy")}
    about = {
        "date": date.today().isoformat(),
        "machine": describe(),
        "versions": versions() | packages,
        "load_average_before": load_before,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(about | figures, indent=2) + "\n", encoding="utf-8")
    return int(pixels["max"] > 2 or pixels["share_above_1"] > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
