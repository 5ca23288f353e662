"""Arrays of values, groups of arrays, images twice, and augmentation texts."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_data import write_images
from test_data_formats import (
  cifar_folder,
  contents,
  make,
  refused,
  same_rows,
  save,
)

from nasjax import data
from nasjax.data import (
  AUTO,
  Augmentation,
  Images,
  augmentation_text,
  check_disjoint,
  dataset,
  load,
  resolve_augmentation,
)
from nasjax.errors import InputError


def sensor(rows=12, seed=0, dtype=np.float32):
  """Windows [N, 1, 16, 6] of values far from 0 to 255."""
  values = np.random.default_rng(seed).normal(-50, 1000, (rows, 1, 16, 6))
  return Images(values.astype(dtype), (np.arange(rows) % 3).astype(np.int32))


# --- values


@pytest.mark.parametrize(
  "dtype", ["float16", "float32", ">f8", "int8", "int16", "int64"]
)
def test_values_are_taken_as_they_are(tmp_path, dtype):
  train = sensor(dtype="f8")
  train = train._replace(images=(train.images / 50).astype(dtype))
  test = Images(train.images[:3] + train.images.dtype.type(1), train.labels[:3])
  loaded = load(str(save(tmp_path / "a.npz", train, test)))
  expected = train._replace(images=train.images.astype(np.float32))
  assert same_rows(loaded.train, expected)
  assert loaded.train.images.dtype == loaded.test.images.dtype == np.float32
  assert data.shape(loaded.train) == (1, 16, 6)
  halves = data.split(loaded.train, seed=0)
  assert contents(halves[0]) | contents(halves[1]) == contents(expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
  images = sensor(dtype=np.float64)
  images.images[7, 0, 3, 2] = value
  path = save(tmp_path / "a.npz", images)
  refused(path, "a.npz:x_train", "row 7 holds a value that is not finite")
  refused(save(path, sensor(), images), "a.npz:x_test", "row 7", "not finite")


def test_minus_zero_is_zero():
  images = sensor(6)
  images.images[:2] = 0
  images.images[1] *= -1
  loaded = dataset(images)
  assert "more than one label" in loaded.notes[0]


def test_pixels_and_values_do_not_mix(tmp_path):
  path = save(tmp_path / "a.npz", make(9), make(6, seed=1))
  test = make(6, seed=1)
  other = test._replace(images=test.images.astype(np.float32))
  refused(save(path, make(9), other), "train has uint8 images, test float32")


def test_channels_first_values_are_refused_where_they_look_like_images(
  tmp_path,
):
  images = Images(np.zeros((6, 3, 8, 8), np.float32), np.arange(6) % 2)
  refused(save(tmp_path / "a.npz", images), "[N,C,H,W]")


def test_statistics_of_values_are_their_own():
  images = sensor(5000)
  images.images[..., 2] = 0.1
  images.images[..., 3] = 1e6 + images.images[..., 3] / 1e3
  mean, std = data.statistics(images)
  values = images.images.astype(np.float64)
  np.testing.assert_allclose(mean, values.mean((0, 1, 2)), rtol=1e-6)
  expected = values.std((0, 1, 2))
  assert std[2] == 1 and mean.dtype == std.dtype == np.float32
  np.testing.assert_allclose(np.delete(std, 2), np.delete(expected, 2), 1e-6)
  normal = data.normalize(images.images, mean, std)
  # Near a million float32 has steps of 1/16.
  np.testing.assert_allclose(normal.mean((0, 1, 2)), 0, atol=0.05)
  np.testing.assert_allclose(np.delete(normal.std((0, 1, 2)), 2), 1, atol=1e-3)


@pytest.mark.parametrize("count", range(1, 40, 3))
def test_a_flat_channel_has_a_deviation_of_one(count):
  values = np.full((count, 3, 3, 1), 0.1, np.float32)
  mean, std = data.statistics(Images(values, np.zeros(count, np.int32)))
  assert std == 1 and mean == np.float32(0.1)


def test_statistics_do_not_depend_on_the_size_of_chunks(monkeypatch):
  for images in (make(300), sensor(300)):
    whole = data.statistics(images)
    monkeypatch.setattr(data.inputs, "_CHUNK", 7 * images.images[0].size)
    assert len(data.inputs.chunks(images.images)) == 43
    found = data.statistics(images)
    np.testing.assert_allclose(found[0], whole[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], whole[1], rtol=1e-6)
    monkeypatch.undo()


def test_gather_scales_pixels_and_leaves_values_under_jit():
  rows = jnp.array([3, 1], jnp.int32)
  one = (np.zeros(6, np.float32), np.ones(6, np.float32))
  images = sensor()
  batch = jax.jit(data.gather)(jax.tree.map(jnp.asarray, images), rows, *one)
  np.testing.assert_array_equal(batch.images, images.images[[3, 1]])
  pixels = make(6, channels=6)
  batch = jax.jit(data.gather)(jax.tree.map(jnp.asarray, pixels), rows, *one)
  np.testing.assert_allclose(
    batch.images, pixels.images[[3, 1]] / np.float32(255), rtol=1e-6
  )


def test_values_are_resized_channel_by_channel(tmp_path):
  images = sensor()
  ramp = np.arange(16, dtype=np.float32)[None, None, :, None] * 1000
  images = images._replace(images=images.images * 0 + ramp - 5000)
  images.images[:, 0, 0, 0] += np.arange(12)
  loaded = load(str(save(tmp_path / "a.npz", images)), image_size=(1, 8))
  assert loaded.train.images.dtype == np.float32
  assert data.shape(loaded.train) == (1, 8, 6)
  np.testing.assert_allclose(
    data.everything(loaded).images[:, 0, 1:-1, 1:],
    np.broadcast_to(
      (np.arange(8)[1:-1] * 2000 - 4500)[None, :, None], (9, 6, 5)
    ),
    rtol=1e-5,
  )
  path, size = tmp_path / "a.npz", (64, 512)
  refused(path, "--image-size", image_size=size, max_bytes=2**20)


# --- arrays from Python


def test_a_data_set_of_arrays():
  train, test = make(9), make(6, seed=1)
  loaded = dataset(train, test, valid=make(6, seed=2))
  assert loaded.name == "arrays" and loaded.class_names == ("0", "1", "2")
  assert loaded.train.labels.dtype == loaded.valid.labels.dtype == np.int32
  assert same_rows(loaded.train, train) and same_rows(loaded.test, test)
  named = dataset(train, class_names=("x", "y", "z"), name="mine")
  assert named.class_names == ("x", "y", "z") and named.name == "mine"
  assert named.test is None and named.notes == ()
  odd = dataset(train._replace(labels=train.labels - 5))
  assert odd.class_names == ("-5", "-4", "-3")
  assert odd.notes == ("labels -5..-3 are numbered 0..2",)
  for sets, words in (
    ((train._replace(labels=train.labels + 1),), "label 3, and 3 classes"),
    ((train._replace(images=train.images.astype(bool)),), "holds bool"),
    ((train._replace(images=train.images[:0]),), "is empty"),
    ((train, train._replace(labels=train.labels * 2)), "label 4"),
  ):
    with pytest.raises(InputError, match=words):
      names = ("x", "y", "z") if "3 classes" in words else ()
      dataset(*sets, class_names=names)


@pytest.mark.parametrize(
  "groups", [np.arange(12) // 4 * 7 - 3, np.repeat(["b", "a", "c"], 4)]
)
def test_groups_of_an_npz(tmp_path, groups):
  train = make(12)
  path = save(tmp_path / "a.npz", train, group_train=groups)
  loaded = load(str(path))
  assert loaded.groups.dtype == np.int32
  of = dict(zip((x.tobytes() for x in train.images), groups, strict=True))
  found = np.array([of[x.tobytes()] for x in loaded.train.images])
  assert np.array_equal(np.unique(groups)[loaded.groups], found)
  first, _ = data.split(loaded.train, seed=0, groups=loaded.groups)
  assert len(first.labels) in (4, 8)
  for wrong, words in (
    (groups[:-1], "11 groups, there are 12"),
    (np.arange(12.0), "float64"),
  ):
    refused(save(path, train, group_train=wrong), "group_train", words)


# --- twice


def twice(tests, count, train=60):
  """A training set of which `count` rows stand in a test set of `tests`."""
  one, two = make(train), make(tests, seed=1)
  two.images[5 : 5 + count] = one.images[7 : 7 + count]
  two.labels[5 : 5 + count] = (one.labels[7 : 7 + count] + 1) % 3
  return one, two


def test_a_few_training_rows_that_stand_in_test_are_left_out(tmp_path):
  one, two = twice(100, 2)
  loaded = load(str(save(tmp_path / "a.npz", one, two)))
  assert same_rows(loaded.test, two)
  assert same_rows(loaded.train, [np.delete(x, [7, 8], axis=0) for x in one])
  (note,) = loaded.notes
  assert note.startswith("2 rows of a.npz:x_train stand in a.npz:x_test too")
  check_disjoint(loaded.train, loaded.test)


@pytest.mark.parametrize(("tests", "count"), [(100, 3), (99, 2), (20, 1)])
def test_more_of_them_are_refused_or_kept(tmp_path, tests, count):
  one, two = twice(tests, count)
  path = save(tmp_path / "a.npz", one, two)
  refused(
    path,
    f"{count} of {tests} rows of a.npz:x_test stand in a.npz:x_train",
    "first row 5, which is row 7",
    "--keep-duplicates",
  )
  kept = load(str(path), keep_duplicates=True)
  assert same_rows(kept.train, one) and same_rows(kept.test, two)
  (note,) = kept.notes
  assert note.startswith(f"warning: {count} rows") and "are kept" in note
  assert dataset(one, two, keep_duplicates=True).notes[0].startswith("warning")
  with pytest.raises(InputError, match="arrays train images"):
    dataset(one, two)


def test_copies_of_one_training_row_all_count():
  one, two = twice(100, 1)
  one.images[[10, 13]] = one.images[7]
  with pytest.raises(InputError, match="1 of 100 rows"):
    dataset(one, two)


def test_files_that_stand_twice_are_named(tmp_path):
  one, two = twice(20, 1)
  write_images(tmp_path / "train", one, ["a", "b", "c"])
  write_images(tmp_path / "test", two, ["a", "b", "c"])
  refused(
    tmp_path,
    "1 of 20 rows of test stand in train too",
    "test/c/005.png, which is train/b/007.png",
  )


def test_validation_rows_are_kept_apart_too():
  train, valid, test = make(60), make(100, seed=1), make(100, seed=2)
  train.images[3] = valid.images[0] = test.images[9]
  train.images[4] = valid.images[1]
  loaded = dataset(train, test, valid=valid)
  assert same_rows(loaded.train, [np.delete(x, [3, 4], axis=0) for x in train])
  assert same_rows(loaded.valid, [x[1:] for x in valid])
  assert same_rows(loaded.test, test)
  assert len(loaded.notes) == 3
  check_disjoint(data.everything(loaded), loaded.test)


def test_a_class_is_not_left_without_images():
  train, test = make(61, classes=2), make(100, classes=2, seed=1)
  train.labels[:] = 0
  train.labels[4] = 1
  test.images[0] = train.images[4]
  with pytest.raises(InputError, match="every image of class 1 stands in"):
    dataset(train, test)


def test_resizing_leaves_out_what_becomes_equal_and_counts_it():
  train, test = make(60, side=8), make(20, side=8, seed=1)
  mean = test.images[:3].reshape(3, 4, 2, 4, 2, 3).mean((2, 4), keepdims=True)
  flat = np.broadcast_to(mean, (3, 4, 2, 4, 2, 3)).round().astype(np.uint8)
  test.images[:3] = flat.reshape(3, 8, 8, 3)
  train.images[:3] = test.images[:3]
  train.images[:3, 0, 0, 0] ^= 1
  loaded = dataset(train, test, groups=np.arange(60))
  small = data.resize(loaded, 2)
  check_disjoint(small.train, small.test)
  assert len(small.test.labels) == 20 and 57 <= len(small.train.labels) < 60
  assert "train images become equal" in small.notes[0]
  assert np.array_equal(data.order(small.train), np.arange(len(small.groups)))
  before = {
    g: y for g, y in zip(loaded.groups, loaded.train.labels, strict=True)
  }
  assert [before[g] for g in small.groups] == small.train.labels.tolist()
  # What the user keeps stays.
  kept = dataset(train, train, keep_duplicates=True)
  assert len(data.resize(kept, 4).train.labels) == 60
  assert data.resize(loaded, 8) is loaded


def test_what_hardly_can_be_meant_is_warned_of():
  images = make(30)
  images.images[10:] = images.images[10]
  notes = dataset(images).notes
  assert notes[0] == (
    "warning: only 11 of the 30 images of arrays train images are distinct"
  )
  assert "1 images of arrays train images stand there with more" in notes[1]
  assert "row 10 (1) and row 11 (2)" in notes[1]
  images = make(40)
  images.labels[:] = np.arange(40) < 37
  (note,) = dataset(images).notes
  assert note.startswith("warning: 37 of the 40 images")
  assert note.endswith("of one class, 1")
  images.labels[0] = 0
  assert dataset(images).notes == ()


# --- augmentation


@given(
  flip=st.booleans(),
  crop=st.integers(0, 16),
  cutout=st.integers(0, 16),
  auto=st.none() | st.just(Augmentation(True, 1, 1)),
)
def test_texts_of_augmentations_give_them_back(flip, crop, cutout, auto):
  made = Augmentation(flip, crop, cutout)
  text = augmentation_text(made)
  assert resolve_augmentation(text, (16, 12, 3), auto) == made
  assert resolve_augmentation(made, (16, 12, 3), auto) == made
  commas = text.replace(" ", ",")
  assert resolve_augmentation(commas, (16, 12, 3)) == made


def test_augmentations_that_are_asked_for():
  shape = (32, 24, 3)
  made = Augmentation(True, 4, 16)
  assert augmentation_text(made) == "flip crop=4 cutout=16"
  assert augmentation_text(Augmentation()) == "none"
  for asked, expected in (
    (AUTO, Augmentation(False, 3, 0)),
    ("none", Augmentation()),
    ("flip", Augmentation(True)),
    ("crop cutout", Augmentation(False, 3, 16)),
    ("cutout=5,flip", Augmentation(True, 0, 5)),
    ("crop=0", Augmentation()),
  ):
    assert resolve_augmentation(asked, shape) == expected
  assert resolve_augmentation(AUTO, shape, made) == made
  assert resolve_augmentation("crop", (6, 6, 1)) == Augmentation(False, 1, 0)
  for asked, words in (
    ("flop", "did you mean flip"),
    ("flip=2", "unknown name 'flip=2'"),
    ("crop crop", "twice"),
    ("crop=x", "--augment crop: 'x' is not a number"),
    ("crop=1.5", "not a whole number"),
    ("crop=-1", "below 0"),
    ("cutout=33", "at most 32"),
    ("crop=", "is not a number"),
  ):
    with pytest.raises(InputError, match=words):
      resolve_augmentation(asked, shape)


def test_nothing_but_known_sets_is_mirrored(tmp_path):
  write_images(tmp_path / "d", make(12), ["a", "b", "c"])
  path = save(tmp_path / "a.npz", make(9, side=16))
  for source in ("digits", path, tmp_path / "d"):
    assert not load(str(source)).augmentation.flip
  wide = load(str(path), image_size=32)
  assert wide.augmentation == Augmentation(False, 4, 0)
  assert data.resize(load(str(path)), 32).augmentation == wide.augmentation
  (tmp_path / "c").mkdir()
  cifar_folder(tmp_path / "c")
  small = load(str(tmp_path / "c"), image_size=16)
  assert small.augmentation == Augmentation(True, 2, 8)


def test_a_note_is_a_line_whatever_a_file_is_called(tmp_path):
  write_images(tmp_path, make(40, channels=1), ["a", "b", "c"])
  name = tmp_path / "a" / "x\n\x1b[31m.png"
  PIL.Image.fromarray(make(1).images[0]).save(name)
  (note,) = load(str(tmp_path)).notes
  assert "1 of 41 images" in note and note.isprintable()
