"""The arrows of the design: a module imports only what stands on a lower floor, wherever the import is written."""

import ast
from pathlib import Path

import pytest

import faithmap

PACKAGE = Path(faithmap.__file__).parent
# From the ground up. What stands on one floor does not import its neighbours.
FLOORS = [
    {"errors", "_version", "identity", "modes"},
    {"foreign"},
    {"text", "protocol", "files", "checks"},
    {"arrays", "arguments"},
    {"randomness", "declarations"},
    {"mosaics", "grouping", "declared"},
    {"images"},
    {"classifiers"},
    {"perturbation"},
    {"inference"},
    {"attribution"},
    {"statistics"},
    {"measures"},
    {"testbeds"},
    {"store"},
    {"plots"},
    {"report"},
    {"run"},
    {"experiment"},
    {"studies"},
    {"cli"},
    {"__main__"},
]
MODELS = {"classifiers", "attribution", "inference"}
NEVER_LOAD_A_MODEL = ["statistics", "plots", "report", "store", "run"]
NEVER_DRAW = ["store", "statistics", "perturbation", "inference", "attribution"]


def module_of(path: Path, package: Path) -> str:
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Dotted name inside the package → file; a package's name stands for its `__init__`."""
    return {module_of(path, package): path for path in sorted(package.rglob("*.py"))}


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports: at the top, inside functions, by name or as a whole."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [[*node.module.split("."), alias.name] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path} has a relative import: write it out, so that the guard sees it")
        else:
            continue
        for package, *parts in names:
            if package != "faithmap":
                continue
            while parts and ".".join(parts) not in known:
                parts = parts[:-1]
            if parts:
                found.add(".".join(parts))
    return found


def violations(package: Path = PACKAGE, floors=FLOORS) -> list[str]:
    """What stands in the way of the design, in words."""
    level = {name: number for number, names in enumerate(floors) for name in names}
    known = modules(package)
    rooms = {name.split(".")[0] for name in known if name}
    wrong = [f"the floors name {name}, which does not exist" for name in level.keys() - rooms]
    wrong += [f"{name} has no floor" for name in rooms - level.keys()]
    for name, path in known.items():
        own = name.split(".")[0]
        for other in imported(path, known) if own else ():
            room = other.split(".")[0]
            if room != own and level.get(room, 0) >= level.get(own, 99):
                wrong.append(f"{name} imports {other}")
    return wrong


def circles(package: Path = PACKAGE) -> list[list[str]]:
    """Modules that import each other, directly or around corners; a package's `__init__` only hands names on."""
    known = modules(package)
    inits = {name for name, path in known.items() if path.name == "__init__.py"}
    arrows = {name: imported(path, known) - inits - {name} for name, path in known.items() if name not in inits}
    found = []
    for start in arrows:
        seen, todo = set(), list(arrows[start])
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += arrows.get(here, ())
        if start in seen:
            found.append([start, *sorted(name for name in seen if start in arrows.get(name, ()))])
    return found


def reached(start: str, package: Path = PACKAGE) -> set[str]:
    """All modules that are loaded with a module, packages and their `__init__` included."""
    known = modules(package)
    todo = [name for name in known if name == start or name.startswith(f"{start}.")]
    assert todo, f"{start} does not exist"
    seen = set()
    while todo:
        here = todo.pop()
        if here in known and here not in seen:
            seen.add(here)
            parents = [".".join(here.split(".")[:n]) for n in range(1, here.count(".") + 1)]
            todo += [*imported(known[here], known), *parents]
    return seen


def test_imports_point_one_way():
    assert not violations()


def test_no_modules_import_each_other():
    assert not circles()


@pytest.mark.parametrize("room", NEVER_LOAD_A_MODEL)
def test_reading_a_run_never_loads_a_model(room):
    assert not {name for name in reached(room) if name.split(".")[0] in MODELS}


@pytest.mark.parametrize("room", NEVER_DRAW)
def test_computing_never_draws(room):
    assert not {name for name in reached(room) if name.split(".")[0] in ("plots", "report", "cli")}


def test_inference_never_learns_what_a_heatmap_is():
    assert not {name for name in reached("inference") if name.split(".")[0] == "attribution" or "regions" in name} - {
        "perturbation.regions"  # handed on by the package, used by none of its modules
    }
    known = modules()
    inside = {name: path for name, path in known.items() if name.split(".")[0] == "inference"}
    assert not {other for path in inside.values() for other in imported(path, known) if "regions" in other}


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("low.py", "from faithmap import high"),
        ("low.py", "from faithmap.high import thing"),
        ("low.py", "import faithmap.high as h"),
        ("low.py", "def later():\n    from faithmap.high import thing"),
        ("low.py", "def later():\n    import faithmap.tower.top"),
        ("low.py", "from faithmap.tower import top"),
        ("tower/top.py", "if TYPE_CHECKING:\n    from faithmap.roof import thing"),
        ("beside.py", "from faithmap.low import thing"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, code):
    floors = [{"low", "beside"}, {"high", "tower"}, {"roof"}]
    for name in ("__init__.py", "low.py", "beside.py", "high.py", "tower/__init__.py", "tower/top.py", "roof.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("thing = 1\n")
    assert not violations(tmp_path, floors)
    (tmp_path / file).write_text(code)
    assert len(violations(tmp_path, floors)) == 1


def test_a_floor_without_a_room_and_a_room_without_a_floor_are_found(tmp_path):
    (tmp_path / "low.py").write_text("")
    assert violations(tmp_path, [{"low"}, {"gone"}]) == ["the floors name gone, which does not exist"]
    assert violations(tmp_path, []) == ["low has no floor"]
    with pytest.raises(AssertionError, match="does not exist"):
        reached("gone", tmp_path)


def test_a_planted_circle_is_found(tmp_path):
    (tmp_path / "one.py").write_text("def later():\n    from faithmap.two import thing")
    (tmp_path / "two.py").write_text("from faithmap import one")
    assert circles(tmp_path)


def test_a_model_reached_around_a_corner_is_found(tmp_path):
    (tmp_path / "classifiers.py").write_text("")
    (tmp_path / "middle.py").write_text("def later():\n    import faithmap.classifiers")
    (tmp_path / "plots.py").write_text("from faithmap.middle import thing")
    assert "classifiers" in reached("plots", tmp_path)
