"""A small run of named methods, for what is written about runs."""

import faithmap
from tests.report_runs import EVIL, EvilNet

METHODS = "sensitivity:l2,gradient-x-input,smoothgrad:n=2,centre"


def small_run(folder, *, name="net_1 & co", seed=1, methods=METHODS, images=None, score="softmax", **protocol):
    """Six images of noise, a few methods, both orders."""
    import numpy as np

    random = np.random.default_rng(seed)
    network = faithmap.Classifier(EvilNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=name, labels=list(EVIL))
    if score != "softmax":
        network = faithmap.Classifier(EvilNet(), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name=name, score=score)
    network.preprocessing = faithmap.Preprocessing(crop=(40, 56), resize=None)
    pictures = random.random((6, 3, 40, 56)).astype("float32") if images is None else images
    asked = faithmap.Protocol.preset("srg", **({"region_size": 8, "points": 4} | protocol))
    return faithmap.evaluate(network, pictures, methods, asked, folder, engine="dense", measures=("gini",))
