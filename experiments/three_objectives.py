"""Accuracy, latency and energy at once: staged search against random search.

For each seed one supernet of the edge space is trained on uniform single paths
(Guo et al. 2020); a network's accuracy is read off its weights, with batch
statistics of its own, on images that no weight was trained on. Costs are exact
by the device's model, so that only the accuracy has to be guessed: staged
search evaluates 40% of its networks at random and the others where they are
expected to add most hypervolume. Random search gets as many unique networks.

    python experiments/three_objectives.py [--data fashion-mnist] [--seeds 3] \
        [--device raspberry-pi-4 --device jetson-orin-nano] \
        [--evaluations 150] [--images 4096] [--json]

Hypervolume is that of (error, latency, energy), the error over that of
guessing and each cost on 0..1 over its range in the whole space, up to the
reference (1, 1, 1). `test` scores the same fronts anew on test images, which
neither search saw. Bands, slopes and choices are those of the staged front.
Images of 28 pixels or more are halved, so that it takes minutes.

Defaults, seeds 0, 1, 2, on two shared CPU cores (about 8 minutes of CPU time);
nothing was tuned on them:

    seed  device            staged  random  on test images   of random's front
    0     raspberry-pi-4    0.7760  0.7105  0.7532  0.6933   100% covered
    0     jetson-orin-nano  0.7741  0.5725  0.7504  0.5576   100%
    1     raspberry-pi-4    0.7815  0.7094  0.7599  0.6945   100%
    1     jetson-orin-nano  0.7833  0.5755  0.7554  0.5578   100%
    2     raspberry-pi-4    0.7959  0.7062  0.7555  0.6711   100%
    2     jetson-orin-nano  0.7963  0.5868  0.7606  0.5598   100%

(hypervolume at 150 unique networks each; covered: the staged front dominates or
equals it; random search's covers none of the staged front.) Latency and energy
rank random networks nearly alike on one device (Spearman 0.97 and 1.00), those
of the two devices do not (0.69 and 0.55): their fronts differ. Of seed 0:

    raspberry-pi-4    4 networks, 78.5-79.9% at 0.079-0.126 ms; in the middle 1
                      point costs 0.013 ms and 0.032 mJ and 1 ms less saves 2.5
                      mJ; all three choices 79.9% at 0.126 ms, 0.267 mJ
    jetson-orin-nano  3 networks, 78.5-79.8% at 0.365-0.421 ms; in the middle 1
                      point costs 0.036 ms and 0.144 mJ and 1 ms less saves 4.0
                      mJ; all three choices 79.8% at 0.421 ms, 1.691 mJ

The fronts are flat: so short a supernet (2560 steps, 12 candidates an edge)
scores all networks between 70% and 79%, cheap ones hardly worse.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, NamedTuple

import front_reading as reading
import jax
import numpy as np
import path_supernet
from path_supernet import Score

from nasjax import data, hardware, pareto, spaces
from nasjax.errors import BAD_INPUT, InputError, one_line
from nasjax.hardware import features
from nasjax.search import genes as genetics
from nasjax.search import nsga2, ranking, staged
from nasjax.search import surrogate as surrogates
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_tools
from nasjax.types import Evolution

CHANNELS, NODES, STAGES = 16, 2, 3
FIRST, STEP = 0.4, 15  # staged: share at random; networks between two fits
PERCENTILE = 30.0  # of random networks' costs: the limits of the choices


class Costs(NamedTuple):
  """Latency and energy of a space on a device, exact."""

  device: str
  metrics: tuple[Any, Any]  # latency in ms, energy in mJ
  tables: tuple[Any, Any]  # their additive form
  range: np.ndarray  # f64[2, 2]: least and most over the space
  drawn: np.ndarray  # f64[N, 2], of random networks

  def of(self, choices) -> np.ndarray:
    """f64[N, 2] of choices i32[N, E] a group."""
    return np.stack([t.of(choices) for t in self.tables], -1)

  @property
  def limits(self) -> np.ndarray:
    """f64[2]: a percentile of random networks."""
    return np.percentile(self.drawn, PERCENTILE, axis=0)


class Front(NamedTuple):
  """What one search found."""

  genes: np.ndarray  # i32[F, G]
  points: np.ndarray  # f64[F, 3]: error, latency_ms, energy_mj
  test: np.ndarray  # f64[F, 3]: the error on test images
  evaluations: int  # unique networks behind it


def costs_on(space: Any, name: str, drawn: dict[str, np.ndarray]) -> Costs:
  device = hardware.device(name)
  metrics = device.latency(space), device.energy(space)
  tables = tuple(cost_tables.additive_costs(space, m) for m in metrics)
  extremes = np.array([t.extremes(space.masks) for t in tables]).T
  costs = Costs(name, metrics, tables, extremes, np.zeros((0, 2)))
  return costs._replace(drawn=costs.of(drawn))


def staged_search(space, costs: Costs, reference, evaluations: int):
  """Staged search whose predictors guess the error and know the costs."""
  guesses = surrogates.surrogate(
    space.groups, ["error"], reference, costs=features.costs_of(space)
  )

  def fit(genes, values, violations):
    choices = genetics.to_choices(space, genes)
    state = guesses.fit(choices, values[:, :1], violations)

    def predict(genes):
      choices = genetics.to_choices(space, genes)
      error = guesses.predict(state, choices)
      known = costs.of(choices)
      return surrogates.Prediction(
        np.concatenate([error.mean, known], -1),
        np.concatenate([error.deviation, np.zeros_like(known)], -1),
        error.feasible,
      )

    return predict

  return staged.staged(
    genetics.cardinalities(space),
    fit,
    objectives=3,
    samples=round(FIRST * evaluations),
    capacity=evaluations,
    batch=STEP,
  )


def run_search(
  space,
  evolution: Evolution,
  key,
  score: Score,
  costs: Costs,
  count: int,
) -> tuple[np.ndarray, np.ndarray]:
  """(genes i32[N, G], objectives f64[N, 3]) of `count` unique networks."""
  state, genes, values = evolution.init(key), [], []
  while sum(map(len, genes)) < count:
    points, state = evolution.ask(state)
    points = np.asarray(points)
    choices = genetics.to_choices(space, points)
    found = np.column_stack([1.0 - score(points), costs.of(choices)])
    state = evolution.tell(state, points, found)
    genes.append(points)
    values.append(found)
  genes = np.concatenate(genes)
  if len(np.unique(genes, axis=0)) != count:
    raise ValueError(f"{count} unique networks were to be evaluated")
  return genes, np.concatenate(values)


def front_of(space, genes, values, costs: Costs, test: Score) -> Front:
  best = pareto.front(values)
  own = genes[best]
  choices = genetics.to_choices(space, own)
  again = np.column_stack([1.0 - test(own), costs.of(choices)])
  return Front(own, values[best], again, len(values))


def volume(points: np.ndarray, costs: Costs, classes: int) -> float:
  """Hypervolume of f64[N, 3], normalised as the module says."""
  low, high = costs.range
  error = points[:, :1] / (1.0 - 1.0 / classes)
  scaled = np.concatenate([error, (points[:, 1:] - low) / (high - low)], -1)
  return pareto.hypervolume(scaled, np.ones(3))


def run(found: argparse.Namespace) -> dict[str, Any]:
  dataset = path_supernet.halved(data.load(found.data))
  space = spaces.edge(
    image_shape=data.shape(dataset.train),
    num_classes=dataset.num_classes,
    channels=CHANNELS,
    nodes=NODES,
    stages=STAGES,
  )
  drawn = space_tools.random_choices(space, np.random.default_rng(0), 5000)
  devices = [costs_on(space, name, drawn) for name in found.device]
  ranks = agreement(devices)
  searches = [
    staged_search(space, costs, drawn, found.evaluations) for costs in devices
  ]
  chance = nsga2.random_search(
    genetics.cardinalities(space),
    objectives=3,
    population=found.evaluations,
    capacity=found.evaluations,
  )
  train, steps = path_supernet.trainer(space, found.images)
  make_score = path_supernet.scorer(space)
  rows = []
  for seed in range(found.first_seed, found.first_seed + found.seeds):
    images = path_supernet.images_of(dataset, found.images, seed)
    statistics = data.statistics(images["train"])
    weights, staging, drawing = jax.random.split(jax.random.key(seed), 3)
    variables = train(
      weights, images["train"], *statistics, path_supernet.all_paths(space)
    )
    score, test = (
      make_score(variables, images["train"], images[n], statistics)
      for n in ("valid", "test")
    )
    for costs, own in zip(devices, searches, strict=True):
      # The same random networks on every device.
      fronts = {}
      for name, evolution, key in (
        ("staged", own, staging),
        ("random", chance, drawing),
      ):
        genes, values = run_search(
          space, evolution, key, score, costs, found.evaluations
        )
        fronts[name] = front_of(space, genes, values, costs, test)
      rows.append(compare(space, seed, steps, fronts, costs, dataset))
      print_row(rows[-1])
      if seed == found.first_seed:
        reading.show(
          rows[-1], sources_of(costs, len(images["valid"].labels), found.data)
        )
  return {"rank_correlations": ranks, "runs": rows, **summary(rows)}


def agreement(devices: list[Costs]) -> dict[str, float]:
  """Spearman of random networks' costs, printed too."""
  found = {}
  for n, one in enumerate(devices):
    found[f"{one.device}: latency and energy"] = one.drawn.T
    for other in devices[n + 1 :]:
      for i, name in enumerate(("latency", "energy")):
        pair = one.drawn[:, i], other.drawn[:, i]
        found[f"{one.device} and {other.device}: {name}"] = pair
  found = {n: ranking.rank_correlation(*pair) for n, pair in found.items()}
  for name, rho in found.items():
    print(f"Spearman over 5000 random networks, {name}: {rho:.2f}", flush=True)
  return found


def choices_of(space, front: Front, costs: Costs) -> dict[str, dict[str, Any]]:
  """The choices of `reading.choices` with all that is known of them."""
  found = {}
  for name, (row, limits) in reading.choices(
    front.points, *costs.limits
  ).items():
    decided = genetics.architecture(space, front.genes[row])
    error, ms, mj = front.points[row].tolist()
    found[name] = {
      "limits": limits,
      "accuracy": 1.0 - error,
      "test_accuracy": 1.0 - float(front.test[row, 0]),
      "latency_ms": ms,
      "energy_mj": mj,
      "operations": " ".join(n for g in decided.names().values() for n in g),
    }
  return found


def compare(
  space, seed, steps, fronts, costs: Costs, dataset
) -> dict[str, Any]:
  """What one seed found on one device."""
  own, chance = fronts["staged"], fronts["random"]
  classes = dataset.num_classes
  return {
    "seed": seed,
    "device": costs.device,
    "supernet_steps": steps,
    "evaluations": {n: f.evaluations for n, f in fronts.items()},
    "front": {n: len(f.genes) for n, f in fronts.items()},
    "hypervolume": {
      n: volume(f.points, costs, classes) for n, f in fronts.items()
    },
    "test_hypervolume": {
      n: volume(f.test, costs, classes) for n, f in fronts.items()
    },
    "covered": {
      "random_by_staged": reading.covered(own.points, chance.points),
      "staged_by_random": reading.covered(chance.points, own.points),
    },
    "points": [
      dict(zip(reading.NAMES, p, strict=True)) for p in own.points.tolist()
    ],
    "bands": reading.bands(own.points),
    "slopes": reading.slopes(own.points),
    "exchange": reading.exchange(own.points),
    "choices": choices_of(space, own, costs),
  }


def print_row(row: dict[str, Any]) -> None:
  volumes, again = row["hypervolume"], row["test_hypervolume"]
  shares = row["covered"]
  print(
    f"seed {row['seed']}, {row['device']}: hypervolume staged"
    f" {volumes['staged']:.4f}, random {volumes['random']:.4f} (test"
    f" {again['staged']:.4f}, {again['random']:.4f}); staged dominates or"
    f" equals {shares['random_by_staged']:.0%} of random's front, random"
    f" {shares['staged_by_random']:.0%} of staged's",
    flush=True,
  )


def sources_of(costs: Costs, images: int, name: str) -> dict[str, str]:
  found = {
    "accuracy": f"at the supernet's weights, own batch statistics, {images}"
    f" validation images of {name}"
  }
  for metric in costs.metrics:
    found[f"{metric.name} ({metric.unit})"] = metric.source
  return found


def summary(rows) -> dict[str, Any]:
  pairs = [r["hypervolume"] for r in rows]
  again = [r["test_hypervolume"] for r in rows]
  return {
    "staged_at_least_random": sum(p["staged"] >= p["random"] for p in pairs),
    "on_test_images": sum(p["staged"] >= p["random"] for p in again),
    "of": len(pairs),
  }


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", default="fashion-mnist")
  parser.add_argument("--device", action="append", help="may be repeated")
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--first-seed", type=int, default=0)
  parser.add_argument("--evaluations", type=int, default=150)
  parser.add_argument("--images", type=int, default=4096, help="to train on")
  parser.add_argument("--json", action="store_true", help="last line: JSON")
  found = parser.parse_args()
  found.device = found.device or ["raspberry-pi-4", "jetson-orin-nano"]
  for name, least in (
    ("seeds", 1),
    ("first_seed", 0),
    ("evaluations", 50),
    ("images", 1024),
  ):
    if getattr(found, name) < least:
      flag = "--" + name.replace("_", "-")
      parser.error(f"{flag} must be at least {least}")
  if len(set(found.device)) != len(found.device):
    parser.error("--device: one is named twice")
  try:
    result = run(found)
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return BAD_INPUT
  print(
    f"staged at least random in {result['staged_at_least_random']} of"
    f" {result['of']}, on test images in {result['on_test_images']}"
  )
  if found.json:
    print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
