"""Reads a front of (error, latency_ms, energy_mj): bands, slopes, choices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nasjax import pareto

ERROR, LATENCY, ENERGY = range(3)
NAMES = ("error", "latency_ms", "energy_mj")
UNITS = ("", "ms", "mJ")


def bands(points: np.ndarray) -> dict[str, dict[str, Any]]:
  """How many networks each band of a front has, and from where to where.

  Args:
    points: f64[F, 3].

  Returns:
    By band: networks, and (least, most) of accuracy (0..1), ms and mJ.
  """
  found = {}
  for name, rows in pareto.bands(points, LATENCY).items():
    if not len(rows):
      continue
    low, high = points[rows].min(0).tolist(), points[rows].max(0).tolist()
    found[name] = {
      "networks": len(rows),
      "accuracy": [1.0 - high[ERROR], 1.0 - low[ERROR]],
      "latency_ms": [low[LATENCY], high[LATENCY]],
      "energy_mj": [low[ENERGY], high[ENERGY]],
    }
  return found


def slopes(points: np.ndarray) -> dict[str, dict[str, float]]:
  """What accuracy costs in each band, and what time costs in energy.

  Along the path from the fastest network to the most accurate ones up to each
  band's end; a band in which nothing gets more accurate is left out.

  Args:
    points: f64[F, 3].

  Returns:
    By band: ms and mJ that a point (1%) of accuracy costs, mJ that 1 ms less
    saves, and by what percentage the error changes with 1% more latency.
  """
  order = np.lexsort((points[:, ERROR], points[:, LATENCY]))
  path, names = [points[order[0]]], []
  for name, rows in pareto.bands(points, LATENCY).items():
    if not len(rows):
      continue
    within = points[points[:, LATENCY] <= points[rows, LATENCY].max()]
    best = within[np.lexsort((within[:, LATENCY], within[:, ERROR]))[0]]
    if best[ERROR] < path[-1][ERROR]:
      path.append(best)
      names.append(name)
  if not names:
    return {}
  path = np.array(path)
  error = pareto.slopes(path, ERROR, LATENCY)
  energy = pareto.slopes(path, ENERGY, LATENCY)
  relative = pareto.trade_offs(path, ERROR, LATENCY)
  return {
    name: {
      "ms_a_point": float(-0.01 / error[i]),
      "mj_a_point": float(-0.01 / error[i] * energy[i]),
      "mj_a_ms": float(energy[i]),
      "error_percent_a_latency_percent": float(relative[i]),
    }
    for i, name in enumerate(names)
  }


def exchange(points: np.ndarray) -> dict[str, Any] | None:
  """What energy more time saves at no loss of accuracy.

  Args:
    points: f64[F, 3].

  Returns:
    From the fastest to the thriftiest of the networks that are at least as
    accurate as the front's median; None where one is both.
  """
  most = float(np.median(points[:, ERROR]))
  good = points[points[:, ERROR] <= most][:, [LATENCY, ENERGY]]
  best = good[pareto.front(good)]
  if len(best) < 2:
    return None
  ends = best[[0, -1]]  # by latency
  return {
    "accuracy_at_least": 1.0 - most,
    "fastest": ends[0].tolist(),
    "thriftiest": ends[1].tolist(),
    "mj_saved_a_ms": float(-pareto.slopes(ends, 1, 0)[0]),
  }


def choices(
  points: np.ndarray, latency_ms: float, energy_mj: float
) -> dict[str, tuple[int, dict[str, float]]]:
  """The most accurate networks: within each limit, and of all.

  Args:
    points: f64[F, 3].
    latency_ms: the limit for real time.
    energy_mj: the limit on a battery.

  Returns:
    By use: (index, limits by name).

  Raises:
    ValueError: no network is within a limit.
  """
  uses = {
    "real-time": {LATENCY: latency_ms},
    "battery": {ENERGY: energy_mj},
    "quality": {},
  }
  return {
    name: (
      pareto.choose(points, limits, (1.0, 0.0, 0.0)),
      {NAMES[i]: float(bound) for i, bound in limits.items()},
    )
    for name, limits in uses.items()
  }


def covered(by: np.ndarray, points: np.ndarray) -> float:
  """The share of points that some point of `by` dominates or equals."""
  return float((by[:, None] <= points[None]).all(-1).any(0).mean())


def show(row: Mapping[str, Any], sources: Mapping[str, str]) -> None:
  """Prints what the functions above say of one front, and whence it is."""
  print(f"  {'band':<12} networks  accuracy (%)  latency (ms)   energy (mJ)")
  for name, band in row["bands"].items():
    cells = (
      _span(100 * np.array(band["accuracy"]), 1),
      _span(band["latency_ms"], 4),
      _span(band["energy_mj"], 4),
    )
    print(f"  {name:<12} {band['networks']:>8}  {cells[0]:<12}  ", end="")
    print(f"{cells[1]:<13}  {cells[2]}")
  for name, slope in row["slopes"].items():
    print(
      f"  {name}: 1 point costs {slope['ms_a_point']:.5f} ms and"
      f" {slope['mj_a_point']:.5f} mJ; 1 ms less saves"
      f" {slope['mj_a_ms']:.2f} mJ; 1% more latency changes the error by"
      f" {slope['error_percent_a_latency_percent']:.2f}%"
    )
  trade = row["exchange"]
  if trade is None:
    print("  the fastest of the more accurate half takes the least energy too")
  else:
    (fast, most), (slow, least) = trade["fastest"], trade["thriftiest"]
    print(
      f"  at accuracy {100 * trade['accuracy_at_least']:.1f}% or more 1 ms more"
      f" saves {trade['mj_saved_a_ms']:.2f} mJ: {fast:.4f} ms, {most:.4f} mJ"
      f" to {slow:.4f} ms, {least:.4f} mJ"
    )
  for name, one in row["choices"].items():
    limits = [
      f"{n} <= {bound:.4f} {UNITS[NAMES.index(n)]}"
      for n, bound in one["limits"].items()
    ]
    print(
      f"  {name} ({', '.join(limits) or 'no limit'}): accuracy"
      f" {100 * one['accuracy']:.1f}% (test {100 * one['test_accuracy']:.1f}%),"
      f" {one['latency_ms']:.4f} ms, {one['energy_mj']:.4f} mJ"
    )
    print(f"    {one['operations']}")
  for name, source in sources.items():
    print(f"  {name}: {source}", flush=True)


def _span(ends, digits: int) -> str:
  return "-".join(f"{end:.{digits}f}" for end in ends)
