import pickle

import pytest
import torch

import faithmap
from faithmap import classifiers
from faithmap.errors import ClassifierError, DownloadError


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
        classifiers.read_embedded_weights(path)


def test_the_unpickler_admits_numpy_only():
    import io
    import os

    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    with pytest.raises(pickle.UnpicklingError, match="not part of a numpy array"):
        classifiers._NumpyUnpickler(io.BytesIO(pickle.dumps(Evil()))).load()


def test_a_weights_file_with_a_wrong_hash_is_refused(tmp_path):
    path = tmp_path / "net-01234567.pth"
    path.write_bytes(b"damaged")
    with pytest.raises(DownloadError, match="expected it to begin with 01234567"):
        classifiers.check_weights(path)


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
