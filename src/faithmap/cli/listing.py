"""What is declared, read from the source files: importing them would import torch, which takes seconds."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import faithmap
from faithmap.declarations import Declaration, Declarations, Parameter
from faithmap.measures.measure import SETS, MeasureKind

PACKAGE = Path(faithmap.__file__).parent


@dataclass(frozen=True)
class Kind:
    """One kind of declarations.

    Attributes:
        title: what a table of them is called.
        room: the package of faithmap that holds them.
        decorator: what declares one.
        group: of the entry points of other packages.
        registry: where they are once imported, as ``"module:NAME"``.
        record: what one is read as.
    """

    title: str
    room: str
    decorator: str
    group: str
    registry: str
    record: type[Declaration] = Declaration

    def listed(self) -> dict[str, list[Declaration]]:
        """Package → its declarations. Imports the registry only where other packages add to it."""
        found = {"faithmap": declared_in(PACKAGE / self.room, self.decorator, self.record)}
        if entry_points(group=self.group):
            registry = self.imported()
            for name, package in registry.packages().items():
                found.setdefault(package, []).append(registry[name])
        return found

    def imported(self) -> Declarations[Declaration]:
        """The registry itself."""
        module, _, name = self.registry.partition(":")
        registry: Declarations[Declaration] = getattr(importlib.import_module(module), name)
        return registry


MEASURES = Kind(
    "Measures", "measures", "measure", "faithmap.measures", "faithmap.measures.measure:MEASURES", MeasureKind
)
KINDS = (
    Kind("Heatmap methods", "attribution", "heatmap_method", "faithmap.methods", "faithmap.attribution.method:METHODS"),
    Kind("Fills", "perturbation", "fill", "faithmap.fills", "faithmap.perturbation.fills:FILLS"),
    MEASURES,
)


def listed_measures() -> list[tuple[str, MeasureKind]]:
    """Package and measure, sorted by set."""
    found = [(package, one) for package, some in MEASURES.listed().items() for one in some]
    measures = [(package, one) for package, one in found if isinstance(one, MeasureKind)]
    return sorted(measures, key=lambda pair: SETS.index(pair[1].set))


def declared_in(folder: Path, decorator: str, record: type[Declaration] = Declaration) -> list[Declaration]:
    """The functions under a decorator in the modules of a folder, in the order of `Declarations`.

    A declaration is plain: its arguments are literals, `Parameter` with a literal as default, or names of such things
    at the top of a module.
    """
    found = []
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if f"@{decorator}(" not in text:
            continue
        tree = ast.parse(text)
        for node in tree.body:
            for call in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                    found.append(_declaration(call, tree, record))
    return found


def _declaration(call: ast.Call, module: ast.Module, record: type[Declaration]) -> Declaration:
    said = {word.arg: word.value for word in call.keywords if word.arg is not None}
    shown = [field.name for field in fields(record) if field.name in said and field.name != "applies"]
    return record(_value(call.args[0], module), _not_loaded, **{key: _value(said[key], module) for key in shown})


def _not_loaded(*_: Any) -> None:
    raise NotImplementedError("a declaration that was read from its source file has no function")


def _value(node: ast.expr, module: ast.Module) -> Any:
    if isinstance(node, ast.Dict):
        keys = [_value(key, module) for key in node.keys if key is not None]
        return dict(zip(keys, (_value(value, module) for value in node.values), strict=True))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Parameter":
        return Parameter(_value(node.args[0], module), str)
    if isinstance(node, ast.Name):
        return _value(*_assigned(node.id, module))
    return ast.literal_eval(node)


def _assigned(name: str, module: ast.Module) -> tuple[ast.expr, ast.Module]:
    """What a name stands for at the top of a module, or of the module of ours that it is imported from."""
    for node in module.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            return node.value, module
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == name for alias in node.names):
            path = PACKAGE.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
            return _assigned(name, ast.parse(path.read_text(encoding="utf-8")))
    raise LookupError(f"'{name}' in a declaration is not assigned at the top of its module")
