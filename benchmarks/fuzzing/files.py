"""Every kind of file that is read, with some of its bytes changed, cut off, doubled or replaced."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from benchmarks.fuzzing.api import Case
from benchmarks.fuzzing.cli import invoke
from benchmarks.fuzzing.hostile import damaged
from benchmarks.fuzzing.valid import SIZE, heatmap, network, pixels, protocol
from PIL import Image
from safetensors.torch import save_file

import faithmap

Reader = Callable[[Path], Any]
METHODS = ["sensitivity", "edge"]
PICTURES = ("png", "jpg", "gif", "bmp", "tiff", "webp", "ppm", "ico", "tga")
MAPS = ("npy", "npz", "safetensors", "folder")


def file_cases(rng: random.Random, folder: Path) -> Iterator[Case]:
    """For ever: (what was damaged and with which seed, what reads it)."""
    good = folder / "good"
    kinds = file_kinds(good)
    number = 0
    while True:
        name, read = rng.choice(list(kinds.items()))
        number += 1
        place = folder / f"case-{number % 4}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(good / name.partition(",")[0], place)
        victim = rng.choice([path for path in place.rglob("*") if path.is_file() and path.name != ".lock"])
        seed = rng.random()
        data = damaged(victim.read_bytes(), random.Random(seed))
        forged = victim.name.startswith("part-") and rng.random() < 0.5
        if forged:  # as somebody would do who knows what the name means
            victim.unlink()
            digest = hashlib.sha256(data).hexdigest()[:24]
            victim = victim.with_name(f"{victim.name.rpartition('-')[0]}-{digest}{victim.suffix}")
        victim.write_bytes(data)
        what = f"{name}: {victim.relative_to(place)} {'forged' if forged else 'damaged'} with {seed}"
        yield what, lambda read=read, place=place: read(place)


def file_kinds(good: Path) -> dict[str, Reader]:
    """Name → what reads a folder of that name; the folders are made here, undamaged."""
    found: dict[str, Reader] = {}
    for make in (picture_kinds, mask_kinds, table_kinds, map_kinds, network_kinds, run_kinds):
        found |= make(good)
    return found


def made(good: Path, name: str) -> Path:
    """A folder of that name."""
    (good / name).mkdir(parents=True)
    return good / name


def picture_kinds(good: Path) -> dict[str, Reader]:
    """Images of every type."""
    plain = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
    picture = Image.fromarray((pixels(1)[0].permute(1, 2, 0) * 255).byte().numpy())

    def read(place: Path) -> None:
        for one in faithmap.load_images(place):
            one.read(plain)

    for suffix in PICTURES:
        picture.save(made(good, f"image-{suffix}") / f"a.{suffix}")
    return {f"image-{suffix}": read for suffix in PICTURES}


def mask_kinds(good: Path) -> dict[str, Reader]:
    """Where the object is: PNG, VOC, and COCO with polygons, runs of pixels and boxes."""
    values = (heatmap(1)[0] > 200).numpy()
    Image.fromarray(values.astype(np.uint8)).save(made(good, "masks-png") / "0.png")
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>12</xmax><ymax>20</ymax></bndbox>"
    (made(good, "masks-voc") / "0.xml").write_text(
        f"<annotation><size><width>{SIZE}</width><height>{SIZE}</height><depth>3</depth></size>"
        f"<object><name>cat</name>{box}</object></annotation>"
    )
    from pycocotools import mask as coco

    packed = coco.encode(np.asfortranarray(values.astype(np.uint8)))
    shapes: list[Any] = [
        {"segmentation": [[2, 2, 20, 3, 15.5, 21]], "bbox": [2, 2, 18, 19]},
        {"segmentation": {"size": [SIZE, SIZE], "counts": [100, 50, 426]}},
        {"segmentation": {"size": [SIZE, SIZE], "counts": packed["counts"].decode()}},
        {"bbox": [1, 2, 5, 6]},
    ]
    about = {"id": 7, "file_name": "0", "width": SIZE, "height": SIZE}
    content = {"images": [about], "annotations": [{"image_id": 7, "category_id": 1, **one} for one in shapes]}
    (made(good, "masks-coco") / "m.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "cat"}]}))

    def read(place: Path) -> None:
        from faithmap.measures.masks import load_masks, masks_of

        path = next(iter(place.glob("*.json")), place)
        how = faithmap.Preprocessing(crop=(SIZE, SIZE), resize=None)
        for one in masks_of(faithmap.load_images(pixels()), load_masks(path), how).values():
            assert not isinstance(one, torch.Tensor) or one.shape == (SIZE, SIZE)
            assert not isinstance(one, str) or one.isprintable(), f"not one line: {one!r}"

    return dict.fromkeys(("masks-png", "masks-voc", "masks-coco"), read)


def table_kinds(good: Path) -> dict[str, Reader]:
    """CSV files: what belongs together, and which class is scored."""
    (made(good, "groups") / "g.csv").write_text("image,group\n0,a\n1,a\n")
    (made(good, "targets") / "t.csv").write_text("image,class\n0,1\n1,2\n")

    def groups(place: Path) -> None:
        repr([one.group for one in faithmap.load_images(pixels(), groups=place / "g.csv")])

    def targets(place: Path) -> None:
        faithmap.evaluate(network(), pixels(), "edge", protocol(), targets=place / "t.csv")

    return {"groups": groups, "targets": targets}


def map_kinds(good: Path) -> dict[str, Reader]:
    """Heatmaps, and maps of segments."""
    maps = heatmap(2).numpy()
    np.save(made(good, "npy") / "m.npy", maps)
    np.savez_compressed(made(good, "npz") / "m.npz", **{"0": maps[0], "1": maps[1]})
    both = {"0": heatmap()[0].contiguous(), "1": heatmap()[1].contiguous()}
    save_file(both, made(good, "safetensors") / "m.safetensors")
    np.save(made(good, "folder") / "0.npy", maps[0])
    np.savez(good / "folder" / "1.npz", maps[1])
    np.save(made(good, "labels") / "0.npy", np.arange(SIZE * SIZE).reshape(SIZE, SIZE) // 100)
    Image.fromarray(np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE).astype(np.uint8) // 50).save(
        good / "labels" / "1.png"
    )

    def given(place: Path) -> None:
        inside = list(place.iterdir())
        maps = inside[0] if len(inside) == 1 else place
        faithmap.evaluate(network(), pixels(), {"mine": maps}, protocol(), None, heatmap_resize="bilinear")

    def segments(place: Path) -> None:
        asked = protocol().override(placement="segment", segments=f"folder:{place}")
        faithmap.evaluate(network(), pixels(), "sensitivity", asked, None)

    return dict.fromkeys(MAPS, given) | {"labels": segments}


def network_kinds(good: Path) -> dict[str, Reader]:
    """ONNX files, with the weights inside and beside."""

    def read(place: Path) -> None:
        classifier = faithmap.load_classifier(f"onnx:{place / 'n.onnx'}?norm=imagenet&resize=0", "cpu")
        classifier.predict(pixels())

    for name, external in (("onnx-whole", False), ("onnx-data", True)):
        onnx.save_model(
            onnx_network(),
            made(good, name) / "n.onnx",
            save_as_external_data=external,
            location="n.data",
            size_threshold=0,
        )
    return {"onnx-whole": read, "onnx-data": read}


def onnx_network() -> Any:
    """Flatten, and one linear layer."""
    weight = np.random.default_rng(0).normal(size=(3 * SIZE * SIZE, 5)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Flatten", ["image"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
    ]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 5])
    graph = onnx.helper.make_graph(nodes, "n", [image], [logits], [onnx.numpy_helper.from_array(weight, "weight")])
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])


def run_kinds(good: Path) -> dict[str, Reader]:
    """Runs and studies: read, resumed, and shown by every command."""
    asked = protocol().override(orders=("morf", "lerf"))
    how: dict[str, Any] = {"save_heatmaps": True, "measures": "gini,entropy"}
    faithmap.evaluate(network(), pixels(), METHODS, asked, good / "run", **how)
    settings = [asked, asked.override(fill="constant:mean")]
    faithmap.study(network(), pixels(), METHODS, settings, good / "study")

    def stored(place: Path) -> None:
        run = faithmap.Run(place)
        run.scores(), run.aopc(), run.measures(), run.verdict(), run.scorecard(), run.skipped, repr(run)
        for example in run.examples(None):
            for method in example.heatmaps:
                run.removal_step(example, method)
            run.fill(example)

    def resumed(place: Path) -> None:
        from faithmap.cli.doctor import findings

        list(findings(place, None))
        run = faithmap.evaluate(network(), pixels(3), METHODS, asked, place, **how)
        assert len(run.scores()) == 3 * 3 * 2 * 3, "rows were lost"
        bad = [one.what for one in findings(place, None) if one.state == "bad" and str(place) in one.what]
        assert not bad, f"still damaged after it was resumed: {bad}"

    def study(place: Path) -> None:
        found = faithmap.Study(place)
        found.ranks(), found.verdict(), found.grade(), found.agreement(), repr(found)

    def study_resumed(place: Path) -> None:
        assert len(faithmap.study(network(), pixels(), METHODS, settings, place).runs()) >= 2

    kinds: dict[str, Reader] = {"run": stored, "run,resumed": resumed, "study": study, "study,resumed": study_resumed}
    return kinds | command_kinds(good)


def command_kinds(good: Path) -> dict[str, Reader]:
    """The commands that read a run folder."""
    from typer.testing import CliRunner

    from faithmap.cli import app

    lines: dict[str, list[str]] = {
        "report": ["report", "HERE", "--out", "OUT/r.html"],
        "report folder": ["report", "HERE", "--out", "OUT/r", "--folder"],
        "scorecard": ["scorecard", "HERE"],
        "scorecard latex": ["scorecard", "HERE", "--latex"],
        "compare": ["compare", "HERE", str(good / "run")],
        "compare itself": ["compare", str(good / "run"), "HERE", "--figure", "OUT/c.png"],
        "cite": ["cite", "HERE", "--out", "OUT/paper"],
        "doctor": ["doctor", "HERE"],
        "plot fig4": ["plot", "HERE", "--out", "OUT/f.png"],
        "plot heatmaps": ["plot", "HERE", "--figure", "heatmaps", "--out", "OUT/f.png"],
        "plot steps": ["plot", "HERE", "--figure", "steps", "--out", "OUT/f.png"],
        "leaderboard": ["leaderboard", "HERE", "--out", "OUT/l.html"],
    }

    def reader(line: list[str]) -> Reader:
        def read(place: Path) -> None:
            out = place.with_name(f"{place.name}-out")
            out.mkdir(exist_ok=True)
            given = [part.replace("HERE", str(place)).replace("OUT", str(out)) for part in line]
            invoke(CliRunner(), app, given)

        return read

    found = {f"run,{name}": reader(line) for name, line in lines.items()}
    study = ("report", "doctor", "leaderboard", "plot fig4", "compare")
    return found | {f"study,{name}": reader(lines[name]) for name in study}
