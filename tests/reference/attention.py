"""Slow twins of relevance through attention, normalisation and gates; imports nothing from the package.

`vit_relevance` goes forward and backward through torchvision's vision transformer by hand. `vit_of_lxt` builds it from
the functions of lxt. `detached_gradient_times_input` takes any network: with ε = 0 every rule is the gradient of the
same value written differently.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def divide(a, b):
    """a / b, where 0 / 0 counts as 0."""
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))


def stabilise(z, epsilon):
    return torch.where(z >= 0, z + epsilon, z - epsilon)


def patches_of(vit, x):
    """(B, tokens, 3 · p · p), and the convolution as a matrix."""
    p = vit.patch_size
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // p, p, width // p, p).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, -1, channels * p * p), vit.conv_proj.weight.flatten(1)


def layers_of(vit):
    """Per block: norm, (query, key, value) weights and biases, output, norm, first and second layer."""
    for block in vit.encoder.layers:
        attention = block.self_attention
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        yield (
            block.ln_1,
            list(zip(weights, biases, strict=True)),
            attention.out_proj,
            block.ln_2,
            block.mlp[0],
            block.mlp[3],
            attention.num_heads,
        )


def heads_of(x, heads):
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(1, 2)


def joined(x):
    batch, heads, tokens, width = x.shape
    return x.transpose(1, 2).reshape(batch, tokens, heads * width)


def vit_of_lxt(vit, x, lxt):
    """Logits, with lxt's functions wherever there is one; the stabilisers are 0."""

    def linear(x, weight, bias):
        return lxt.linear_epsilon(x, weight, bias, 0.0)

    def norm(x, layer):
        return lxt.layer_norm_grad_fn.apply(x, layer.weight, layer.bias, layer.eps, 0.0)

    def activation(x):
        return Identity.apply(x)

    cells, weight = patches_of(vit, x)
    tokens = linear(cells, weight, vit.conv_proj.bias)
    tokens = torch.cat([vit.class_token.expand(len(x), -1, -1), tokens], 1)
    tokens = lxt.add2(tokens, vit.encoder.pos_embedding.expand_as(tokens), epsilon=0.0)
    for norm_1, projections, output, norm_2, first, second, heads in layers_of(vit):
        normed = norm(tokens, norm_1)
        query, key, value = (heads_of(linear(normed, w, b), heads) for w, b in projections)
        scores = lxt.mul2(lxt.matmul(query, key.transpose(-2, -1), epsilon=0.0), query.shape[-1] ** -0.5)
        mixed = lxt.matmul(lxt.softmax(scores, -1), value, epsilon=0.0)
        tokens = lxt.add2(tokens, linear(joined(mixed), output.weight, output.bias), epsilon=0.0)
        hidden = activation(linear(norm(tokens, norm_2), first.weight, first.bias))
        tokens = lxt.add2(tokens, linear(hidden, second.weight, second.bias), epsilon=0.0)
    head = vit.heads[0]
    return linear(norm(tokens, vit.encoder.ln)[:, 0], head.weight, head.bias)


class Identity(torch.autograd.Function):
    """GELU, whose relevance is passed on."""

    @staticmethod
    def forward(ctx, x):
        return F.gelu(x)

    @staticmethod
    def backward(ctx, relevance):
        return relevance


def linear_relevance(x, weight, bias, relevance, epsilon):
    z = x @ weight.t() + bias
    return x * (divide(relevance, stabilise(z, epsilon)) @ weight)


def layer_norm_relevance(x, layer, relevance):
    """z_j = w_j (x_j − mean x) / σ + b_j, where σ is a constant: every x_i contributes to every z_j."""
    spread = (x.var(-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    z = layer.weight * (x - x.mean(-1, keepdim=True)) / spread + layer.bias
    signal = divide(relevance, z) * layer.weight / spread
    return x * (signal - signal.mean(-1, keepdim=True))


def group_norm_relevance(x, relevance, groups, weight, bias, eps=1e-5):
    """As `layer_norm_relevance`, group by group, in loops."""
    found = torch.zeros_like(x)
    size = x.shape[1] // groups
    for b in range(len(x)):
        for g in range(groups):
            own = slice(g * size, (g + 1) * size)
            values = x[b, own]
            spread = (values.var(unbiased=False) + eps).sqrt()
            w, shift = (one[own].reshape(-1, *[1] * (values.ndim - 1)) for one in (weight, bias))
            z = w * (values - values.mean()) / spread + shift
            signal = divide(relevance[b, own], z) * w / spread
            found[b, own] = values * (signal - signal.mean())
    return found


@torch.no_grad()
def vit_relevance(vit, pixels, targets, epsilon, softmax):
    """Relevance at the pixels, (B, 3, H, W), started at the class logit."""
    cells, weight = patches_of(vit, pixels)
    embedded = cells @ weight.t() + vit.conv_proj.bias
    first = torch.cat([vit.class_token.expand(len(pixels), -1, -1), embedded], 1)
    tokens = first + vit.encoder.pos_embedding
    kept = []
    for norm_1, projections, output, norm_2, up, down, heads in layers_of(vit):
        normed = F.layer_norm(tokens, norm_1.normalized_shape, norm_1.weight, norm_1.bias, norm_1.eps)
        query, key, value = (heads_of(normed @ w.t() + b, heads) for w, b in projections)
        scores = query @ key.transpose(-2, -1)
        weights = (scores * query.shape[-1] ** -0.5).softmax(-1)
        mixed = joined(weights @ value)
        attended = mixed @ output.weight.t() + output.bias
        middle = tokens + attended
        normed_2 = F.layer_norm(middle, norm_2.normalized_shape, norm_2.weight, norm_2.bias, norm_2.eps)
        hidden = F.gelu(normed_2 @ up.weight.t() + up.bias)
        added = hidden @ down.weight.t() + down.bias
        kept.append(
            (tokens, normed, query, key, value, scores, weights, mixed, attended, middle, normed_2, hidden, added)
        )
        tokens = middle + added
    last, head = vit.encoder.ln, vit.heads[0]
    normed = F.layer_norm(tokens, last.normalized_shape, last.weight, last.bias, last.eps)
    logits = normed[:, 0] @ head.weight.t() + head.bias
    start = torch.zeros_like(logits).scatter_(1, targets[:, None], logits.gather(1, targets[:, None]))
    relevance = torch.zeros_like(normed)
    relevance[:, 0] = linear_relevance(normed[:, 0], head.weight, head.bias, start, epsilon)
    relevance = layer_norm_relevance(tokens, last, relevance)
    for values, layers in reversed(list(zip(kept, layers_of(vit), strict=True))):
        tokens, normed, query, key, value, scores, weights, mixed, attended, middle, normed_2, hidden, added = values
        norm_1, projections, output, norm_2, up, down, heads = layers
        share = divide(relevance, middle + added)
        through = linear_relevance(hidden, down.weight, down.bias, added * share, epsilon)
        through = linear_relevance(normed_2, up.weight, up.bias, through, epsilon)
        relevance = middle * share + layer_norm_relevance(middle, norm_2, through)
        share = divide(relevance, tokens + attended)
        out = linear_relevance(mixed, output.weight, output.bias, attended * share, epsilon)
        parts = 1 if softmax == "constant" else 2
        signal = divide(heads_of(out, heads), parts * heads_of(mixed, heads))
        of_value = value * (weights.transpose(-2, -1) @ signal)
        through = linear_relevance(normed, *projections[2], joined(of_value), epsilon)
        if softmax == "taylor":
            of_weights = weights * (signal @ value.transpose(-2, -1))
            x = scores * query.shape[-1] ** -0.5
            of_scores = x * (of_weights - weights * of_weights.sum(-1, keepdim=True))
            signal = divide(of_scores, 2 * scores)
            through = through + linear_relevance(normed, *projections[0], joined(query * (signal @ key)), epsilon)
            of_key = key * (signal.transpose(-2, -1) @ query)
            through = through + linear_relevance(normed, *projections[1], joined(of_key), epsilon)
        relevance = tokens * share + layer_norm_relevance(tokens, norm_1, through)
    relevance = divide(first * relevance, first + vit.encoder.pos_embedding)[:, 1:]
    found = linear_relevance(cells, weight, vit.conv_proj.bias, relevance, epsilon)
    p, (batch, channels, height, width) = vit.patch_size, pixels.shape
    found = found.reshape(batch, height // p, width // p, channels, p, p).permute(0, 3, 1, 4, 2, 5)
    return found.reshape(pixels.shape)


class _Detached(TorchFunctionMode):
    """Every function rewritten so that it has the same value, and its rule as gradient."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = function.__name__.strip("_")
        moving = [one for one in args if isinstance(one, torch.Tensor) and one.requires_grad]
        if name in ("relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "hardtanh") and moving:
            kwargs.pop("inplace", None)
            x = args[0].clone()
            slope = divide(function(x.detach().clone(), *args[1:], **kwargs), x.detach())
            result = x * slope
            if function.__name__.endswith("_"):
                args[0].data = result.data
            return result
        if name == "mul" and len(moving) == 2:
            a, b = args
            return (a * b.detach() + a.detach() * b) / 2
        if name == "layer_norm":
            x, _, weight, bias, eps = (*args, *[None] * 5)[:5]
            weight, bias, eps = kwargs.get("weight", weight), kwargs.get("bias", bias), kwargs.get("eps", eps)
            centred = x - x.mean(-1, keepdim=True)
            spread = (centred.square().mean(-1, keepdim=True) + eps).sqrt().detach()
            y = centred / spread
            return y if weight is None else y * weight + bias
        if name in ("norm", "vector_norm", "linalg_norm", "linalg_vector_norm"):
            return function(*args, **kwargs).detach()
        if name == "softmax":
            return function(*args, **kwargs).detach()
        if name == "scaled_dot_product_attention":
            query, key, value = args[:3]
            scale = kwargs.get("scale") or query.shape[-1] ** -0.5
            return (query @ key.transpose(-2, -1) * scale).softmax(-1).detach() @ value
        return function(*args, **kwargs)


def detached_gradient_times_input(module, pixels, targets):
    """Relevance for ε = 0 and attention weights as constants, (B, C, H, W)."""
    x = pixels.clone().requires_grad_()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    with _Detached():
        logits = module(x)
    torch.testing.assert_close(logits, module(pixels), rtol=1e-7, atol=1e-9)
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), x)
    return x.detach() * gradient


def vit_attention(vit, pixels, targets):
    """Attention weights (B, heads, tokens, tokens) of every layer, and the gradients of the class logit by them."""
    cells, weight = patches_of(vit, pixels)
    tokens = cells @ weight.t() + vit.conv_proj.bias
    tokens = torch.cat([vit.class_token.expand(len(pixels), -1, -1), tokens], 1) + vit.encoder.pos_embedding
    found = []
    for norm_1, projections, output, norm_2, up, down, heads in layers_of(vit):
        normed = norm_1(tokens)
        query, key, value = (heads_of(normed @ w.t() + b, heads) for w, b in projections)
        weights = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(-1)
        found.append(weights)
        tokens = tokens + joined(weights @ value) @ output.weight.t() + output.bias
        tokens = tokens + down(F.gelu(up(norm_2(tokens))))
    logits = vit.heads[0](vit.encoder.ln(tokens)[:, 0])
    gradients = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), found)
    return [one.detach() for one in found], list(gradients)


def rollout(weights, row):
    """Abnar and Zuidema's product, image by image and token by token."""
    images, _, tokens, _ = weights[0].shape
    found = torch.zeros(images, tokens, dtype=weights[0].dtype)
    for image in range(images):
        reached = torch.zeros(tokens, dtype=weights[0].dtype)
        reached[row] = 1.0
        for layer in reversed(weights):
            before = torch.zeros_like(reached)
            for i in range(tokens):
                for j in range(tokens):
                    mean = float(layer[image, :, i, j].mean())
                    before[j] += reached[i] * (0.5 * mean + (0.5 if i == j else 0.0))
            reached = before
        found[image] = reached
    return found


def relevancy(weights, gradients, row):
    """Chefer's sum: R = (I + C_L) … (I + C_1) with C = mean over heads of (∇A ⊙ A)⁺, followed backwards from a row."""
    images, heads, tokens, _ = weights[0].shape
    found = torch.zeros(images, tokens, dtype=weights[0].dtype)
    for image in range(images):
        reached = torch.zeros(tokens, dtype=weights[0].dtype)
        reached[row] = 1.0
        for layer, gradient in reversed(list(zip(weights, gradients, strict=True))):
            before = reached.clone()
            for i in range(tokens):
                for h in range(heads):
                    before += reached[i] * (gradient[image, h, i] * layer[image, h, i]).clamp(min=0) / heads
            reached = before
        found[image] = reached
    return found
