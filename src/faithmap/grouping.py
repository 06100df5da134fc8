"""Which images belong together and are not independent: crops of a photo, images of a patient, frames of a video."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from faithmap.checks import each_once
from faithmap.errors import InputError, shown
from faithmap.files import expanded, read_bytes
from faithmap.foreign import pairs
from faithmap.text import several

Groups = str | Path | Mapping[str, str] | None
GROUP_NOUN = "group"
"""What a group is called where nobody says that it is a photo, a patient, a video."""
SECONDS = 30
"""How long a regular expression may take on all names together; a million names take one or two."""
# What stands behind the name of a photo when there are several images of it: cat-top-left, cat_crop3, cat-2.
_SEVERAL = re.compile(
    r"^(?P<stem>.*?[^-_. ])[-_. ]+"
    r"((crop|tile|patch|view|aug|slice|frame|flip|rot)[-_. ]?\d*"
    r"|whole|cent(re|er)|(top|bottom|upper|lower)[-_ ]?(left|right)|left|right|\d{1,3})$",
    re.IGNORECASE,
)


def _shared_stem(image_id: str) -> str | None:
    """The part of an id that other images of the same photo would share; None where it does not look like that."""
    path = PurePosixPath(image_id)
    match = _SEVERAL.match(path.stem if path.suffix else path.name)
    if match is None or match["stem"] == path.parent.name:  # n01440764/n01440764_18 names its class
        return None
    return str(path.parent / match["stem"])


def named(groups: Groups) -> str:
    return "as a mapping" if isinstance(groups, Mapping) else f"'{groups}'"


def groups_by_id(groups: str | Path | Mapping[str, str], ids: Sequence[str]) -> dict[str, str | None]:
    """The group of each image; None where there is none.

    Raises:
        InputError: a pattern without exactly one capture, or one that takes too long; a file that cannot be read.
    """
    if isinstance(groups, Mapping):
        given = pairs(groups, "groups")
        return {name: None if given.get(name) is None else str(given[name]) for name in ids}
    if not isinstance(groups, str | Path):
        raise InputError(f"groups is {shown(groups)}: give 'folder', a CSV file, a regular expression or a mapping.")
    if groups == "folder":
        return {
            name: name if (parent := PurePosixPath(name).parent) == PurePosixPath() else str(parent) for name in ids
        }
    if isinstance(groups, Path) or groups.endswith(".csv"):
        table = _group_table(Path(groups))[1]
        return {name: table.get(name) for name in ids}
    try:
        captures = re.compile(groups).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(
            f"groups {shown(groups)} is no regular expression ({error}): give one with one capture."
        ) from None
    if captures != 1:
        raise InputError(
            f"groups {shown(groups)} has {captures} captures, expected one, such as r'(patient\\d+)_'; or give "
            "'folder', a CSV file or a mapping."
        )
    return dict(zip(ids, _captured(groups, ids), strict=True))


# In a process of its own, because Python cannot end a search that tries too many ways: (a+)+$ on a long name takes
# longer than the universe is old.
_SEARCH = """
import json, re, sys
pattern, names = json.load(sys.stdin)
search = re.compile(pattern).search
json.dump([found[1] if (found := search(name)) else None for name in names], sys.stdout)
"""


def _captured(pattern: str, names: Sequence[str]) -> list[str | None]:
    """What a regular expression with one capture finds in each name, within `SECONDS`."""
    command = [sys.executable, "-I", "-S", "-c", _SEARCH]
    asked = json.dumps([pattern, list(names)])
    try:
        done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(
            f"groups {shown(pattern)} takes longer than {SECONDS} s on {several(len(names), 'name')}, as happens where "
            "a repeat stands in a repeat: give a simpler regular expression, such as r'(patient\\d+)_', or a CSV file."
        ) from None
    if done.returncode:
        said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        raise InputError(f"groups {shown(pattern)} cannot be searched ({said}): give a CSV file.")
    found: list[str | None] = json.loads(done.stdout)
    return found


def group_noun(groups: str | Path | Mapping[str, str]) -> str:
    r"""What one group is called: the name of the capture or of the CSV's column, "folder", or "group".

    Args:
        groups: that `groups_by_id` takes.
    Example:
        >>> group_noun(r"(?P<patient>\d+)_"), group_noun(r"(\d+)_"), group_noun("folder")
        ('patient', 'group', 'folder')
    """
    if isinstance(groups, Mapping):
        return GROUP_NOUN
    if groups == "folder":
        return "folder"
    if isinstance(groups, Path) or groups.endswith(".csv"):
        name, _ = _group_table(Path(groups))
    else:
        name = next(iter(re.compile(groups).groupindex), GROUP_NOUN)
    return name.replace("_", " ").strip().lower() or GROUP_NOUN


def _group_table(path: Path) -> tuple[str, dict[str, str]]:
    """What a CSV file with the columns image and group says; the second column may have another name."""
    try:
        with io.StringIO(read_bytes(expanded(path)).decode("utf-8-sig"), newline="") as file:
            rows = csv.DictReader(file)
            columns = list(rows.fieldnames or ())
            others = [name for name in columns if name != "image"]
            name = GROUP_NOUN if GROUP_NOUN in others else others[0] if len(others) == 1 else None
            if "image" not in columns or name is None:
                raise InputError(f"groups {path} has the columns {', '.join(columns) or 'none'}, expected image,group.")
            found = []
            for row in rows:
                if row["image"] is None or any(row.pop(None, ())):  # a comma in a name
                    raise InputError(f"groups {path} has other cells than columns (line {rows.line_num}).")
                found.append((row["image"], row[name] or ""))
            return name, each_once(found, f"groups {path}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"groups {path} cannot be read ({error}): give a CSV file with the columns image,group."
        ) from None


def suggestion(ids: Sequence[str]) -> str | None:
    """A sentence where names look like several crops of the same photos, else None."""
    stems = Counter(stem for name in ids if (stem := _shared_stem(name)) is not None)
    inside = sum(stems.values())
    if len(stems) < 2 or inside < 0.8 * len(ids) or inside < 2 * len(stems):
        return None
    stem, count = stems.most_common(1)[0]
    return (
        f"the names of {len(ids)} images suggest {len(stems)} groups (such as {count} of '{stem}'), and none are "
        "given: every image counts as independent. If they are crops of the same photos or images of the same "
        r"patients, say so, for example with groups=r'^(.+)-' or a CSV file (image,group)."
    )
