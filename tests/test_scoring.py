import pytest
import torch

import faithmap
from faithmap.errors import ClassifierError, CurveError, EngineError


def chains(count: int = 3, size: int = 24, steps: int = 6):
    random = torch.Generator().manual_seed(7)
    pixels = torch.rand(count, 3, size, size, generator=random)
    fill = torch.rand(count, 3, size, size, generator=random)
    heat = torch.randn(count, size, size, generator=random)
    protocol = faithmap.Protocol.preset(steps=steps, region_size=5)
    return pixels, fill, faithmap.removal_steps(heat, protocol)


def brute_force(classifier, pixels, targets, removal_step, fill, steps):
    """x⁽ᵏ⁾ pixel by pixel, one forward pass at a time."""
    logits, probabilities = [], []
    for i in range(len(pixels)):
        for k in range(steps + 1):
            x = pixels[i].clone()
            for row in range(x.shape[1]):
                for column in range(x.shape[2]):
                    if 0 < removal_step[i, row, column] <= k:
                        x[:, row, column] = fill[i, :, row, column]
            for c, (mean, std) in enumerate(zip(classifier.mean, classifier.std, strict=True)):
                x[c] = (x[c] - mean) / std
            with torch.no_grad():
                out = classifier.module.eval()(x[None])[0].double()
            logits.append(float(out[targets[i]]))
            probabilities.append(float((out - out.max()).exp()[targets[i]] / (out - out.max()).exp().sum()))
    shape = (len(pixels), steps + 1)
    return torch.tensor(logits).view(shape), torch.tensor(probabilities).view(shape)


def test_equals_brute_force(tiny):
    pixels, fill, removal_step = chains()
    targets = torch.tensor([0, 3, 4])
    expected = brute_force(tiny, pixels, targets, removal_step, fill, 6)
    for batch_size in (1, 4, 100):
        found = faithmap.score_curves(tiny, pixels, targets, removal_step, fill, engine="dense", batch_size=batch_size)
        for f, e in zip(found, expected, strict=True):
            torch.testing.assert_close(f, e, rtol=1e-5, atol=1e-5)


def test_perturb_keeps_what_was_replaced_and_starts_untouched():
    pixels, fill, removal_step = chains()
    assert torch.equal(faithmap.perturb(pixels, removal_step, fill, 0), pixels)
    last = faithmap.perturb(pixels, removal_step, fill, 6)
    removed = (removal_step > 0).unsqueeze(1).expand_as(pixels)
    assert torch.equal(last[removed], fill[removed])
    assert torch.equal(last[~removed], pixels[~removed])


def test_fill_depends_on_its_key_alone():
    pixels = torch.zeros(3, 8, 8)
    first = faithmap.draw_fill("uniform", pixels, seed=0, image_id="a", draw=0)
    faithmap.draw_fill("uniform", pixels, seed=0, image_id="b", draw=0)
    assert torch.equal(first, faithmap.draw_fill("uniform", pixels, seed=0, image_id="a", draw=0))
    for other in ({"seed": 1}, {"image_id": "b"}, {"draw": 1}, {"method": "random"}):
        key = {"seed": 0, "image_id": "a", "draw": 0} | other
        assert not torch.equal(first, faithmap.draw_fill("uniform", pixels, **key))
    assert len(first.unique()) > 180  # every pixel and channel its own draw
    grey = faithmap.draw_fill("uniform-grey", pixels, seed=0, image_id="a", draw=0)
    normalised = (grey - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
        3, 1, 1
    )
    assert normalised.abs().max() <= 0.5 + 1e-6
    assert normalised.abs().max() > 0.45


def test_logits_that_are_not_finite_name_the_image(tiny):
    pixels, fill, removal_step = chains()
    fill[1] = torch.nan
    with pytest.raises(CurveError, match="not finite at step 1") as caught:
        faithmap.score_curves(tiny, pixels, torch.zeros(3, dtype=torch.int64), removal_step, fill)
    assert caught.value.index == 1


def test_a_network_with_another_output_is_refused():
    pixels, fill, removal_step = chains()
    classifier = faithmap.Classifier(torch.nn.Conv2d(3, 4, 3))
    with pytest.raises(ClassifierError, match=r"expected floating logits \(16, classes\)"):
        faithmap.score_curves(classifier, pixels, torch.zeros(3, dtype=torch.int64), removal_step, fill)


def test_an_unknown_engine_proposes_the_nearest(tiny):
    pixels, fill, removal_step = chains()
    with pytest.raises(EngineError, match="did you mean 'dense'"):
        faithmap.score_curves(tiny, pixels, torch.zeros(3, dtype=torch.int64), removal_step, fill, engine="dens")


def test_the_network_keeps_its_training_mode(tiny):
    tiny.module.train()
    pixels, _, _ = chains()
    tiny.predict(pixels)
    assert tiny.module.training


def test_the_default_batch_follows_the_free_memory_and_the_size_of_the_images(tiny, monkeypatch):
    from faithmap.inference import dense

    for shape in ((2, 3, 24, 24), (2, 3, 48, 24)):
        pixels = torch.rand(shape)
        each = 100 * pixels[0].numel() * 4
        for free, expected in ((each, 16), (50 * each, 48), (10_000 * each, 64)):
            monkeypatch.setattr(dense, "free_memory", lambda device, free=free: free)
            monkeypatch.setitem(dense.DEFAULT_BATCH, "cpu", 64)
            assert dense.default_batch(pixels) == expected
