"""Training data: every image format decodes, the cache follows content, patches of LR, HR and label correspond."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from compress.data.bicubic import imresize
from compress.data.cache import Collection, Pair, cache_folder, collect
from compress.data.images import UnreadableImage, find_images, read_image
from compress.data.patches import Patches, StepSampler, check_patch_count, patch_loader, to_batch
from compress.errors import BadInput


def _pixels(height: int = 24, width: int = 30, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone."""
    monkeypatch.setenv("POCKETSR_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.tiff", "a.PNG", "a.webp"])
def test_lossless_formats_decode_exactly(name, tmp_path):
    Image.fromarray(_pixels()).save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(read_image(tmp_path / name), _pixels())
    assert find_images(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.webp"])
def test_lossy_formats_decode_closely(name, tmp_path, photographs):
    photograph = read_image(next(photographs.iterdir()))
    Image.fromarray(photograph).save(tmp_path / name, quality=95)
    assert np.abs(read_image(tmp_path / name).astype(int) - photograph).mean() < 4


def test_other_kinds_of_pixels_become_rgb(tmp_path):
    colour, grey = _pixels(), _pixels()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))
    Image.fromarray(np.dstack([colour, grey])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_image(tmp_path / "rgba.png"), colour)
    Image.fromarray(np.dstack([grey, colour[..., 1]]), mode="LA").save(tmp_path / "la.png")
    assert np.array_equal(read_image(tmp_path / "la.png"), np.repeat(grey[..., None], 3, axis=2))
    palette = Image.fromarray(colour // 64 * 64).quantize(64)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_image(tmp_path / "palette.png"), np.asarray(palette.convert("RGB")))
    Image.fromarray(colour).convert("CMYK").save(tmp_path / "cmyk.tif")
    assert np.array_equal(read_image(tmp_path / "cmyk.tif"), colour)
    Image.fromarray(grey > 127).save(tmp_path / "one_bit.png")
    assert np.array_equal(read_image(tmp_path / "one_bit.png")[..., 0], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_reduced_to_eight(name, tmp_path):
    grey = _pixels()[..., 0].astype(np.uint16)
    Image.fromarray(grey * 257).save(tmp_path / name)
    assert np.array_equal(read_image(tmp_path / name)[..., 2], grey)


@pytest.mark.parametrize("content", [b"", b"no picture", None], ids=["empty", "text", "cut"])
def test_an_unreadable_image_is_named(content, tmp_path):
    path = tmp_path / "bad.png"
    Image.fromarray(_pixels()).save(path)
    path.write_bytes(path.read_bytes()[:900] if content is None else content)
    with pytest.raises(UnreadableImage, match=r"bad\.png"):
        read_image(path)


def test_a_missing_image_and_a_missing_folder_are_refused(tmp_path):
    with pytest.raises(UnreadableImage, match="found nothing"):
        read_image(tmp_path / "none.png")
    with pytest.raises(BadInput, match="expected a folder of images, found nothing"):
        find_images(tmp_path / "none")
    with pytest.raises(BadInput, match="found none below"):
        find_images(tmp_path)


def test_unusable_images_are_skipped_by_name_and_the_rest_is_used(tmp_path, cache):
    Image.fromarray(_pixels(40, 41)).save(tmp_path / "good.png")
    Image.fromarray(_pixels(40, 20)).save(tmp_path / "small.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for _ in range(2):  # the second time from the cache
        found = collect(find_images(tmp_path), 2, 12)
        assert [pair.path.name for pair in found.pairs] == ["good.png"]
        reasons = {s.path.name: s.reason for s in found.skipped}
        assert reasons == {"broken.png": "not readable as an image", "small.png": "20x40 is smaller than 24 pixels"}
    with pytest.raises(BadInput, match=r"none out of 2 .*broken\.png: not readable"):
        collect([tmp_path / "broken.png", tmp_path / "small.png"], 2, 12)


def test_lr_is_the_reduced_hr_cut_to_a_multiple(tmp_path, cache):
    Image.fromarray(_pixels(41, 50)).save(tmp_path / "a.png")
    (pair,) = collect([tmp_path / "a.png"], 3, 8).pairs
    assert np.array_equal(pair.hr, _pixels(41, 50)[:39, :48])
    assert np.array_equal(pair.lr, imresize(_pixels(41, 50)[:39, :48], 1 / 3))


def test_the_cache_is_reused_and_follows_content_not_names(tmp_path, cache):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(_pixels(seed=1)).save(first)
    made = collect([first], 2, 8)
    entries = {p: p.stat().st_mtime_ns for p in cache.rglob("*.npy")}
    assert len(entries) == 2
    shutil.copy(first, second)
    moved = collect([second], 2, 8)
    assert {p: p.stat().st_mtime_ns for p in cache.rglob("*.npy")} == entries
    assert moved.manifest_hash() == made.manifest_hash()
    Image.fromarray(_pixels(seed=2)).save(first)
    changed = collect([first], 2, 8)
    assert np.array_equal(changed.pairs[0].hr, _pixels(seed=2))
    assert changed.manifest_hash() != made.manifest_hash()
    collect([first], 3, 8)
    assert len(list(cache.rglob("*.npy"))) == 6


@pytest.fixture
def collection(tmp_path: Path, cache: Path) -> Collection:
    for i, size in enumerate(((60, 44), (40, 72))):
        Image.fromarray(_pixels(*size, seed=i)).save(tmp_path / f"{i}.png")
    return collect([tmp_path / "0.png", tmp_path / "1.png"], 2, 8)


def _eight(image: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [np.rot90(image[:, ::-1] if flip else image, turns) for flip, turns in itertools.product((0, 1), range(4))]


def _chw(patch: torch.Tensor) -> NDArray[np.uint8]:
    return patch.permute(1, 2, 0).numpy()


def test_patches_are_the_same_place_of_lr_hr_and_label_under_all_eight_symmetries(collection):
    labels = [255 - pair.hr for pair in collection.pairs]
    patches = Patches(collection, 8, seed=5, labels=labels)
    seen: set[tuple[int, int]] = set()
    for number in range(60):
        patch = patches[number]
        lr, hr = _chw(patch["lr"]), _chw(patch["hr"])
        assert (lr.shape, hr.shape) == ((8, 8, 3), (16, 16, 3))
        assert np.array_equal(_chw(patch["label"]), 255 - hr)
        places = [
            (which, symmetry, top, left)
            for which, pair in enumerate(collection.pairs)
            for top in range(pair.lr.shape[0] - 7)
            for left in range(pair.lr.shape[1] - 7)
            if pair.lr[top : top + 8, left : left + 8].sum() == lr.sum()
            for symmetry, turned in enumerate(_eight(pair.lr[top : top + 8, left : left + 8]))
            if np.array_equal(turned, lr)
        ]
        ((which, symmetry, top, left),) = places
        whole = collection.pairs[which].hr[2 * top : 2 * top + 16, 2 * left : 2 * left + 16]
        assert np.array_equal(_eight(whole)[symmetry], hr)
        seen.add((which, symmetry))
    assert {which for which, _ in seen} == {0, 1}
    assert {symmetry for _, symmetry in seen} == set(range(8))


def test_a_patch_is_determined_by_seed_and_number(collection):
    patches, again, other = (Patches(collection, 8, seed) for seed in (1, 1, 2))
    for number in range(10):
        assert torch.equal(patches[number]["hr"], again[number]["hr"])
        assert not torch.equal(patches[number]["hr"], other[number]["hr"])
        assert not torch.equal(patches[number]["hr"], patches[number + 1]["hr"])


def test_every_position_up_to_the_last_row_and_column_is_drawn():
    hr = np.zeros((20, 20, 3), dtype=np.uint8)
    lr = np.arange(100, dtype=np.uint8).reshape(10, 10, 1).repeat(3, axis=2)
    patches = Patches(Collection(2, [Pair(Path("a"), "0", lr, hr)], []), 9, seed=0)
    assert {int(patches[i]["lr"].min()) for i in range(60)} == {0, 1, 10, 11}


def test_large_images_are_drawn_more_often():
    pairs = [Pair(Path("a"), str(v), np.full((s, s, 3), v, np.uint8), np.full((2 * s, 2 * s, 3), v, np.uint8))
             for v, s in ((0, 10), (1, 30))]  # fmt: skip
    patches = Patches(Collection(2, pairs, []), 8, seed=0)
    share = np.mean([int(patches[i]["lr"].max()) for i in range(1000)])
    assert share == pytest.approx(0.9, abs=0.04)


def test_two_processes_see_the_patches_of_one_with_the_double_batch():
    alone = list(StepSampler(0, 5, 6))
    ranks = [list(StepSampler(0, 5, 3, rank, 2)) for rank in (0, 1)]
    for step in range(5):
        together = ranks[0][3 * step :][:3] + ranks[1][3 * step :][:3]
        assert together == alone[6 * step :][:6]


def test_a_resumed_sampler_goes_on_where_the_other_stopped():
    assert list(StepSampler(0, 2, 4)) + list(StepSampler(2, 5, 4)) == list(StepSampler(0, 5, 4))
    assert len(StepSampler(2, 5, 4)) == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_yields_the_batches_in_order(collection, workers):
    patches = Patches(collection, 8, seed=0)
    batches = list(patch_loader(patches, StepSampler(1, 4, 2), workers))
    expected = [torch.stack([patches[i]["lr"], patches[i + 1]["lr"]]) for i in (2, 4, 6)]
    assert len(batches) == 3
    assert all(torch.equal(batch["lr"], e) for batch, e in zip(batches, expected, strict=True))


def test_batches_are_floats_between_0_and_1():
    batch = to_batch({"lr": torch.tensor([[0, 51, 255]], dtype=torch.uint8).reshape(1, 3, 1, 1)})
    assert batch["lr"].dtype == torch.float32
    assert torch.allclose(batch["lr"].flatten(), torch.tensor([0, 0.2, 1.0]))


def test_a_batch_larger_than_the_data_is_refused(collection):
    positions = sum((p.lr.shape[0] - 7) * (p.lr.shape[1] - 7) for p in collection.pairs)
    check_patch_count(collection, 8, positions)
    with pytest.raises(BadInput, match=f"no larger than the {positions} patches .* found {positions + 1}"):
        check_patch_count(collection, 8, positions + 1)
