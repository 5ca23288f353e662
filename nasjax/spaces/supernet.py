"""The supernet of a plan: cells of a stage scanned with stacked parameters."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.layers import fan_out, pooling
from nasjax.layers.blocks import Block, channel_shuffle
from nasjax.layers.mixed import mixed, run_block, scaled
from nasjax.spaces import edge_loop, edge_variables
from nasjax.spaces.plan import Plan, Stage
from nasjax.types import Array, Key, Sampled


def _without_affine(block: Block | None) -> Block | None:
  return None if block is None else block.clone(affine=False)


def block_shapes(block: Block | None) -> dict:
  """Shapes of one block's variables."""
  if block is None or not block.workloads:
    return {"params": {}, "batch_stats": {}}
  work = block.workloads[0]
  x = jax.ShapeDtypeStruct(
    (1, work.height, work.width, work.channels_in), jnp.float32
  )
  found = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)
  return {part: found.get(part, {}) for part in ("params", "batch_stats")}


def init(plan: Plan, key: Key) -> dict:
  """Variables of the supernet; those of a stage's cells are stacked.

  Kernels are He-normal (He et al. 2015). One draw for all of them: compiling
  each block's own initialisation took longer than a short search.
  """
  trees: dict[str, Any] = {
    name: block_shapes(block) for name, block in plan.fixed.items()
  }

  def stacked(block, repeats):
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct((repeats, *s.shape), s.dtype),
      block_shapes(block),
    )

  for s, stage in enumerate(plan.stages):
    parts = edge_variables.shapes(
      stage.in_supernet(), lambda block: block_shapes(_without_affine(block))
    )
    for name, block in stage.links.items():
      if stage.uneven is None:
        parts[name] = stacked(block, stage.repeats)
        continue
      for r in range(stage.repeats):
        own = _without_affine(stage.link(r, name))
        trees[stage.uneven.name(r, name)] = block_shapes(own)
    trees[f"stage_{s}"] = parts
  return drawn(_transpose(trees), key)


def drawn(shapes: Mapping, key: Key) -> dict:
  """Variables of given shapes: kernels He-normal, the rest as it begins.

  Args:
    shapes: {"params", "batch_stats"} of `jax.ShapeDtypeStruct`s. The last four
      axes of a kernel are its own, two where its layer's name begins with
      `linear`; those before are stacked layers.
    key: consumed.

  Returns:
    Arrays in their place.
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
  sizes = [s.size if _name(p) == "kernel" else 0 for p, s in leaves]
  noise = jnp.split(
    jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1]
  )

  def value(path, shape, draw):
    name = _name(path)
    if name == "kernel":
      own = 2 if path[-2].key.startswith("linear") else 4  # without stacks
      fan_in = int(np.prod(shape.shape[-own:-1]))
      return draw.reshape(shape.shape) * (2.0 / fan_in) ** 0.5
    fill = 1.0 if name in ("scale", "var") else 0.0
    return jnp.full(shape.shape, fill, shape.dtype)

  values = [value(p, s, n) for (p, s), n in zip(leaves, noise, strict=True)]
  return jax.tree.unflatten(structure, values)


def _name(path) -> str:
  return path[-1].key


def _transpose(trees):
  """{name: {"params", "batch_stats"}} -> {"params": {name: ..}, ..}."""

  def leaf(tree):
    return isinstance(tree, dict) and set(tree) == {"params", "batch_stats"}

  return {
    part: jax.tree.map(lambda t, p=part: t[p], trees, is_leaf=leaf)
    for part in ("params", "batch_stats")
  }


def pick(variables: Mapping, name: str) -> dict:
  """One part's own {"params", "batch_stats"}."""
  return {c: variables[c][name] for c in ("params", "batch_stats")}


def apply(
  plan: Plan,
  variables: Mapping,
  sampled: Sampled,
  images: Array,
  train: bool,
  remat: bool | None = None,
) -> tuple[Array, dict]:
  """Runs the supernet.

  Args:
    plan: the space's plan.
    variables: as `init` makes them.
    sampled: weights f32[E, K] and paths of the plan's groups.
    images: f32[B, H, W, C].
    train: use and update batch statistics.
    remat: gradients compute each cell anew instead of keeping its values;
      None: where that is faster.

  Returns:
    (logits f32[B, classes], new batch statistics).
  """
  stats = dict(variables["batch_stats"])

  def fixed(name, x):
    y, stats[name] = run_block(
      plan.fixed[name], pick(variables, name), x, train
    )
    return y

  def stage(number, x):
    name, part = f"stage_{number}", plan.stages[number].in_supernet()
    group, rows = plan.group_of(number), plan.rows(number)
    blocks, links, entries = _links(part, name, variables)
    body = _cell(plan, part, blocks, train)
    paths = None if sampled.paths is None else sampled.paths[group][rows]
    weights = sampled.weights[group][rows]
    cells = (pick(variables, name), weights, paths, links)
    # Cells in a loop would write what their gradients need to memory and read
    # it back; computing it anew is faster (edge, softmax: 0.93 against 1.22 s)
    # or as fast (NAS-Bench-201, N=5) and takes a quarter to a sixth of the
    # memory. Sampled paths recompute already.
    loop = part.repeats > 1 and paths is None
    if remat or (remat is None and loop):
      body = jax.checkpoint(body, prevent_cse=False)
    if part.repeats == 1:  # x may change its shapes
      x, new = body(x, jax.tree.map(lambda v: v[0], cells))
      new = jax.tree.map(lambda v: v[None], new)
    else:
      x = part.uneven.enter(x) if part.uneven else x
      x, new = lax.scan(body, x, cells)
    stats.update(entries(*new))
    return x

  logits = plan.trunk(images, fixed, stage)
  return logits, stats


def _cell(plan: Plan, part: Stage, links: Mapping[str, Block], train: bool):
  """One cell, as the body of a scan over a stage's.

  Args:
    plan: the space's plan.
    part: the stage.
    links: the blocks of its links.
    train: use and update batch statistics.

  Returns:
    (x, (variables, weights f32[E, K], paths i32[E, P] or None, variables of
    links)) -> (x, new batch statistics of both).
  """
  edges = [
    {c: _without_affine(b) for c, b in edge.items()} for edge in part.edges
  ]

  def body(x, cell):
    own, weights, paths, own_links = cell
    new_links = {}

    def link(name, x):
      y, new_links[name] = run_block(links[name], own_links[name], x, train)
      return y

    def one_of(candidates, variables, x, weights, path):
      new = {}

      def seen(x):
        y, found = mixed(
          candidates, variables, x, weights, path, train, in_loop=True
        )
        new.update(found)
        return y

      return _partly(seen, part, candidates, weights, x), new

    if paths is not None and edge_loop.can_run(part, plan.cell):
      dag, first = plan.cell, plan.cell.enter(x, link)
      nodes, new = edge_loop.run(
        part, dag, edges, own, weights, paths, first, one_of
      )
      x = dag.leave(x, nodes)
      return x, ({**own["batch_stats"], **new}, new_links)
    read = _by_node if part.sources else _each
    whole, statistics = read(part, edges, own, weights, paths, train)

    def edge(e, x):
      return _partly(partial(whole, e), part, edges[e], weights[e], x)

    x = plan.cell(x, edge, link)
    return x, ({**own["batch_stats"], **statistics()}, new_links)

  return body


def _each(part, edges, own, weights, paths, train):
  """(edge(e, x), the batch statistics after all): each edge on its own."""
  new = {}

  def edge(e, x):
    y, new[f"edge_{e}"] = mixed(
      edges[e],
      pick(own, f"edge_{e}"),
      x,
      weights[e],
      None if paths is None else paths[e],
      train,
      keep=part.repeats == 1,
    )
    return y

  return edge, lambda: new


def _partly(run, part: Stage, candidates, weights: Array, x: Array) -> Array:
  """What an edge makes of all channels that sees a part of them.

  Args:
    run: f32[B, H, W, C'] -> f32[B, H', W', C'], its candidates.
    part: the edge's stage.
    candidates: of the edge.
    weights: f32[K], of the edge.
    x: f32[B, H, W, C].

  Returns:
    f32[B, H', W', C].
  """
  if not part.partial:
    return run(x)
  seen, passed = jnp.split(x, [x.shape[-1] // part.partial.share], axis=-1)
  y = run(seen)
  if y.shape[1:3] != x.shape[1:3]:
    odd = [(0, n % 2) for n in x.shape[1:3]]
    passed = jnp.pad(passed, [(0, 0), *odd, (0, 0)], mode="edge")
    passed = pooling.max_pool(passed, 2, 2)
  brings = np.flatnonzero([block is not None for block in candidates.values()])
  passed = scaled(weights[brings].sum(), passed)
  together = jnp.concatenate([y, passed], axis=-1)
  return channel_shuffle(together, part.partial.share)


def _by_node(part, edges, own, weights, paths, train):
  """The same, all edges that read one node at once."""
  pieces = edge_variables.of_nodes(part, own)
  readers = {
    s: [e for e, n in enumerate(part.sources) if n == s] for s in pieces
  }
  done: dict[int, list[Array]] = {}
  new: dict[int, Any] = {}

  def run(s, x):
    rows = np.array(readers[s])
    candidates = edges[rows[0]]
    if paths is None and train:
      return fan_out.run(candidates, pieces[s], x, weights[rows])
    outputs, stats = [], []
    for i, e in enumerate(rows):
      mine = jax.tree.map(lambda v, i=i: v[i], pieces[s])
      path = None if paths is None else paths[e]
      y, found = mixed(
        candidates, mine, x, weights[e], path, train, keep=part.repeats == 1
      )
      outputs.append(y)
      stats.append(found)
    return outputs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *stats)

  def edge(e, x):
    s = part.sources[e]
    if s not in done:
      done[s], new[s] = run(s, x)
    return done[s][readers[s].index(e)]

  return edge, lambda: edge_variables.join_nodes(part, new)


def _links(part: Stage, name: str, variables: Mapping):
  """The links of a stage's cells, as a scan runs them.

  Args:
    part: the stage.
    name: of its variables.
    variables: of the supernet.

  Returns:
    (their blocks, their variables stacked over the cells, a function from the
    stage's new batch statistics, of edges and of links, to entries of all).
  """
  uneven = part.uneven
  if uneven is None:
    own = pick(variables, name)
    links = {n: pick(own, n) for n in part.links}
    return part.links, links, lambda new, of_links: {name: {**new, **of_links}}
  alone = part.repeats == 1
  blocks, links = {}, {}
  for n, block in part.links.items():
    own = [_without_affine(part.link(r, n)) for r in range(part.repeats)]
    blocks[n] = own[0] if alone else _without_affine(block)
    trees = [pick(variables, uneven.name(r, n)) for r in range(part.repeats)]
    if not alone:
      trees = [
        uneven.even(b, blocks[n], v) for b, v in zip(own, trees, strict=True)
      ]
    links[n] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)

  def entries(new, of_links):
    found = {name: new}
    for n, stacked in of_links.items():
      for r in range(part.repeats):
        own = jax.tree.map(lambda v, r=r: v[r], stacked)
        if not alone:
          own = uneven.stats(part.link(r, n), own)
        found[uneven.name(r, n)] = own
    return found

  return blocks, links, entries
