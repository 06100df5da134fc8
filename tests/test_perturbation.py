import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

import faithmap
from faithmap.errors import ProtocolError
from faithmap.images import Images, PixelSource, Preprocessing, TensorImage, load_images
from faithmap.mosaics import mosaics
from faithmap.perturbation import FILLS, check_fill, draw_fill, impute, imputed_steps, is_imputed, resolve_fill
from faithmap.randomness import generator
from tests.reference.imputing import impute_twin

KEY = {"seed": 0, "image_id": "1", "draw": 0}


def photo(seed: int = 0, size: int = 24) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def source(count: int = 5, size: int = 24) -> PixelSource:
    pixels = torch.stack([photo(i, size) for i in range(count)])
    return PixelSource(load_images(pixels), Preprocessing(crop=(size, size), resize=None))


@pytest.mark.parametrize(
    "fill", [name for name in FILLS if name not in ("constant", "drop")] + ["constant:mean", "constant:#ff8000"]
)
def test_a_fill_depends_on_its_key_alone_and_stays_in_pixel_space(fill):
    others = source()
    first = draw_fill(fill, photo(1), **KEY, others=others)
    draw_fill(fill, photo(2), seed=0, image_id="2", draw=5, others=others)
    assert torch.equal(first, draw_fill(fill, photo(1), **KEY, others=others))
    assert first.shape == (3, 24, 24)
    assert first.dtype == torch.float32
    if not is_imputed(fill):
        assert first.min() >= 0
        assert first.max() <= 1
    drawn = fill.partition(":")[0] not in ("constant", "blur", "cv2-telea", "cv2-navier-stokes")
    changed = [draw_fill(fill, photo(1), **KEY | {"draw": draw}, others=others) for draw in range(1, 9)]
    assert any(not torch.equal(first, other) for other in changed) == drawn


def test_dirichlet_mixes_the_colours_of_the_image():
    red_blue = torch.zeros(3, 20, 20)
    red_blue[0, :10], red_blue[2, 10:] = 1, 0.5
    mixed = draw_fill("dirichlet:n=4,alpha=1", red_blue, **KEY)
    assert mixed[1].max() == 0
    torch.testing.assert_close(mixed[0] + 2 * mixed[2], torch.ones(20, 20))
    assert len(mixed[0].unique()) > 300
    picked = draw_fill("dirichlet:n=1", red_blue, **KEY)
    assert set(picked[0].unique().tolist()) == {0.0, 1.0}
    # Moments of Σ w_j c_j with w ~ Dirichlet(1, 1, 1): E Σ w_j² = 3 · E w² = 3 · 2/(3·4) = 1/2.
    large = torch.rand(3, 200, 200, generator=torch.Generator().manual_seed(0))
    drawn = draw_fill("dirichlet", large, **KEY)
    assert drawn.mean() == pytest.approx(float(large.mean()), abs=0.003)
    assert float(drawn.var() / large.var()) == pytest.approx(0.5, abs=0.01)


def test_constants_are_the_colour_they_name():
    image = photo(3)
    mean = draw_fill("constant:mean", image, **KEY)
    for channel in range(3):
        expected = sum(float(v) for v in image[channel].flatten()) / 576
        assert mean[channel].unique().tolist() == pytest.approx([expected], abs=1e-6)
    assert draw_fill("constant:0.5,0,1", image, **KEY)[:, 3, 7].tolist() == [0.5, 0.0, 1.0]
    assert draw_fill("constant:#808000", image, **KEY)[:, 0, 0].tolist() == pytest.approx([128 / 255, 128 / 255, 0])


def test_the_dataset_mean_becomes_a_colour():
    others = source(3)
    name = resolve_fill("constant:dataset-mean", others)
    expected = torch.stack([photo(i) for i in range(3)]).mean((0, 2, 3))
    torch.testing.assert_close(draw_fill(name, photo(), **KEY)[:, 0, 0], expected, atol=1e-6, rtol=0)
    with pytest.raises(ProtocolError, match="resolve_fill"):
        draw_fill("constant:dataset-mean", photo(), **KEY)


@pytest.mark.parametrize(
    ("fill", "name"),
    [
        ("uniform", "uniform"),
        ("blur", "blur:sigma=5,radius=0"),
        ("blur:radius=0,sigma=5.0", "blur:sigma=5,radius=0"),
        ("constant:#ff0000", "constant:1,0,0"),
        ("constant:mean", "constant:mean"),
        ("noisy-linear", "noisy-linear:noise=0.01"),
    ],
)
def test_equal_fills_get_equal_names(fill, name):
    assert resolve_fill(fill, source()) == name


def test_blur_agrees_with_pillow():
    values = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    values = np.array(Image.fromarray(values).filter(ImageFilter.GaussianBlur(1.5)))
    pixels = torch.from_numpy(values).permute(2, 0, 1) / 255
    found = draw_fill("blur:sigma=2", pixels, **KEY)
    expected = torch.from_numpy(np.array(Image.fromarray(values).filter(ImageFilter.GaussianBlur(2))))
    inner = (slice(None), slice(8, 32), slice(8, 32))  # Pillow repeats the border, this fill mirrors it
    assert (found - expected.permute(2, 0, 1) / 255)[inner].abs().max() < 1.5 / 255


def test_a_blur_with_a_radius_is_the_loop_over_its_window():
    image = photo(4, 12)
    weights = [np.exp(-0.5 * (o / 2) ** 2) for o in range(-2, 3)]
    weights = [w / sum(weights) for w in weights]

    def at(y, x):  # mirrored at the border, the border pixel twice
        mirrored = [min(max(-1 - i, i), 23 - max(i, 0)) if not 0 <= i < 12 else i for i in (y, x)]
        return float(image[1, mirrored[0], mirrored[1]])

    found = draw_fill("blur:sigma=2,radius=2", image, **KEY)
    for y, x in ((0, 0), (5, 6), (11, 1)):
        offsets = [(a, b) for a in range(5) for b in range(5)]
        expected = sum(weights[a] * weights[b] * at(y + a - 2, x + b - 2) for a, b in offsets)
        assert float(found[1, y, x]) == pytest.approx(expected, abs=1e-6)


def test_swap_takes_another_image_and_every_one_in_turn():
    others = source(4)
    partners = []
    for draw in range(40):
        fill = draw_fill("swap", photo(1), **KEY | {"draw": draw}, others=others)
        partners += [i for i in range(4) if torch.equal(fill, photo(i))]
    assert len(partners) == 40
    assert set(partners) == {0, 2, 3}
    with pytest.raises(ProtocolError, match="pass the image set"):
        draw_fill("swap", photo(1), **KEY)
    with pytest.raises(ProtocolError, match="has none that can be read"):
        draw_fill("swap", photo(0), **KEY | {"image_id": "0"}, others=source(1))


@pytest.mark.parametrize("method", [None, "sensitivity:l2"])
def test_swap_takes_no_partner_twice_before_all_had_their_turn(method):
    others = source(7)

    def partner(draw):
        drawn = draw_fill("swap", photo(1), **KEY | {"draw": draw, "method": method}, others=others)
        return next(n for n in range(7) if torch.equal(drawn, photo(n)))

    turns = [partner(draw) for draw in range(18)]
    for start in (0, 6, 12):
        assert sorted(turns[start : start + 6]) == [0, 2, 3, 4, 5, 6]
    assert turns[:6] == turns[6:12], "the order of an image's partners depends on the image alone"


def test_swap_passes_over_an_image_that_cannot_be_read():
    pixels = torch.stack([photo(i) for i in range(3)])
    pixels[2] = -1
    others = PixelSource(load_images(pixels), Preprocessing(crop=(24, 24), resize=None))
    for draw in range(6):
        assert torch.equal(draw_fill("swap", photo(1), **KEY | {"draw": draw}, others=others), photo(0))


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ("unifrom", "did you mean 'uniform'"),
        ("uniform:sigma=3", "has no parameter 'sigma'.*Known: none"),
        ("blur:sgma=3", "did you mean 'sigma'"),
        ("blur:sigma=-1", "sigma is '-1', expected a number from 0.001 to 250"),
        ("blur:sigma=nan", "sigma is 'nan'"),
        ("dirichlet:n=0", "n is '0', expected an integer from 1 to 64"),
        ("dirichlet:n=2.5", "expected an integer"),
        ("constant", "'' is no colour"),
        ("constant:2,0,0", "'2,0,0' is no colour"),
        ("constant:#12345", "is no colour"),
        ("constant:0.5,2", "is no colour"),
    ],
)
def test_fills_that_mean_nothing_are_refused(fill, message):
    with pytest.raises(ProtocolError, match=message):
        check_fill(fill)


@pytest.mark.parametrize("seed", range(12))
def test_imputation_equals_the_dense_twin(seed):
    random = np.random.default_rng(seed)
    height, width = random.integers(2, 9, 2)
    pixels = torch.from_numpy(random.random((3, height, width), dtype=np.float32))
    removed = torch.from_numpy(random.random((height, width)) < random.choice([0.2, 0.6, 0.9]))
    removed[0, 0] = seed % 2 == 1  # borders and corners too
    removed[-1, -1] = False
    found = impute(pixels, removed, torch.zeros_like(pixels))
    for channel in range(3):
        expected = impute_twin(pixels[channel].double().tolist(), removed.tolist())
        np.testing.assert_allclose(found[channel].numpy(), expected, atol=1e-6)


def test_imputed_steps_equal_imputing_all_that_is_gone():
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(3, 28, 28, generator=random)
    noise = draw_fill("noisy-linear:noise=0.05", pixels, **KEY)
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1)
    heat = torch.randn(1, 28, 28, generator=random)
    for protocol in (
        faithmap.Protocol.preset(steps=12, region_size=4),
        faithmap.Protocol.preset(steps="all", region_size=7),  # nothing is left in the end
        faithmap.Protocol.preset(steps=10, region_size=11, placement="pixel"),
    ):
        removal_step = faithmap.removal_steps(heat, protocol)[0]
        steps = protocol.fitted(28, 28).steps
        images = list(imputed_steps(pixels, removal_step, noise, range(steps + 1)))
        assert torch.equal(images[0], pixels)
        assert len(images) == steps + 1
        for k, image in enumerate(images):
            gone = (removal_step > 0) & (removal_step <= k)
            torch.testing.assert_close(image, impute(pixels, gone, noise), atol=1e-6, rtol=0)
            assert torch.equal(image[:, ~gone], pixels[:, ~gone])
        some = [0, 1, steps // 2, steps]
        for k, image in zip(some, imputed_steps(pixels, removal_step, noise, some), strict=True):
            assert torch.equal(image, images[k])


def test_scores_of_imputed_chains_are_those_of_the_imputed_images(tiny):
    random = torch.Generator().manual_seed(0)
    pixels = torch.rand(2, 3, 24, 24, generator=random)
    noise = torch.randn(2, 3, 24, 24, generator=random) * 0.01
    removal_step = faithmap.removal_steps(torch.randn(2, 24, 24), faithmap.Protocol.preset(steps=6, region_size=5))
    targets = torch.tensor([1, 4])
    found, _ = faithmap.score_curves(tiny, pixels, targets, removal_step, noise, imputed=True)
    for i in range(2):
        for k in range(7):
            gone = (removal_step[i] > 0) & (removal_step[i] <= k)
            expected = tiny(impute(pixels[i], gone, noise[i])[None])[0, targets[i]].detach()
            assert float(found[i, k]) == pytest.approx(float(expected), abs=1e-4)


def test_insertion_is_deletion_with_image_and_fill_exchanged(tiny):
    random = torch.Generator().manual_seed(0)
    pixels, fill = torch.rand(2, 3, 24, 24, generator=random), torch.rand(2, 3, 24, 24, generator=random)
    removal_step = faithmap.removal_steps(torch.randn(2, 24, 24), faithmap.Protocol.preset(steps=6, region_size=5))
    targets = torch.tensor([1, 4])
    found, _ = faithmap.score_curves(tiny, pixels, targets, removal_step, fill, restore=True)
    for i in range(2):
        for k in range(7):
            image = fill[i].clone()
            back = (removal_step[i] > 0) & (removal_step[i] <= k)
            image[:, back] = pixels[i][:, back]
            assert float(found[i, k]) == pytest.approx(float(tiny(image[None])[0, targets[i]].detach()), abs=1e-4)


def test_numpys_texts_and_integers_are_the_same_keys_as_pythons(tiny):
    """Random numbers are keyed by what is written, and NumPy writes its own kinds differently."""
    assert generator("a", 1).random() == generator(np.str_("a"), np.int64(1)).random()
    image, pixels = torch.rand(3, 24, 24), torch.rand(2, 3, 24, 24)
    of = [
        (
            faithmap.draw_fill("uniform", image, seed=seed, image_id=ids[0], draw=draw),
            faithmap.heatmaps(tiny, pixels, torch.tensor([0, 1]), "rise:n=4", image_ids=ids, seed=seed),
        )
        for ids, seed, draw in ((["a", "b"], 2, 1), (list(np.array(["a", "b"])), np.int64(2), np.int16(1)))
    ]
    assert torch.equal(of[0][0], of[1][0])
    assert torch.equal(of[0][1], of[1][1])


def test_subsets_and_mosaics_depend_on_names_however_they_are_written():
    names, image = [f"{i:02d}" for i in range(16)], torch.rand(3, 8, 8)
    sets = [
        Images("set", [TensorImage(name, image, int(at) % 2) for at, name in enumerate(ids)])
        for ids in (names, list(np.array(names)))
    ]
    assert [one.id for one in sets[0].limit(4, 1)] == [one.id for one in sets[1].limit(4, np.int64(1))]
    made = [[one.id for one in mosaics(list(some), seed)] for some, seed in zip(sets, (1, np.int64(1)), strict=True)]
    assert made[0] == made[1]


@pytest.mark.parametrize("method", ["__str__", "__repr__", "__format__", "__eq__", "partition"])
def test_a_fill_named_by_text_that_raises(method):
    def no(*_):
        raise RuntimeError("no")

    odd, pixels = type("Odd", (str,), {method: no, "__hash__": str.__hash__}), torch.rand(3, 8, 8)
    assert torch.equal(draw_fill(odd("constant:mean"), pixels, **KEY), draw_fill("constant:mean", pixels, **KEY))
    with pytest.raises(ProtocolError, match="unknown fill 'logit'"):
        draw_fill(odd("logit"), pixels, **KEY)
