import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import faithmap
from faithmap.classifiers import ScoreOnly, embedded, torchvision_models
from faithmap.classifiers.onnx_files import NORMALISATIONS, onnx_classifier
from faithmap.classifiers.timm_models import timm_classifier, with_timm_config
from faithmap.classifiers.weights import check_weights
from faithmap.errors import ClassifierError, DownloadError, MethodError


def test_embedded_squeezenet_sees_a_cat(squeezenet):
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None] / 255
    image = torch.nn.functional.interpolate(image[..., :300, 75:375], size=(224, 224), mode="bilinear", antialias=True)
    top = squeezenet(image)[0].topk(5).indices.tolist()
    assert {squeezenet.label(i) for i in top} & {"tabby", "tiger cat", "Egyptian cat"}


def test_an_unknown_model_proposes_the_nearest():
    with pytest.raises(ClassifierError, match="did you mean 'alexnet'"):
        faithmap.load_classifier("alexnt")


def test_embedded_weights_with_a_wrong_hash_are_refused(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"no weights")
    with pytest.raises(DownloadError, match="expected f286bbf493e63899"):
        embedded.read_embedded_weights(path)


def test_the_unpickler_admits_numpy_only():
    import io
    import os

    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
        embedded._NumpyUnpickler(io.BytesIO(pickle.dumps(Evil()))).load()


def test_a_weights_file_with_a_wrong_hash_is_refused(tmp_path):
    path = tmp_path / "net-01234567.pth"
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="expected it to begin with 01234567"):
        check_weights(path)


def test_normalisation_acts_on_each_pixel_alone():
    net = faithmap.Classifier(torch.nn.Identity(), mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0), bgr=True)
    found = net.normalise(torch.tensor([0.6, 0.2, 1.3]).view(1, 3, 1, 1)).flatten().tolist()
    assert found == pytest.approx([0.5, 0.0, 1.0])


def test_fingerprint_follows_the_weights(tiny):
    before = tiny.fingerprint()
    assert before == tiny.fingerprint()
    with torch.no_grad():
        tiny.module.head.bias[0] += 1
    assert before != tiny.fingerprint()


def picture(width: int = 400, height: int = 300) -> Image.Image:
    """Smooth colours with some noise."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    return Image.fromarray((np.array(coarse) * 0.9 + random.random((height, width, 3)) * 25).astype(np.uint8))


def test_embedded_efficientnet_sees_a_cat_and_equals_timms_network():
    classifier = faithmap.load_classifier("efficientnet-lite0-embedded", device="cpu")
    data = pytest.importorskip("skimage.data")
    pixels = classifier.preprocessing(Image.fromarray(data.chelsea()))
    assert classifier.label(int(classifier.predict(pixels[None])[0])) in {"tabby", "tiger cat", "Egyptian cat"}
    timm = pytest.importorskip("timm")
    other = timm.create_model("tf_efficientnet_lite0").eval()
    names = other.state_dict().keys()
    other.load_state_dict(dict(zip(names, classifier.module.state_dict().values(), strict=True)))
    inputs = classifier.normalise(pixels[None])
    with torch.no_grad():
        torch.testing.assert_close(classifier.module(inputs), other(inputs), atol=1e-4, rtol=1e-4)


def described(module: torch.nn.Module) -> list[object]:
    """Every submodule with all its plain settings."""
    return [
        (name, type(one).__name__, one.extra_repr(), key, value)
        for name, one in module.named_modules()
        for key, value in sorted(vars(one).items())
        if isinstance(value, bool | int | float | str | tuple)
    ]


@pytest.mark.parametrize(
    "name",
    ["alexnet", "googlenet", "inception_v3", "vit_h_14", "vit_b_16", "swin_v2_t", "efficientnet_v2_s", "resnet50"],
)
def test_torchvision_networks_are_built_as_torchvision_builds_them_for_their_weights(name, monkeypatch):
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, *args, **kwargs: {})
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda self, *args, **kwargs: None)
    monkeypatch.setattr(torchvision_models, "fetch_weights", lambda url: {})
    with torch.device("meta"):
        theirs, ours = models.get_model(name, weights=weights).eval(), torchvision_models.torchvision_classifier(name)
    assert described(ours.module) == described(theirs)
    expected = weights.transforms()(picture())
    found = ours.normalise(ours.preprocessing(picture())[None])[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_timm_networks_come_with_their_own_preparation():
    timm = pytest.importorskip("timm")
    classifier = timm_classifier("resnet18", pretrained=False)
    assert classifier.labels[1].startswith("goldfish")
    pixels = classifier.preprocessing(picture())
    with torch.no_grad():
        expected = classifier.module(timm_transform(classifier.module)(picture())[None])
        torch.testing.assert_close(classifier(pixels[None]), expected, atol=1e-4, rtol=1e-4)
    changed = {"crop_mode": "squash", "crop_pct": 0.9, "input_size": (3, 96, 128), "interpolation": "bicubic"}
    module = timm.create_model("resnet18", pretrained_cfg_overlay=changed).eval()
    found = with_timm_config(module, "timm:squashed")
    expected = timm_transform(module)(picture())
    torch.testing.assert_close(found.normalise(found.preprocessing(picture())[None])[0], expected, atol=1e-5, rtol=0)


def test_a_timm_network_without_a_head_is_refused():
    pytest.importorskip("timm")
    with pytest.raises(ClassifierError, match="timm:resnet10t has no classes, its outputs are features"):
        timm_classifier("resnet10t", pretrained=False, num_classes=0)


def timm_transform(module):
    import timm

    return timm.data.create_transform(**timm.data.resolve_model_data_config(module), is_training=False)


def test_timm_weights_are_read_from_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    source = timm.create_model("resnet10t")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    overlay = {"file": str(tmp_path / "weights.safetensors")}
    classifier = timm_classifier("resnet10t", pretrained_cfg_overlay=overlay)
    assert torch.equal(classifier.module.fc.weight, source.fc.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:resnet81", "timm has no model 'resnet81'; did you mean 'resnet"),
        ("timm:", "names no model"),
        ("onnx:/nowhere.onnx?norm=none", "there is no file /nowhere.onnx"),
        ("onnx:net.onnx", "does not say how it wants its input.*none, imagenet, half, 255"),
        ("onnx:net.onnx?norm=none&sise=3", "does not say how"),
        ("onnx:net.onnx?norm=none&norm=half", "says one thing twice"),
        ("efficientnet-lite0", "did you mean 'efficientnet-lite0-embedded'"),
    ],
)
def test_names_that_cannot_be_are_refused(name, message):
    with pytest.raises(ClassifierError, match=message):
        faithmap.load_classifier(name, device="cpu")


def huggingface_folder(tmp_path, processor):
    """A small network with random weights, saved as Hugging Face saves it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        num_labels=3,
        id2label={0: "ant", 1: "bee", 2: "cat"},
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


PROCESSORS = {
    "ViTImageProcessor": {"size": {"height": 64, "width": 64}},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 96}, "crop_pct": 0.8},
    "CLIPImageProcessor": {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 72}},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 80}, "crop_size": {"height": 64, "width": 64}},
}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_hugging_face_networks_come_with_their_processor(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    processor = getattr(transformers, kind)(**PROCESSORS[kind])
    folder = huggingface_folder(tmp_path, processor)
    classifier = faithmap.load_classifier(f"hf:{folder}", device="cpu")
    assert classifier.labels == ["ant", "bee", "cat"]
    expected = torch.as_tensor(np.asarray(processor(picture(), return_tensors="np")["pixel_values"]))
    found = classifier.normalise(classifier.preprocessing(picture())[None])
    assert (found - expected).abs().max() < 2.5 / 255 / min(classifier.std)
    reference = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(found), reference(pixel_values=found).logits)


def test_a_processor_that_does_something_else_is_refused(tmp_path):
    transformers = pytest.importorskip("transformers")
    processor = transformers.EfficientNetImageProcessor(size={"height": 64, "width": 64}, include_top=True)
    with pytest.raises(ClassifierError, match="does more than resize, cut and normalise"):
        faithmap.load_classifier(f"hf:{huggingface_folder(tmp_path, processor)}", device="cpu")


def test_a_folder_that_holds_no_network_is_refused(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(ClassifierError, match="holds no image classifier"):
        faithmap.load_classifier(f"hf:{tmp_path}", device="cpu")


SPOILED = {
    "weights that are missing": (lambda weights: weights.pop(next(iter(weights))), "no weights for 1 tensor"),
    "a backbone without its head": (
        lambda weights: [weights.pop(n) for n in [*weights] if "classif" in n],
        "no weights",
    ),
    "weights of another size": (
        lambda weights: weights.update({n: w[:1] for n, w in weights.items() if w.ndim}),
        "holds no",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_weights_that_would_be_random_are_refused(tmp_path, case):
    """Transformers draws them, and says so in a warning."""
    from safetensors.torch import load_file, save_file

    transformers = pytest.importorskip("transformers")
    folder = huggingface_folder(tmp_path, transformers.ViTImageProcessor(size={"height": 64, "width": 64}))
    weights = load_file(folder / "model.safetensors")
    spoil, message = SPOILED[case]
    spoil(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ClassifierError, match=message):
        faithmap.load_classifier(f"hf:{folder}", device="cpu")


class Program:
    def __reduce__(self):
        return print, ("executed",)


def test_no_program_of_a_weights_file_is_run_or_advised(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    folder = huggingface_folder(tmp_path, transformers.ViTImageProcessor(size={"height": 64, "width": 64}))
    (folder / "model.safetensors").unlink()
    torch.save({"a": Program()}, folder / "pytorch_model.bin")
    with pytest.raises(ClassifierError, match=r"damaged, or hold programs: convert them to \.safetensors"):
        faithmap.load_classifier(f"hf:{folder}", device="cpu")
    assert "executed" not in capsys.readouterr().out


def onnx_file(path, shape, channels_last=False, classes=4):
    """A linear network in ONNX; returns its weights, (3·H·W, classes) in NCHW order."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    size = 3 * 8 * 6
    weights = np.random.default_rng(0).standard_normal((size, classes)).astype(np.float32)
    first = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2] if channels_last else [0, 1, 2, 3])
    nodes = [first, helper.make_node("Flatten", ["t"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, [shape[0], classes])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return torch.from_numpy(weights)


@pytest.mark.parametrize("shape", [["n", 3, 8, 6], [1, 3, 8, 6], [4, 3, 8, 6], ["n", 8, 6, 3]], ids=str)
@pytest.mark.parametrize("norm", NORMALISATIONS)
def test_onnx_files_give_scores(tmp_path, shape, norm):
    weights = onnx_file(tmp_path / "net.onnx", shape, channels_last=shape[3] == 3)
    classifier = faithmap.load_classifier(f"onnx:{tmp_path / 'net.onnx'}?norm={norm}&resize=0", device="cpu")
    assert classifier.preprocessing == faithmap.Preprocessing(crop=(8, 6), resize=None)
    pixels = torch.rand(6, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS[norm])
    torch.testing.assert_close(classifier(pixels), ((pixels - mean) / std).flatten(1) @ weights, atol=1e-3, rtol=1e-4)
    assert not classifier.differentiable
    with pytest.raises(MethodError, match=r"sensitivity:l2 on onnx:net.onnx: it needs gradients.*scores only"):
        faithmap.heatmaps(classifier, pixels, torch.zeros(6, dtype=torch.int64), "sensitivity:l2")
    own = [faithmap.heatmaps(classifier, pixels, torch.zeros(6, dtype=torch.int64), lambda x, t: x)]
    assert own[0].shape == (6, 8, 6)


def test_onnx_files_are_told_apart_and_survive_pickling(tmp_path):
    onnx_file(tmp_path / "a.onnx", ["n", 3, 8, 6])
    onnx_file(tmp_path / "b.onnx", ["n", 3, 8, 6], classes=5)
    one, other = (onnx_classifier(f"{tmp_path / name}?norm=none") for name in ("a.onnx", "b.onnx"))
    assert one.fingerprint() != other.fingerprint()
    again = pickle.loads(pickle.dumps(one))
    pixels = torch.rand(2, 3, 8, 6)
    assert torch.equal(again(pixels), one(pixels))
    assert again.fingerprint() == one.fingerprint()


def test_onnx_files_that_are_no_image_network_are_refused(tmp_path):
    onnx_file(tmp_path / "flat.onnx", ["n", 3 * 8 * 6 // 4, 2, 2])
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(ClassifierError, match="cannot be read as an ONNX network"):
        onnx_classifier(f"{tmp_path / 'text.onnx'}?norm=none")
    with pytest.raises(ClassifierError, match="expected one floating input"):
        onnx_classifier(f"{tmp_path / 'flat.onnx'}?norm=none")


def brightness(pixels):
    """Two classes: dark and bright; an array, as other tools return it."""
    mean = pixels.mean((1, 2, 3)).numpy()
    return np.stack([1 - mean, mean], axis=1)


def test_a_plain_function_is_a_classifier():
    classifier = faithmap.Classifier(brightness)
    assert isinstance(classifier.module, ScoreOnly)
    assert classifier.name == "brightness"
    pixels = torch.stack([torch.full((3, 8, 8), 0.2), torch.full((3, 8, 8), 0.9)])
    assert classifier.predict(pixels).tolist() == [0, 1]
    with pytest.raises(MethodError, match="scores only"):
        faithmap.heatmaps(classifier, pixels, torch.tensor([0, 1]), "lrp-epsilon:0.01")
    fill = torch.zeros(2, 3, 8, 8)
    removal_step = torch.arange(64).view(1, 8, 8).expand(2, 8, 8) // 32 + 1
    logits, _ = faithmap.score_curves(classifier, pixels, torch.tensor([1, 1]), removal_step, fill)
    torch.testing.assert_close(logits, torch.tensor([[0.2, 0.1, 0.0], [0.9, 0.45, 0.0]]))
    assert faithmap.Classifier(lambda x: x).fingerprint() != classifier.fingerprint()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (lambda logits: logits.to("meta"), "odd returned logits without values"),
        (lambda logits: exec("raise SystemExit(2)"), "odd fails on an input of shape"),
        (lambda logits: 1 / 0, "odd fails on an input of shape"),
    ],
)
def test_a_network_that_returns_nothing_or_ends_the_process_is_named(tiny, fault, says):
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = tiny.module

        def forward(self, x):
            return fault(self.network(x))

    with pytest.raises(ClassifierError, match=says):
        faithmap.evaluate(faithmap.Classifier(Odd(), name="odd"), torch.rand(2, 3, 24, 24), "edge")


@pytest.mark.parametrize("pool", [True, False])
def test_a_network_that_runs_in_a_thread_of_its_own_is_told_why_it_fails(tiny, pool, monkeypatch):
    """The thread does not know that the one which waits for it is in inference mode."""

    class Threaded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = tiny.module

        def forward(self, x):
            found = []
            if pool:
                with ThreadPoolExecutor(1) as executor:
                    return executor.submit(self.network, x).result()
            thread = threading.Thread(target=lambda: found.append(self.network(x)))
            thread.start()
            thread.join()
            return found[0]

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(ClassifierError, match="run the forward pass in the thread that calls it"):
        faithmap.evaluate(faithmap.Classifier(Threaded(), name="odd"), torch.rand(2, 3, 24, 24), "edge", engine="dense")


def test_a_network_that_fails_once_is_not_told_of_threads(tiny):
    class Once(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network, self.failed = tiny.module, False

        def forward(self, x):
            if torch.is_inference_mode_enabled() and not self.failed:
                self.failed = True
                raise RuntimeError("no answer")
            return self.network(x)

    with pytest.raises(ClassifierError, match=r"no answer$"):
        faithmap.evaluate(faithmap.Classifier(Once(), name="once"), torch.rand(2, 3, 24, 24), "edge")


def test_extras_are_imported_only_when_they_are_asked_for():
    code = "import sys, faithmap; print([m for m in ('timm', 'transformers', 'onnxruntime') if m in sys.modules])"
    path = str(Path(faithmap.__file__).parents[1])
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert found.stdout == "[]\n"
