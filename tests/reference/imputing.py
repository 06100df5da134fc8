"""Loop-only twin of noisy linear imputation: a dense system, Gaussian elimination; imports nothing from the package."""


def impute_twin(channel, removed):
    """`channel` and `removed` are lists of rows; returns the channel with removed pixels solved for, without noise."""
    height, width = len(channel), len(channel[0])
    cells = [(y, x) for y in range(height) for x in range(width) if removed[y][x]]
    place = {cell: i for i, cell in enumerate(cells)}
    n = len(cells)
    matrix = [[0.0] * (n + 1) for _ in range(n)]
    for i, (y, x) in enumerate(cells):
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                v, u = y + dy, x + dx
                if (dy, dx) == (0, 0) or not (0 <= v < height and 0 <= u < width):
                    continue
                weight = 1 / 6 if dy == 0 or dx == 0 else 1 / 12
                matrix[i][i] += weight
                if (v, u) in place:
                    matrix[i][place[v, u]] -= weight
                else:
                    matrix[i][n] += weight * channel[v][u]
    for i in range(n):
        pivot = max(range(i, n), key=lambda r: abs(matrix[r][i]))
        matrix[i], matrix[pivot] = matrix[pivot], matrix[i]
        for r in range(n):
            if r != i and matrix[r][i]:
                factor = matrix[r][i] / matrix[i][i]
                matrix[r] = [a - factor * b for a, b in zip(matrix[r], matrix[i], strict=True)]
    result = [list(row) for row in channel]
    for (y, x), i in place.items():
        result[y][x] = matrix[i][n] / matrix[i][i]
    return result
