"""What `kao tune-sampler` found, kept in the run: RUN/samplers.toml and RUN/samplers.jsonl.

samplers.toml    the best way to draw for each number of network calls, for people and `kao sample`
samplers.jsonl   every measurement on a line of its own, so that a stopped search goes on
"""

import json
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import tomli_w

from kao.config import SamplingConfig, dump
from kao.config.tree import Origin, Table, finite, parse
from kao.errors import ConfigError, KaoError
from kao.files import read_text, write_text, writing
from kao.runs.run import Run

BUDGETS = "samplers.toml"
MEASURED = "samplers.jsonl"
FORMAT = 2
"""Of both files; to be raised with every change that makes old ones misleading."""

_HEAD = """\
# Written by `kao tune-sampler`: the best measured way to draw for each number of network calls a
# picture.  `kao sample --budget N` takes the last one of N calls or fewer.  A smaller score is a
# smaller distance to the real pictures; its error is one standard error.

"""


@dataclass(frozen=True)
class Conditions:
    """What measurements must share to be compared.

    Attributes:
        features: Name of the feature space.
        measure: Name of the distance in it.
        real: Fingerprint of the prepared set that the real pictures come from.
        reals: How many were taken.
        checkpoint: Images seen by the model.
        model: Fingerprint of its weights.
        worse: Fingerprint of the weights of the model that guides it; empty: none does.
        seed: Of the noise and of the choice of real pictures.
        batch: Pictures drawn at a time, on which the seconds depend.
        device: Kind of machine that drew, "cpu" or "cuda", on which they depend more.
    """

    features: str
    measure: str
    real: str
    reals: int
    checkpoint: int
    model: str
    worse: str
    seed: int
    batch: int
    device: str


@dataclass(frozen=True)
class Candidate:
    """One way to draw, measured.

    Attributes:
        calls: Network calls a picture: what a way to draw costs on any machine.
        score: Kernel distance to the real pictures; smaller is better, about 0 is perfect.
        error: Standard error of `score`.
        n: Pictures drawn.
        seconds: Of this machine, a picture.
        sampling: The [sampling] table.
    """

    calls: int
    score: float
    error: float
    n: int
    seconds: float
    sampling: SamplingConfig


def front(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The best way to draw for each number of calls, cheapest first.

    Among those of equal calls, the smallest score with one standard error added, so that none
    wins by the luck of few pictures.  A dearer way stays only if it is better than the cheaper
    ones by more than its standard error: calls that buy nothing measurable are not worth paying.
    """
    best: list[Candidate] = []
    for _, group in groupby(sorted(candidates, key=lambda c: c.calls), key=lambda c: c.calls):
        winner = min(group, key=lambda c: c.score + c.error)
        if not best or winner.score + winner.error < best[-1].score:
            best.append(winner)
    return best


def save_budgets(run: Run, conditions: Conditions, budgets: Sequence[Candidate]) -> Path:
    """Write RUN/samplers.toml in one go.

    Args:
        run: The run.
        conditions: Under which all were measured.
        budgets: From `front`.

    Returns:
        The file.

    Raises:
        OutputError: It cannot be written.
    """
    path = run.path / BUDGETS
    table = {"format": FORMAT, **asdict(conditions), "budget": [dump(c) for c in budgets]}
    write_text(path, _HEAD + tomli_w.dumps(table))
    return path


def load_budgets(run: Run) -> tuple[Conditions, list[Candidate]]:
    """What `save_budgets` wrote.

    Raises:
        ConfigError: There is nothing yet, it is of another version, or was edited wrongly.
    """
    path = run.path / BUDGETS
    if not path.is_file():
        raise ConfigError(
            f"{run.path} has no {BUDGETS}, so nothing is known of budgets: run "
            f"`kao tune-sampler {run.path}` first."
        )
    try:
        text = read_text(path)
        table = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise _unusable(path, run, f"cannot be read ({error})") from error
    if table.get("format") != FORMAT:
        raise _unusable(path, run, f"is of format {table.get('format')}, not {FORMAT}")
    origin = Origin(str(path), text)
    try:
        entries = table.pop("budget", [])
        conditions = _conditions(table, origin)
        return conditions, [_candidate(entry, origin) for entry in entries]
    except (KeyError, TypeError) as error:
        raise _unusable(path, run, f"lacks something ({error})") from error


def load_budget(run: Run, budget: int) -> SamplingConfig:
    """The best measured way to draw within a number of network calls a picture.

    Args:
        run: A run that `kao tune-sampler` has measured.
        budget: Most calls a picture, 1 or more.

    Raises:
        ConfigError: Nothing was measured yet, or nothing as cheap as that.
    """
    _, known = load_budgets(run)
    affordable = [c for c in known if c.calls <= budget]
    if not affordable:
        least = min((c.calls for c in known), default=None)
        what = f"the cheapest takes {least}" if least is not None else "it names none"
        raise ConfigError(
            f"{run.path / BUDGETS} knows no way to draw in {budget} network calls a picture "
            f"({what}): give a larger budget, or measure fewer steps with `kao tune-sampler "
            f"{run.path} --steps {budget}`."
        )
    return max(affordable, key=lambda c: c.calls).sampling


def outdated(run: Run) -> str | None:
    """A sentence where the model has learned on since its budgets were measured; else None.

    Raises:
        ConfigError: As `load_budgets`.
        CheckpointError: The run has no whole checkpoint.
    """
    measured, now = load_budgets(run)[0].checkpoint, run.checkpoint()[0].images
    if measured == now:
        return None
    return (
        f"{run.path / BUDGETS} was measured at {measured:,} images, and the model has {now:,} "
        f"now: `kao tune-sampler {run.path}` measures again."
    )


class Ledger:
    """Measurements in a JSON-lines file, each appended when it is made.

    Args:
        path: The file; it need not exist.
        conditions: Only lines under the same are looked at.
    """

    def __init__(self, path: Path, conditions: Conditions):
        self.path, self.conditions = path, conditions

    def known(self) -> dict[tuple[SamplingConfig, int], Candidate]:
        """Earlier measurements by way to draw and number of pictures.

        A line that does not read back (cut by a kill, of another version) is passed over.
        """
        return {(c.sampling, c.n): c for c in self._lines()}

    def add(self, candidate: Candidate) -> None:
        """Append a measurement.

        Raises:
            OutputError: The file cannot be written.
        """
        line = {"format": FORMAT, **asdict(self.conditions), "measured": _to_json(candidate)}
        with writing(self.path):
            whole = not self.path.exists() or self.path.read_bytes().endswith(b"\n")
            with self.path.open("a", encoding="utf-8") as file:
                # A line that was cut by a kill must not swallow this one.
                text = json.dumps(line, allow_nan=False)
                file.write(f"{'' if whole else chr(10)}{text}\n")

    def _lines(self) -> Iterator[Candidate]:
        if not self.path.is_file():
            return
        origin = Origin(str(self.path))
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                table = json.loads(line)
                measured = table.pop("measured")
                if table.pop("format") == FORMAT and table == asdict(self.conditions):
                    yield _from_json(measured, origin)
            except (ValueError, TypeError, KeyError, AttributeError, KaoError):
                continue


def to_json(conditions: Conditions, measured: Sequence[Candidate]) -> Table:
    """Everything that was measured, and the front, as a JSON object."""
    best = front(measured)
    return {
        "conditions": asdict(conditions),
        "measured": [_to_json(c) for c in measured],
        "budgets": [_to_json(c) for c in best],
    }


def _to_json(candidate: Candidate) -> Table:
    """A candidate as JSON can say it: an open interval of guidance ends at "inf"."""
    return finite(dump(candidate))


def _from_json(table: Table, origin: Origin) -> Candidate:
    guidance = table["sampling"]["guidance"]
    guidance["interval"] = [float(x) for x in guidance["interval"]]
    return _candidate(table, origin)


def _candidate(table: Table, origin: Origin) -> Candidate:
    return parse(Candidate, table, origin, "budget")


def _conditions(table: Table, origin: Origin) -> Conditions:
    return parse(Conditions, {k: v for k, v in table.items() if k != "format"}, origin)


def _unusable(path: Path, run: Run, why: str) -> ConfigError:
    return ConfigError(f"{path} {why}: run `kao tune-sampler {run.path}` again.")
