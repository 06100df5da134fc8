"""Methods that mean nothing on a network: left out with a reason, or an error that proposes others."""

import warnings

import pytest
import torch
from torch import nn

import faithmap
from faithmap.attribution import fitting
from faithmap.attribution.fitting import refusals
from faithmap.errors import FaithmapError, MethodError, MethodWarning
from tests.conftest import TinyNet


def smooth():
    """A network on which deconvolution means nothing, because it has no ReLU."""
    torch.manual_seed(0)
    return faithmap.Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 4)),
        name="smooth",
    )


PIXELS = torch.rand(3, 3, 40, 40, generator=torch.Generator().manual_seed(3))
PROTOCOL = faithmap.Protocol.preset("samek2017", steps=3, region_size=5, draws=1)


def measured(methods, **how):
    return faithmap.evaluate(smooth(), PIXELS, methods, PROTOCOL, **how)


def test_methods_of_a_set_are_left_out_with_their_reason(tmp_path):
    with pytest.warns(MethodWarning, match="deconvolution:l2 on smooth: .*It is left out"):
        run = measured("fig4", out=tmp_path / "run")
    assert "sensitivity:l2" in set(run.scores()["method"])
    left_out = {one.method: one.reason for one in run.skipped if one.on_all}
    assert set(left_out) == {"deconvolution:l2", "deconvolution:linf"}
    assert "ReLU" in left_out["deconvolution:l2"]
    page = run.report(tmp_path / "report.html").read_text()
    assert "every image" in page
    # The same again: tried again, said once.
    with pytest.warns(MethodWarning):
        again = measured("fig4", out=tmp_path / "run")
    assert len(again.skipped) == len(run.skipped)


def test_a_method_asked_for_by_name_is_an_error_that_proposes_others():
    with pytest.raises(
        MethodError, match=r"deconvolution:l2 on smooth: .*On this network fit: .*sensitivity.*--on-refusal"
    ):
        measured(["sensitivity:l2", "deconvolution:l2"])


def test_what_happens_can_be_said():
    with pytest.warns(MethodWarning):
        run = measured(["sensitivity:l2", "deconvolution:l2"], on_refusal="skip")
    assert set(run.scores()["method"]) == {"sensitivity:l2", "random"}
    with pytest.raises(MethodError, match="deconvolution:l2 on smooth"):
        measured("fig4", on_refusal="error")
    with pytest.raises(MethodError, match="on_refusal"):
        measured("fig4", on_refusal="ignore")


def test_not_one_method_is_an_error():
    with pytest.raises(FaithmapError, match="not one heatmap could be computed"):
        measured(["deconvolution:l2"], on_refusal="skip")


def test_a_method_that_failed_on_every_image_is_an_error_at_the_end(tmp_path):
    def flat(inputs, targets):
        return torch.zeros_like(inputs)

    with pytest.raises(FaithmapError, match=r"no image could be measured with 'flat'.*All else is measured and stored"):
        measured({"flat": flat, "sensitivity": "sensitivity:l2"}, out=tmp_path)
    assert set(faithmap.Run(tmp_path).scores()["method"]) == {"sensitivity", "random"}


def test_what_fits_is_what_runs():
    found = refusals(smooth(), (40, 40))
    assert "ReLU" in found["deconvolution"]
    assert found["sensitivity"] is None
    for name, why in found.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                faithmap.heatmaps(smooth(), PIXELS[:1], torch.tensor([0]), f"{name}:n=2" if name in ("rise",) else name)
        except faithmap.errors.HeatmapError:
            pass
        except MethodError:
            assert why is not None, name
        else:
            assert why is None, name


def test_progress_names_each_method_and_kernelshap_needs_two_segments():
    seen = []
    found = refusals(smooth(), (40, 40), seen.append)
    assert seen == list(found)
    with pytest.raises(faithmap.errors.HeatmapError, match="one segment: give more segments, or shape=grid"):
        faithmap.heatmaps(smooth(), torch.full_like(PIXELS[:1], 0.5), torch.tensor([0]), "kernelshap:segments=2")


def test_tiny_numbers_are_zero_while_methods_are_tried_and_never_after(monkeypatch):
    seen = []
    right = fitting.batch_heatmaps
    monkeypatch.setattr(
        fitting, "batch_heatmaps", lambda *a: (seen.append(float(torch.tensor(1e-39) * 1)), right(*a))[1]
    )
    refusals(smooth(), (40, 40))
    assert set(seen) == {0.0}
    assert float(torch.tensor(1e-39) * 1) > 0


def test_all_of_fig4_fits_on_a_network_of_relus():
    assert not {name for name, why in refusals(faithmap.Classifier(TinyNet()), (24, 24)).items() if why} & {
        "lrp-epsilon", "deconvolution", "sensitivity",
    }  # fmt: skip
