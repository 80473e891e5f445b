"""Who may import whom: a module imports rooms below its own, and nothing beside or above."""

import ast
from pathlib import Path

import pytest

import kao

LAYERS = [
    ["errors"],
    ["files", "machine", "pixels", "processes", "seeds"],
    ["shards"],
    ["diffusion", "networks", "data", "metrics", "visualisation", "tracking"],
    ["checkpoints", "training"],
    ["config"],
    ["evaluation", "exchange"],
    ["runs", "reports"],
    ["cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}
# Which machine it runs on is told with its own version.
TOP = "kao"
ROOT = Path(kao.__file__).parent


def room_of(module: str) -> str:
    """ "kao.data.loading" -> "data"; the package itself is its own room."""
    return [*module.split("."), TOP][1]


def imports(path: Path):
    """(line, module) for each import of ours, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == TOP:
            if node.module == TOP:
                yield from ((node.lineno, f"{TOP}.{name.name}") for name in node.names)
            else:
                yield node.lineno, node.module
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, n.name) for n in node.names if n.name.startswith(f"{TOP}."))


def test_every_room_has_a_layer():
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} == set(HEIGHT)


def test_modules_import_only_from_rooms_below():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own not in HEIGHT:  # the package's own __init__ and __main__ stand above all
            continue
        for line, module in imports(path):
            other = room_of(module)
            if other in (own, "__version__"):
                continue
            if other not in HEIGHT or HEIGHT[other] >= HEIGHT[own]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} ({own}) imports {module}")
    assert not wrong, "\n".join(wrong)


ORDER = [
    ["schedules"],
    ["targets", "posterior"],
    ["denoiser"],
    [
        "grids",
        "noise",
        "guidance",
        "times",
        "weights",
        "norms",
        "bound",
        "perceptual",
        "uncertainty",
    ],
    ["samplers", "losses"],
    ["editing", "inversion"],
]


def test_diffusion_is_built_upwards():
    height = {name: i for i, names in enumerate(ORDER) for name in names}
    wrong = []
    for path in sorted((ROOT / "diffusion").rglob("*.py")):
        own = path.relative_to(ROOT / "diffusion").parts[0].removesuffix(".py")
        for line, module in imports(path):
            parts = module.split(".")
            other = parts[2] if parts[1] == "diffusion" and len(parts) > 2 else None
            if own in height and other in height and other != own:
                if height[other] >= height[own]:
                    wrong.append(f"diffusion/{path.name}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


CHORES = {
    "what is printed": (
        {"print", "sys.stdout", "sys.stderr", "typer.echo", "rich.console"},
        {"cli/console.py", "cli/streams.py", "cli/__init__.py", "data/prepare.py"},
    ),
    "text as HTML": ({"html", "html.escape"}, {"reports/parts.py"}),
    "home directories": ({"expanduser", "os.path.expanduser", "home"}, {"files.py"}),
}
"""Names that only these files use, each for one chore which must be done in one way."""


def names_used(path: Path):
    """Functions called, modules imported, and the attributes of modules, as they are written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            yield node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("chore", CHORES)
def test_a_chore_that_names_of_users_depend_on_has_one_place(chore):
    names, places = CHORES[chore]
    users = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if names & set(names_used(path))
    }
    assert users == places
