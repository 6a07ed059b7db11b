"""Floors: a file imports only from floors below its own, or from its own folder (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

import diptych

ROOT = Path(diptych.__file__).parent
FLOORS = [
    {"errors", "types", "seeding", "hardware"},
    {"config", "runs"},
    {"data", "views", "backbones", "heads", "diagnostics", "optim", "checkpoint", "distributed", "progress", "figures"}
    | {"markup", "trackers"},
    {"methods", "frozen"},
    {"training", "evaluation", "auditing", "vectors", "handoff"},
    {"recipes", "reports", "explorer", "sklearn"},
    {"api"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Rooms of diptych that the file imports, imports inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "diptych" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("diptych.")}
    return found


def breaches(files: dict[Path, set[str]]) -> list[str]:
    found = []
    for path, rooms in files.items():
        own = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if own == "__init__":  # the front door opens `api` lazily
            continue
        found += [
            f"{path.relative_to(ROOT)} (floor {FLOOR[own]}) imports {room} (floor {FLOOR[room]})"
            for room in rooms
            if room != own and FLOOR[room] >= FLOOR[own]
        ]
    return found


def test_every_file_imports_only_from_below():
    assert not breaches({path: imports(path) for path in ROOT.rglob("*.py")})


def test_every_room_has_a_floor():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")} - {"__init__"}
    assert rooms == set(FLOOR)


@pytest.mark.parametrize(("file", "room"), [("errors.py", "methods"), ("views/ops.py", "data"), ("heads.py", "api")])
def test_a_breach_is_found_and_named(file, room):
    (line,) = breaches({ROOT / file: {room}})
    assert file in line and room in line
