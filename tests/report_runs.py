"""Runs for the tests of the page: small, not square, and with hostile names wherever a name can come from outside."""

import numpy as np
import torch
from PIL import Image

import faithmap

HEIGHT, WIDTH = 40, 56
EVIL = ("<", '</script><img src=x onerror="hacked=1">', "new\nline", "$x^2$ & &lt;'\"", "\U0001f600\u202e")
EVIL_METHOD = "</script><script>hacked=1</script>:'\"><img src=x onerror=hacked=1>"


class EvilNet(torch.nn.Module):
    """Five classes; the first ones win on bright images."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 5, stride=4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten()
        )
        self.head = torch.nn.Linear(6 * 16, 5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, x):
        return self.head(self.net(x))


def edges(inputs, targets):
    return (inputs - inputs.roll(1, -1)).abs()


def signed(inputs, targets):
    return inputs.sum(1) - inputs.mean()


def evil_run(folder, **overrides):
    """Eight images (one broken), two methods, 12 steps, 2 draws."""
    random = np.random.default_rng(1)
    images = folder / "images"
    images.mkdir()
    names = ["<img src=x onerror=hacked=1>", "quote\"'&amp;", "new\nline", "$a$", "\U0001f600", "plain", "{{7*7}}"]
    for index, name in enumerate(names):
        ramp = np.linspace(0, 1, WIDTH)[None, :, None] * random.random(3)
        picture = ramp * 160 + random.integers(0, 95, (HEIGHT, WIDTH, 3))
        Image.fromarray(picture.astype(np.uint8)).save(images / f"{index}-{name}.png")
    (images / "0-<").mkdir()
    (images / "0-<" / "broken>.png").write_text("no picture")
    network = faithmap.Classifier(
        EvilNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=EVIL[1], labels=list(EVIL)
    )
    network.preprocessing = faithmap.Preprocessing(crop=(HEIGHT, WIDTH), resize=None)
    protocol = faithmap.Protocol.preset(**({"steps": 12, "region_size": 5, "draws": 2, "seed": 3} | overrides))
    return faithmap.evaluate(
        network, images, {"edges": edges, EVIL_METHOD: signed}, protocol, folder / "run", engine="dense"
    )
