"""The bytes of a packed example, read back one value at a time; imports nothing of faithmap."""

import base64
import zlib


def unpack_twin(data: str, methods: list[str], height: int, width: int, shared_fill: bool):
    """Pixels[y][x] = (r, g, b); method → steps[y][x], heatmap[y][x], fill[y][x] or None where it is not stored."""
    places, raw = (zlib.decompress(base64.b64decode(part)) for part in data.split("."))
    size = height * width
    planes = []
    for plane in range(3):
        values = [[0] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                left = values[y][x - 1] if x else 0
                above = values[y - 1][x] if y else 0
                corner = values[y - 1][x - 1] if x and y else 0
                values[y][x] = (raw[plane * size + y * width + x] + left + above - corner) % 256
        planes.append(values)
    green, red, blue = planes
    pixels = [
        [((red[y][x] + green[y][x]) % 256, green[y][x], (blue[y][x] + green[y][x]) % 256) for x in range(width)]
        for y in range(height)
    ]
    maps = 3 * size
    place = maps + len(methods) * size
    steps, heatmaps = {}, {}
    for m, method in enumerate(methods):
        steps[method] = [
            [
                places[m * size + y * width + x] + 256 * places[(len(methods) + m) * size + y * width + x]
                for x in range(width)
            ]
            for y in range(height)
        ]
        heatmaps[method] = [
            [(raw[maps + m * size + y * width + x] + 128) % 256 - 128 for x in range(width)] for y in range(height)
        ]
    fills = {}
    for users in [methods] if shared_fill else [[method] for method in methods]:
        fill = [[None] * width for _ in range(height)]
        for y in range(height):
            for x in range(width):
                if any(steps[method][y][x] for method in users):
                    fill[y][x] = tuple(raw[place : place + 3])
                    place += 3
        fills |= dict.fromkeys(users, fill)
    assert place == len(raw)
    return pixels, steps, heatmaps, fills
