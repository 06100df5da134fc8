"""Loop-only twin of the removal order, written from its description; imports nothing from the package."""


def removal_steps_twin(heatmap, steps, size, placement, lerf=False):
    """`heatmap` is a list of rows. Returns rows of steps, or the number of regions that fit when they are too few."""
    height, width = len(heatmap), len(heatmap[0])
    value = [[-v if lerf else v for v in row] for row in heatmap]
    corners = []
    if placement == "grid":
        totals = []
        for top in range(0, height - size + 1, size):
            for left in range(0, width - size + 1, size):
                total = 0.0
                for y in range(size):
                    for x in range(size):
                        total += value[top + y][left + x]
                totals.append((-total, top, left))
        corners = [(top, left) for _, top, left in sorted(totals)][:steps]
    else:
        pixels = sorted((-value[y][x], y, x) for y in range(height) for x in range(width))
        for _, y, x in pixels:
            if len(corners) == steps:
                break
            top = min(max(y - size // 2, 0), height - size)
            left = min(max(x - size // 2, 0), width - size)
            if all(abs(top - t) >= size or abs(left - u) >= size for t, u in corners):
                corners.append((top, left))
    if len(corners) < steps:
        return len(corners)
    result = [[0] * width for _ in range(height)]
    for k, (top, left) in enumerate(corners, start=1):
        for y in range(size):
            for x in range(size):
                result[top + y][left + x] = k
    return result


def pixel_steps_twin(heatmap, steps, count, lerf=False):
    """`count` single pixels a step; rows of steps, or the number of steps that fit when they are too few."""
    height, width = len(heatmap), len(heatmap[0])
    pixels = [(heatmap[y][x] if lerf else -heatmap[y][x], y, x) for y in range(height) for x in range(width)]
    fit = 0
    while fit * count < len(pixels):
        fit += 1
    if fit < steps:
        return fit
    result = [[0] * width for _ in range(height)]
    step, room = 1, count
    for _, y, x in sorted(pixels):
        if room == 0:
            step, room = step + 1, count
        if step > steps:
            break
        result[y][x] = step
        room -= 1
    return result


def segment_steps_twin(heatmap, labels, steps, lerf=False):
    """Segments by mean relevance; labels below 0 are never removed."""
    height, width = len(heatmap), len(heatmap[0])
    total, count, place = {}, {}, {}
    for y in range(height):
        for x in range(width):
            label = labels[y][x]
            if label >= 0:
                total[label] = total.get(label, 0.0) + (-heatmap[y][x] if lerf else heatmap[y][x])
                count[label] = count.get(label, 0) + 1
                place.setdefault(label, (y, x))
    ranked = sorted((-(total[label] / count[label]), place[label], label) for label in total)
    if len(ranked) < steps:
        return len(ranked)
    step_of = {label: step for step, (_, _, label) in enumerate(ranked[:steps], start=1)}
    return [[step_of.get(labels[y][x], 0) for x in range(width)] for y in range(height)]
