"""Measures that a user brings: callables, and metrics of Quantus and captum as they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faithmap.attribution import Batch, Method
from faithmap.classifiers import Classifier
from faithmap.errors import FaithmapError, MeasureError
from faithmap.foreign import attribute, has_attribute
from faithmap.identity import UNKNOWN, callable_identity
from faithmap.measures.measure import SETS, Measure, Needs
from faithmap.measures.subject import Subject, heatmaps_by_row, recomputable

Rows = dict[tuple[str, int], float | str]
Maps = Mapping[Method, Mapping[int, Tensor]]


def foreign(metric: Any) -> Measure:
    """A measure from a callable, or from a metric of Quantus or captum.

    Args:
        metric: a callable (classifier, pixels (B, 3, H, W), targets (B,), heatmaps (B, H, W)) → (B,), which may have
            attributes `higher_is_better` (default True), `unit`, `line` and `set`; or an object of Quantus; or
            `infidelity` or `sensitivity_max` of captum, with its settings in a `functools.partial`.
    """
    kind = type(metric)
    if any(base.__module__.partition(".")[0] == "quantus" for base in kind.__mro__):
        return _measure(metric, _quantus, f"{kind.__module__}.{kind.__qualname__}", _quantus_facts(metric))
    inner = metric.func if isinstance(metric, partial) else metric
    if str(attribute(inner, "__module__", "")).startswith("captum.metrics"):
        facts = {"higher_is_better": False, "source": "captum", "line": f"captum's {inner.__name__}"}
        facts["set"] = "robustness" if "sensitivity" in inner.__name__ else "faithfulness"
        return _measure(metric, _captum, f"captum.{inner.__name__}", facts)
    named = inner if has_attribute(inner, "__qualname__") else type(inner)
    asked = ("higher_is_better", "unit", "line", "set")
    facts = {key: getattr(metric, key) for key in asked if has_attribute(metric, key)}
    return _measure(metric, _own, f"{named.__module__}.{named.__qualname__}", facts, needs="network")


def _measure(
    metric: Any, compute: Callable[..., Any], where: str, facts: Mapping[str, Any], needs: Needs = "method"
) -> Measure:
    usual = {"line": where, "unit": "", "higher_is_better": True, "source": "", "set": "faithfulness"}
    known = {**usual, **facts}
    if known["set"] not in SETS:
        raise MeasureError(f"measure {where} belongs to set '{known['set']}', expected one of {', '.join(SETS)}.")
    spec: dict[str, Any] = {"callable": where}
    if compute is _quantus:
        spec["settings"] = _settings(metric)
    else:
        found = callable_identity(metric)
        spec |= {"identity": found.digest} | ({UNKNOWN: found.unknown} if found.unknown is not None else {})
    name = where.rpartition(".")[2]
    return Measure(name, needs=needs, spec=spec, drawn=True, function=partial(compute, metric), forward=(1,), **known)


def _settings(metric: Any) -> str:
    """What a metric of Quantus was made with, as plain values; it also keeps the scores of its last call."""
    plain = {k: v for k, v in metric.__dict__.items() if isinstance(v, bool | int | float | str | None)}
    return repr(sorted(plain.items()))


def _own(metric: Callable[..., Any], subject: Subject, heatmaps: Tensor) -> Tensor:
    each = []
    for one in heatmaps:
        with keyed(subject.generator("own")):
            each.append(metric(subject.classifier, subject.pixels, subject.targets, one.unsqueeze(0)))
    return torch.stack([torch.as_tensor(one, dtype=torch.float64).reshape(()).cpu() for one in each])


def _quantus(metric: Any, subject: Subject, maps: Maps) -> Rows:
    """One image at a time: Quantus draws from numpy's global state, which is keyed by the image here."""

    def value(one: Subject, method: Method, heatmap: Tensor) -> Any:
        mask = one.masks.get(one.ids[0])
        explain = _explainer(one, method)
        found = metric(
            model=one.classifier.module.eval(),
            x_batch=_inputs(one.classifier, one.pixels).cpu().numpy(),
            y_batch=one.targets.cpu().numpy(),
            a_batch=heatmap[None, None].detach().cpu().numpy(),
            s_batch=mask[None, None].cpu().numpy() if isinstance(mask, Tensor) else None,
            explain_func=explain,
            channel_first=True,
            softmax=False,
            device=str(one.pixels.device),
        )
        numbers = np.asarray(list(found.values()) if isinstance(found, dict) else found, dtype=np.float64)
        if numbers.size != 1:
            raise MeasureError(
                f"{type(metric).__name__} returned {numbers.size} numbers for one image, expected one: set it up "
                "so that it averages, for example with return_average_correlation=True."
            )
        return float(numbers.reshape(()))

    return _one_by_one(subject, maps, value)


def _captum(metric: Any, subject: Subject, maps: Maps) -> Rows:
    inner = metric.func if isinstance(metric, partial) else metric

    def value(one: Subject, method: Method, heatmap: Tensor) -> Any:
        inputs = _inputs(one.classifier, one.pixels)
        if inner.__name__ == "sensitivity_max":
            explain = _explainer(one, method)

            def maps_of(given: Any, **how: Any) -> tuple[Tensor]:
                at = given[0] if isinstance(given, tuple) else given
                targets = one.targets[:1].expand(len(at))
                return (torch.from_numpy(explain(one.classifier.module, at.detach().cpu().numpy(), targets.numpy())),)

            return metric(maps_of, inputs)
        attributions = heatmap[None, None].to(inputs).expand_as(inputs)
        with torch.no_grad():
            return metric(one.classifier.logits, inputs=inputs, attributions=attributions, target=one.targets)

    return _one_by_one(subject, maps, value)


def _one_by_one(subject: Subject, maps: Maps, value: Callable[[Subject, Method, Tensor], Any]) -> Rows:
    found: Rows = {}
    for method, rows in maps.items():
        for row, heatmap in rows.items():
            try:
                with keyed(subject.generator("foreign", row)):
                    number = value(subject.row(row), method, heatmap)
                found[method.name, row] = float(torch.as_tensor(number).reshape(()))
            except (torch.cuda.OutOfMemoryError, MemoryError):
                raise
            except Exception as error:  # anybody's code
                found[method.name, row] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return found


@contextmanager
def keyed(random: np.random.Generator) -> Iterator[None]:
    """Global random states of numpy and torch that depend on a key, as they were afterwards."""
    seed = int(random.integers(2**32))
    before = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        np.random.set_state(before)


def _inputs(classifier: Classifier, pixels: Tensor) -> Tensor:
    return classifier.normalise(pixels.to(classifier.dtype))


def _pixels(classifier: Classifier, inputs: Tensor) -> Tensor:
    """The inverse of `Classifier.normalise`."""
    inputs = inputs.flip(1) if classifier.bgr else inputs
    mean = torch.tensor(classifier.mean, dtype=inputs.dtype, device=inputs.device).view(1, -1, 1, 1)
    std = torch.tensor(classifier.std, dtype=inputs.dtype, device=inputs.device).view(1, -1, 1, 1)
    return inputs * std + mean


def _explainer(subject: Subject, method: Method) -> Callable[..., Any]:
    """The method as Quantus calls it: (model, inputs, targets) → heatmaps (B, 1, H, W), of any model."""

    def explain(model: Any, inputs: Any, targets: Any, **how: Any) -> Any:
        if not recomputable(method):
            raise MeasureError(f"heatmaps of '{method.name}' cannot be computed anew, and this metric needs that.")
        classifier = copy.copy(subject.classifier)
        classifier.module = model
        given = torch.as_tensor(np.asarray(inputs), dtype=classifier.dtype, device=subject.pixels.device)
        classes = torch.as_tensor(np.asarray(targets), dtype=torch.int64).reshape(-1)
        ids = [subject.ids[0]] * len(given)
        batch = Batch.of(classifier, _pixels(classifier, given), classes, ids, subject.seed)
        found = heatmaps_by_row(method, batch)
        for one in found:
            if isinstance(one, FaithmapError):
                raise one
        return torch.stack([one for one in found if isinstance(one, Tensor)]).unsqueeze(1).cpu().numpy()

    return explain


def _quantus_facts(metric: Any) -> dict[str, Any]:
    """Direction and property as Quantus names them."""
    category = str(getattr(metric.evaluation_category, "value", metric.evaluation_category)).lower()
    return {
        "line": f"Quantus: {metric.name}",
        "source": "Quantus",
        "higher_is_better": str(getattr(metric.score_direction, "value", metric.score_direction)).lower() == "higher",
        "set": category if category in SETS else "faithfulness",
    }
