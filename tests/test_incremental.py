"""The incremental engine against the network itself, at every step."""

import copy
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
    norms = [one for one in module.eval().modules() if isinstance(one, torch.nn.BatchNorm2d)]
    for one in module.modules():
        if not norms and isinstance(one, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(one.weight, nonlinearity="relu")
        if isinstance(one, torch.nn.BatchNorm2d) and one.track_running_stats:
            torch.nn.init.uniform_(one.weight, 0.7, 1.3)
            torch.nn.init.normal_(one.bias, std=0.2)
            one.momentum = None
            one.train()  # alone: with dropped paths the statistics would be others
    with torch.no_grad():
        module((torch.rand(8, 3, size, size) - 0.5) / 0.25)
    return module.eval()


def classifier_of(module, name="network"):
    """With some normalisation."""
    return faithmap.Classifier(module, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=name)


def perturbed(classifier, chains, chain, step):
    """x⁽ᵏ⁾ of one chain, normalised."""
    removed = (chains.removal_step[chain] > 0) & (chains.removal_step[chain] <= step)
    x = torch.where(removed, chains.fill[chains.fill_index[chain]], chains.pixels[chains.image[chain]])
    return classifier.normalise(x.unsqueeze(0))[0]


def stock_logits(classifier, chains, dtype=torch.float32, memory_format=torch.contiguous_format):
    """The network as it is, on every perturbed image."""
    module = copy.deepcopy(classifier.module).eval().to(dtype)
    found = []
    with torch.inference_mode():
        for chain in range(len(chains)):
            inputs = torch.stack([perturbed(classifier, chains, chain, step) for step in range(chains.steps + 1)])
            found.append(module(inputs.to(dtype).contiguous(memory_format=memory_format)))
    return torch.stack(found)


def assert_exact(module, chains, **options):
    """Every logit of every step within 1e-5 of the logits' standard deviation of the network's own, and the engine ran.

    Deep networks round by more than that themselves: there, as near to their logits in float64 as they are themselves,
    in torch's worse memory format.
    """
    classifier = classifier_of(module)
    engine = make_engine(classifier, "incremental", **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        found = all_logits(engine, chains)
    assert engine.reason is None
    expected = stock_logits(classifier, chains)
    assert (expected[:, -1] - expected[:, 0]).abs().max() > 1e-3 * expected.std()  # the steps do change something
    error = (found - expected).abs().amax((0, 2)) / expected.std()
    if float(error.max()) > 1e-5:
        exact = stock_logits(classifier, chains, torch.float64)
        other = stock_logits(classifier, chains, memory_format=torch.channels_last)
        ours, *own = (float((y.double() - exact).abs().max() / exact.std()) for y in (found, expected, other))
        assert ours <= 2 * max(own), f"{error.tolist()} by step; float64 is {ours} away, {own} from the network"
    return found


def memory_for(engine, chains):
    """Bytes that an engine needs for so many chains at a time."""
    plan, memory = engine._runner.plan, 1 << 20
    while plan.most_chains_within(memory) < chains:
        memory += plan.bytes_per_chain() // 8
    return memory


def small(name, classes=20):
    """A torchvision network whose linear layers are narrow, to be quick."""
    module = torchvision.models.get_model(name, num_classes=classes)
    if name.startswith(("alexnet", "vgg")):
        width = module.avgpool.output_size[0] ** 2 * (256 if name == "alexnet" else 512)
        module.classifier = torch.nn.Sequential(
            torch.nn.Linear(width, 64), torch.nn.ReLU(True), torch.nn.Dropout(), torch.nn.Linear(64, classes)
        )
    return settled(module)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "vgg11", "vgg11_bn", "vgg16"])
def test_logits_are_the_networks_own(name):
    assert_exact(small(name), draw_chains())


def test_a_hundred_steps_do_not_drift():
    module = small("alexnet")
    chains = draw_chains(size=160, chains=1, images=1, steps=100, region=9)
    found = assert_exact(module, chains)
    expected = stock_logits(classifier_of(module), chains)
    error = (found - expected).abs().amax(2)[0]
    assert error[-10:].mean() < 3 * error[:10].mean()


def from_scratch(engine, chains):
    """Every perturbed image as an image of its own, all layers computed in full, by the same kernels."""
    pixels = torch.stack(
        [
            torch.where(
                (chains.removal_step[chain] > 0) & (chains.removal_step[chain] <= step),
                chains.fill[chains.fill_index[chain]],
                chains.pixels[chains.image[chain]],
            )
            for chain in range(len(chains))
            for step in range(chains.steps + 1)
        ]
    )
    rows = torch.arange(len(pixels))
    nothing = torch.zeros(len(pixels), *pixels.shape[2:], dtype=torch.int64)
    untouched = Chains(pixels, pixels[:1], rows, torch.zeros_like(rows), nothing, torch.zeros_like(rows), steps=0)
    classifier = engine.classifier
    images, fills = (classifier.normalise(one).permute(0, 2, 3, 1).contiguous() for one in (pixels, pixels[:1]))
    found = torch.empty(len(pixels), engine._runner.plan.network.tail[-1].args[0].meta["shape"][1])
    with torch.inference_mode():
        for row, _, logits in engine._runner.logits(untouched, images, fills):
            found[row] = logits
    return found.view(len(chains), chains.steps + 1, -1)


@pytest.mark.parametrize("name", ["alexnet", "squeezenet1_1", "vgg11_bn"])
def test_bits_are_those_of_a_full_computation_and_do_not_depend_on_the_batch(name):
    classifier = classifier_of(small(name))
    chains = draw_chains(size=72, chains=5, steps=8, images=3)
    engine = make_engine(classifier, "incremental")
    found = all_logits(engine, chains)
    assert torch.equal(found, from_scratch(engine, chains))
    two_at_a_time = make_engine(classifier, "incremental", memory=memory_for(engine, 3))
    assert torch.equal(found, all_logits(two_at_a_time, chains))
    assert two_at_a_time._runner.most == 3
    turned = [3, 1, 4, 0]
    some = Chains(
        chains.pixels, chains.fill, chains.image[turned], chains.fill_index[turned], chains.removal_step[turned],
        chains.targets[turned], chains.steps,
    )  # fmt: skip
    assert torch.equal(found[turned], all_logits(engine, some))
