"""Files of every format, and their refusals."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasjax import data
from nasjax.data import Augmentation, Images, load
from nasjax.data.binary import IDX_FILES
from nasjax.errors import InputError

quick = settings(max_examples=40, deadline=None)


def make(rows, classes=3, side=6, channels=3, seed=0):
  """Random images; every class occurs."""
  generator = np.random.default_rng(seed)
  images = generator.integers(0, 256, (rows, side, side, channels), np.uint8)
  return Images(images, (np.arange(rows) % classes).astype(np.int32))


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def same_rows(loaded, images):
  """Whether a loaded set has the rows of a source, in the order of its own."""
  return same(loaded, data.ordered(Images(*images)))


def contents(images):
  return {
    (x.tobytes(), int(y))
    for x, y in zip(images.images, images.labels, strict=True)
  }


def refused(source, *words, **options):
  with pytest.raises(InputError) as error:
    load(str(source), **options)
  for word in words:
    assert word in str(error.value)
  return error.value


# --- .npz


def save(path, train, test=None, **changes):
  arrays = {"x_train": train.images, "y_train": train.labels}
  if test is not None:
    arrays |= {"x_test": test.images, "y_test": test.labels}
  arrays |= changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return path


def test_npz_round_trip(tmp_path):
  train, test = make(9), make(6, seed=1)
  loaded = load(str(save(tmp_path / "mine.npz", train, test)))
  assert same_rows(loaded.train, train) and same_rows(loaded.test, test)
  assert loaded.name == "mine"
  assert loaded.num_classes == 3
  assert loaded.class_names == ("0", "1", "2")
  assert loaded.augmentation == Augmentation(flip=False, crop=0, cutout=0)
  assert loaded.notes == () and loaded.valid is loaded.groups is None
  assert data.shape(loaded.train) == (6, 6, 3)


def test_npz_gray_compressed_fortran_and_without_a_test_set(tmp_path):
  train = make(9, side=16, channels=1)
  path = tmp_path / "gray.NPZ"
  with path.open("wb") as file:
    np.savez_compressed(
      file,
      x_train=np.asfortranarray(train.images[..., 0]),
      y_train=train.labels.reshape(-1, 1).astype(np.uint8),
    )
  loaded = load(str(path))
  # As of a folder, a fifth of each class, one at least, is the test set.
  assert same_rows(data.joined(loaded.train, loaded.test), train)
  assert len(loaded.test.labels) == 3
  assert loaded.train.images.flags.c_contiguous
  assert loaded.augmentation == Augmentation(flip=False, crop=2, cutout=0)


def test_npz_test_labels_must_be_labels_of_train(tmp_path):
  train, test = make(8, classes=2), make(6, classes=3, seed=1)
  path = save(tmp_path / "a.npz", train, test)
  refused(path, "a.npz:y_test", "row 2 has label 2", "a.npz:y_train has")
  test.labels[:] = 1
  assert load(str(save(path, train, test))).num_classes == 2


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"x_train": np.zeros((9, 6, 6, 3), bool)}, ["bool", "uint8 is expected"]),
    ({"x_train": np.zeros((9, 6, 6, 3), np.uint16)}, ["uint16", "uint8 is"]),
    ({"x_train": np.zeros((9, 6, 6, 3), complex)}, ["complex128", "uint8 is"]),
    ({"x_train": np.zeros((9, 6), np.uint8)}, ["[N,H,W,C]"]),
    ({"x_train": np.zeros((9, 3, 6, 6), np.uint8)}, ["[N,C,H,W]"]),
    ({"x_train": np.zeros((0, 6, 6, 3), np.uint8)}, ["x_train", "is empty"]),
    ({"x_train": np.zeros((8, 6, 6, 3), np.uint8)}, ["9 labels", "8 images"]),
    ({"x_train": np.array([{}] * 9, object)}, ["Python objects", "code"]),
    ({"y_train": np.arange(9.0)}, ["y_train", "float64"]),
    ({"y_train": np.zeros((9, 2), np.int32)}, ["y_train", "[N]"]),
    ({"y_train": np.zeros(9, bool)}, ["y_train", "bool"]),
    ({"y_train": np.arange(9, dtype=np.uint64) + 2**63}, ["too high"]),
    ({"y_train": None}, ["'y_train' is missing"]),
    ({"x_train": None, "X_train": 0}, ["'x_train'", "mean X_train?"]),
    ({"x_test": np.zeros((3, 6, 6, 3), np.uint8)}, ["'y_test' is missing"]),
  ],
)
def test_npz_refusals(tmp_path, changes, words):
  refused(save(tmp_path / "a.npz", make(9), **changes), "a.npz", *words)


@pytest.mark.parametrize(
  ("values", "note"),
  [
    ([1, 2, 3], "labels 1..3 are numbered 0..2"),
    ([0, 5, 90], "labels 0, 5, 90 are numbered 0..2"),
    ([-7, 0, 2**40], "labels -7, 0, 1099511627776 are numbered 0..2"),
  ],
)
def test_npz_labels_are_numbered_by_value(tmp_path, values, note):
  train, test = make(9), make(6, seed=1)
  named = np.array(values)
  path = save(
    tmp_path / "a.npz",
    train,
    test,
    y_train=named[train.labels],
    y_test=named[test.labels],
  )
  loaded = load(str(path))
  assert same_rows(loaded.train, train) and same_rows(loaded.test, test)
  assert loaded.class_names == tuple(str(value) for value in values)
  assert loaded.num_classes == 3 and loaded.notes == (note,)
  assert loaded.train.labels.dtype == np.int32


def test_npz_refuses_too_many_classes(tmp_path):
  many = make(1001, classes=1001, side=2)
  refused(save(tmp_path / "a.npz", many), "1001 different labels", "1000")
  most = Images(*(x[:1000] for x in many))
  assert load(str(save(tmp_path / "a.npz", most))).num_classes == 1000


def test_npz_refuses_one_class(tmp_path):
  one = make(9, classes=1)
  for label in (0, 5):
    path = save(tmp_path / "a.npz", one, y_train=one.labels + label)
    refused(path, "only one class")


def test_npz_refuses_test_images_of_another_shape(tmp_path):
  path = save(tmp_path / "a.npz", make(9), make(9, side=5))
  refused(path, "(6, 6, 3)", "(5, 5, 3)")


def test_npz_refuses_test_rows_that_stand_in_train(tmp_path):
  train, test = make(9), make(6, seed=1)
  test.images[4], test.labels[4] = train.images[7], train.labels[7]
  path = save(tmp_path / "a.npz", train, test)
  refused(path, "1 of 6 rows", "row 4", "row 7 of", "x_train", "x_test")


def test_npz_refuses_what_is_no_zip_file(tmp_path):
  path = tmp_path / "a.npz"
  path.write_bytes(b"\x80\x04K\x01.")
  refused(path, "not a .npz file")
  path.unlink()
  path.mkdir()
  refused(path, "holds no data")


def test_npz_is_bounded_by_its_declared_sizes(tmp_path):
  path = save(tmp_path / "a.npz", make(9))
  refused(path, "at most 1500", max_bytes=1500)
  zeros = {
    "x_train": np.zeros((3, 999, 999, 3), np.uint8),
    "y_train": [0, 1, 2],
  }
  np.savez_compressed(path, **zeros)
  assert path.stat().st_size < 2**16
  refused(path, "at most 65536", max_bytes=2**16)


def npy(shape, held, dtype="|u1"):
  file = io.BytesIO()
  header = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(file, header)
  return file.getvalue() + held


@pytest.mark.parametrize(
  ("x_train", "words"),
  [
    (npy((2**40, 2, 2, 3), b"0" * 12), ["declares", "holds 12"]),
    (npy((-2, -6), b"0" * 12), ["declares"]),
    (npy((2, 2, 2, 3), b"0" * 25), ["declares", "holds 25"]),
    (b"\x93NUMPY\x07\x00", ["version"]),
    (b"", ["damaged"]),
    (b"\x93NUMPY\x01\x00\x05\x00({[(\n", ["damaged"]),
    (npy((2, 2, 2, 3), b"0" * 24)[:30], ["damaged"]),
  ],
)
def test_npz_refuses_headers_that_lie(tmp_path, x_train, words):
  path = tmp_path / "a.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("x_train.npy", x_train)
    archive.writestr("y_train.npy", npy((2,), b"\0\1"))
  refused(path, *words)


def test_npz_refuses_a_key_twice(tmp_path):
  path = save(tmp_path / "a.npz", make(9))
  with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning):
    archive.writestr("x_train.npy", b"")
  refused(path, "'x_train' stands there twice")


@quick
@given(changes=st.dictionaries(st.integers(0, 10**4), st.integers(0, 255)))
def test_npz_with_changed_bytes_is_refused_or_loads(tmp_path_factory, changes):
  file = io.BytesIO()
  save(file, make(6, side=2), make(3, side=2, seed=1))
  content = bytearray(file.getvalue())
  for place, value in changes.items():
    content[place % len(content)] = value
  path = tmp_path_factory.mktemp("npz") / "a.npz"
  path.write_bytes(content)
  try:
    loaded = load(str(path))
  except InputError as error:
    assert str(path) in str(error)
  else:
    assert loaded.train.images.dtype == np.uint8


# --- CIFAR-10


def write_cifar(path, images):
  planes = images.images.transpose(0, 3, 1, 2).reshape(len(images.labels), -1)
  labels = images.labels.astype(np.uint8).reshape(-1, 1)
  path.write_bytes(np.concatenate([labels, planes], axis=1).tobytes())


def cifar_folder(folder):
  train, test = make(6, 10, 32), make(3, 10, 32, seed=1)
  for number in range(2):
    part = Images(*(x[3 * number : 3 * number + 3] for x in train))
    write_cifar(folder / f"data_batch_{number + 1}.bin", part)
  write_cifar(folder / "test_batch.bin", test)
  return train, test


def test_cifar_round_trip(tmp_path):
  train, test = cifar_folder(tmp_path)
  (tmp_path / "batches.meta.txt").write_text("airplane\n")
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, train) and same_rows(loaded.test, test)
  assert loaded.name == "cifar-10"
  assert loaded.num_classes == 10
  assert loaded.class_names[:2] == ("airplane", "automobile")
  assert loaded.augmentation == Augmentation(True, 4, 16)


def test_cifar_train_rows_that_stand_in_test_are_dropped(tmp_path):
  train, _ = cifar_folder(tmp_path)
  test = make(50, 6, 32, seed=1)
  test.images[2], test.labels[2] = train.images[4], 0
  write_cifar(tmp_path / "test_batch.bin", test)
  # Of another label: the class of row 4 has another image in train too.
  train.labels[3] = train.labels[4]
  part = Images(*(x[3:] for x in train))
  write_cifar(tmp_path / "data_batch_2.bin", part)
  test.labels[test.labels == 3] = 0
  write_cifar(tmp_path / "test_batch.bin", test)
  loaded = load(str(tmp_path))
  assert same_rows(loaded.test, test)
  assert same_rows(loaded.train, [np.delete(x, 4, axis=0) for x in train])
  said = "1 rows of data_batch_*.bin stand in test_batch.bin too"
  assert loaded.notes[0].startswith(said)


def test_cifar_refusals(tmp_path):
  cifar_folder(tmp_path)
  batch = tmp_path / "data_batch_2.bin"
  held = batch.read_bytes()
  refused(tmp_path, "at most 20000", max_bytes=20000)
  for content in (held[:-1], b""):
    batch.write_bytes(content)
    refused(tmp_path, "data_batch_2.bin", "no multiple of 3073")
  batch.write_bytes(held[:3073] + b"\x0a" + held[3074:])
  refused(tmp_path, "data_batch_2.bin", "row 1 has label 10")
  (tmp_path / "test_batch.bin").unlink()
  refused(tmp_path, "no test_batch.bin")


@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
def test_pickled_cifar_is_refused(tmp_path, name):
  (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
  refused(tmp_path, "can run code", "binary version")


@pytest.mark.parametrize("name", ["a.pkl", "a.pickle", "a.PKL"])
def test_pickled_files_are_refused(tmp_path, name):
  (tmp_path / name).write_bytes(b"\x80\x04K\x01.")
  refused(tmp_path / name, name, "can run code")


# --- IDX


def idx(array):
  head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
  return head + array.astype(np.uint8).tobytes()


def write_idx(folder, train, test, zipped=()):
  arrays = [
    train.images[..., 0],
    train.labels,
    test.images[..., 0],
    test.labels,
  ]
  for number, (name, array) in enumerate(zip(IDX_FILES, arrays, strict=True)):
    if number in zipped:
      (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    else:
      (folder / name).write_bytes(idx(array))


def test_idx_round_trip(tmp_path):
  train, test = make(9, channels=1), make(6, channels=1, seed=1)
  write_idx(tmp_path, train, test, zipped=(0, 3))
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, train) and same_rows(loaded.test, test)
  assert loaded.num_classes == 3
  assert loaded.name == tmp_path.name
  assert not loaded.augmentation.flip


def test_idx_train_rows_that_stand_in_test_are_dropped(tmp_path):
  train, test = make(9, channels=1), make(50, channels=1, seed=1)
  test.images[7] = train.images[0]
  write_idx(tmp_path, train, test)
  loaded = load(str(tmp_path))
  assert same_rows(loaded.train, [x[1:] for x in train])
  assert same_rows(loaded.test, test)
  assert "1 rows of train-images-idx3-ubyte stand in" in loaded.notes[0]
  assert "left out" in loaded.notes[0]


@pytest.mark.parametrize(
  ("number", "content", "words"),
  [
    (0, idx(np.zeros((9, 6, 6)))[:-1], ["324 bytes", "holds 323"]),
    (0, idx(np.zeros((9, 6, 6))) + b"0", ["holds more"]),
    (0, idx(np.zeros((8, 6, 6))), ["8 images", "9 labels"]),
    (0, idx(np.zeros((0, 6, 6))), ["is empty"]),
    (0, idx(np.zeros((9, 5, 6))), ["(5, 6, 1)", "(6, 6, 1)"]),
    (0, idx(np.zeros(9)), ["00000801", "00000803"]),
    (0, b"\0\0", ["0000", "00000803"]),
    (0, b"\0\0\x08\3" + b"\xff" * 12, ["at most", "are read"]),
    (1, idx(np.zeros((9, 6, 6))), ["00000803", "00000801"]),
  ],
)
def test_idx_refusals(tmp_path, number, content, words):
  write_idx(tmp_path, make(9, channels=1), make(6, channels=1, seed=1))
  (tmp_path / IDX_FILES[number]).write_bytes(content)
  refused(tmp_path, *words)


def test_idx_refuses_a_missing_file(tmp_path):
  write_idx(tmp_path, make(9, channels=1), make(6, channels=1, seed=1))
  (tmp_path / IDX_FILES[3]).unlink()
  refused(tmp_path, "t10k-labels-idx1-ubyte.gz")


def test_idx_refuses_damaged_and_swollen_gzip_files(tmp_path):
  train, test = make(9, channels=1), make(6, channels=1, seed=1)
  write_idx(tmp_path, train, test, zipped=(0,))
  path = tmp_path / "train-images-idx3-ubyte.gz"
  whole = path.read_bytes()
  for content in (whole[:-9], b"no gzip", whole[:40] + b"0000" + whole[44:]):
    path.write_bytes(content)
    refused(tmp_path, path.name, "damaged")
  head = struct.pack(">4B3I", 0, 0, 8, 3, 9, 6, 6)
  path.write_bytes(gzip.compress(head + bytes(10**7), compresslevel=1))
  refused(tmp_path, "holds more")
  path.write_bytes(whole)
  refused(tmp_path, "at most 400", max_bytes=400)
