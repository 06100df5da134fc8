"""ONNX files whose weights lie beside them: all of the bytes that decide the logits are in the fingerprint."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from faithmap import load_classifier
from faithmap.classifiers.onnx_data import external_files, onnx_digest
from faithmap.errors import ClassifierError


def write(folder, seed=0, location="weights.bin"):
    """A network of one linear layer, its weights in another file."""
    folder.mkdir(exist_ok=True)
    weight = np.random.default_rng(seed).standard_normal((3 * 8 * 8, 4)).astype(np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    if location is None:
        onnx.save(model, folder / "net.onnx")
    else:
        onnx.save(model, folder / "net.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "net.onnx"


def fingerprint(path):
    return load_classifier(f"onnx:{path}?norm=none", "cpu").fingerprint()


def test_weights_beside_the_file_are_part_of_the_fingerprint(tmp_path):
    path = write(tmp_path / "a")
    assert external_files(path.read_bytes()) == ["weights.bin"]
    before = fingerprint(path)
    assert fingerprint(write(tmp_path / "b")) == before
    other = bytearray((tmp_path / "a" / "weights.bin").read_bytes())
    other[0] ^= 1
    (tmp_path / "a" / "weights.bin").write_bytes(other)
    assert fingerprint(path) != before


def test_a_file_with_its_weights_inside_keeps_its_fingerprint(tmp_path):
    import hashlib

    path = write(tmp_path, location=None)
    assert external_files(path.read_bytes()) == []
    assert onnx_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_tensors_in_attributes_subgraphs_and_functions_are_found():
    def tensor(name):
        found = TensorProto(name="t", dims=[1], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL)
        found.external_data.add(key="location", value=name)
        return found

    inner = helper.make_graph([], "inner", [], [], [tensor("inner.bin")])
    nodes = [
        helper.make_node("If", ["c"], ["y"], then_branch=inner),
        helper.make_node("Constant", [], ["z"], value=tensor("attribute.bin")),
    ]
    model = helper.make_model(helper.make_graph(nodes, "g", [], []))
    function = helper.make_function(
        "d", "f", [], [], [helper.make_node("Constant", [], ["k"], value=tensor("f.bin"))], []
    )
    model.functions.append(function)
    assert sorted(external_files(model.SerializeToString())) == ["attribute.bin", "f.bin", "inner.bin"]


def test_what_torch_exports_is_found(tmp_path):
    pytest.importorskip("onnxscript")
    torch.onnx.export(
        torch.nn.Linear(3, 2), (torch.zeros(1, 3),), tmp_path / "n.onnx", external_data=True, verbose=False
    )
    assert all((tmp_path / name).is_file() for name in external_files((tmp_path / "n.onnx").read_bytes()))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "gone.bin"])
def test_weights_elsewhere_or_missing_are_named(tmp_path, location):
    path = write(tmp_path / "a")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = location
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ClassifierError, match="takes weights from"):
        fingerprint(path)


@pytest.mark.parametrize("seed", range(200))
def test_any_bytes_have_an_end(tmp_path, seed):
    random = np.random.default_rng(seed)
    data = bytearray(write(tmp_path / "a").read_bytes()) if seed % 4 == 0 else bytearray(random.bytes(300))
    for at in random.integers(0, len(data), 3):
        data[at] = random.integers(0, 256)
    assert isinstance(external_files(bytes(data)), list)
