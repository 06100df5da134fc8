"""The incremental engine against the network itself, at every step."""

import warnings

import pytest
import torch
import torchvision

import faithmap
from faithmap.errors import EngineWarning
from faithmap.inference import Chains, make_engine


def draw_chains(size=64, chains=3, steps=12, region=7, images=2, seed=5):
    """Chains with several orders an image, two fills, and border regions."""
    random = torch.Generator().manual_seed(seed)
    pixels = torch.rand(images, 3, size, size, generator=random)
    fill = torch.rand(images, 3, size, size, generator=random)
    heat = torch.randn(chains, size, size, generator=random)
    protocol = faithmap.Protocol.preset(steps=steps, region_size=region)
    image = torch.arange(chains) % images
    return Chains(
        pixels=pixels,
        fill=fill,
        image=image,
        fill_index=(image + 1) % images,
        removal_step=faithmap.removal_steps(heat, protocol),
        targets=torch.zeros(chains, dtype=torch.int64),
        steps=steps,
    )


def all_logits(engine, chains):
    """Logits (chains, steps + 1, classes); every pair must come exactly once."""
    found, seen = None, torch.zeros(len(chains), chains.steps + 1, dtype=torch.int64)
    for chain, step, logits in engine.logits(chains):
        if found is None:
            found = torch.zeros(len(chains), chains.steps + 1, logits.shape[1])
        seen.index_put_((chain, step), torch.ones_like(chain), accumulate=True)
        found[chain, step] = logits.float()
    assert bool((seen == 1).all())
    return found


def settled(module, size=64):
    """BatchNorm statistics that belong to the weights, so that signals neither vanish nor explode."""
    torch.manual_seed(11)
    for one in module.modules():
        if isinstance(one, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(one.weight, 0.5, 1.5)
            torch.nn.init.normal_(one.bias, std=0.3)
            one.momentum = None
        if isinstance(one, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(one.weight, nonlinearity="relu")
    module.train()
    with torch.no_grad():
        module(torch.randn(8, 3, size, size))
    return module.eval()


def classifier_of(module, name="network"):
    return faithmap.Classifier(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=name)


def assert_exact(module, chains, **options):
    """Incremental logits within 1e-5 of the dense logits' standard deviation, and the engine really ran."""
    classifier = classifier_of(module)
    engine = make_engine(classifier, "incremental", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        found = all_logits(engine, chains)
    assert engine.reason is None
    expected = all_logits(make_engine(classifier, "dense"), chains)
    moved = (expected[:, -1] - expected[:, 0]).abs().max()
    assert moved > 1e-3 * expected.std()  # the steps do change something
    error = (found - expected).abs().amax((0, 2)) / expected.std()
    assert float(error.max()) < 1e-5, f"by step: {error.tolist()}"
    return found


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "vgg11", "vgg11_bn", "vgg16"])
def test_logits_are_the_networks_own(name):
    module = settled(torchvision.models.get_model(name))
    assert_exact(module, draw_chains())


def test_a_hundred_steps_do_not_drift(squeezenet):
    chains = draw_chains(size=224, chains=1, images=1, steps=100, region=9)
    found = all_logits(make_engine(squeezenet, "incremental"), chains)
    expected = all_logits(make_engine(squeezenet, "dense"), chains)
    assert float((found - expected).abs().max() / expected.std()) < 1e-5
