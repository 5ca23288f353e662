"""Going on from a checkpoint: the same bits, wherever the search was cut."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import checkpoint, data, hypergradients, manifests, search
from nasjax.errors import NumbersError
from nasjax.search import epochs

STEPS, BATCH = 5, 8


@pytest.fixture(scope="module")
def made(toy):
  return search.differentiable(
    toy, hypergradient=hypergradients.single_level(), arch_start=1
  )


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  return data.Images(
    rng.integers(256, size=(STEPS * BATCH, 8, 8, 1), dtype=np.uint8),
    rng.integers(4, size=STEPS * BATCH).astype(np.int32),
  )


def begin(made, images):
  state = jax.jit(made.init)(jax.random.key(0))
  return epochs.begin(loop(made, images), state)


def loop(made, images, most_failures=0):
  return epochs.prepare(
    lambda _: made,
    (),
    images,
    images,
    batch_size=BATCH,
    augmentation=data.Augmentation(crop=1),
    most_failures=most_failures,
  )


def chunks(made, images, progress, most_failures=0, **options):
  return epochs.run_chunks(
    loop(made, images, most_failures),
    progress,
    epochs=2,
    key=jax.random.key(1),
    **options,
  )


def digest(progress):
  return manifests.state_digest(manifests.flatten(progress)[0])


@pytest.fixture(scope="module")
def undisturbed(made, images, tmp_path_factory):
  """The digests of all 10 chunks, each of them saved."""
  folder = tmp_path_factory.mktemp("run")
  found = []
  for now in chunks(made, images, begin(made, images), longest=1):
    found.append(digest(now))
    checkpoint.save(folder, int(now.state.step), now, {}, keep=99)
  return folder, found


def test_every_chunk_boundary_goes_on_to_the_same_bits(
  made, images, undisturbed
):
  folder, want = undisturbed
  assert len(want) == 2 * STEPS and checkpoint.steps(folder)[-1] == 2 * STEPS
  target = jax.eval_shape(lambda: begin(made, images))
  for step in range(1, 2 * STEPS):
    saved = checkpoint.verify(folder, step)
    now = checkpoint.fit(saved, target, "c")
    assert digest(now) == want[step - 1]
    rest = [digest(p) for p in chunks(made, images, now, longest=1)]
    assert rest == want[step:]


@pytest.mark.parametrize("longest", [2, 3, epochs.CHUNK])
def test_where_an_epoch_is_cut_changes_no_bit(
  made, images, undisturbed, longest
):
  *_, end = (
    digest(p)
    for p in chunks(made, images, begin(made, images), longest=longest)
  )
  assert end == undisturbed[1][-1]


def spoil(made, steps):
  """The search, with a loss that is not finite at some steps."""

  def update(state, train, valid):
    bad = jnp.isin(state.step, jnp.array(steps))
    train = train._replace(images=jnp.where(bad, jnp.nan, train.images))
    return made.update(state, train, valid)

  return made._replace(update=update)


def test_bad_steps_are_skipped_then_the_search_stops(made, images):
  broken = spoil(made, [2, 3, 7, 8, 9])
  last = None
  for now in chunks(
    broken, images, begin(made, images), most_failures=2, longest=5
  ):
    last = now
    if int(now.state.step) == STEPS:
      assert epochs.summary(now).skipped == 2
      epochs.check_numbers(now, 2)
  assert int(last.failed) == 3 and int(last.state.step) == 10
  leaves = jax.tree.leaves(last.state.shared)
  assert all(np.isfinite(np.asarray(v)).all() for v in leaves)
  with pytest.raises(NumbersError, match="step 10 .epoch 2.: not finite: "):
    epochs.check_numbers(last, 2)
  with pytest.raises(NumbersError, match="training cross_entropy"):
    epochs.check_numbers(last, 2)
