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
