"""NSGA-II: survival as pymoo's, nothing twice, known fronts, resuming."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymoo.core.individual import Individual
from pymoo.core.population import Population
from pymoo.core.problem import Problem
from pymoo.operators.survival.rank_and_crowding import RankAndCrowding

from nasjax import pareto, spaces
from nasjax.search import archive as archives
from nasjax.search import genes as genetics
from nasjax.search import nsga2

COUNTS = np.array([5, 3, 4, 1, 2, 6])  # 720 points
SIZE, KEPT = 24, 10
survivors = jax.jit(nsga2.survivors)
EVERYTHING = np.array(list(itertools.product(*map(range, COUNTS))))
NONE = np.zeros(len(EVERYTHING), np.float32)  # violations


@st.composite
def sets(draw):
  """Objectives with ties and violations, some of them feasible."""
  count = draw(st.sampled_from([2, 3]))
  few = st.integers(0, 4).map(float)
  fine = st.floats(-10.0, 10.0, width=16, allow_subnormal=False)
  values = draw(st.sampled_from([few, fine, few | fine]))
  points = draw(hnp.arrays(np.float32, (SIZE, count), elements=values))
  levels = draw(st.sampled_from([st.just(0), st.integers(-1, 3)]))
  violations = draw(hnp.arrays(np.float32, SIZE, elements=levels))
  return points, violations


def _pymoo(points, violations):
  """pymoo's survivors as individuals with rank and crowding."""
  people = Population.create(
    *[
      Individual(
        X=np.array([i]), F=f.astype(float), G=np.array([g]), H=np.zeros(0)
      )
      for i, (f, g) in enumerate(zip(points, violations, strict=True))
    ]
  )
  problem = Problem(n_var=1, n_obj=points.shape[1], n_ieq_constr=1)
  return RankAndCrowding().do(
    problem, people, n_survive=KEPT, random_state=np.random.default_rng(0)
  )


def _sorted(values):
  return sorted(np.asarray(values, float).tolist())


@given(sets(), st.integers(0, 100))
def test_survival_equals_pymoo(drawn, seed):
  points, violations = drawn
  alive = np.ones(SIZE, bool)
  order = survivors(jax.random.key(seed), points, violations, alive)
  assert sorted(order.tolist()) == list(range(SIZE))
  ours = np.asarray(order)[:KEPT]
  theirs = _pymoo(points, violations)
  chosen = theirs.get("X")[:, 0].astype(int)
  ranks = np.asarray(pareto.non_dominated_sort(points, violations))
  assert _sorted(ranks[ours]) == _sorted(ranks[chosen])
  # Whole fronts are the same points; of the one that is cut, which of equal
  # points stay is chance, but not how crowded they are. pymoo takes infeasible
  # ones by violation alone.
  last = ranks[ours].max()
  assert set(ours[ranks[ours] < last]) == set(chosen[ranks[chosen] < last])
  if (violations[ours] <= 0).all():
    room = np.asarray(pareto.crowding_distance(points, jnp.asarray(ranks)))
    np.testing.assert_allclose(
      _sorted(room[ours]), _sorted(room[chosen]), rtol=1e-4
    )
  assert _sorted(np.maximum(violations[ours], 0)) == _sorted(
    np.maximum(violations[chosen], 0)
  )


@given(sets(), hnp.arrays(bool, SIZE))
def test_the_dead_come_last_and_the_order_is_by_rank(drawn, alive):
  points, violations = drawn
  order = np.asarray(survivors(jax.random.key(0), points, violations, alive))
  count = int(alive.sum())
  assert alive[order[:count]].all()
  if count:
    living = np.flatnonzero(alive)
    ranks = np.zeros(SIZE, int)
    ranks[living] = pareto.non_dominated_sort(
      points[living], violations[living]
    )
    assert (np.diff(ranks[order[:count]]) >= 0).all()


def test_equals_are_decided_by_chance():
  points, alive = np.ones((SIZE, 2), np.float32), np.ones(SIZE, bool)
  found = {
    tuple(
      survivors(jax.random.key(s), points, np.zeros(SIZE), alive)[:3].tolist()
    )
    for s in range(8)
  }
  assert len(found) > 1


def test_archive_finds_what_a_set_finds():
  """Batches of many repeats, also where the hash table is nearly full."""
  rng = np.random.default_rng(0)
  counts = np.array([3] * 40 + [200])  # several words
  few = rng.integers(counts, size=(60, len(counts)))
  archive = archives.empty(counts, 2, 50)
  first_seen = jax.jit(lambda a, g: archives.first_seen(a, g, counts))
  add = jax.jit(lambda a, g, v: archives.add(a, g, v, jnp.zeros(16), counts))
  known, stored = set(), 0
  for _ in range(20):
    genes = few[rng.integers(60, size=16)]
    values = rng.random((16, 2)).astype(np.float32)
    batch, want = set(), []
    for row in map(tuple, genes):
      want.append(row not in known | batch)
      batch.add(row)
    new = first_seen(archive, genes)
    assert new.tolist() == want
    archive, index = add(archive, genes, values)
    for row, place, value, fresh in zip(
      genes, index.tolist(), values, want, strict=True
    ):
      if fresh and stored < 50:
        assert place == stored
        np.testing.assert_array_equal(archive.genes[place], row)
        np.testing.assert_array_equal(archive.objectives[place], value)
        known.add(tuple(row))
        stored += 1
      else:
        assert place == 50
    assert int(archive.size) == stored
    if stored == 50:
      break
  assert stored == 50


def _table(seed=0, objectives=2):
  rng = np.random.default_rng(seed)
  return rng.random((len(EVERYTHING), objectives)).astype(np.float32)


def _row(genes):
  row = 0
  for g, count in enumerate(COUNTS):
    row = row * int(count) + genes[..., g]
  return row


@pytest.fixture(scope="module")
def problem():
  """A smooth front: both objectives by gene, with interactions."""
  x = EVERYTHING / np.maximum(COUNTS - 1, 1)
  first = x.sum(-1) + 0.3 * np.sin(5 * x[:, 0] * x[:, 2])
  second = (1 - x).sum(-1) + 0.5 * (x[:, 1] - x[:, 5]) ** 2
  return np.stack([first, second], -1).astype(np.float32)


def _evaluate(table, violations):
  table, violations = jnp.asarray(table), jnp.asarray(violations)
  return lambda genes: (table[_row(genes)], violations[_row(genes)])


@pytest.fixture(scope="module")
def evolution():
  return nsga2.nsga2(COUNTS, objectives=2, population=20, capacity=300)


@pytest.fixture(scope="module")
def evolved(evolution, problem):
  """A compiled run: of any table, violations and number of generations."""

  @jax.jit
  def run(state, table, violations, generations=15):
    return nsga2.evolve(
      evolution, state, _evaluate(table, violations), generations
    )

  return run


def test_it_finds_a_known_front_and_more_than_random_search(
  evolution, evolved, problem
):
  rows = pareto.front(problem)
  reference = problem.max(0) + 0.1
  best = pareto.hypervolume(problem[rows], reference)
  searcher = nsga2.random_search(
    COUNTS, objectives=2, population=20, capacity=300
  )
  chance = jax.jit(
    lambda key: nsga2.evolve(
      searcher, searcher.init(key), _evaluate(problem, NONE), 15
    )
  )
  shares = {"nsga2": [], "random": []}
  for seed in range(5):
    key = jax.random.key(seed)
    for name, state in (
      ("nsga2", evolved(evolution.init(key), problem, NONE)),
      ("random", chance(key)),
    ):
      assert int(state.archive.size) == 300
      assert len(np.unique(np.asarray(state.archive.genes), axis=0)) == 300
      found = nsga2.front(state)
      assert found.feasible
      np.testing.assert_array_equal(
        found.objectives, problem[_row(found.genes)]
      )
      volume = pareto.hypervolume(found.objectives, reference)
      shares[name].append(volume / best)
  assert min(shares["nsga2"]) > 0.985
  assert np.mean(shares["nsga2"]) > np.mean(shares["random"]) + 0.015


def test_infeasible_problems_give_the_least_violating_points(
  evolution, evolved, problem
):
  violations = 1.0 + EVERYTHING[:, 0] + EVERYTHING[:, 5]
  state = evolved(
    evolution.init(jax.random.key(0)), problem, violations.astype(np.float32)
  )
  found = nsga2.front(state)
  assert not found.feasible
  assert (found.violations == 1.0).all()  # the least that there is
  assert (found.genes[:, [0, 5]] == 0).all()


def test_limits_hold_on_the_front(evolution, evolved, problem):
  violations = (problem[:, 0] / 2.0 - 1.0).astype(np.float32)
  state = evolved(evolution.init(jax.random.key(0)), problem, violations)
  found = nsga2.front(state)
  assert found.feasible and (found.objectives[:, 0] <= 2.0).all()
  within = np.flatnonzero(violations <= 0)
  best = problem[within][pareto.front(problem[within])]
  assert pareto.hypervolume(found.objectives, [2.1, 9.0]) > (
    0.99 * pareto.hypervolume(best, [2.1, 9.0])
  )


def _same(a, b):
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
      x, y = jax.random.key_data(x), jax.random.key_data(y)
    np.testing.assert_array_equal(x, y)


def test_it_resumes_bit_for_bit(evolution, evolved, problem, tmp_path):
  start = evolution.init(jax.random.key(3))
  whole = evolved(start, problem, NONE, 8)
  half = evolved(start, problem, NONE, 4)
  leaves, shape = jax.tree.flatten(half)
  saved = [
    jax.random.key_data(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    else x
    for x in leaves
  ]
  np.savez(tmp_path / "state.npz", *saved)
  with np.load(tmp_path / "state.npz") as file:
    read = [jnp.asarray(file[name]) for name in file.files]
  again = shape.unflatten(
    [
      jax.random.wrap_key_data(new)
      if jnp.issubdtype(old.dtype, jax.dtypes.prng_key)
      else new
      for new, old in zip(read, leaves, strict=True)
    ]
  )
  _same(evolved(again, problem, NONE, 4), whole)


def test_python_and_compiled_generations_are_the_same(
  evolution, evolved, problem
):
  state = evolution.init(jax.random.key(4))
  for _ in range(3):
    points, state = evolution.ask(state)
    assert points.shape == (20, len(COUNTS))
    values = problem[_row(np.asarray(points))]  # measured outside
    state = evolution.tell(state, points, values)
  start = evolution.init(jax.random.key(4))
  _same(state, evolved(start, problem, NONE, 3))


def test_first_points_are_asked_first_and_others_may_be_told(evolution):
  points = EVERYTHING[[5, 9, 5, 700]]
  state = evolution.init(jax.random.key(0), points)
  asked, state = evolution.ask(state)
  np.testing.assert_array_equal(asked[:3], points[[0, 1, 3]])
  assert len(np.unique(np.asarray(asked), axis=0)) == 20
  table = _table()
  state = evolution.tell(state, asked, table[_row(np.asarray(asked))])
  others = EVERYTHING[[5, 17]]
  state = evolution.tell(state, others, table[_row(others)])
  assert int(state.archive.size) == 20 + (
    17 not in _row(np.asarray(asked)).tolist()
  )
  with pytest.raises(ValueError, match="do not fit"):
    evolution.init(jax.random.key(0), EVERYTHING[:21])


def test_a_space_that_is_used_up_and_an_archive_that_is_full():
  counts = np.array([2, 3, 2])
  table = jnp.asarray(_table()[:12])
  evolution = nsga2.nsga2(counts, objectives=2, population=5, capacity=100)

  def evaluate(genes):
    row = genes @ jnp.array([6, 2, 1])
    return table[row], jnp.zeros(len(row))

  state = evolution.init(jax.random.key(0))
  state = jax.jit(lambda s: nsga2.evolve(evolution, s, evaluate, 6))(state)
  assert int(state.archive.size) == 12
  np.testing.assert_array_equal(
    nsga2.front(state).objectives, table[pareto.front(table)]
  )
  small = nsga2.nsga2(counts, objectives=2, population=5, capacity=8)
  state = small.init(jax.random.key(0))
  state = jax.jit(lambda s: nsga2.evolve(small, s, evaluate, 4))(state)
  assert int(state.archive.size) == 8
  assert (np.asarray(state.population) < 8).all()


def test_points_with_nan_lose(evolution, evolved, problem):
  broken = problem.copy()
  broken[EVERYTHING[:, 2] > 0] = np.nan
  state = evolved(evolution.init(jax.random.key(1)), broken, NONE)
  found = nsga2.front(state)
  assert np.isfinite(found.objectives).all()
  assert (found.genes[:, 2] == 0).all()


@pytest.mark.parametrize("crossover", nsga2.CROSSOVERS)
def test_children_have_their_parents_genes(crossover):
  """Without mutation: each gene of a child is one of two parents'."""
  counts = np.full(8, 100)
  evolution = nsga2.nsga2(
    counts,
    objectives=2,
    population=4,
    capacity=20,
    crossover=crossover,
    crossover_rate=1.0,
    mutation_rate=0.0,
    oversampling=16,
  )
  parents = np.arange(4)[:, None] * np.ones(8, int)
  state = evolution.init(jax.random.key(0), parents)
  asked, state = evolution.ask(state)
  np.testing.assert_array_equal(asked, parents)
  values = np.stack([np.arange(4), -np.arange(4)], -1)
  state = evolution.tell(state, asked, values)
  cuts = set()
  for _ in range(12):
    asked, state = evolution.ask(state)
    for child in np.asarray(asked):
      # Copies of the parents are not new.
      assert len(np.unique(child)) == 2 and child.max() < 4
      cuts.add(int((np.diff(child) != 0).sum()))
  assert cuts == {1} if crossover == "one_point" else len(cuts) > 2


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_mutation_changes_as_often_as_it_says(seed, rate):
  genes = genetics.random(jax.random.key(seed), COUNTS, 2000)
  assert (genes >= 0).all() and (genes < COUNTS[None]).all()
  changed = genetics.mutated(jax.random.key(seed + 1), genes, COUNTS, rate)
  assert (changed >= 0).all() and (changed < COUNTS[None]).all()
  share = np.asarray(changed != genes).mean(0)
  assert share[3] == 0.0  # it has one value
  np.testing.assert_allclose(share[COUNTS > 1], rate, atol=0.06)


def test_genes_are_choices_of_open_candidates(tiny_edge):
  masks = {n: np.array(m) for n, m in tiny_edge.masks.items()}
  name = next(iter(masks))
  masks[name][0, :2] = False  # closed by a rule of a device
  space = dataclasses.replace(tiny_edge, allowed=masks)
  counts = genetics.cardinalities(space)
  assert len(counts) == sum(len(m) for m in masks.values())
  genes = np.asarray(genetics.random(jax.random.key(0), counts, 50))
  choices = genetics.to_choices(space, genes)
  for group, rows in choices.items():
    assert rows.shape == (50, len(masks[group]))
    assert np.take_along_axis(masks[group][None], rows[..., None], 2).all()
  np.testing.assert_array_equal(genetics.from_choices(space, choices), genes)
  traced = jax.jit(lambda g: genetics.to_choices(space, g))(genes)
  for group, rows in choices.items():
    np.testing.assert_array_equal(traced[group], rows)
  choices[name][0, 0] = 0
  with pytest.raises(ValueError, match="does not exist"):
    genetics.from_choices(space, choices)


def test_an_architecture_of_a_space():
  space = spaces.nasbench201(channels=4, cells=1, image_shape=(8, 8, 3))
  counts = genetics.cardinalities(space)
  assert counts.tolist() == [5] * 6
  found = genetics.architecture(space, np.array([3, 1, 0, 4, 2, 3]))
  assert found.names()["cell"][0] == "nor_conv_3x3"
  hot = genetics.one_hot(jnp.array([[0, 2]]), np.array([2, 3]))
  np.testing.assert_array_equal(hot[0], [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
  "options, match",
  [
    (dict(crossover="two_point"), "uniform"),
    (dict(mutation_rate=1.5), "mutation_rate"),
    (dict(crossover_rate=-0.1), "crossover_rate"),
    (dict(population=0), "population"),
    (dict(capacity=0), "capacity"),
    (dict(oversampling=0), "oversampling"),
  ],
)
def test_options_out_of_range_are_refused(options, match):
  with pytest.raises(ValueError, match=match):
    nsga2.nsga2(COUNTS, objectives=2, **options)
  with pytest.raises(ValueError, match="cardinalities"):
    nsga2.random_search([[2]], objectives=2)
  evolution = nsga2.nsga2(COUNTS, objectives=2)
  with pytest.raises(ValueError, match="no point"):
    nsga2.front(evolution.init(jax.random.key(0)))
