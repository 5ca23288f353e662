"""Splits by class and group, and the order that no source decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import write_images
from test_data_formats import contents, make, same, save

from nasjax import data
from nasjax.data import Images, check_disjoint, dataset, load, split
from nasjax.errors import InputError

quick = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**31 - 1)
fractions = st.floats(0.05, 0.95) | st.sampled_from([0.5, 0.2])


def pixels(values):
  """One image of side 2 for each number."""
  values = np.asarray(values, np.uint16).view(np.uint8).reshape(-1, 2)
  return np.repeat(values[:, None, :, None], 2, axis=1).copy()


def distinct(labels):
  return Images(pixels(np.arange(len(labels))), np.asarray(labels, np.int32))


def keys(images):
  values = images.images[:, 0, :, 0].copy().view(np.uint16).ravel()
  return values.astype(np.int64) * 1000 + images.labels


def shuffled(images, seed, *others):
  rows = np.random.default_rng(seed).permutation(len(images.labels))
  return (data.take(images, rows), *(other[rows] for other in others))


@quick
@given(
  sizes=st.lists(st.integers(1, 30), min_size=2, max_size=12),
  seed=seeds,
  fraction=fractions,
)
def test_every_class_is_within_one_of_its_share(sizes, seed, fraction):
  sizes = np.array(sizes)
  images = distinct(np.repeat(np.arange(len(sizes)), sizes))
  first, second = split(images, seed=seed, fraction=fraction)
  found = np.bincount(first.labels, minlength=len(sizes))
  assert (np.abs(found - sizes * fraction) <= 1).all()
  several = sizes > 1
  assert (found[several] >= 1).all() and (found < sizes)[several].all()
  if fraction == 0.5:
    assert abs(len(first.labels) - len(second.labels)) <= 1
  together = np.concatenate([keys(first), keys(second)])
  assert np.array_equal(np.sort(together), np.sort(keys(images)))


@quick
@given(
  rows=st.lists(
    st.tuples(st.integers(0, 25), st.integers(0, 3), st.integers(0, 9)),
    min_size=2,
    max_size=60,
  ),
  seed=seeds,
  fraction=fractions,
  grouped=st.booleans(),
)
def test_nothing_stands_on_both_sides(rows, seed, fraction, grouped):
  values, labels, groups = np.array(rows).T
  images = Images(pixels(values), labels.astype(np.int32))
  of = groups.astype(np.int32) if grouped else None
  try:
    parts = split(images, seed=seed, fraction=fraction, groups=of)
  except InputError as error:
    assert "no two different images" in str(error)
    assert grouped or len(set(values)) == 1
    return
  check_disjoint(*parts)
  together = np.concatenate([keys(part) for part in parts])
  assert np.array_equal(np.sort(together), np.sort(keys(images)))
  assert all(len(part.labels) for part in parts)
  if grouped:
    firsts = set((keys(parts[0]) // 1000).tolist())
    sides = [value in firsts for value in values]
    for group in set(groups):
      assert (
        len({s for s, g in zip(sides, groups, strict=True) if g == group}) == 1
      )
  else:
    # A class of two images that share theirs with no other is in both.
    for label in set(labels):
      own = set(values[labels == label]) - set(values[labels != label])
      if len(own) > 1:
        assert all(label in part.labels for part in parts)
  mixed, *of = shuffled(images, seed, *([] if of is None else [of]))
  again = split(
    mixed, seed=seed, fraction=fraction, groups=of[0] if of else None
  )
  assert all(same(a, b) for a, b in zip(parts, again, strict=True))


@quick
@given(copies=st.lists(st.integers(1, 6), min_size=4, max_size=40), seed=seeds)
def test_copies_cost_a_class_at_most_their_own_size(copies, seed):
  """Few single images, and the shares are met to within one."""
  labels = np.arange(len(copies)) % 2
  images = Images(
    pixels(np.repeat(np.arange(len(copies)), copies)),
    np.repeat(labels, copies).astype(np.int32),
  )
  first, _ = split(images, seed=seed)
  copies = np.array(copies)
  for label in (0, 1):
    own = copies[labels == label]
    off = abs((first.labels == label).sum() - own.sum() / 2)
    assert off <= (1 if (own == 1).sum() > 6 else max(own))


def test_the_seed_decides_the_split_of_groups_of_unequal_sizes():
  sizes = np.arange(8, 16)
  groups = np.repeat(np.arange(8), sizes)
  images = distinct(np.arange(len(groups)) % 3)
  firsts = {
    tuple(sorted(keys(split(images, seed=s, groups=groups)[0])))
    for s in range(12)
  }
  assert len(firsts) > 6


def test_groups_of_all_classes_leave_each_class_its_share():
  """Twenty writers of ten digits: half of the writers, half of each digit."""
  writers, labels = np.divmod(np.arange(600), 30)
  images = distinct(labels % 10)
  for seed in range(5):
    first, second = split(images, seed=seed, groups=writers)
    assert np.bincount(first.labels).tolist() == [30] * 10
    assert len({k // 1000 // 30 for k in keys(first)}) == 10
    assert same(first, split(images, seed=seed, groups=writers + 7)[0])


def test_groups_win_over_classes_and_it_is_said():
  images = distinct([0] * 12 + [1] * 12)
  first, second = split(images, seed=0, groups=np.arange(24) // 12)
  assert len(set(first.labels)) == len(set(second.labels)) == 1
  notes = data.split_notes(first, second, ("ant", "bee"))
  assert len(notes) == 2
  assert all(note.startswith("warning: 1 classes") for note in notes)
  assert all("groups win over classes" in note for note in notes)
  with pytest.raises(InputError, match="of two groups"):
    split(images, seed=0, groups=np.zeros(24))


def test_groups_are_joined_by_equal_images():
  images = distinct([0, 1] * 6)
  images.images[1] = images.images[2]
  groups = np.array([0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  for seed in range(8):
    first, _ = split(images, seed=seed, groups=groups)
    held = set((keys(first) // 1000).tolist())
    assert len({0, 2, 3} & held) in (0, 3)


def test_a_class_that_no_single_unit_helps_is_moved_into_both_parts():
  """Units of several classes alone: each class still has two of them."""
  labels = np.array([0, 1, 0, 1, 2, 3, 2, 3])
  for seed in range(10):
    parts = split(
      distinct(labels), seed=seed, fraction=0.1, groups=np.arange(8) // 2
    )
    assert all(set(part.labels) == {0, 1, 2, 3} for part in parts)


def test_small_classes_are_named_in_one_warning():
  images = distinct(np.repeat(np.arange(13), [30] + [4] * 12))
  names = tuple(f"c{i}" for i in range(13))
  (note,) = data.split_notes(*split(images, seed=0), names)
  assert "12 of 13 classes have under 10" in note
  assert "c1, " in note and "c10 and 2 more" in note and "c11" not in note
  rich = distinct(np.repeat([0, 1], 10))
  assert data.split_notes(*split(rich, seed=0), ("a", "b")) == ()


# --- one order for all sources


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_the_order_of_the_rows_decides_nothing(seed):
  train, test = make(40), make(9, seed=1)
  train.images[3], train.labels[3] = train.images[9], train.labels[9]
  groups = np.arange(40) // 3
  first = dataset(train, test, groups=groups)
  mixed, of = shuffled(train, seed, groups)
  second = dataset(mixed, *shuffled(test, seed), groups=of)
  assert same(first.train, second.train) and same(first.test, second.test)
  for a, b in zip(
    split(first.train, seed=seed % 9, groups=first.groups),
    split(second.train, seed=seed % 9, groups=second.groups),
    strict=True,
  ):
    assert same(a, b)
  images = dict(zip((x.tobytes() for x in train.images), groups, strict=True))
  found = [images[x.tobytes()] for x in first.train.images]
  # The two equal rows may have either one's group.
  assert (np.array(found) == first.groups).sum() >= 39


@pytest.mark.parametrize("size", [None, 4, (3, 8)])
def test_a_folder_and_any_npz_of_the_same_images_are_the_same(tmp_path, size):
  train, test, names = make(40), make(12, seed=1), ["0", "1", "2"]
  write_images(tmp_path / "d" / "train", train, names)
  write_images(tmp_path / "d" / "test", test, names)
  by_label = data.take(train, np.argsort(train.labels, kind="stable"))
  sources = [
    tmp_path / "d",
    save(tmp_path / "sorted.npz", by_label, test),
    save(tmp_path / "mixed.npz", *shuffled(train, 5), *shuffled(test, 6)),
  ]
  sets = []
  for source in sources:
    loaded = load(str(source), image_size=size)
    halves = split(loaded.train, seed=3)
    sets.append([loaded.train, loaded.test, *halves])
    assert np.array_equal(data.order(loaded.train), np.arange(40))
  for other in sets[1:]:
    assert all(same(a, b) for a, b in zip(sets[0], other, strict=True))


def test_the_held_out_fifth_keeps_groups_and_classes_together(tmp_path):
  images = make(60)
  images.images[50] = images.images[1]  # of another class
  write_images(tmp_path, images, ["a", "b", "c"])
  loaded = load(str(tmp_path))
  check_disjoint(loaded.train, loaded.test)
  assert (np.abs(np.bincount(loaded.test.labels) - 4) <= 1).all()
  assert "more than one label" in loaded.notes[0]
  # Files are 000 to 059: ten of a number stand together.
  grouped = load(str(tmp_path), group_by=r"^\d\d")
  assert len(grouped.test.labels) in (10, 20)
  assert len(grouped.groups) == len(grouped.train.labels)
  rows = {x.tobytes(): i // 10 for i, x in enumerate(images.images)}
  tens = [{rows[x.tobytes()] for x in s.images} for s in grouped[1:3]]
  # The image that stands twice joins its two tens.
  merged = [{5 if t == 0 else t for t in ten} for ten in tens]
  assert not merged[0] & merged[1]


def test_a_lone_image_stays_in_train(tmp_path):
  images = distinct([0, 1, 2] + [3] * 20)
  write_images(tmp_path, images._replace(images=make(23).images), list("abcd"))
  loaded = load(str(tmp_path))
  assert set(loaded.train.labels) == {0, 1, 2, 3}
  assert set(loaded.test.labels) == {3}
  (note,) = (n for n in loaded.notes if "held-out" in n)
  assert "3 classes" in note and "a, b, c" in note


def test_images_that_cannot_be_torn_apart_are_not_held_out(tmp_path):
  write_images(tmp_path, make(3), ["a", "b", "c"])
  loaded = load(str(tmp_path))
  assert loaded.test is None and len(loaded.train.labels) == 3
  assert loaded.notes[0] == "warning: no image could be held out as a test set"


def test_a_class_whose_images_are_of_others_too_stays_in_train():
  images = distinct(np.arange(80) % 2)
  labels = images.labels.copy()
  images.images[1::2] = images.images[::2]  # each under both labels
  labels[7] = 2
  for seed in range(30):
    held, _ = split(images._replace(labels=labels), seed=seed, fraction=0.4)
    assert 2 not in held.labels and 30 <= len(held.labels) <= 34


def test_large_copies_leave_a_class_in_both_parts():
  images = Images(
    pixels(np.repeat(np.arange(12), 3)), np.repeat([0, 1], 18).astype(np.int32)
  )
  for fraction in (0.05, 0.95):
    for seed in range(9):
      for part in split(images, seed=seed, fraction=fraction):
        assert set(part.labels) == {0, 1}


def test_everything_is_train_and_valid():
  train, valid = make(9), make(6, seed=1)
  loaded = dataset(train, valid=valid)
  both = data.everything(loaded)
  assert contents(both) == contents(train) | contents(valid)
  assert same(both, data.ordered(both))
  assert same(data.everything(dataset(train)), data.ordered(train))
