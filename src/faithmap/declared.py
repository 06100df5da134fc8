"""Declarations read from the source files of faithmap: importing them would import torch, which takes seconds."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path
from typing import Any

import faithmap
from faithmap.declarations import Declaration, Parameter

PACKAGE = Path(faithmap.__file__).parent


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
