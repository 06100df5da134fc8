"""What of a network's output is scored: softmax, sigmoid, identity, functions; parts of outputs; channels and sizes."""

import dataclasses
import hashlib
import re
import warnings
from collections import namedtuple

import numpy as np
import pytest
import tifffile
import torch
from matplotlib import pyplot
from matplotlib.text import Text
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import faithmap
from faithmap.cli.app import app
from faithmap.cli.options import channels_of
from faithmap.cli.show import show_run
from faithmap.errors import ClassifierError, ClassifierWarning, EngineWarning, FaithmapError, InputError, ProtocolError
from faithmap.images import load_images, rgb
from faithmap.report import packing
from tests.reference.outputs import score_twin

STEPS = 4
TARGETS = torch.tensor([0, 1, 0])


def network(channels: int = 3, out: int = 5, flat: bool = False) -> nn.Module:
    """Two convolutions and a linear layer; random weights that are always the same."""
    torch.manual_seed(5)
    layers = [nn.Conv2d(channels, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, out)]
    return nn.Sequential(*layers, *([nn.Flatten(0)] if flat else [])).eval()


class Segmenter(nn.Module):
    """A class for every pixel, in a dict."""

    def __init__(self, key: str | None = "out") -> None:
        super().__init__()
        torch.manual_seed(6)
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.key = key

    def forward(self, x):
        return {self.key: self.body(x).sin()} if self.key else self.body(x).sin()


class Detector(nn.Module):
    """Boxes with scores, a list with a dict per image."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network(out=6)

    def forward(self, x):
        return [{"boxes": row[:4], "scores": row[4:].sigmoid()} for row in self.body(x)]


def in_mask(outputs, targets):
    """The class of the target summed over the upper half."""
    rows = torch.arange(len(targets), device=outputs.device)
    return outputs[rows, targets][:, : outputs.shape[2] // 2].sum((1, 2))


def best_box(outputs, targets):
    return torch.stack([one["scores"][target] for one, target in zip(outputs, targets, strict=True)])


def margin(outputs, targets):
    """The target's logit above the mean of all."""
    return outputs.gather(1, targets.unsqueeze(1)).squeeze(1) - outputs.mean(1)


CASES = {
    "softmax": (lambda: faithmap.Classifier(network()), "softmax"),
    "sigmoid": (lambda: faithmap.Classifier(network(), score="sigmoid"), "sigmoid"),
    "one logit": (lambda: faithmap.Classifier(network(out=1), score="sigmoid"), "one logit"),
    "one flat logit": (lambda: faithmap.Classifier(network(out=1, flat=True), score="sigmoid"), "one logit"),
    "regression": (lambda: faithmap.Classifier(network(out=2), score="identity"), "identity"),
    "a function of logits": (lambda: faithmap.Classifier(network(), score=margin), "margin"),
    "segmentation": (lambda: faithmap.Classifier(Segmenter(), output="out", score=in_mask), "mask"),
    "detection": (lambda: faithmap.Classifier(Detector(), score=best_box), "box"),
}


def chains(channels: int = 3, height: int = 16, width: int = 16):
    random = torch.Generator().manual_seed(7)
    pixels, fill = (torch.rand(3, channels, height, width, generator=random) for _ in range(2))
    heat = torch.randn(3, height, width, generator=random)
    return pixels, fill, faithmap.removal_steps(heat, faithmap.Protocol.preset(steps=STEPS, region_size=5))


def twin_curves(classifier, pixels, fill, removal_step, kind, targets=TARGETS):
    found = []
    for row in range(len(pixels)):
        for k in range(STEPS + 1):
            x = pixels[row].clone()
            for y in range(x.shape[1]):
                for z in range(x.shape[2]):
                    if 0 < removal_step[row, y, z] <= k:
                        x[:, y, z] = fill[row, :, y, z]
            with torch.no_grad():
                output = classifier.module(x[None])
            found.append(score_twin(output, int(targets[row]), kind))
    return np.array(found).reshape(len(pixels), STEPS + 1, 2)


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize("engine", ["auto", "dense"])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_twin(case, engine):
    make, kind = CASES[case]
    classifier = make()
    pixels, fill, removal_step = chains()
    found = faithmap.score_curves(classifier, pixels, TARGETS, removal_step, fill, engine=engine, batch_size=7)
    expected = twin_curves(classifier, pixels, fill, removal_step, kind)
    np.testing.assert_allclose(torch.stack(found, -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", ["one logit", "a function of logits", "sigmoid", "regression"])
def test_scores_of_columns_are_computed_incrementally(case, monkeypatch):
    from faithmap.inference.incremental import engine

    monkeypatch.setattr(engine, "WORTHWHILE", 0.0)
    pixels, fill, removal_step = chains(height=32, width=40)
    classifier = CASES[case][0]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", EngineWarning)
        found = faithmap.score_curves(classifier, pixels, TARGETS, removal_step, fill, engine="incremental")
    expected = faithmap.score_curves(classifier, pixels, TARGETS, removal_step, fill, engine="dense")
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize("case", CASES)
def test_runs_and_heatmaps_follow_the_score(case):
    classifier = CASES[case][0]()
    pixels = chains()[0]
    found = faithmap.heatmaps(classifier, pixels, TARGETS, "sensitivity:l2")
    inputs = pixels.clone().requires_grad_()
    kind = CASES[case][1]
    total = sum(score_twin(classifier.module(inputs[i : i + 1]), int(TARGETS[i]), kind, number=False) for i in range(3))
    (gradient,) = torch.autograd.grad(total, inputs)
    torch.testing.assert_close(found, gradient.square().sum(1).sqrt(), rtol=1e-4, atol=1e-6)
    protocol = faithmap.Protocol.preset(steps=STEPS, region_size=5, draws=1)
    methods = ["sensitivity:l2", "occlusion:size=8,stride=4", "rise:n=8,cells=3", "integrated-gradients:n=3"]
    if case in ("segmentation", "detection"):
        with pytest.raises(FaithmapError, match="no predicted class"):
            faithmap.evaluate(classifier, pixels, methods, protocol)
        return
    frame = faithmap.evaluate(classifier, pixels, methods, protocol).scores()
    assert set(frame["method"]) == {*methods, "random"}
    assert frame.groupby("method").size().nunique() == 1


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
def test_a_probability_that_is_none_is_not_offered(tmp_path):
    parts = {"steps": STEPS, "region_size": 5, "draws": 1}
    for case, hidden in (("regression", True), ("sigmoid", False)):
        run = faithmap.evaluate(
            CASES[case][0](), chains()[0], ["edge"], faithmap.Protocol.preset("samek2017", **parts), tmp_path / case
        )
        page = run.report(tmp_path / f"{case}.html").read_text()
        assert ('<fieldset class="segmented score" hidden>' in page) == hidden
        scores = run.scores()
        assert scores["logit"].equals(scores["probability"]) == hidden
        assert (">probability<" in page) != hidden
    shown = faithmap.Protocol.preset("samek2017", score="probability", **parts)
    with pytest.raises(ProtocolError, match="have none"):
        faithmap.evaluate(CASES["regression"][0](), chains()[0], ["edge"], shown)


def test_texts_name_the_score_function_instead_of_a_logit(tmp_path, capsys):
    """Everything that a person reads of a run without a probability: neither word occurs where a number is named."""
    parts = {"steps": STEPS, "region_size": 5, "draws": 1, "orders": ("morf", "lerf"), "measure": "srg"}
    said = {"regression": "score", "a function of logits": "score margin"}
    for case, name in said.items():
        folder = tmp_path / name
        protocol = faithmap.Protocol.preset("samek2017", **parts)
        run = faithmap.evaluate(CASES[case][0](), chains()[0], ["edge", "brightness"], protocol, folder)
        assert run.measured().unit == name
        show_run(run, verbose=True)
        terminal = "".join(capsys.readouterr().out.split())
        page = re.sub(r"<(script|style).*?</\1>", "", (folder / "report.html").read_text(), flags=re.DOTALL)
        page = re.sub(r"<[^>]*>", " ", page.partition("What was run")[0])
        paper = run.paper()
        methods = paper.methods.partition("All parameters of the protocol")[0]
        texts = [terminal, page, run._repr_html_(), paper.table, methods, *run.verdict()]
        texts += [str(item.sentence) for item in run.grade().items]
        for figure in ("fig4", "curves", "ranking", "heatmaps", "steps"):
            drawn = np.atleast_1d(np.asarray(run.figure(figure), dtype=object)).ravel()[0].figure
            texts += [one.get_text() for one in drawn.findobj(Text)]
        for text in texts:
            assert not re.search(r"logit|mean probability|\bprobability\b(?!, and there is none)", text), text
        assert name.replace(" ", "") in terminal
        assert sum(name in text for text in texts) >= 6
        assert name.partition(" ")[2] in paper.methods
    settings = [protocol, protocol.override(region_size=4)]
    study = faithmap.study(CASES["regression"][0](), chains()[0], ["edge", "brightness"], settings, tmp_path / "s")
    assert study.scores == ["logit"]
    assert not any("logit" in line or "By probability" in line for line in study.verdict())


def test_one_logit_is_two_classes():
    classifier = CASES["one logit"][0]()
    pixels = chains()[0]
    z = classifier.module(pixels)[:, 0]
    torch.testing.assert_close(classifier(pixels), torch.stack([-z, z], 1))
    assert classifier.predict(pixels).tolist() == (z > 0).long().tolist()


Pair = namedtuple("Pair", ["features", "scores"])


@dataclasses.dataclass
class Record:
    features: torch.Tensor
    scores: torch.Tensor


OUTPUTS = {
    "dict": (lambda f, s: {"features": f, "scores": s}, "scores"),
    "tuple": (lambda f, s: (f, s), 1),
    "last of a list": (lambda f, s: [f, s], -1),
    "named tuple": (Pair, "scores"),
    "dataclass": (Record, "scores"),
}


class Wrapped(nn.Module):
    def __init__(self, make) -> None:
        super().__init__()
        self.body, self.make = network(), make

    def forward(self, x):
        scores = self.body(x)
        return self.make(scores * 2, scores)


@pytest.mark.parametrize("case", OUTPUTS)
def test_a_part_of_the_output_is_picked(case):
    make, part = OUTPUTS[case]
    pixels = chains()[0]
    classifier = faithmap.Classifier(Wrapped(make), output=part)
    torch.testing.assert_close(classifier(pixels), network()(pixels))
    torch.testing.assert_close(
        faithmap.heatmaps(classifier, pixels, TARGETS, "lrp-epsilon:0.01"),
        faithmap.heatmaps(faithmap.Classifier(network()), pixels, TARGETS, "lrp-epsilon:0.01"),
    )
    function = faithmap.Classifier(Wrapped(make).forward, output=part)
    torch.testing.assert_close(function(pixels), network()(pixels))


def test_without_a_part_the_parts_are_named_and_a_wrong_one_too():
    pixels = chains()[0]
    with pytest.raises(ClassifierError, match="output=, one of features, scores"):
        faithmap.Classifier(Wrapped(OUTPUTS["dict"][0]))(pixels)
    with pytest.raises(ClassifierError, match=r"without 'score'; did you mean 'scores'\? Its parts: features, scores"):
        faithmap.Classifier(Wrapped(OUTPUTS["dict"][0]), output="score")(pixels)


def test_a_hugging_face_module_needs_no_output():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3
    )
    module = transformers.ResNetForImageClassification(config).eval()
    pixels = chains(height=32, width=32)[0]
    classifier = faithmap.Classifier(module)
    with torch.no_grad():
        torch.testing.assert_close(classifier(pixels), module(pixel_values=pixels).logits)
    assert classifier.differentiable
    faithmap.heatmaps(classifier, pixels, TARGETS, "lrp-epsilon:0.01")


@pytest.mark.parametrize(
    ("module", "kwargs", "message"),
    [
        (network(out=1), {}, "for one logit give score='sigmoid', for regression score='identity'"),
        (Segmenter(key=None), {}, "give a function as score"),
        (network(), {"score": lambda outputs, targets: outputs}, r"returned torch.float32 \(16, 5\) for 16 images"),
        (network(), {"score": lambda outputs, targets: 1 / 0}, "score function of Sequential fails: division by zero"),
    ],
)
def test_outputs_that_do_not_fit_are_refused_with_the_remedy(module, kwargs, message):
    pixels, fill, removal_step = chains()
    classifier = faithmap.Classifier(module, **kwargs)
    with pytest.raises(ClassifierError, match=message):
        faithmap.score_curves(classifier, pixels, TARGETS, removal_step, fill, engine="dense")


def test_an_unknown_score_is_refused():
    with pytest.raises(ClassifierError, match="did you mean 'sigmoid'"):
        faithmap.Classifier(network(), score="sigmoidal")


def test_probabilities_are_noticed_once_and_logits_are_not():
    pixels = chains()[0]
    soft = faithmap.Classifier(nn.Sequential(network(), nn.Softmax(1)))
    with pytest.warns(ClassifierWarning, match="sum to 1.*softmax is applied"):
        soft.predict(pixels)
    many = faithmap.Classifier(nn.Sequential(network(), nn.Sigmoid()), score="sigmoid")
    with pytest.warns(ClassifierWarning, match="they all lie in"):
        many.predict(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        soft.predict(pixels)
        faithmap.Classifier(network()).predict(pixels)
        faithmap.Classifier(nn.Sequential(network(), nn.Softmax(1)), score="identity").predict(pixels)


def test_what_is_scored_is_part_of_the_fingerprint_and_the_default_is_not():
    scores = ("softmax", "sigmoid", "identity", margin, in_mask)
    known = [faithmap.Classifier(network(), score=score) for score in scores]
    prints = [one.fingerprint() for one in known]
    assert len(set(prints)) == len(prints)
    # As it was when there was only the softmax, so that runs of that time can be extended.
    digest = hashlib.sha256(repr(((0.0,) * 3, (1.0,) * 3, False, str(network()))).encode())
    for name, tensor in sorted(network().state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.numpy().tobytes())
    assert prints[0] == digest.hexdigest()[:16]
    assert [faithmap.Classifier(network(), score=margin).fingerprint()] == prints[3:4]


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("fill", ["uniform", "constant:mean", "constant:dataset-mean", "blur", "noisy-linear", "swap"])
def test_any_number_of_channels(channels, fill, tmp_path):
    pixels = chains(channels)[0]
    classifier = faithmap.Classifier(network(channels), mean=(0.4,) * channels, std=(0.3,) * channels)
    protocol = faithmap.Protocol.preset(steps=STEPS, region_size=5, draws=1, fill=fill)
    methods = ["sensitivity:l2", "lrp-epsilon:0.01", "occlusion:size=8,stride=4", "edge", "brightness"]
    run = faithmap.evaluate(classifier, pixels, methods, protocol, out=tmp_path / "run")
    frame = run.scores()
    assert set(frame["method"]) == {*methods, "random"}
    # The last point of the first chain, by hand.
    example = run.examples()[0]
    if fill not in ("noisy-linear", "swap"):
        step = run.removal_step(example, "edge")
        last = torch.where(step > 0, run.fill(example), example.pixels)
        with torch.no_grad():
            logits = classifier.module((last[None] - 0.4) / 0.3)[0]
        rows = frame.query(f"method == 'edge' and step == {STEPS} and image == '{example.image}'")
        assert float(rows["logit"].iloc[0]) == pytest.approx(float(logits[example.target]), abs=1e-4)


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize("channels", [1, 4])
def test_figures_and_the_page_show_any_number_of_channels(channels, tmp_path):
    classifier = faithmap.Classifier(network(channels))
    protocol = faithmap.Protocol.preset(steps=STEPS, region_size=5, draws=1)
    run = faithmap.evaluate(classifier, chains(channels)[0], ["sensitivity:l2"], protocol, out=tmp_path / "run")
    for figure in ("heatmaps", "steps"):
        run.figure(figure, tmp_path / f"{figure}.png")
    assert run.report(tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize(
    ("channels", "asked", "shown"),
    [
        (1, None, [0, 0, 0]),
        (2, None, [0, 0, 0]),
        (2, [2], [1, 1, 1]),
        (4, None, [0, 1, 2]),
        (5, [3, 2, 1], [2, 1, 0]),
        (5, 5, [4, 4, 4]),
    ],
)
def test_the_channels_that_are_shown_are_chosen(channels, asked, shown, tmp_path, monkeypatch):
    pixels = chains(channels)[0]
    protocol = faithmap.Protocol.preset("samek2017", steps=STEPS, region_size=5, draws=1)
    classifier = faithmap.Classifier(network(channels), shown_channels=asked)
    run = faithmap.evaluate(classifier, pixels, ["edge"], protocol, out=tmp_path / "run")
    expected = run.examples()[0].pixels[shown]
    axes = run.figure("steps", image=run.examples()[0].image)
    drawn = torch.from_numpy(np.asarray(axes[0][0].images[0].get_array())).permute(2, 0, 1)
    assert torch.equal(drawn, expected)
    axes = run.figure("heatmaps")
    drawn = torch.from_numpy(np.asarray(axes[0][0].images[0].get_array())).permute(2, 0, 1)
    assert any(torch.equal(drawn, one.pixels[shown]) for one in run.examples())
    packed = []
    monkeypatch.setattr(packing, "_differences", lambda rgb: packed.append(rgb) or rgb)
    run.report(tmp_path / "report.html")
    assert any(np.array_equal(one, np.rint(expected.numpy() * 255)) for one in packed)
    # Asked for afterwards, the other way round.
    packed.clear()
    runner = CliRunner()
    back = ",".join(str(one + 1) for one in reversed(shown))
    for command, file in ((["report"], "x.html"), (["plot", "--figure", "steps"], "x.png")):
        where = [str(tmp_path / "run"), "--channels", back, "--out", str(tmp_path / file)]
        done = runner.invoke(app, [*command, *where])
        assert done.exit_code == 0, done.output
    pyplot.close("all")
    assert any(np.array_equal(one, np.rint(run.examples()[0].pixels[shown[::-1]].numpy() * 255)) for one in packed)
    # What is shown decides no number: the folder goes on.
    plain = faithmap.Classifier(classifier.module)
    assert len(faithmap.evaluate(plain, pixels, ["edge", "brightness"], protocol, out=tmp_path / "run").scores())


@pytest.mark.parametrize(
    ("asked", "message"), [([1, 2], "one channel, or three"), ("321", "one channel, or three"), ([0, 1, 2], "from 1")]
)
def test_channels_that_cannot_be_shown_are_refused(asked, message):
    with pytest.raises(faithmap.errors.FaithmapError, match=message):
        faithmap.Classifier(network(), shown_channels=asked)
    with pytest.raises(faithmap.errors.InputError, match="channel 4 of images with 3"):
        rgb(torch.rand(3, 4, 4), (4, 1, 2))
    with pytest.raises(faithmap.errors.FaithmapError, match="--channels is '3;2;1'"):
        channels_of("3;2;1")


def test_a_network_is_not_given_other_channels():
    classifier = faithmap.Classifier(network(1), mean=[0.5], std=[0.5])
    with pytest.raises(ClassifierError, match=r"takes images \(B, 1, H, W\), received"):
        classifier(torch.rand(2, 3, 16, 16))
    with pytest.raises(ClassifierError, match="one number per channel"):
        faithmap.Classifier(network(1), mean=[0.5], std=[0.5, 0.5])
    assert faithmap.Classifier(network(1)).preprocessing.channels == 1


def saved(folder, name, array, mode=None):
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, array)
    elif array.ndim == 3:
        first, *rest = (Image.fromarray(page) for page in array)
        first.save(path, save_all=True, append_images=rest)
    else:
        Image.fromarray(array).save(path)
    return load_images(path)[0]


def test_grey_files_arrays_and_stacks_become_channels(tmp_path):
    random = np.random.default_rng(0)
    grey = random.integers(0, 256, (16, 16), dtype=np.uint8)
    deep = random.integers(0, 65536, (16, 16), dtype=np.uint16)
    stack = random.integers(0, 256, (6, 16, 16), dtype=np.uint8)
    raw = {c: faithmap.Preprocessing(crop=(16, 16), resize=None, channels=c) for c in (1, 3, 6)}
    expected = torch.from_numpy(grey) / 255
    assert torch.equal(saved(tmp_path, "a.png", grey).read(raw[1])[0], expected)
    assert torch.equal(saved(tmp_path, "a.npy", grey).read(raw[1])[0], expected)
    assert torch.equal(saved(tmp_path, "b.npy", grey[..., None]).read(raw[1])[0], expected)
    assert (saved(tmp_path, "c.png", deep).read(raw[1])[0] - torch.from_numpy(deep / 65535)).abs().max() < 1e-6
    for name, array in (
        ("d.npy", stack),
        ("e.npy", stack.transpose(1, 2, 0)),
        ("f.tif", stack),
        ("g.npy", stack / 255),
    ):
        torch.testing.assert_close(saved(tmp_path, name, array).read(raw[6]), torch.from_numpy(stack) / 255)
    colours = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    torch.testing.assert_close(
        saved(tmp_path, "h.npy", colours).read(raw[3]), torch.from_numpy(colours).permute(2, 0, 1) / 255
    )


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["samples", "planes", "pages", "pages of samples", "big"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_stacks_of_any_shape_become_channels(tmp_path, kind, dtype):
    random = np.random.default_rng(0)
    top = 1 if dtype == "float32" else np.iinfo(dtype).max
    stack = (random.random((6, 16, 12)) * top).astype(dtype)
    how = {"photometric": "minisblack", "compression": "zlib" if kind == "samples" else None}
    if kind == "samples" or kind == "big":
        tifffile.imwrite(
            tmp_path / "a.tif", stack.transpose(1, 2, 0), planarconfig="contig", bigtiff=kind == "big", **how
        )
    elif kind == "planes":
        tifffile.imwrite(tmp_path / "a.tif", stack, planarconfig="separate", **how)
    elif kind == "pages":
        tifffile.imwrite(tmp_path / "a.tif", stack, **how)
    else:
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            for part in (stack[:2], stack[2:4], stack[4:]):
                file.write(part.transpose(1, 2, 0), planarconfig="contig", photometric="minisblack")
    raw = faithmap.Preprocessing(crop=(16, 12), resize=None, channels=6)
    image = load_images(tmp_path / "a.tif")[0]
    torch.testing.assert_close(image.read(raw), torch.from_numpy((stack.astype(np.float64) / top).astype(np.float32)))
    with pytest.raises(faithmap.errors.ImageError, match=r"'a\.tif' cannot be used.*the network takes 5 channels"):
        image.read(faithmap.Preprocessing(crop=(16, 12), resize=None, channels=5))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:300])
    with pytest.raises(faithmap.errors.ImageError, match=r"'a\.tif' cannot be used"):
        image.read(raw)


def test_arrays_are_resized_as_pictures_are(tmp_path):
    random = np.random.default_rng(0)
    colours = np.kron(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), np.ones((9, 9, 1), dtype=np.uint8))
    Image.fromarray(colours).save(tmp_path / "a.png")
    preparation = faithmap.Preprocessing(crop=(24, 20), resize=30)
    of_file = load_images(tmp_path / "a.png")[0].read(preparation)
    of_array = saved(tmp_path, "a.npy", colours).read(preparation)
    assert (of_file - of_array).abs().max() <= 1.01 / 255


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("a.npy", np.zeros((5, 8, 8), np.uint8), r"an array \(5, 8, 8\), the network takes 6 channels"),
        ("a.npy", np.full((6, 8, 8), 1.5), r"values in \[1.5, 1.5\], expected \[0, 1\]"),
        ("a.npy", np.full((6, 8, 8), np.nan), r"expected \[0, 1\]"),
        ("a.npy", np.array(["x"]), "holds <U1 values, expected numbers"),
        ("a.tif", np.zeros((5, 8, 8), np.uint8), "5 pages of .*takes 6 channels"),
        ("a.png", np.zeros((8, 8), np.uint8), r"it is a picture \(L\), the network takes 6 channels"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, name, array, message):
    image = saved(tmp_path, name, array)
    with pytest.raises(faithmap.errors.ImageError, match=f"'{name}'.*{message}"):
        image.read(faithmap.Preprocessing(crop=(8, 8), resize=None, channels=6))


@pytest.mark.filterwarnings("ignore::faithmap.errors.EngineWarning")
@pytest.mark.parametrize("size", [(40, 40), (20, 36)])
def test_the_input_size_is_that_of_the_tensors(size):
    classifier = faithmap.Classifier(network())
    protocol = faithmap.Protocol.preset(steps="all", region_size=5, draws=1)
    run = faithmap.evaluate(classifier, torch.rand(2, 3, *size), ["edge"], protocol)
    assert run.protocol.steps == (size[0] // 5) * (size[1] // 5)
    asked = faithmap.Classifier(network(), preprocessing=faithmap.Preprocessing(crop=(24, 24)))
    with pytest.raises(InputError, match=rf"{size[0]}×{size[1]} pixels, the classifier's preprocessing makes 24×24"):
        faithmap.evaluate(asked, torch.rand(2, 3, *size), ["edge"], protocol)
