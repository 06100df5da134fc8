"""For the documentation site: sections of a docstring may follow each other without an empty line."""

import re
from typing import Any

import griffe

SECTION = re.compile(r"(?<!\n)\n(?=(?:Args|Attributes|Example|Examples|Raises|Returns|Source|Yields):\n)")


class Sections(griffe.Extension):
    """Puts the empty line there that the parser asks for above `Raises:` and the like."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = SECTION.sub("\n\n", obj.docstring.value)
