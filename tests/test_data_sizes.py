"""Images of other sizes and proportions, from files and arrays."""

import numpy as np
import PIL.Image
import pytest
from test_data import write_images
from test_data_folders import TURNS, only, pictures, put, rows
from test_data_formats import make, refused, same, save

from nasjax import data
from nasjax.data import Images, load
from nasjax.data.resizing import MODES
from nasjax.errors import InputError


def test_a_change_of_proportions_is_said(tmp_path):
  put(tmp_path, pictures(6, size=(64, 16)))
  loaded = load(str(tmp_path), image_size=16)
  assert only(
    loaded.notes, "6 images", "16x64 (HEIGHTxWIDTH)", "stretched to 16x16"
  )
  assert load(str(tmp_path), image_size=(4, 16)).notes == ()
  assert load(str(tmp_path), image_size=(16, 64)).notes == ()
  one = save(tmp_path / "a.npz", make(9, side=9))
  assert load(str(one), image_size=4).notes == ()
  assert only(load(str(one), image_size=(4, 8)).notes, "9x9", "4x8")


def test_pad_and_crop_keep_proportions(tmp_path):
  """A white square of 16 in the middle of a gray strip of 64."""
  made = []
  for row in range(4):
    values = np.full((16, 64), 100 + row, np.uint8)
    values[:, 24:40] = 255
    made.append(PIL.Image.fromarray(values))
  wide = str(put(tmp_path / "wide", made))
  padded = load(wide, image_size=16, resize_mode="pad")
  found = rows(padded)[..., 0]
  assert not found[:, :6].any() and not found[:, 10:].any()
  assert found[:, 6:10].min() >= 100
  assert only(padded.notes, "padded with zeros", "--resize pad")
  tall = [image.transpose(TURNS[5]) for image in made]
  upright = load(
    str(put(tmp_path / "tall", tall)), image_size=16, resize_mode="pad"
  )
  assert np.array_equal(rows(upright)[..., 0].any((0, 1)), found.any((0, 2)))
  with pytest.raises(InputError, match="no two different"):
    load(wide, image_size=16, resize_mode="crop")
  cut = load(wide, image_size=(8, 16), resize_mode="crop")
  found = rows(cut)[..., 0]
  assert found.shape == (4, 8, 16)
  assert (found[:, :, 5:11] == 255).all() and (found[:, :, :3] < 104).all()
  assert "lose their edges" in cut.notes[0]
  refused(wide, "--resize", "pad", image_size=8, resize_mode="pat")
  refused(wide, "--image-size", "4097", image_size=(8, 4097))


@pytest.mark.parametrize("mode", MODES)
def test_arrays_are_resized_as_files_are(tmp_path, mode):
  images = Images(make(9, side=12).images[:, :, :7], make(9).labels)
  write_images(tmp_path / "d" / "train", images, ["0", "1", "2"])
  write_images(
    tmp_path / "d" / "test", data.take(images, slice(3)), list("012")
  )
  options = {"image_size": (5, 6), "resize_mode": mode}
  one = load(str(tmp_path / "d"), keep_duplicates=True, **options)
  path = str(save(tmp_path / "a.npz", images, data.take(images, slice(3))))
  two = load(path, keep_duplicates=True, **options)
  three = data.resize(
    load(path, keep_duplicates=True), (5, 6), resize_mode=mode
  )
  assert same(one.train, two.train) and same(two.train, three.train)
  assert two.notes == three.notes != ()
