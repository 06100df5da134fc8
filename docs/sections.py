"""For the documentation site: the sections of a docstring as the parser knows them."""

import re
from typing import Any

import griffe

SECTION = re.compile(r"(?<!\n)\n(?=(?:Args|Attributes|Examples|Raises|Returns|Source|Yields):\n)")


# Several parameters described in one place, with the lines that go on below.
SHARED = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.M)


def each(found: re.Match[str]) -> str:
    """The description under every name."""
    indent, names, said = found.groups()
    return "\n".join(f"{indent}{name}: {said}" for name in names.split(", "))


class Sections(griffe.Extension):
    """Puts an empty line above each section, calls `Example:` as the parser does, and parts `mean, std:`."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = SECTION.sub("\n\n", SHARED.sub(each, text))
