"""Nothing that a run has done with stays in memory."""

import gc

import pytest
import torch
from benchmarks.chaos import network

import faithmap

METHODS = (
    "lrp-epsilon:0.01",
    "deconvolution:l2",
    "sensitivity:l2",
    "guided-backpropagation",
    "deeplift",
    "integrated-gradients",
)


def tensors() -> int:
    """Tensors that are alive, those in circles that only autograd sees included."""
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


@pytest.mark.parametrize("method", METHODS)
def test_a_heatmap_leaves_nothing_behind(method):
    classifier, pixels, targets = network(), torch.rand(4, 3, 24, 24), torch.tensor([0, 1, 2, 3])
    faithmap.heatmaps(classifier, pixels, targets, method)
    before = tensors()
    for _ in range(3):
        faithmap.heatmaps(classifier, pixels, targets, method)
    assert tensors() <= before


def test_blocks_leave_nothing_behind(tmp_path):
    """The number of tensors after every block of a run of two hundred images."""
    pixels = torch.rand(1, 3, 24, 24).expand(200, -1, -1, -1)
    protocol = faithmap.Protocol.preset(steps=2, region_size=4, draws=1)
    seen = {}

    def look(state):
        if state.images % 48 == 0 and state.images not in seen:
            seen[state.images] = tensors()

    faithmap.evaluate(
        network(), pixels, ["lrp-epsilon:0.01", "deconvolution:l2"], protocol, tmp_path / "run", progress=look
    )
    counts = [count for images, count in seen.items() if images]
    assert len(counts) == 4
    assert max(counts) == min(counts)
