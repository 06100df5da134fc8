"""For the documentation site: the sections of a docstring as the parser knows them."""

import re
from typing import Any

import griffe

SECTION = re.compile(r"(?<!\n)\n(?=(?:Args|Attributes|Examples|Raises|Returns|Source|Yields):\n)")


class Sections(griffe.Extension):
    """Puts an empty line above each section, and calls `Example:` by the name that the parser knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.M)
            obj.docstring.value = SECTION.sub("\n\n", text)
