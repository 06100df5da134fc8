"""How methods, images and labels are written for people."""

from __future__ import annotations

RANDOM = "random"
_WORDS = {
    "lrp": "LRP",
    "epsilon": "ε",
    "alpha": "α",
    "beta": "β",
    "gamma": "γ",
    "l2": "ℓ2",
    "linf": "ℓ∞",
    "zplus": "z⁺",
}
_ACRONYMS = {"ig": "IG", "cam": "CAM", "gradcam": "Grad-CAM", "shap": "SHAP", "lime": "LIME"}


def display_name(method: str) -> str:
    """A method's name as figures and tables write it.

    Example:
        >>> display_name("lrp-epsilon:0.01"), display_name("sensitivity:linf"), display_name("random")
        ('LRP-ε (0.01)', 'sensitivity (ℓ∞)', 'random')
    """
    family, *parts = printable(method).split(":")
    words = [_WORDS.get(word, _ACRONYMS.get(word, word)) for word in family.split("-")]
    name = "-".join(words) if words[0] == "LRP" else " ".join(words)
    parameters = [_WORDS.get(part, part) for part in parts if part]
    return f"{name} ({', '.join(parameters)})" if parameters else name


def printable(text: str, longest: int = 200) -> str:
    """Text from outside (file names, labels) on one line: what cannot be printed is written as an escape.

    Args:
        text: any string, lone surrogates included.
        longest: characters kept; a longer text loses its middle.
    Example:
        >>> printable("a\\nb")
        'a\\\\nb'
    """
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))
    if len(shown) > longest:
        head = (longest - 1) // 2
        shown = f"{shown[:head]}…{shown[-(longest - 1 - head) :]}"
    return shown
