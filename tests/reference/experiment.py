"""Loop-only twin of a whole run, written from the paper; imports nothing from the package."""

import hashlib

import numpy as np
import torch

from tests.reference.ordering import removal_steps_twin


def noise_twin(key, shape):
    """Uniform numbers that belong to a key: Philox, seeded by the first 128 bits of the key's SHA-256."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little"))).random(shape, np.float32)


def scores_twin(network, pixels, target, heatmap, fill, steps, size, placement):
    """(logit, probability) at k = 0…L of one image, pixel by pixel, one forward pass at a time.

    `network` maps one (3, H, W) array in [0, 1] to a list of logits; arrays are numpy, the heatmap a list of rows.
    """
    removal_step = removal_steps_twin(heatmap, steps, size, placement)
    curve = []
    x = np.array(pixels)
    for k in range(steps + 1):
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                if k > 0 and removal_step[row][column] == k:
                    for channel in range(3):
                        x[channel, row, column] = fill[channel, row, column]
        logits = network(x)
        exponentials = [np.exp(value - max(logits)) for value in logits]
        curve.append((logits[target], exponentials[target] / sum(exponentials)))
    return curve


def aopc_twin(scores):
    """AOPC at every k: 1 / (k + 1) · Σ_{i ≤ k} f(x⁽⁰⁾) − f(x⁽ⁱ⁾)."""
    result = []
    for k in range(len(scores)):
        total = 0.0
        for i in range(k + 1):
            total += scores[0] - scores[i]
        result.append(total / (k + 1))
    return result


def network_twin(module, mean, std):
    """A network on one pixel-space image, normalised by hand."""

    def run(x):
        inputs = torch.from_numpy(np.array(x))
        inputs = torch.stack([(inputs[c] - mean[c]) / std[c] for c in range(3)])
        with torch.no_grad():
            return [float(value) for value in module.eval()(inputs[None])[0].double()]

    return run
