"""The table of methods and networks in docs/methods.md says what the methods do."""

import pytest
from benchmarks import method_table as made

from faithmap.attribution.method import METHODS

KNOWN_ON_ALL = {
    "random",
    "blend",
    "smoothed",
    "shapley",
    "centre",
    "edge",
    "brightness",
}  # controls, whatever the network


def documented():
    """(method, network) → ✓ or the reason."""
    text = made.DOCS.read_text(encoding="utf-8").split(made.BEGIN)[1].split(made.END)[0]
    lines = [line for line in text.splitlines() if line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    reasons = dict(line[2:].split(": ", 1) for line in lines if line.startswith("- "))
    networks = rows[0][1:]
    return {
        (method.strip("` "), network): reasons.get(cell, cell)
        for row in rows[2:]
        for method in row[0].split(",")
        for network, cell in zip(networks, row[1:], strict=True)
    }


def test_the_table_is_whole():
    names = {method.partition(":")[0] for method in made.METHODS}
    assert len(made.NETWORKS) >= 16
    assert names | KNOWN_ON_ALL == set(METHODS) | KNOWN_ON_ALL
    assert set(documented()) == {(method, network) for method in names for network in made.NETWORKS}


def compare(networks, methods):
    table = documented()
    for method, cells in made.marks(networks, methods).items():
        for network, why in cells.items():
            assert table[method.partition(":")[0], network] == (why or "✓"), (method, network)


def test_some_of_the_table_holds():
    """Fast networks of each kind, methods that look inside."""
    methods = ["lrp-epsilon-plus", "attn-lrp", "attention-rollout", "deconvolution", "deeplift", "grad-cam"]
    compare(["DenseNet", "EfficientNet", "ConvNeXt", "Swin", "ViT", "timm DeiT", "HF BEiT"], methods)


@pytest.mark.slow
def test_all_of_the_table_holds():
    compare(made.NETWORKS, made.METHODS)
