"""Shapes written in annotations are checked at run time in all tests."""

import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# Examples may be slow on a machine that does other work; no test is timed.
settings.register_profile("faithmap", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("faithmap")

with install_import_hook("faithmap", "beartype.beartype"):
    import faithmap


class TinyNet(torch.nn.Module):
    """A small network with a convolution, a pool and two linear layers; deterministic weights."""

    def __init__(self, classes: int = 5, size: int = 24) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(3, 6, 5, stride=2, padding=2),
            torch.nn.ReLU(inplace=True),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(6, 8, 3, padding=1),
            torch.nn.ReLU(inplace=True),
        )
        self.head = torch.nn.Linear(8 * (size // 4) ** 2, classes)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.fixture
def tiny() -> "faithmap.Classifier":
    return faithmap.Classifier(TinyNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name="tiny")


@pytest.fixture(scope="session")
def squeezenet() -> "faithmap.Classifier":
    return faithmap.load_classifier("squeezenet1_1-embedded", device="cpu")
