"""The incremental engine: several times faster than the network itself, and never wrong silently.

What it does is in `runner`; here is when it may: the network is traced and cut, the first scores are compared with the
network's own, and whatever stands in the way leads to the dense engine, with the reason said once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from faithmap.checks import LARGEST_SIDE, as_integer, as_points
from faithmap.classifiers import CUSTOM, Classifier, check_classifier
from faithmap.classifiers.watch import signature
from faithmap.errors import EngineError, EngineWarning, InputError, shown
from faithmap.inference.chains import Chains
from faithmap.inference.dense import DenseEngine, free_memory
from faithmap.inference.fused import FusedNetwork
from faithmap.inference.incremental.costs import NetworkCost, Way, cheapest_way, expected_gain, layer_costs
from faithmap.inference.incremental.geometry import Pair, area, bounding_rectangles
from faithmap.inference.incremental.runner import Plan, Runner, network_of, plan_for
from faithmap.inference.precision import inference
from faithmap.modes import in_own_modes

Scores = tuple[Tensor, Tensor, Tensor]

# Of the logits' standard deviation: far above rounding, far below what a wrong pixel does.
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-8, torch.float16: 0.05, torch.bfloat16: 0.2}
# Fewer multiply-adds than this, in proportion, do not pay for gathering and scattering.
WORTHWHILE = 1.2
_MANY_SCORES = 500  # of whole images, from which on it pays to fuse the network's convolutions
_HELD_BYTES = 256_000_000  # logits that wait until the first of them were compared


class IncrementalEngine:
    """Recomputes what a step changes; see `faithmap.inference.incremental.runner`.

    Args:
        classifier: runs in evaluation mode, without gradients.
        dense: what takes over when the network cannot be run incrementally.
        memory: bytes that all of it may take, besides the chains that it is given; by default half of what is free.
        required: raise instead of going dense.
        public: use public operations of torch only, for tests and for devices without others.
        tf32: let a CUDA device round float32 products to TensorFloat-32.
    """

    def __init__(
        self,
        classifier: Classifier,
        dense: DenseEngine,
        *,
        memory: int | None = None,
        required: bool = False,
        public: bool = False,
        tf32: bool = False,
    ) -> None:
        self.classifier = classifier
        self.dense = dense
        self.memory = memory
        self.required = required
        self.public = public
        self.tf32 = tf32
        self.reason: str | None = None  # why the dense engine has taken over
        self._runner: Runner | None = None
        self._early: dict[int, Runner | None] = {}  # whose fronts end after so many layers; None: there can be none
        self._prepared: Any = None
        self._compared: set[Runner] = set()
        self._images: DenseEngine | None = None  # for this network as it is now; `dense` runs any, and any input
        self._image_scores = 0

    def logits(self, chains: Chains) -> Iterator[Scores]:
        """See `Engine.logits`."""
        # Without steps there is nothing that could be left as it was.
        some = len(chains) > 0 and (chains.scored[-1] > 0 or (self.required and chains.steps > 0))
        runner = self._ready((chains.pixels.shape[2], chains.pixels.shape[3])) if some else None
        finite = bool(chains.pixels.isfinite().all() and chains.fill.isfinite().all())
        if runner is None or not finite:  # fused kernels may swallow a NaN
            yield from self.dense.logits(chains)
            return
        chains = replace(chains, image=first_equal(chains.pixels)[chains.image])
        for way, rows in self._ways(runner, chains):
            for chain, step, logits in self._by_points(runner, chains.take(rows), way):
                yield rows[chain], step, logits

    def _ways(self, runner: Runner, chains: Chains) -> Iterator[tuple[Way, Tensor]]:
        """How the points of which chains are scored."""
        points = chains.scored
        single = points == (0, 1)  # maps are not copied for it, and its pixels may be scattered over the image
        if self.required or (len(points) == chains.steps + 1 and not single):
            yield Way(len(points)), torch.arange(len(chains), device=chains.image.device)
            return
        if single:
            changed = area(bounding_rectangles(chains.removal_step, 1))[0]
            sides, ends = changed.sqrt(), torch.zeros_like(changed, dtype=torch.bool)
        else:
            changed = ((chains.removal_step > 0) & (chains.removal_step <= chains.steps)).flatten(1).sum(1)
            sides = (changed / chains.steps).sqrt()
            ends = (changed == chains.removal_step[0].numel()) & (points[-1] == chains.steps)
        # Each chain for itself: which others it meets must not change a bit of its scores.
        kinds = list(zip(sides.ceil().clamp(min=1).long().tolist(), ends.tolist(), strict=True))
        ways = {
            (side, end): cheapest_way(runner.plan.network, side, points, single=single, shared_end=end)
            for side, end in sorted(set(kinds))
        }
        for way in dict.fromkeys(ways.values()):
            rows = [row for row, kind in enumerate(kinds) if ways[kind] == way]
            yield way, torch.tensor(rows, device=chains.image.device)

    def _by_points(self, runner: Runner, chains: Chains, way: Way) -> Iterator[Scores]:
        """The leading points incrementally, all others by the network itself."""
        points = chains.scored
        if self._runner is None:  # the first chains may have shown that it is not to be used
            yield from self.dense.logits(chains)
            return
        chosen = runner if way.layers is None else self._early_runner(runner, way.layers)
        if chosen is None or way.leading == 0:
            yield from self._images_engine(chains).logits(chains)
            return
        yield from self._incremental(chosen, replace(chains, points=points[: way.leading]))
        if way.leading < len(points):
            rest = replace(chains, points=(0, *points[way.leading :]))
            yield from self._images_engine(rest).removed(rest)

    def _early_runner(self, whole: Runner, layers: int) -> Runner | None:
        """A runner whose front ends after so many layers of the whole one's; None where there is no memory for it."""
        if layers not in self._early:
            self._early[layers] = None
            others = [whole, *(runner for runner in self._early.values() if runner is not None)]
            network = whole.plan.network
            until = network.operation(network.layers[layers - 1])
            with suppress(EngineError):
                with inference(self.tf32):
                    plan = plan_for(self.classifier, network.layers[0].size, self.public, until)
                most = self._chains_at_a_time(plan, sum(runner.plan.bytes_once() for runner in others))
                self._early[layers] = Runner(plan, most)
        return self._early[layers]

    def _images_engine(self, chains: Chains) -> DenseEngine:
        """What scores whole images: after many of them with fused convolutions, which take a second to prepare."""
        self._image_scores += len(chains) * (len(chains.scored) - 1)
        if self._images is None and self._image_scores >= _MANY_SCORES:
            self._images = self.dense
            with suppress(EngineError):  # the network as it is is as right
                network = FusedNetwork(self.classifier, (chains.pixels.shape[2], chains.pixels.shape[3]))
                self._images = self.dense.running(network)
        return self._images or self.dense

    def _incremental(self, runner: Runner, chains: Chains) -> Iterator[Scores]:
        self._make_room(runner)
        images, fills = (
            self.classifier.normalise(t).to(self.classifier.dtype).permute(0, 2, 3, 1).contiguous()
            for t in (chains.pixels, chains.fill)
        )
        scores = _inside(partial(inference, self.tf32), self._retrying(runner, chains, images, fills))
        yield from scores if runner in self._compared else self._comparing(runner, scores, chains)

    def _make_room(self, runner: Runner) -> None:
        """Give back what the chains of other runners take, unless there is plenty of memory for both."""
        needed = runner.most * runner.plan.bytes_per_chain() - runner.bytes_kept()
        if self.memory is None and needed <= free_memory(runner.plan.device) // 2:
            return
        for other in (self._runner, *self._early.values()):
            if other is not None and other is not runner:
                other.forget()

    def _ready(self, size: Pair) -> Runner | None:
        """The runner for this network as it is now; None where there is none."""
        now = (size, signature(self.classifier.module))
        if now != self._prepared:
            self._prepared, self._runner, self.reason = now, None, None
            self._early, self._compared = {}, set()
            self._images, self._image_scores = None, 0
            try:
                plan = self._plan(size)
                self._runner = Runner(plan, self._chains_at_a_time(plan))
            except EngineError as error:
                self._give_up(str(error))
        return self._runner

    def _plan(self, size: Pair) -> Plan:
        with inference(self.tf32):
            plan = plan_for(self.classifier, size, self.public)
        output = plan.network.tail[-1].args[0]
        shape = getattr(output, "meta", {}).get("shape")
        if shape is None or len(shape) != 2 or not plan.network.tail_inputs:
            raise EngineError(f"its output is not (B, classes) but {shape}")
        gain = expected_gain(layer_costs(plan.network))
        if len(plan.network.layers) < 2 or (gain < WORTHWHILE and not self.required):
            raise EngineError(f"{plan.network.stop}, a step takes {gain:.2f} times less work than an image")
        return plan

    def _chains_at_a_time(self, plan: Plan, taken: int = 0) -> int:
        """As many as there is memory for, besides the bytes that other plans have taken of it."""
        free = (self.memory if self.memory is not None else free_memory(plan.device) // 2) - taken
        fits = plan.most_chains_within(free)
        if fits < 1:
            raise EngineError(
                f"one chain with maps of {plan.bytes_per_chain() / 1e6:.0f} MB, and what all chains share, take more "
                f"than the {free / 1e6:.0f} MB that are allowed"
            )
        output: Any = plan.network.tail[-1].args[0]
        classes: int = output.meta["shape"][1]
        return min(fits, plan.most_chains(), max(8, _HELD_BYTES // (400 * classes)))

    def _give_up(self, reason: str) -> None:
        self.reason, self._runner, self._early = reason, None, {}
        if self.required:
            raise EngineError(
                f"{self.classifier.name} cannot be run incrementally: {reason}. Use engine 'auto' or 'dense'."
            )
        warnings.warn(f"{self.classifier.name} runs dense: {reason}.", EngineWarning, stacklevel=2)

    def _retrying(self, runner: Runner, chains: Chains, images: Tensor, fills: Tensor) -> Iterator[Scores]:
        """With half as many chains at a time whenever the device's memory is exhausted."""
        found: list[tuple[Tensor, Tensor]] = []
        done: Tensor | None = None  # what was found before the memory was exhausted
        while True:
            try:
                for chain, step, outputs in runner.logits(chains, images, fills):
                    logits = self._scored(outputs, chains.targets[chain])
                    new = slice(None) if done is None else ~done[chain, step]
                    found.append((chain[new], step[new]))
                    if len(found[-1][0]):
                        yield chain[new], step[new], logits[new]
                return
            except torch.cuda.OutOfMemoryError:
                if runner.most == 1:
                    raise
                done = torch.zeros((len(chains), chains.steps + 1), dtype=torch.bool, device=chains.image.device)
                for chain, step in found:
                    done[chain, step] = True
                runner.shrink()
                text = f"out of memory: going on with {runner.most} chains at a time."
                warnings.warn(text, EngineWarning, stacklevel=2)

    def _scored(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """What `Engine.logits` yields, from the network's own output (B, classes)."""
        logits = self.classifier.check_logits(outputs, len(outputs))
        return self.classifier.scores(logits, targets).unsqueeze(1) if self.classifier.score_kind == CUSTOM else logits

    def _comparing(self, runner: Runner, scores: Iterator[Scores], chains: Chains) -> Iterator[Scores]:
        """Hold the first scores back until some of them were compared with the network's own."""
        first = torch.argsort(chains.image, stable=True)[: min(2, len(chains))].tolist()
        points = chains.scored
        steps = sorted({0, *points[1:2], points[len(points) // 2], points[-1]})
        missing = {(chain, step): None for chain in first for step in steps}
        found: dict[tuple[int, int], Tensor] = {}
        held: list[Scores] = []
        for one in scores:
            held.append(one)
            for row, pair in enumerate(zip(one[0].tolist(), one[1].tolist(), strict=True)):
                if pair in missing:
                    found[pair] = one[2][row]
            if len(found) == len(missing):
                break
        pairs = list(found)
        expected = self.dense.at(chains, pairs).double()
        error = (torch.stack(list(found.values())).double() - expected).abs()
        # Rounding grows with the values themselves where the logits hardly differ.
        allowed = TOLERANCE[self.classifier.dtype] * (float(expected.std()) + 1e-2 * float(expected.abs().max()))
        if bool((error <= allowed).all()):
            self._compared.add(runner)
            yield from held
            yield from scores
            return
        chain, step = pairs[int(error.amax(1).argmax())]
        layer = runner.first_difference(self.classifier, chains, chain, step)
        self._give_up(
            f"the incremental logits differ from the network's by {float(error.max()):.2g} at step {step} "
            f"(allowed {allowed:.2g}); they part at {layer}"
        )
        yield from self.dense.logits(chains)


@in_own_modes
def examine(
    classifier: Classifier, size: Pair | None = None, *, points: Sequence[int] | None = None, region: int = 9
) -> NetworkCost:
    """Layer by layer: how much a region changes, which path is taken, and what is gained.

    Args:
        size: rows and columns of the input; by default those of the classifier's preprocessing.
        points: steps that are to be scored, 0 first, to see which of them engine ``"auto"`` recomputes.
        region: side of the regions between these points, in pixels.
    """
    classifier = check_classifier(classifier)
    size = classifier.preprocessing.crop if size is None else _as_size(size)
    region = as_integer(region, "region", 1, LARGEST_SIDE)
    points = None if points is None else as_points(points)
    engine = IncrementalEngine(classifier, DenseEngine(classifier))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EngineWarning)
        runner = engine._ready(size)
    if runner is not None:
        plan = runner.plan
        costs = layer_costs(plan.network)
        if points is None:
            return NetworkCost(costs, plan.network.stop, plan.bytes_per_chain(), None)
        way = cheapest_way(plan.network, region, points)
        until = None if way.layers is None else plan.network.layers[way.layers - 1].name
        return NetworkCost(costs, plan.network.stop, plan.bytes_per_chain(), None, way.leading, until)
    try:
        network = network_of(classifier, size)
    except EngineError as error:
        return NetworkCost([], str(error), 0, engine.reason)
    return NetworkCost(layer_costs(network), network.stop, 0, engine.reason)


def _as_size(size: Any) -> Pair:
    """Rows and columns."""
    found = as_points(size, "size")
    if len(found) != 2:
        raise InputError(f"size is {shown(size)}: give rows and columns of the input.")
    height, width = (as_integer(side, "an entry of size", 1, LARGEST_SIDE) for side in found)
    return height, width


def _inside(context: Any, iterator: Iterator[Scores]) -> Iterator[Scores]:
    """Each item computed inside a context that the caller, in between, is not in."""
    while True:
        with context():
            try:
                item = next(iterator)
            except StopIteration:
                return
        yield item


def first_equal(images: Tensor) -> Tensor:
    """For every image the first one that is equal to it, so that an image given several times is computed once."""
    sums = images.flatten(1).sum(1, dtype=torch.float64).tolist()
    seen: dict[float, list[int]] = {}
    first = []
    for row, total in enumerate(sums):
        alike = seen.setdefault(total, [])
        first.append(next((other for other in alike if torch.equal(images[other], images[row])), row))
        if first[-1] == row:
            alike.append(row)
    return torch.tensor(first, device=images.device)
