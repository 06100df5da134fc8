"""The files of this package, and templates that escape whatever is put into them."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

import jinja2

from faithmap.plots.series import COLOURS, GREY


@dataclass(frozen=True)
class Html:
    """What a notebook shows as it is."""

    html: str = field(repr=False)

    def _repr_html_(self) -> str:
        return self.html


@cache
def asset(name: str) -> str:
    """A file of the page: a template, a script or a style sheet."""
    return resources.files("faithmap.report").joinpath("web", name).read_text(encoding="utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A template that escapes whatever is put into it."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template(name)


def script_json(value: object) -> str:
    """JSON that cannot end the script element that it stands in.

    Example:
        >>> script_json("</script>")
        '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def policy(style: str, script: str, *, files: bool = False) -> str:
    """A Content Security Policy: no network at all, and only this style sheet and this script.

    Args:
        style, script: the page's.
        files: also scripts and pictures that lie beside the page.
    """
    beside = " 'self' file:" if files else ""
    return (
        f"default-src 'none'; img-src data:{beside}; style-src {source_hash(style)}; "
        f"script-src {source_hash(script)}{beside}; base-uri 'none'; form-action 'none'"
    )


def palette() -> str:
    """The colours of all methods as variables of the style sheet, on light and on dark paper."""

    def rules(dark: bool) -> str:
        named = [*(pair[dark] for pair in COLOURS)]
        return "".join(f"--c{i}:{colour};" for i, colour in enumerate(named)) + f"--random:{GREY[dark]};"

    classes = "".join(f".hue-{i}{{--hue:var(--c{i})}}" for i in range(len(COLOURS)))
    return (
        f":root{{{rules(False)}}}"
        f'@media (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{rules(True)}}}}}'
        f':root[data-theme="dark"]{{{rules(True)}}}@media print{{:root:root{{{rules(False)}}}}}'
        f"{classes}.hue-random{{--hue:var(--random)}}\n"
    )


def source_hash(text: str) -> str:
    """A source expression that admits exactly this text."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
