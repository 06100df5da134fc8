"""Measures written from their papers, in plain loops. Imports nothing from the package."""

import itertools
import math


def mean(values):
    return sum(values) / len(values)


def pearson(a, b):
    """Pearson's correlation."""
    first, second = mean(a), mean(b)
    both = sum((x - first) * (y - second) for x, y in zip(a, b, strict=True))
    own = sum((x - first) ** 2 for x in a) * sum((y - second) ** 2 for y in b)
    return both / math.sqrt(own)


def ranks(values):
    """1 + values below + half of the other equal ones."""
    return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def spearman(a, b):
    return pearson(ranks(a), ranks(b))


def removed_score(logit, image, removed, fill):
    """The logit of an image (3 lists of rows) whose removed pixels have the fill's values."""
    changed = [
        [
            [fill[c][y][x] if removed[y][x] else image[c][y][x] for x in range(len(image[0][0]))]
            for y in range(len(image[0]))
        ]
        for c in range(3)
    ]
    return logit(changed)


def relevance(heatmap, removed):
    return sum(heatmap[y][x] for y in range(len(heatmap)) for x in range(len(heatmap[0])) if removed[y][x])


def sensitivity_n(drops_and_relevance):
    """Ancona et al. 2018: the correlation at every subset size, averaged; sizes without variation count 0."""
    found = []
    for drops, sums in drops_and_relevance:
        constant = len(set(sums)) == 1 or len(set(drops)) == 1
        found.append(0.0 if constant else pearson(sums, drops))
    return mean(found)


def pointing_game(heatmap, mask, tolerance):
    """Zhang et al. 2018: 100 where the most relevant pixel is within `tolerance` of the mask."""
    best = max(max(row) for row in heatmap)
    peak = next((y, x) for y, row in enumerate(heatmap) for x, value in enumerate(row) if value == best)
    near = [
        math.dist(peak, (y, x)) <= tolerance for y, row in enumerate(mask) for x, inside in enumerate(row) if inside
    ]
    return 100.0 if any(near) else 0.0


def relevance_mass(heatmap, mask):
    """Arras et al. 2022, of the positive relevance."""
    inside = sum(max(v, 0) for row, own in zip(heatmap, mask, strict=True) for v, i in zip(row, own, strict=True) if i)
    return inside / sum(max(v, 0) for row in heatmap for v in row)


def relevance_rank(heatmap, mask):
    """Arras et al. 2022; no two pixels may be alike."""
    pixels = sorted(
        ((v, i) for row, own in zip(heatmap, mask, strict=True) for v, i in zip(row, own, strict=True)),
        key=lambda one: -one[0],
    )
    k = sum(i for _, i in pixels)
    return sum(i for _, i in pixels[:k]) / k


def effective_pixels(heatmap):
    """exp of the entropy of the absolute relevance, over the number of pixels."""
    weights = [abs(v) for row in heatmap for v in row]
    total = sum(weights)
    entropy = -sum(w / total * math.log(w / total) for w in weights if w > 0)
    return math.exp(entropy) / len(weights)


def histogram_entropy(values, bins):
    """Natural entropy of a histogram; the last bin holds its right edge."""
    low, high = min(values), max(values)
    count = [0] * bins
    for value in values:
        count[min(bins - 1, int((value - low) / (high - low) * bins))] += 1
    return -sum(c / len(values) * math.log(c / len(values)) for c in count if c)


def irof(probability, image, heatmap, labels, colour):
    """Rieger & Hansen 2020: area over F(x without the first k segments) / F(x), segments by mean relevance."""
    places = {}
    for y, row in enumerate(labels):
        for x, label in enumerate(row):
            places.setdefault(label, []).append((y, x))
    means = {label: sum(heatmap[y][x] for y, x in pixels) / len(pixels) for label, pixels in places.items()}
    order = sorted(places, key=lambda label: (-means[label], label))
    now = [[list(row) for row in channel] for channel in image]
    curve = [1.0]
    start = probability(now)
    for label in order:
        for y, x in places[label]:
            for channel in range(len(now)):
                now[channel][y][x] = colour[channel][y][x]
        curve.append(probability(now) / start)
    area = sum((a + b) / 2 for a, b in itertools.pairwise(curve)) / len(order)
    return 1 - area
