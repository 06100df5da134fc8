"""Twin of what is scored for one image; imports nothing from the package."""

import math


def score_twin(output, target, kind, number=True):
    """(logit, probability) of one image as numbers, or the logit alone as a tensor."""
    if isinstance(output, dict):
        output = output["out"]
    if kind == "one logit":
        z = output.reshape(-1)[0]
        score = z if target == 1 else -z
    elif kind == "mask":
        height = output.shape[2]
        score = sum(output[0, target, y, x] for y in range(height // 2) for x in range(output.shape[3]))
    elif kind == "box":
        score = output[0]["scores"][target]
    elif kind == "margin":
        score = output[0, target] - sum(output[0]) / output.shape[1]
    else:
        score = output[0, target]
    if not number:
        return score
    value = float(score)
    if kind in ("sigmoid", "one logit"):
        return value, 1 / (1 + math.exp(-value))
    if kind == "softmax":
        logits = [float(z) for z in output[0]]
        return value, math.exp(value - max(logits)) / sum(math.exp(z - max(logits)) for z in logits)
    return value, value
