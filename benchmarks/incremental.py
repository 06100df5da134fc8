"""How much faster the incremental engine is than the same network run densely, and where its time goes.

    python -m benchmarks.incremental                                  # AlexNet, SqueezeNet 1.1, VGG-16, ResNet-50
    python -m benchmarks.incremental --networks mobilenet_v2 my_package.models:build

A network is a torchvision name, or ``module:function`` where the function returns a `torch.nn.Module`. Weights are
random: speed does not depend on them. Both engines run in this process, in turns; figures are medians.

On a machine that others use as well, ``--threads 1 --clock cpu`` counts the processor time of this process instead.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial

import torch
import torchvision
from benchmarks.memory import peak, reset
from torch import nn

import faithmap
from faithmap.classifiers import kind_of
from faithmap.errors import EngineError
from faithmap.images import IMAGENET_MEAN, IMAGENET_STD
from faithmap.inference import Chains, examine, make_engine, score_chains, tune_allocator
from faithmap.inference.dense import DEFAULT_BATCH, DenseEngine
from faithmap.inference.fused import BATCH, FusedNetwork
from faithmap.inference.incremental import kernels, tail


def wall() -> float:
    """Seconds, once the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


CLOCKS = {"wall": wall, "cpu": time.process_time}


def build(name: str) -> nn.Module:
    """A torchvision network with random weights, or what ``module:function`` returns."""
    if ":" in name:
        module, function = name.split(":")
        built: nn.Module = getattr(importlib.import_module(module), function)()
        return built.eval()
    more = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, **more).eval()


def classifier_of(module: nn.Module, name: str, device: str = "cpu") -> faithmap.Classifier:
    """With ImageNet's normalisation."""
    classifier = faithmap.Classifier(module, mean=IMAGENET_MEAN, std=IMAGENET_STD, name=name)
    classifier.to(device)
    return classifier


def make_chains(count: int, per_image: int, steps: int, size: int, device: str = "cpu") -> Chains:
    """Random orders of 9×9 regions: `per_image` chains share an image and its fill, as methods do."""
    random = torch.Generator().manual_seed(0)
    images = -(-count // per_image)
    pixels, fill = (torch.rand(images, 3, size, size, generator=random) for _ in range(2))
    heat = torch.randn(count, size, size, generator=random)
    image = torch.arange(count) // per_image
    steps_of = faithmap.removal_steps(heat, faithmap.Protocol.preset(steps=steps))
    tensors = (pixels, fill, image, image, steps_of, torch.zeros(count, dtype=torch.int64))
    return Chains(*(tensor.to(device) for tensor in tensors), steps)


class PackedLinear(nn.Module):
    """The faster of torch's linear kernels on some processors."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.product = kernels.Product(linear.weight.detach(), linear.bias, relu=False, rows=rows)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.product(x.reshape(-1, x.shape[-1])).view(*x.shape[:-1], -1)


def with_packed_linear(module: nn.Module, rows: int) -> nn.Module:
    """A copy of the network with `PackedLinear` in place of every linear layer."""
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Linear and kernels.private_linear(child.weight.device) is not None:
                setattr(parent, name, PackedLinear(child, rows))
    return module


def rate(work: Callable[[], int], clock: Callable[[], float], repeats: int) -> float:
    """Scores per second, the median of `repeats` after a warming-up."""
    work()
    rates = []
    for _ in range(repeats):
        start = clock()
        scores = work()
        rates.append(scores / (clock() - start))
    return statistics.median(rates)


def scored(classifier: faithmap.Classifier, chains: Chains, engine: str, precision: str, batch: int) -> int:
    """All scores of the chains, with a new engine, tracing and self-check included."""
    score_chains(make_engine(classifier, engine, batch, precision=precision), chains)
    return len(chains) * (chains.steps + 1)


def fused_dense(classifier: faithmap.Classifier, network: FusedNetwork, chains: Chains) -> int:
    """All scores by a dense engine whose convolutions apply the ReLU behind them."""
    score_chains(DenseEngine(classifier, BATCH).running(network), chains)
    return len(chains) * (chains.steps + 1)


def plain_loop(classifier: faithmap.Classifier, chains: Chains, count: int) -> int:
    """What a user would write: one image's inputs a batch, in torch's default memory format."""
    with torch.no_grad():
        for chain in range(count):
            removal_step = chains.removal_step[chain]
            steps = torch.arange(chains.steps + 1, device=removal_step.device).view(-1, 1, 1, 1)
            removed = (removal_step > 0) & (removal_step <= steps)
            inputs = torch.where(removed, chains.fill[chains.fill_index[chain]], chains.pixels[chains.image[chain]])
            classifier(inputs).softmax(1)
    return count * (chains.steps + 1)


@contextmanager
def timed(clock: Callable[[], float]):
    """Where the time of the incremental engine goes, by kind of work."""
    spent: dict[str, float] = defaultdict(float)

    def watch(owner: type, name: str, key: str) -> Callable[[], None]:
        original = getattr(owner, name)

        def method(self, *args, **kwargs):
            start = clock()
            result = original(self, *args, **kwargs)
            what = f"{key} {type(self).__name__}" if key == "run" else key
            spent[what] += clock() - start
            return result

        setattr(owner, name, method)
        return lambda: setattr(owner, name, original)

    undo = [
        watch(kernels.Windows, "gather", "gather"),
        watch(kernels.ConvolutionKernel, "compute", "compute"),
        watch(kernels.TileKernel, "compute", "compute"),
        watch(kernels.Kernel, "run", "run"),
        watch(kernels.TileKernel, "run", "run"),
        watch(tail.Tail, "_run", "head"),
        watch(kernels.Product, "__call__", "product"),
    ]
    try:
        yield spent
    finally:
        for one in undo:
            one()


def shares(
    classifier: faithmap.Classifier, chains: Chains, precision: str, clock: Callable[[], float]
) -> dict[str, float]:
    """Share of time by kind of work, over steps 1…L."""
    engine = make_engine(classifier, "incremental", precision=precision)
    score_chains(engine, chains)
    with timed(clock) as spent:
        start = clock()
        score_chains(engine, chains)
        total = clock() - start
        product_in_head = spent["head"]
    runs = {kind.removeprefix("run "): seconds for kind, seconds in spent.items() if kind.startswith("run ")}
    convolutions = runs.pop("ConvolutionKernel", 0.0) + runs.pop("TileKernel", 0.0)
    found = {
        "gather": spent["gather"],
        "product": max(spent["compute"] - spent["gather"], 0.0),
        "scatter": max(convolutions - spent["compute"], 0.0),
        "pool": sum(runs.values()),
        "head": product_in_head,
    }
    found["rest"] = max(total - sum(found.values()), 0.0)
    return {kind: seconds / total for kind, seconds in found.items()}


def product_rate(clock: Callable[[], float], dtype: torch.dtype, device: str) -> float:
    """Multiply-adds per second of a matrix product of the size that layers have."""
    count = 1024 if device == "cpu" else 16384
    rows, weight = (torch.randn(n, 1152, dtype=dtype, device=device) for n in (count, 256))
    product = kernels.Product(weight, None, relu=False, rows=count)
    return rate(lambda: sum(product(rows).shape[0] for _ in range(50)), clock, 5) * 1152 * 256


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["alexnet", "squeezenet1_1", "vgg16", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--per-image", type=int, default=8, help="chains that share an image (default 8)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--dense-chains", type=int, default=2, help="chains that the dense engine is timed on")
    parser.add_argument("--batch", type=int, default=64, help="inputs a forward pass of the dense engine")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--device", default="cpu", help="a GPU wants --chains 512 and --batch 512")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    clock = CLOCKS[given.clock]
    kinds = ("gather", "product", "scatter", "pool", "head", "rest")
    print(f"torch {torch.__version__}, {given.device}, {given.threads} threads, {given.clock} time,", end=" ")
    print(f"{given.chains} chains, {given.per_image} an image, {given.steps} steps, {given.size} × {given.size}")
    print(
        "network | precision | plain loop/s | dense/s | incremental/s | ratio | "
        + " | ".join(kinds)
        + " | floor/s | of floor | MB a chain | peak MB"
    )
    few = make_chains(given.dense_chains, 1, given.steps, given.size, given.device)
    chains = make_chains(given.chains, given.per_image, given.steps, given.size, given.device)
    loops = {}
    for name in given.networks:  # before the allocator is tuned, as a user's own loop would run
        one = classifier_of(build(name), name, given.device)
        loops[name] = rate(partial(plain_loop, one, few, 1), clock, given.repeats)
    tune_allocator()
    for name in given.networks:
        module = build(name)
        classifier = classifier_of(module, name, given.device)
        packed = classifier_of(with_packed_linear(module, given.batch), name, given.device)
        cost = examine(classifier, (given.size, given.size))
        for precision in given.precisions:
            dense = max(
                rate(partial(scored, one, few, "dense", precision, batch), clock, given.repeats)
                for one in ((classifier, packed) if precision == "float32" else (classifier,))
                for batch in {given.batch, DEFAULT_BATCH[kind_of(one.device)]}
            )
            if precision == "float32":
                dense = max(dense, loops[name])
                with suppress(EngineError):
                    network = FusedNetwork(classifier, (given.size, given.size))
                    dense = max(dense, rate(partial(fused_dense, classifier, network, few), clock, given.repeats))
            incremental = partial(scored, classifier, chains, "incremental", precision, given.batch)
            reset(os.getpid())
            found = rate(incremental, clock, given.repeats)
            most = peak(os.getpid())
            parts = shares(classifier, chains, precision, clock)
            floor = product_rate(clock, getattr(torch, precision), given.device) / cost.changed_multiply_adds
            numbers = [f"{loops[name]:.1f}", f"{dense:.1f}", f"{found:.1f}", f"{found / dense:.2f}"]
            numbers += [f"{parts[kind]:.0%}" for kind in kinds] + [f"{floor:.0f}", f"{found / floor:.0%}"]
            numbers += [f"{cost.bytes_per_chain / 1e6:.1f}", f"{most:.0f}"]
            print(" | ".join([name, precision, *numbers]), flush=True)


if __name__ == "__main__":
    main()
