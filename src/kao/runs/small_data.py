"""What keeps fine-tuning on few pictures from learning them by heart.

Three steps, by the number of pictures, for keys that nobody asked for.  The fewer there are, the
more dropout (Srivastava et al. 2014); below a few thousand, EDM's augmentation, of which the
network is told and which therefore does not show in what it draws (Karras et al. 2022, appendix
F.2); and always an end where drawn pictures turn out to be copies.  The numbers are borrowed from
published small sets, not searched.
"""

from dataclasses import dataclass

from kao.config import Request, RunConfig, Table, dump, leaves


@dataclass(frozen=True)
class Step:
    """What is chosen below a number of pictures.

    Attributes:
        below: Pictures.
        dropout: Of the network, at least.
        edm: Probability of each of EDM's transforms, at least.
    """

    below: int
    dropout: float
    edm: float


STEPS = (Step(300, 0.3, 0.12), Step(2_000, 0.2, 0.12), Step(10_000, 0.1, 0.0))
"""For about a hundred pictures, about a thousand, and about five thousand."""


def for_few(config: RunConfig, asked: Table, pictures: int) -> tuple[RunConfig, list[str]]:
    """The configuration for so many pictures, and what was chosen and why.

    Args:
        config: Of a fine-tuning run that begins.
        asked: What the user did set, which stays.
        pictures: How many there are.
    """
    step = next((step for step in STEPS if pictures < step.below), None)
    if step is None:
        return config, []
    now, typed = leaves(dump(config)), leaves(asked)
    wanted = {
        "network.dropout": max(step.dropout, now["network.dropout"]),
        "data.augment.edm": max(step.edm, now["data.augment.edm"]),
    }
    if now["evaluation.every"] != 0:  # it goes by scores
        wanted["evaluation.stop"] = "auto"
    chosen = {key: value for key, value in wanted.items() if key not in typed and now[key] != value}
    if not chosen:
        return config, []
    table: Table = {}
    for key, value in chosen.items():
        *path, name = key.split(".")
        branch = table
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    told = ", ".join(f"{key} = {value}" for key, value in chosen.items())
    why = (
        f"Chosen for {pictures:,} pictures, which are soon learned by heart (fewer than "
        f"{step.below:,}): {told}."
    )
    return Request(table).over(dump(config)), [why]
