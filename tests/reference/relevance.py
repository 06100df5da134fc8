"""Slow twins of LRP, deconvolution and the gradient, written from the papers: values forward, then signals backward,
layer by layer, without autograd and without hooks; imports nothing from the package.

A network is a list of steps, each a module or a list of branches that are concatenated.
"""

import torch
from torch import nn
from torch.nn import functional as F


def steps_of(module):
    """The steps of torchvision's AlexNet, VGG and SqueezeNet, and of anything sequential."""
    kind = type(module).__name__
    if kind == "Fire":
        branches = [[module.expand1x1, module.expand1x1_activation], [module.expand3x3, module.expand3x3_activation]]
        return [module.squeeze, module.squeeze_activation, branches]
    if kind in ("AlexNet", "VGG"):
        return [*steps_of(module.features), module.avgpool, nn.Flatten(), *steps_of(module.classifier)]
    if kind == "SqueezeNet":
        return [*steps_of(module.features), *steps_of(module.classifier), nn.Flatten()]
    if isinstance(module, nn.Sequential):
        return [step for child in module for step in steps_of(child)]
    return [module]


def conv_backward(signal, weight, layer, shape):
    """Send a signal through the transposed convolution: s_i = Σ_j w_ij s_j."""
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    left = [
        shape[2 + d]
        - ((signal.shape[2 + d] - 1) * stride[d] - 2 * padding[d] + dilation[d] * (weight.shape[2 + d] - 1) + 1)
        for d in range(2)
    ]
    return F.conv_transpose2d(signal, weight, None, stride, padding, left, layer.groups, dilation)


def window(layer, d):
    def part(value):
        return value if isinstance(value, int) else value[d]

    return part(layer.kernel_size), part(layer.stride), part(layer.padding)


def max_pool_backward(signal, x, layer):
    """Everything to the winner of each window."""
    _, places = F.max_pool2d(
        x, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    result = torch.zeros_like(x).flatten(2)
    result.scatter_add_(2, places.flatten(2), signal.flatten(2))
    return result.reshape(x.shape)


def adaptive_cells(size, cells):
    return [((i * size) // cells, -((-(i + 1) * size) // cells)) for i in range(cells)]


def average_backward(signal, x, layer):
    """s_i = Σ_j s_j / n_j over the cells j that hold position i."""
    result = torch.zeros_like(x)
    height, width = signal.shape[2:]
    for i, (top, bottom) in enumerate(adaptive_cells(x.shape[2], height)):
        for j, (left, right) in enumerate(adaptive_cells(x.shape[3], width)):
            count = (bottom - top) * (right - left)
            result[:, :, top:bottom, left:right] += signal[:, :, i : i + 1, j : j + 1] / count
    return result


def forward(step, x):
    if isinstance(step, list):
        branches = []
        for branch in step:
            value = x
            for one in branch:
                value = forward(one, value)
            branches.append(value)
        return torch.cat(branches, 1)
    if isinstance(step, nn.Conv2d):
        return F.conv2d(x, step.weight, step.bias, step.stride, step.padding, step.dilation, step.groups)
    if isinstance(step, nn.Linear):
        return F.linear(x, step.weight, step.bias)
    if isinstance(step, nn.ReLU):
        return x.clamp(min=0)
    if isinstance(step, nn.Dropout):
        return x
    return step(x)


def linear_backward(step, weight, signal, x):
    if isinstance(step, nn.Conv2d):
        return conv_backward(signal, weight, step, x.shape)
    return signal @ weight


def divide(a, b):
    """a / b, where 0 / 0 counts as 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))


def gradient_rule(step, x, signal):
    if isinstance(step, nn.ReLU):
        return signal * (x > 0)
    return plain(step, x, signal)


def deconvolution_rule(step, x, signal):
    if isinstance(step, nn.ReLU):
        return signal.clamp(min=0)
    return plain(step, x, signal)


def guided_rule(step, x, signal):
    if isinstance(step, nn.ReLU):
        return signal.clamp(min=0) * (x > 0)
    return plain(step, x, signal)


def plain(step, x, signal):
    if isinstance(step, (nn.Conv2d, nn.Linear)):
        return linear_backward(step, step.weight, signal, x)
    if isinstance(step, nn.MaxPool2d):
        return max_pool_backward(signal, x, step)
    if isinstance(step, nn.AdaptiveAvgPool2d):
        return average_backward(signal, x, step)
    if isinstance(step, nn.Flatten):
        return signal.reshape(x.shape)
    if isinstance(step, nn.Dropout):
        return signal
    raise NotImplementedError(step)


def lrp_rule(linear):
    """`linear(step, x, relevance, number)` is the rule of convolutional and linear layers."""

    def rule(step, x, relevance):
        if isinstance(step, (nn.Conv2d, nn.Linear)):
            return linear(step, x, relevance)
        if isinstance(step, nn.ReLU):
            return relevance
        if isinstance(step, nn.AdaptiveAvgPool2d):
            return x * average_backward(divide(relevance, forward(step, x)), x, step)
        return plain(step, x, relevance)

    return rule


def epsilon_rule(epsilon):
    """R_i = Σ_j z_ij / (z_j + ε sign z_j) R_j with z_ij = x_i w_ij and z_j = Σ_i z_ij + b_j."""

    def linear(step, x, relevance):
        z = forward(step, x)
        z = torch.where(z >= 0, z + epsilon, z - epsilon)
        return x * linear_backward(step, step.weight, divide(relevance, z), x)

    return lrp_rule(linear)


def backward(steps, values, signal, rule):
    """`values[i]` is what step i was given."""
    for step, x in reversed(list(zip(steps, values, strict=True))):
        if isinstance(step, list):
            signals, start = [], 0
            for branch in step:
                inner = inputs_of(branch, x)
                width = forward(branch[-1], inner[-1]).shape[1]
                signals.append(backward(branch, inner, signal[:, start : start + width], rule))
                start += width
            signal = sum(signals)
        else:
            signal = rule(step, x, signal)
    return signal


def inputs_of(steps, x):
    values = []
    for step in steps:
        values.append(x)
        x = forward(step, x)
    return values


@torch.no_grad()
def attribute(module, inputs, targets, rule, start="one", steps=None):
    """The signal at the inputs (B, C, H, W). `start` is "one", "logit", or the number of a step whose output starts."""
    steps = steps_of(module) if steps is None else steps
    values = inputs_of(steps, inputs)
    output = forward(steps[-1], values[-1])
    if isinstance(start, int):
        return backward(steps[: start + 1], values[: start + 1], values[start + 1], rule)
    signal = torch.zeros_like(output)
    for row, target in enumerate(targets.tolist()):
        signal[row, target] = output[row, target] if start == "logit" else 1.0
    return backward(steps, values, signal, rule)
