"""Which class is scored: predicted, label, one for all, one per image, from a file."""

import numpy as np
import pytest
import torch

import faithmap
from faithmap.errors import FaithmapError, InputError, ProtocolError, StoreError
from tests.conftest import TinyNet

PIXELS = torch.rand(4, 3, 24, 24, generator=torch.Generator().manual_seed(4))
PROTOCOL = faithmap.Protocol.preset("samek2017", steps=3, region_size=6, draws=1)
LABELS = ["ant", "bee", "cat", "dog", "eel"]


def measured(targets, out=None, protocol=PROTOCOL):
    classifier = faithmap.Classifier(TinyNet(), labels=LABELS)
    return faithmap.evaluate(classifier, PIXELS, ["sensitivity:l2"], protocol, targets=targets, out=out)


def as_file(folder, text):
    (folder / "targets.csv").write_text(text)
    return folder / "targets.csv"


CASES = {
    "an index": (lambda folder: 2, [2, 2, 2, 2]),
    "a name": (lambda folder: "cat", [2, 2, 2, 2]),
    "a tensor": (lambda folder: torch.tensor([3, 0, 1, 4]), [3, 0, 1, 4]),
    "an array": (lambda folder: np.array([3, 0, 1, 4], dtype=np.int16), [3, 0, 1, 4]),
    "a list of names": (lambda folder: ["dog", "ant", "bee", "4"], [3, 0, 1, 4]),
    "a mapping": (lambda folder: {"3": "eel", "0": 3, "1": 0, "2": "bee"}, [3, 0, 1, 4]),
    "a file": (lambda folder: as_file(folder, "image,class\n0,dog\n1,0\n2,bee\n3,4\n"), [3, 0, 1, 4]),
    "a file's name": (lambda folder: str(as_file(folder, "0,dog\n1,0\n2,bee\n3,4\n")), [3, 0, 1, 4]),
}


@pytest.mark.parametrize("case", CASES)
def test_the_class_that_was_asked_for_is_scored(case, tmp_path):
    make, expected = CASES[case]
    run = measured(make(tmp_path))
    frame = run.scores().query("method == 'sensitivity:l2' and step == 0").sort_values("image")
    assert frame["target"].tolist() == expected
    with torch.no_grad():
        logits = TinyNet().eval()(PIXELS)
    np.testing.assert_allclose(frame["logit"], logits[range(4), expected], rtol=1e-4)
    np.testing.assert_allclose(frame["probability"], logits.softmax(1)[range(4), expected], rtol=1e-4)


def test_an_image_without_a_class_is_skipped():
    run = measured({"0": 1, "3": 2})
    assert {(one.image, one.reason.split(": ")[-1]) for one in run.skipped} == {
        (name, f"image '{name}' cannot be used: no class is given for it.".split(": ")[-1]) for name in ("1", "2")
    }


def test_other_targets_are_another_question(tmp_path):
    before = measured({"0": 1, "1": 2}, tmp_path).scores()
    assert measured({"0": 1, "1": 2, "2": 0}, tmp_path).scores()["image"].nunique() == 3
    with pytest.raises(StoreError, match="image '1'"):
        measured({"1": 3}, tmp_path)
    with pytest.raises(StoreError, match="target: given"):
        measured("predicted", tmp_path)
    kept = faithmap.Run(tmp_path).scores()
    assert kept[kept["image"].isin(["0", "1"])]["logit"].tolist() == before["logit"].tolist()


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ("cats", InputError, "unknown class 'cats'; did you mean 'cat'"),
        (7, InputError, "target is class 7"),
        (-1, InputError, "target is class -1"),
        (torch.tensor([0, 1]), InputError, r"shape \(2,\) for 4 images"),
        (torch.eye(4, 5), InputError, "several classes per image.*score='sigmoid'"),
        (torch.eye(4, 5, dtype=torch.int64), InputError, "several classes per image"),
        ({"nobody": 1}, InputError, "name none of the 4 images"),
        ("nowhere.csv", InputError, "cannot be read as targets"),
        (True, InputError, "target is True"),
    ],
)
def test_targets_that_cannot_be_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        measured(targets)


def test_given_without_targets_is_refused():
    with pytest.raises(ProtocolError, match="no class is given"):
        measured(None, protocol=PROTOCOL.override(target="given"))
    assert issubclass(ProtocolError, FaithmapError)


def test_a_protocol_of_before_measures_the_same():
    assert PROTOCOL.override(target="predicted").fingerprint() == PROTOCOL.fingerprint()


def no(*_):
    raise RuntimeError("no")


@pytest.mark.parametrize("method", ["__repr__", "__str__", "__eq__", "__hash__", "__format__", "strip", "endswith"])
@pytest.mark.parametrize("where", ["alone", "list", "mapping"])
def test_classes_named_by_text_that_raises(method, where):
    odd = type("Odd", (str,), {method: no, "__hash__": no if method == "__hash__" else str.__hash__})
    for name, known in (("cat", True), ("cow", False)):
        text = odd(name)
        targets = {"alone": text, "list": [text] * 4, "mapping": {str(row): text for row in range(4)}}[where]
        if known:
            assert set(measured(targets).scores()["target"]) == {2}
            continue
        with pytest.raises(InputError, match=r"'cow'"):
            measured(targets)
