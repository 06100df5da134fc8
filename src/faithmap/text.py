"""How methods, images and labels are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from faithmap.errors import escaped, shortened

_WORDS = {
    "lrp": "LRP",
    "epsilon": "ε",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "sigma": "σ",
    "l2": "ℓ2",
    "linf": "ℓ∞",
    "zplus": "z⁺",
}
_ACRONYMS = {"ig": "IG", "cam": "CAM", "grad": "Grad", "gradcam": "Grad-CAM", "shap": "SHAP", "lime": "LIME"}
# As their papers write them, where the words alone do not say it.
_AS_PUBLISHED = {
    "attn-lrp": "AttnLRP",
    "deeplift": "DeepLIFT",
    "excitation-backprop": "excitation backpropagation",
    "kernelshap": "KernelSHAP",
    "lrp-alpha-beta": "LRP-αβ",
    "lrp-epsilon-alpha2-beta1": "LRP-ε-α2β1",
    "lrp-z-plus": "LRP-z⁺",
    "rise": "RISE",
    "shapley": "Shapley values",
    "smoothgrad": "SmoothGrad",
}


def display_name(method: str) -> str:
    """A method's name as figures and tables write it.

    Example:
        >>> display_name("lrp-epsilon:0.01"), display_name("sensitivity:linf"), display_name("random")
        ('LRP-ε (0.01)', 'sensitivity (ℓ∞)', 'random')
        >>> display_name("attn-lrp"), display_name("blend:gradient-x-input,share=0.5")
        ('AttnLRP', 'blend (gradient × input, share=0.5)')
    """
    family, _, rest = printable(method).partition(":")
    parameters = [_parameter(part) for part in re.split(r"\s*,\s*", rest.strip()) if part]
    return f"{_family(family)} ({', '.join(parameters)})" if parameters else _family(family)


def _family(name: str) -> str:
    """A method's name without its parameters."""
    if name in _AS_PUBLISHED:
        return _AS_PUBLISHED[name]
    words = [_WORDS.get(word, _ACRONYMS.get(word, word)) for word in name.split("-")]
    if words[0] == "LRP" or words[-1] == "CAM":
        return "-".join(words)
    return " ".join(["×" if word == "x" and 0 < place < len(words) - 1 else word for place, word in enumerate(words)])


def _parameter(text: str) -> str:
    """A parameter: a value, a name with its value, or the method that a control is made from."""
    name, mark, value = text.partition("=")
    if mark:
        return f"{_WORDS.get(name, name)}={_WORDS.get(value, value)}"
    return _WORDS.get(text) or (display_name(text) if text[:1].isalpha() else text)


def printable(text: str, longest: int = 200) -> str:
    """Text from outside (file names, labels) on one line: what cannot be printed is written as an escape.

    Args:
        text: any string, lone surrogates included.
        longest: characters kept; a longer text loses its middle.
    Example:
        >>> printable("a\\nb")
        'a\\\\nb'
    """
    return shortened(escaped(str(text)), longest)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its type where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


MINUS = "\u2212"


def moment(text: str | None) -> str | None:
    """A time of the manifest, to the minute."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC") if text else None
    except ValueError:
        return text


def words(value: object) -> str:
    """A value of the manifest as one line of text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {words(part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(words(part) for part in value) or "none"
    return printable(str(value)) or "none"


def decimals(values: Iterable[float | None]) -> int:
    """How many decimals show the largest of some numbers with three digits."""
    sizes = [abs(float(value)) for value in values if value is not None]
    largest = max((size for size in sizes if size > 0 and math.isfinite(size)), default=None)
    return 3 if largest is None else min(6, max(0, 2 - math.floor(math.log10(largest))))


def number(value: float, digits: int) -> str:
    """A number for people, with a true minus sign."""
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{digits}f}"
    return (MINUS if value < 0 and float(text) != 0 else "") + text


def significant(value: Any, digits: int = 3) -> str:
    """A number for people with so many significant digits, and a true minus sign.

    Example:
        >>> significant(-0.012345)
        '−0.0123'
    """
    value = float(value)
    return f"{value:.{digits}g}".replace("-", MINUS) if math.isfinite(value) else "–"


def percent(fraction: float) -> str:
    """A fraction in per cent: ``95 %``."""
    return f"{100 * fraction:g} %"


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(40), duration(720), duration(11_100)
        ('40 s', '12 min', '3 h 5 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def grouped(count: float) -> str:
    """An integer with a thin space between thousands."""
    return f"{count:,.0f}".replace(",", "\u202f")


def counted(groups: int, images: int, noun: str = "group") -> str:
    """How many independent groups, and how many images in them.

    Args:
        groups, images: their numbers.
        noun: what a group is: "group", "photo", "patient".
    Example:
        >>> counted(8, 48), counted(8, 48, "photo"), counted(48, 48), counted(1, 1)
        ('8 groups (48 images)', '8 photos (48 images)', '48 images', '1 image')
    """
    of_images = several(images, "image")
    return of_images if groups == images else f"{several(groups, noun)} ({of_images})"


def of_set(image_set: str | None, noun: str = "group") -> str:
    """What stands after a number of images: which set they are from, unless that says nothing new.

    Args:
        image_set: the set's name.
        noun: what a group is, as in `counted`.
    Example:
        >>> of_set("imagenette"), of_set("photos", "photo"), of_set(None)
        (' of imagenette', '', '')
    """
    return f" of {printable(image_set)}" if image_set and image_set not in (plural(noun), "images", "tensor") else ""


def several(count: float, noun: str) -> str:
    """A number of things.

    Example:
        >>> several(1, "photo"), several(2, "photo"), several(3, "family"), several(4, "batch")
        ('1 photo', '2 photos', '3 families', '4 batches')
    """
    return f"{grouped(count)} {noun if count == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """The plural of a regular noun."""
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"


def interval(low: float, high: float, digits: int) -> str:
    """An interval for people; empty where there is none."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"{number(low, digits)} … {number(high, digits)}"


def plain(value: float) -> str:
    """A number that a script can read back; empty where there is none."""
    return f"{value:.6g}" if math.isfinite(value) else ""


_LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    MINUS: "$-$",
    "–": "--",
    "…": r"\ldots{}",
    "×": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "≤": r"$\leq$",
    "ε": r"$\varepsilon$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ℓ": r"$\ell$",
    "∞": r"$\infty$",
    "⁺": "$^+$",
    "\u202f": r"\,",
    "\u00a0": "~",
}


def tex(text: object) -> str:
    r"""Text as LaTeX: special characters are escaped, what LaTeX does not know is named by its code point.

    Example:
        >>> tex("50 % of net_1"), tex("α → 1")
        ('50 \\% of net\\_1', '$\\alpha$ U+2192 1')
    """
    return "".join(_sign(sign) for sign in str(text))


def _sign(sign: str) -> str:
    if sign in _LATEX:
        return _LATEX[sign]
    known = " " <= sign <= "~" or (sign.isalpha() and "\u00c0" <= sign <= "\u00ff")
    return sign if known else f"U+{ord(sign):04X}"
