"""Built-in sources, image folders, splits and augmentation."""

import struct
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data_formats import (
  contents,
  make,
  refused,
  same,
  same_rows,
  write_idx,
)

from nasjax import data
from nasjax.data import (
  Augmentation,
  Images,
  augment,
  check_disjoint,
  epoch_indices,
  gather,
  load,
  normalize,
  split,
  statistics,
)
from nasjax.data.resizing import resized
from nasjax.errors import InputError

quick = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**31 - 1)


@pytest.fixture(autouse=True)
def _strict():
  with (
    jax.numpy_rank_promotion("raise"),
    jax.numpy_dtype_promotion("strict"),
  ):
    yield


# --- built-in sets


def test_digits():
  digits = load("digits")
  assert digits.train.images.shape == (1438, 8, 8, 1)
  assert digits.test.images.shape == (359, 8, 8, 1)
  assert digits.train.images.dtype == np.uint8
  assert digits.train.labels.dtype == np.int32
  assert digits.train.images.max() == 255
  assert digits.num_classes == len(digits.class_names) == 10
  assert digits.augmentation == Augmentation(False, 1, 0)
  assert np.bincount(digits.test.labels).min() >= 34
  check_disjoint(digits.train, digits.test)
  assert same(digits.train, load("digits").train)


@pytest.mark.skipif(
  not Path(data.FASHION_MNIST).is_dir(),
  reason="dataset-fashion-mnist is not installed",
)
def test_fashion_mnist(monkeypatch):
  monkeypatch.delenv(data.FASHION_MNIST_VARIABLE, raising=False)
  fashion = load("fashion-mnist")
  assert fashion.train.images.shape == (60000, 28, 28, 1)
  assert fashion.test.images.shape == (10000, 28, 28, 1)
  assert fashion.class_names[9] == "Ankle boot"
  ranks = data.order(fashion.train)
  assert np.array_equal(ranks, np.arange(len(ranks)))
  assert fashion.augmentation == Augmentation(True, 2, 0)
  start = time.perf_counter()
  check_disjoint(fashion.train, fashion.test)
  assert time.perf_counter() - start < 2


def test_fashion_mnist_from_a_named_folder(tmp_path, monkeypatch):
  monkeypatch.setenv(data.FASHION_MNIST_VARIABLE, str(tmp_path))
  refused("fashion-mnist", "apt install dataset-fashion-mnist", "IDX")
  write_idx(tmp_path, make(20, 10, channels=1), make(10, 10, 6, 1, seed=1))
  fashion = load("fashion-mnist")
  assert fashion.name == "fashion-mnist"
  assert fashion.train.images.shape == (20, 6, 6, 1)
  write_idx(tmp_path, make(20, 3, channels=1), make(10, 3, 6, 1, seed=1))
  refused("fashion-mnist", "10 classes")


def test_unknown_sources(tmp_path):
  refused("digit", "--data digit", "did you mean digits?")
  refused("", "neither a known data set")
  refused("a\0b", "neither a known data set")
  refused("x" * 5000, "neither a known data set")
  (tmp_path / "x.npy").write_bytes(b"")
  refused(tmp_path / "x.npy", "not a file of a kind", ".npz")
  refused(tmp_path / "missing.npz", "No such file")
  refused(tmp_path, "holds no data")


def test_all_images_can_be_resized():
  """Bilinear over what a pixel covers; rows that become equal are left out."""
  assert load("digits", image_size=8).name == "digits"
  refused("digits", "--image-size", "0", image_size=0)
  refused("digits", "--image-size", "bytes", image_size=64, max_bytes=2**20)
  whole, half = load("digits"), load("digits", image_size=4)
  assert data.shape(half.train) == data.shape(half.test) == (4, 4, 1)
  assert len(half.test.labels) == len(whole.test.labels)
  check_disjoint(half.train, half.test)
  # One level of 255 in four is about 64; an edge keeps its place.
  step = np.zeros((1, 8, 8, 3), np.uint8)
  step[:, :, 4:, 1] = 200
  made = resized(step, (4, 4))
  assert made.shape == (1, 4, 4, 3) and not made[..., [0, 2]].any()
  assert (made[0, :, 0, 1] < 10).all() and (made[0, :, 3, 1] > 190).all()


# --- image folders


def write_images(folder, images, names, suffix="png"):
  for row, (pixels, label) in enumerate(zip(*images, strict=True)):
    path = folder / names[label] / f"{row:03}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    gray = pixels.shape[-1] == 1
    PIL.Image.fromarray(pixels[..., 0] if gray else pixels).save(path)


@pytest.mark.parametrize("suffix", ["png", "bmp", "PNG"])
def test_image_folder_with_a_test_set(tmp_path, suffix):
  train, test = make(9, side=9), make(6, side=9, seed=1)
  names = ["ant", "bee", "cat"]
  write_images(tmp_path / "train", train, names, suffix)
  write_images(tmp_path / "test", test, names, suffix)
  (tmp_path / ".hidden").mkdir()
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, train)
  assert same_rows(loaded.test, test)
  assert loaded.class_names == ("ant", "bee", "cat")
  assert loaded.augmentation == Augmentation(False, 1, 0)


def test_image_folder_holds_out_a_fifth_of_each_class(tmp_path):
  images = make(30, channels=1)
  images.images[27] = images.images[0]
  write_images(tmp_path, images, ["c", "a", "b"])
  loaded = load(str(tmp_path))
  assert data.shape(loaded.train) == (6, 6, 1)
  assert loaded.class_names == ("a", "b", "c")
  assert not loaded.augmentation.flip
  assert np.bincount(loaded.test.labels).tolist() == [2, 2, 2]
  assert set(loaded.test.labels) == {0, 1, 2}
  check_disjoint(loaded.train, loaded.test)
  assert contents(loaded.train) | contents(loaded.test) == {
    (x, {0: 2, 1: 0, 2: 1}[y]) for x, y in contents(images)
  }
  assert same(loaded.test, load(str(tmp_path)).test)


def test_image_folder_of_mixed_sizes_and_modes(tmp_path):
  write_images(tmp_path, make(6), ["a", "b", "c"])
  modes = {"RGBA": ".png", "P": ".gif", "L": ".jpg", "1": ".bmp", "LA": ".webp"}
  for mode, suffix in modes.items():
    PIL.Image.new(mode, (12, 9)).save(tmp_path / "a" / f"x_{mode}{suffix}")
  refused(tmp_path, "9x12", "6x6", "give --image-size")
  loaded = load(str(tmp_path), image_size=8)
  assert data.shape(loaded.train) == (8, 8, 3)


def test_image_folder_resizes_bilinearly(tmp_path):
  flat = Images(
    np.arange(8, dtype=np.uint8).repeat(6 * 6 * 3).reshape(8, 6, 6, 3),
    (np.arange(8) % 2).astype(np.int32),
  )
  write_images(tmp_path / "train", flat, ["a", "b"])
  loaded = load(str(tmp_path), image_size=3)
  rows = np.concatenate([loaded.train.images, loaded.test.images])
  assert rows.shape == (8, 3, 3, 3)
  assert sorted(rows[:, 0, 0, 0]) == list(range(8))


def test_image_folder_refusals(tmp_path):
  write_images(tmp_path / "train", make(6), ["a", "b", "c"])
  refused(tmp_path, "at most 600", max_bytes=600)
  bad = tmp_path / "train" / "b" / "bad.png"
  whole = (tmp_path / "train" / "a" / "000.png").read_bytes()
  for content in (b"", b"no image", whole[:60], whole[:33]):
    bad.write_bytes(content)
    refused(tmp_path, "bad.png", "cannot be read")
  bad.unlink()
  real = tmp_path / "train" / "b" / "real.tif"
  PIL.Image.new("F", (6, 6)).save(real)
  refused(tmp_path, "real.tif", "F pixels", ".npz")
  PIL.Image.new("I", (6, 6), 70000).save(real)
  refused(tmp_path, "real.tif", "70000", ".npz")
  real.unlink()
  (tmp_path / "train" / "b" / "notes.txt").write_text("hello")
  refused(tmp_path, "notes.txt", "is not an image", ".png")
  (tmp_path / "train" / "b" / "notes.txt").unlink()
  (tmp_path / "train" / "d").mkdir()
  refused(tmp_path, "d", "class folder without images")
  (tmp_path / "train" / "d").rmdir()
  (tmp_path / "test").mkdir()
  refused(tmp_path, "test", "no class folders")
  (tmp_path / "test" / "aa").mkdir()
  refused(tmp_path, "aa", "no class of train/")
  (tmp_path / "test" / "aa").rmdir()
  (tmp_path / "more").mkdir()
  refused(tmp_path, "more", "rename it to test or val")
  refused(tmp_path / "train" / "a", "holds no data")


def test_image_folder_refuses_one_class(tmp_path):
  write_images(tmp_path, make(3, classes=1), ["a"])
  refused(tmp_path, "1 class folders")


def test_image_folder_refuses_test_images_that_stand_in_train(tmp_path):
  write_images(tmp_path / "train", make(6), ["a", "b", "c"])
  write_images(tmp_path / "test", make(6), ["a", "b", "c"])
  refused(tmp_path, "6 of 6 rows", "same image")


@pytest.mark.parametrize("factor", [1.5, 3])
def test_image_folder_refuses_decompression_bombs(
  tmp_path, monkeypatch, factor
):
  write_images(tmp_path, make(6), ["a", "b", "c"])
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", int(36 / factor))
  refused(tmp_path, "000.png", "decompression bomb")


def test_odd_metadata_of_an_image_does_not_warn(tmp_path):
  write_images(tmp_path, make(6), ["a", "b", "c"])
  path = tmp_path / "a" / "x.tif"
  PIL.Image.new("RGB", (6, 6)).save(path, tiffinfo={305: "made by a test"})
  tag = struct.pack("<HHI", 305, 2, 15)
  content = path.read_bytes()
  place = content.index(tag) + len(tag)
  path.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
  with pytest.warns(UserWarning), PIL.Image.open(path) as image:
    image.load()
  assert len(load(str(tmp_path)).train.labels) == 4


def test_postscript_is_not_run_under_an_image_name(tmp_path):
  write_images(tmp_path, make(6), ["a", "b", "c"])
  script = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n"
  (tmp_path / "a" / "x.png").write_text(script)
  refused(tmp_path, "x.png", "cannot be read")


# --- disjointness


def test_disjoint_wants_no_image_twice_whatever_its_label():
  a = make(6)
  other = a._replace(labels=a.labels + 1)
  with pytest.raises(InputError, match="6 of 6 rows of test stand in train"):
    check_disjoint(a, other)
  check_disjoint(a, make(6, seed=1))
  check_disjoint(a, make(6, side=5))
  with pytest.raises(InputError, match="weights and choice: 6 of 6 rows"):
    check_disjoint(a, a, ("weights", "choice"))


@quick
@given(
  rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1),
  seed=seeds,
  fraction=st.floats(0.05, 0.95),
)
def test_split_is_disjoint_by_content_and_keeps_every_row(rows, seed, fraction):
  values, labels = np.array(rows).T
  images = Images(
    np.tile(values.astype(np.uint8).reshape(-1, 1, 1, 1), (1, 2, 2, 1)),
    labels.astype(np.int32),
  )
  if len(set(values)) == 1:
    with pytest.raises(InputError, match="no two different images"):
      split(images, seed=seed, fraction=fraction)
    return
  parts = split(images, seed=seed, fraction=fraction)
  check_disjoint(*parts)
  joined = [np.concatenate(x) for x in zip(*parts, strict=True)]
  keys = joined[0][:, 0, 0, 0].astype(int) * 3 + joined[1]
  assert sorted(keys) == sorted(values * 3 + labels)
  assert all(len(part.labels) for part in parts)
  again = split(images, seed=seed, fraction=fraction)
  assert all(same(a, b) for a, b in zip(parts, again, strict=True))


def test_split_sizes_and_seeds():
  images = make(101)
  first, second = split(images, seed=0)
  assert (len(first.labels), len(second.labels)) == (50, 51)
  assert first.images.dtype == np.uint8 and first.labels.dtype == np.int32
  assert not same(first, split(images, seed=1)[0])
  assert len(split(images, seed=0, fraction=0.8)[0].labels) == 81
  for options in ({"seed": -1}, {"seed": 0, "fraction": 1.0}):
    with pytest.raises(ValueError, match="must"):
      split(images, **options)


# --- the compiled step


def test_statistics_agree_with_numpy_and_normalize_undoes_them():
  images = make(5000, side=3)
  mean, std = statistics(images)
  scaled = images.images / 255
  np.testing.assert_allclose(mean, scaled.mean((0, 1, 2)), rtol=1e-6)
  np.testing.assert_allclose(std, scaled.std((0, 1, 2)), rtol=1e-6)
  assert mean.dtype == std.dtype == np.float32
  normal = normalize(images.images, mean, std)
  assert normal.dtype == jnp.float32 and normal.shape == images.images.shape
  np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=1e-4)
  np.testing.assert_allclose(normal.std((0, 1, 2)), 1, atol=1e-4)


def test_statistics_of_flat_images_leave_numbers_finite():
  flat = Images(np.full((4, 2, 2, 1), 7, np.uint8), np.zeros(4, np.int32))
  mean, std = statistics(flat)
  assert std == np.float32(1 / 255)
  np.testing.assert_allclose(normalize(flat.images, mean, std), 0, atol=1e-5)
  with pytest.raises(ValueError, match="at least one"):
    statistics(Images(*(x[:0] for x in flat)))


def test_gather_takes_rows_under_jit():
  images = make(9)
  mean, std = statistics(images)
  rows = jnp.array([4, 0, 4], jnp.int32)
  batch = jax.jit(gather)(jax.tree.map(jnp.asarray, images), rows, mean, std)
  assert batch.images.dtype == jnp.float32 and batch.labels.dtype == jnp.int32
  np.testing.assert_array_equal(batch.labels, images.labels[[4, 0, 4]])
  expected = (images.images[[4, 0, 4]] / 255 - mean) / std
  np.testing.assert_allclose(batch.images, expected, rtol=1e-4, atol=1e-5)


compiled = jax.jit(augment, static_argnums=2)


def positive(batch=16, side=8, channels=2):
  """Pixels that are all different and none of them 0."""
  count = batch * side * side * channels
  pixels = np.arange(1, count + 1, dtype=np.float32)
  return pixels.reshape(batch, side, side, channels)


@quick
@given(seed=seeds)
def test_flip_only_flips(seed):
  images = positive()
  out = compiled(jax.random.key(seed), images, Augmentation(flip=True))
  for before, after in zip(images, np.asarray(out), strict=True):
    assert np.array_equal(after, before) or np.array_equal(
      after, before[:, ::-1]
    )


@quick
@given(seed=seeds)
def test_crop_is_a_window_of_the_padded_image(seed):
  images = positive()
  out = compiled(jax.random.key(seed), images, Augmentation(crop=2))
  assert out.shape == images.shape and out.dtype == jnp.float32
  padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
  for before, after in zip(padded, np.asarray(out), strict=True):
    windows = np.lib.stride_tricks.sliding_window_view(before, after.shape)
    hits = (windows == after).all((-1, -2, -3))
    assert hits.sum() == 1


@quick
@given(seed=seeds)
def test_cutout_zeroes_one_square_and_nothing_else(seed):
  images = positive()
  out = compiled(jax.random.key(seed), images, Augmentation(cutout=4))
  out = np.asarray(out)
  for before, after in zip(images, out, strict=True):
    zero = (after == 0).all(-1)
    assert np.array_equal(after[~zero], before[~zero])
    rows, columns = np.flatnonzero(zero.any(1)), np.flatnonzero(zero.any(0))
    assert zero.sum() == len(rows) * len(columns)
    # An edge cuts off at most half of the square.
    assert 2 <= len(rows) <= 4 and 2 <= len(columns) <= 4
    assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) < 4


def test_augmentation_varies_with_the_key_and_the_row_only():
  everything = Augmentation(flip=True, crop=2, cutout=3)
  images = np.tile(positive(1), (16, 1, 1, 1))
  key = jax.random.key(3)
  out = np.asarray(compiled(key, images, everything))
  np.testing.assert_array_equal(out, compiled(key, images, everything))
  assert not np.array_equal(
    out, compiled(jax.random.key(4), images, everything)
  )
  assert len({row.tobytes() for row in out}) > 12
  np.testing.assert_array_equal(out[:8], compiled(key, images[:8], everything))
  flips = compiled(key, images, Augmentation(flip=True)) == images
  assert 2 < flips.all((1, 2, 3)).sum() < 14


def test_no_augmentation_changes_nothing():
  images = positive()
  out = augment(jax.random.key(0), images, Augmentation())
  np.testing.assert_array_equal(out, images)
  for wrong in (Augmentation(crop=-1), Augmentation(cutout=-1)):
    with pytest.raises(ValueError, match="0 or more"):
      augment(jax.random.key(0), images, wrong)


def test_a_cutout_larger_than_the_image_leaves_zeros():
  images = positive(2, side=3)
  out = compiled(jax.random.key(0), images, Augmentation(cutout=99))
  assert not np.any(out)


@settings(max_examples=15, deadline=None)
@given(
  seed=seeds,
  sizes=st.sampled_from([(10, 3, 3), (10, 2, 5), (7, 1, 1), (10, 1, 10)]),
)
def test_an_epoch_takes_no_row_twice(seed, sizes):
  size, steps, batch = sizes
  rows = epoch_indices(jax.random.key(seed), size, steps, batch)
  assert rows.shape == (steps, batch) and rows.dtype == jnp.int32
  flat = np.asarray(rows).ravel()
  assert len(set(flat)) == steps * batch
  assert flat.min() >= 0 and flat.max() < size


def test_an_epoch_larger_than_the_set_is_refused():
  key = jax.random.key(0)
  assert not np.array_equal(
    epoch_indices(key, 50, 5, 10), epoch_indices(jax.random.key(1), 50, 5, 10)
  )
  for steps, batch in ((4, 3), (0, 3), (3, 0)):
    with pytest.raises(ValueError, match="smaller batch"):
      epoch_indices(key, 11, steps, batch)
