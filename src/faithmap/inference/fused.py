"""A network whose convolutions apply the ReLU behind them: the same numbers, bit for bit, with less memory traffic.

oneDNN's convolution can apply a ReLU before it writes a value, and can keep its weights in the order that it wants.
PyTorch offers both without promising them, so the first batch is also run through the network as it is: where one bit
differs, the network as it is runs ever after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from faithmap.classifiers import Classifier, evaluation_mode
from faithmap.errors import EngineError
from faithmap.inference.dense import whole
from faithmap.inference.incremental.geometry import Pair
from faithmap.inference.incremental.tracing import Traced, aten, trace

BATCH = 32  # inputs at a time, always as many: their maps stay near the cache


class FusedNetwork:
    """What `Classifier.outputs` returns, from the recorded graph.

    Args:
        classifier: on a CPU, in float32.
        size: rows and columns of the inputs.
    Raises:
        EngineError: why there is no such network.
    """

    def __init__(self, classifier: Classifier, size: Pair) -> None:
        if not can_fuse(classifier.dtype, classifier.device):
            raise EngineError(f"convolutions are fused on a CPU in float32, not on {classifier.device}")
        self.classifier = classifier
        with evaluation_mode(classifier.module):
            shape = (BATCH, classifier.channels, *size)
            traced = trace(classifier.module, shape, classifier.dtype, classifier.device)
        try:
            self._module: fx.GraphModule | None = _fused(traced)
        except (AttributeError, RuntimeError, TypeError) as error:  # operations that torch does not promise
            raise EngineError(f"convolutions cannot be fused ({error})") from error
        self._compared = False

    def __call__(self, inputs: Tensor) -> Tensor:
        """Normalised inputs (rows, channels, height, width) → outputs."""
        if self._module is None:
            return self._as_it_is(inputs)
        parts = [self._module(whole(part, BATCH))[: len(part)] for part in torch.split(inputs, BATCH)]
        outputs = self.classifier.check_logits(torch.cat(parts), len(inputs))
        if not self._compared:
            expected = self._as_it_is(inputs)
            self._compared = True
            if not torch.equal(outputs, expected):
                self._module = None
                return expected
        return outputs

    def _as_it_is(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.classifier.outputs(inputs)
        return outputs


def _fused(traced: Traced) -> fx.GraphModule:
    root = nn.Module()
    for name, tensor in traced.constants.items():
        root.register_buffer(name, tensor, persistent=False)
    for node in list(traced.graph.nodes):
        weight = traced.constant(node.args[1]) if node.target is aten.conv2d.default else None
        if weight is None:
            # Maps are channels_last, which a plain view need not be able to see through.
            node.target = aten.reshape.default if node.target is aten.view.default else node.target
            continue
        convolution, source, relu = fused_convolution(traced, node)
        root.add_module(node.name, convolution)
        with traced.graph.inserting_before(node):
            fused = traced.graph.call_module(node.name, (source,))
        fused.meta = node.meta
        if relu is not None:
            relu.replace_all_uses_with(fused)
            traced.graph.erase_node(relu)
        else:
            node.replace_all_uses_with(fused)
        traced.graph.erase_node(node)
    return fx.GraphModule(root, traced.graph)


def can_fuse(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether convolutions of this type are fused on this device at all."""
    return device.type == "cpu" and dtype == torch.float32


def fused_convolution(traced: Traced, node: fx.Node) -> tuple[FusedConvolution, fx.Node, fx.Node | None]:
    """A convolution with constant weights as a module, what it reads, and the ReLU that it applies.

    It applies one where that alone reads its result, and where no value is NaN, of which it would make zero.

    Raises:
        AttributeError, RuntimeError, TypeError: torch has no such operation, or another one.
    """
    users, source = list(node.users), node.args[0]
    assert isinstance(source, fx.Node)
    relu = users[0] if len(users) == 1 and users[0].target is aten.relu.default and traced.stays_finite else None
    weight = traced.constant(node.args[1])
    bias = traced.constant(node.args[2]) if len(node.args) > 2 else None
    assert weight is not None
    return FusedConvolution(weight, bias, source.meta["shape"], node.args[3:], relu is not None), source, relu


class FusedConvolution(nn.Module):
    """A convolution with its weights in oneDNN's own order, perhaps with a ReLU."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, inputs: tuple[int, ...], more: Sequence[Any], relu: bool
    ) -> None:
        super().__init__()
        defaults: tuple[Any, ...] = ((1, 1), (0, 0), (1, 1), 1)
        stride, padding, dilation, groups = (*more, *defaults[len(more) :])
        self.bias, self.attribute = bias, "relu" if relu else "none"
        self.arguments = padding, stride, dilation, groups
        nn_ops: Any = torch._C._nn
        self.weight = nn_ops.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), *self.arguments, inputs)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            inputs, self.weight, self.bias, *self.arguments, self.attribute, [], ""
        )
        return result
