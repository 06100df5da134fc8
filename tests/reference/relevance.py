"""Slow twins of LRP, deconvolution and the gradient, written from the papers: values forward, then signals backward,
layer by layer, without autograd and without hooks; imports nothing from the package.

A network is a list of steps, each a module, a list of branches that are concatenated, or a tuple of branches that are
added. BatchNorm is merged into the convolution before it.
"""

import copy

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
    if kind == "ResNet":
        stem = [merged(module.conv1, module.bn1), nn.ReLU(), module.maxpool]
        blocks = [
            step for layer in (module.layer1, module.layer2, module.layer3, module.layer4) for step in steps_of(layer)
        ]
        return [*stem, *blocks, module.avgpool, nn.Flatten(), module.fc]
    if kind == "BasicBlock":
        main = [merged(module.conv1, module.bn1), nn.ReLU(), merged(module.conv2, module.bn2)]
        short = [] if module.downsample is None else [merged(module.downsample[0], module.downsample[1])]
        return [(main, short), nn.ReLU()]
    if kind == "EfficientNet":  # of the package efficientnet_lite_pytorch
        stem = [*padded(merged(module._conv_stem, module._bn0)), nn.ReLU6()]
        head = [
            *padded(merged(module._conv_head, module._bn1)),
            nn.ReLU6(),
            module._avg_pooling,
            nn.Flatten(),
            module._fc,
        ]
        return [*stem, *[step for block in module._blocks for step in steps_of(block)], *head]
    if kind == "MBConvBlock":
        main = (
            []
            if module._block_args.expand_ratio == 1
            else [*padded(merged(module._expand_conv, module._bn0)), nn.ReLU6()]
        )
        main += [*padded(merged(module._depthwise_conv, module._bn1)), nn.ReLU6()]
        main += padded(merged(module._project_conv, module._bn2))
        alike = module._block_args.input_filters == module._block_args.output_filters
        stride = module._block_args.stride
        return [(main, [])] if module.id_skip and alike and stride in (1, [1]) else main
    if isinstance(module, nn.Sequential):
        return [step for child in module for step in steps_of(child)]
    return [module]


def merged(conv, bn):
    """One convolution that does what a convolution and the BatchNorm after it do."""
    result = copy.deepcopy(conv)
    scale = (bn.weight / (bn.running_var + bn.eps).sqrt()).detach()
    bias = 0 if conv.bias is None else conv.bias.detach()
    result.weight = nn.Parameter(conv.weight.detach() * scale[:, None, None, None])
    result.bias = nn.Parameter((bias - bn.running_mean) * scale + bn.bias.detach())
    return result


def padded(conv):
    """A convolution with its own zero padding as two steps."""
    return [conv.static_padding, conv]


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
    if isinstance(step, tuple):
        total = 0
        for branch in step:
            value = x
            for one in branch:
                value = forward(one, value)
            total = total + value
        return total
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
    if isinstance(step, nn.ReLU6):
        return x.clamp(min=0, max=6)
    if isinstance(step, nn.ReLU):
        return x.clamp(min=0)
    if isinstance(step, (nn.Dropout, nn.Identity)) or type(step).__name__ == "Identity":
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
    if isinstance(step, nn.ReLU6):
        return signal * ((x > 0) & (x < 6))
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
    if isinstance(step, nn.ZeroPad2d):
        left, right, top, bottom = step.padding
        return signal[:, :, top : signal.shape[2] - bottom, left : signal.shape[3] - right]
    if isinstance(step, (nn.Dropout, nn.Identity)) or type(step).__name__ == "Identity":
        return signal
    raise NotImplementedError(step)


def lrp_rule(linear):
    """`linear(step, x, relevance)` is the rule of convolutional and linear layers."""

    def rule(step, x, relevance):
        if isinstance(step, (nn.Conv2d, nn.Linear)):
            return linear(step, x, relevance)
        if isinstance(step, (nn.ReLU, nn.ReLU6)):
            return relevance
        if isinstance(step, nn.AdaptiveAvgPool2d):
            return x * average_backward(divide(relevance, forward(step, x)), x, step)
        return plain(step, x, relevance)

    rule.shares = True  # terms of a sum get relevance in proportion
    return rule


def epsilon_rule(epsilon):
    """R_i = Σ_j z_ij / (z_j + ε sign z_j) R_j with z_ij = x_i w_ij and z_j = Σ_i z_ij + b_j."""

    return lrp_rule(epsilon_linear(epsilon))


def with_parameters(step, x, weight, bias):
    """The layer with other parameters."""
    if isinstance(step, nn.Conv2d):
        return F.conv2d(x, weight, bias, step.stride, step.padding, step.dilation, step.groups)
    return F.linear(x, weight, bias)


def positive(value):
    return value.clamp(min=0)


def negative(value):
    return value.clamp(max=0)


def zero_if_none(bias, weight):
    return torch.zeros(len(weight), dtype=weight.dtype) if bias is None else bias


def alpha_beta_rule(alpha, beta, biases=True):
    """R_i = Σ_j (α z_ij⁺ / z_j⁺ − β z_ij⁻ / z_j⁻) R_j, where z_j⁺ = Σ_i z_ij⁺ + b_j⁺ and z_j⁻ likewise."""

    def linear(step, x, relevance):
        w, b = step.weight, zero_if_none(step.bias, step.weight) * (1 if biases else 0)
        up = with_parameters(step, positive(x), positive(w), positive(b))
        up = up + with_parameters(step, negative(x), negative(w), None)
        down = with_parameters(step, positive(x), negative(w), negative(b))
        down = down + with_parameters(step, negative(x), positive(w), None)
        s, t = divide(relevance, up), divide(relevance, down)
        gain = positive(x) * linear_backward(step, positive(w), s, x) + negative(x) * linear_backward(
            step, negative(w), s, x
        )
        loss = positive(x) * linear_backward(step, negative(w), t, x) + negative(x) * linear_backward(
            step, positive(w), t, x
        )
        return alpha * gain - beta * loss

    return linear


def gamma_rule(gamma):
    """Where z_j > 0, what makes it larger counts (1 + γ)-fold; where z_j < 0, what makes it smaller does."""

    def linear(step, x, relevance):
        w, b = step.weight, zero_if_none(step.bias, step.weight)
        more, less = w + gamma * positive(w), w + gamma * negative(w)
        z = forward(step, x)
        up = with_parameters(step, positive(x), more, b + gamma * positive(b)) + with_parameters(
            step, negative(x), less, None
        )
        down = with_parameters(step, positive(x), less, b + gamma * negative(b)) + with_parameters(
            step, negative(x), more, None
        )
        s, t = divide(relevance * (z > 0), up), divide(relevance * (z < 0), down)
        above = positive(x) * linear_backward(step, more, s, x) + negative(x) * linear_backward(step, less, s, x)
        below = positive(x) * linear_backward(step, less, t, x) + negative(x) * linear_backward(step, more, t, x)
        return above + below

    return linear


def flat_rule(step, x, relevance):
    """All inputs of a window share alike."""
    ones = torch.ones_like(step.weight)
    count = with_parameters(step, torch.ones_like(x), ones, None)
    return linear_backward(step, ones, relevance / count, x)


def epsilon_linear(epsilon):
    def linear(step, x, relevance):
        z = forward(step, x)
        z = torch.where(z >= 0, z + epsilon, z - epsilon)
        return x * linear_backward(step, step.weight, divide(relevance, z), x)

    return linear


def composite(dense, convolution, first=None):
    """Rules by kind of layer; `first` is a layer whose rule is flat."""

    def linear(step, x, relevance):
        if step is first:
            return flat_rule(step, x, relevance)
        return (dense if isinstance(step, nn.Linear) else convolution)(step, x, relevance)

    return lrp_rule(linear)


def rescale_rule(step, both, signal):
    """DeepLift: the slope between an image (first half of the batch) and its reference (second half)."""
    if isinstance(step, (nn.ReLU, nn.ReLU6)):
        x, r = both.chunk(2)
        slope = (forward(step, x) - forward(step, r)) / torch.where(x == r, torch.ones_like(x), x - r)
        same = gradient_rule(step, x, torch.ones_like(x))
        slope = torch.where(x == r, same, slope)
        return signal * torch.cat([slope, slope])
    if isinstance(step, nn.MaxPool2d):
        x, r = both.chunk(2)
        y, q = forward(step, x), forward(step, r)
        top = torch.maximum(y, q)
        half = signal.chunk(2)[0]
        change = max_pool_backward(half * (top - q), x, step) + max_pool_backward(half * (y - top), r, step)
        slope = change / torch.where(x == r, torch.ones_like(x), x - r)
        slope = torch.where(x == r, max_pool_backward(half, x, step), slope)
        return torch.cat([slope, slope])
    return gradient_rule(step, both, signal)


def backward(steps, values, signal, rule):
    """`values[i]` is what step i was given."""
    for step, x in reversed(list(zip(steps, values, strict=True))):
        if isinstance(step, tuple):
            total = forward(step, x)
            signals = 0
            for branch in step:
                inner = inputs_of(branch, x)
                value = forward(branch[-1], inner[-1]) if branch else x
                own = divide(value * signal, total) if hasattr(rule, "shares") else signal
                signals = signals + backward(branch, inner, own, rule)
            signal = signals
            continue
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
