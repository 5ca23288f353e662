"""What `nasjax search` is told, as one frozen dataclass; see `flags`."""

from __future__ import annotations

import dataclasses

from nasjax.cli import low_bits
from nasjax.cli.flags import add_flags as add_flags
from nasjax.cli.flags import convert as convert
from nasjax.cli.flags import flag as flag
from nasjax.cli.flags import from_flags as from_flags
from nasjax.cli.flags import option
from nasjax.cli.flags import to_yaml as to_yaml
from nasjax.defaults import AUTO
from nasjax.errors import InputError
from nasjax.reader import whole

MAX_SIDE = 4096  # pixels, and channels
AUGMENT_HELP = (
  "augmentation of training images: auto (a crop by an eighth; fashion-mnist"
  " and CIFAR-10: mirrored too), none, or a list of flip, crop[=PIXELS],"
  " cutout[=PIXELS]"
)
MAX_SEED = 2**32 - 1  # jax.random.key takes no more bits


def height_and_width(text: str, where: str) -> tuple[int, int]:
  """Reads a side in pixels, or HEIGHTxWIDTH.

  Args:
    text: of the user.
    where: what a message calls it.

  Raises:
    InputError: it is neither, or a side is out of range.
  """
  sides = text.lower().split("x")
  if len(sides) > 2:
    raise InputError(where, f"{text[:40]!r} is no side and no HEIGHTxWIDTH")
  height, *rest = (whole(side, where, low=1, high=MAX_SIDE) for side in sides)
  return height, rest[0] if rest else height


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """What `nasjax search` is told."""

  space: str = option(
    "edge",
    "search space: edge, nasbench201, darts, mobilenet, tiny, fbnet, macro, or"
    " path/to/file.py:name",
  )
  strategy: str = option(
    "differentiable",
    "differentiable (gradient search), enas (a controller learns what to"
    " propose), hybrid (gradient search, then evolution and gradients in turn),"
    " or a supernet of single paths that is trained first and then searched by"
    " nsga2, random or staged (predictors learn from what was evaluated and say"
    " what to evaluate next)",
    choices=("differentiable", "enas", "hybrid", "nsga2", "random", "staged"),
  )
  population: int | None = option(
    None,
    "evolution: architectures evaluated a generation; default 50, hybrid 25,"
    " staged 15",
    low=4,
    high=10_000,
  )
  generations: int | None = option(
    None,
    "evolution: generations; default 20, staged 14 after the first predictors",
    low=1,
    high=10_000,
  )
  predictor_samples: int = option(
    150,
    "staged: random architectures that the first predictors learn from",
    low=10,
    high=10_000,
  )
  refine_every: int = option(
    2,
    "hybrid: of so many generations the last is refined by gradients",
    low=1,
    high=10_000,
  )
  refine_through: str = option(
    "predictor",
    "hybrid: whose gradients refine: predictor, fitted to all that was"
    " evaluated, or supernet, its own loss at its weights",
    choices=("predictor", "supernet"),
  )
  measured: str | None = option(
    None,
    "evolution: what measures costs of each architecture that is"
    " evaluated, in place of the device's model: onnxruntime (on this machine),"
    " path/to/file.py:name or a command line with {onnx}",
  )
  data: str = option(
    "digits",
    "images: digits, fashion-mnist, FILE.npz, a CIFAR-10 (binary), IDX or"
    " image folder",
  )
  image_size: str | None = option(
    None,
    "pixels that images are resized to: a side of a square, or HEIGHTxWIDTH;"
    " tiny: default, what suits the limits",
    check=height_and_width,
  )
  resize: str = option(
    "stretch",
    "how images become another shape: stretch, pad (whole, zeros around) or"
    " crop (filled, cut around the middle)",
    choices=("stretch", "pad", "crop"),
  )
  background: str | None = option(
    None,
    "image folders: what shines through transparent pixels, white, black, grey"
    " or RRGGBB; default white, grey where pictures would become equal on it",
  )
  channels_in: int | None = option(
    None,
    "channels of the images, 1 (gray) or 3; default: 3 if any has colours",
    low=1,
    high=3,
  )
  group_by: str | None = option(
    None,
    "image folders: regular expression of a part of the file name; files that"
    " agree in it (frames of a film, a person) stay in one part of the data",
  )
  skip_broken: bool = option(
    False, "image folders: go on without files that cannot be read"
  )
  keep_duplicates: bool = option(
    False, "training images that stand in the test set too stay in both"
  )
  max_dataset_bytes: int = option(
    4 * 2**30, "most bytes that the decoded images and labels may have", low=1
  )
  augment: str = option(
    AUTO,
    AUGMENT_HELP,
  )
  relaxation: str | None = option(
    None,
    "softmax, gumbel_softmax, gdas, proxyless, sparsemax, dirichlet,"
    " or path/to/file.py:name; default proxyless, of hybrid gdas",
  )
  temperature: float | None = option(
    None,
    "of the relaxation at the start; default: its own",
    low=0.01,
    high=1e6,
  )
  temperature_end: float | None = option(
    None, "of the relaxation at the end, reached linearly", low=0.01, high=1e6
  )
  hypergradient: str = option(
    "first_order", "single_level, first_order, unrolled, finite_difference"
  )
  objective: tuple[str, ...] = option(
    ("cross_entropy",),
    "what is minimised, NAME or NAME=COEFFICIENT: cross_entropy (where no"
    " gradient is needed the error, 1 - accuracy), latency_ms,"
    " energy_mj, edp_mj_ms, cost, params, macs, flops, and what limits name, in"
    " bytes (metrics count over their median), worst_METRIC (the smooth worst"
    " over several devices), quantization_error and weight_asymmetry (of the"
    " weights of --from; nsga2 and random quantise whole networks),"
    " efficiency, mnasnet_soft, mnasnet_hard (their target is the first"
    " limit), or a weighted sum,"
    " DEVICE:latency_ms+2*DEVICE:latency_ms",
  )
  weighting: str = option(
    "constant",
    "how objectives share a step: constant, chebyshev, mgda, pcgrad, upgrad,"
    " exact_pareto (coefficients times objectives become equal),"
    " epsilon_constraint (coefficients bound all but the first)",
  )
  normalization: str | None = option(
    None,
    "of gradients for mgda and epsilon_constraint: none (default), l2, loss,"
    " loss+",
    choices=("none", "l2", "loss", "loss+"),
  )
  penalty: str = option(
    "quadratic",
    "how a limit pushes back: quadratic, augmented_lagrangian, log_barrier,"
    " equality (the limit is also filled), or objective (it becomes one)",
  )
  tighten: float | None = option(
    None,
    "limits begin at so many times themselves and tighten exponentially;"
    " default: they hold from the start",
    low=1,
    high=1e6,
  )
  penalty_strength: float = option(
    30.0, "of the penalty, in loss units", low=0, high=1e9
  )
  epochs: int | None = option(
    None,
    "epochs; default: as many as make about 1800 steps",
    low=1,
    high=10**6,
  )
  warmup: float = option(
    0.5, "share of the steps that train weights alone", low=0, high=1
  )
  batch_size: int | None = option(
    None,
    "images a step; default 64, or all of a smaller half",
    low=1,
    high=10**6,
  )
  channels: int | None = option(
    None,
    "channels of the first stage; default 16, macro 32",
    low=1,
    high=MAX_SIDE,
  )
  width: int | None = option(
    None, "tiny: percent of all channels; default: what suits the limits", low=1
  )
  cells: int | None = option(
    None, "cells a stage; default: edge 1, nasbench201 5, fbnet 4", low=1
  )
  nodes: int | None = option(None, "nodes a cell; default 3, darts 4", low=1)
  links: str | None = option(
    None, "edge: residual (default), dense, linear_bottleneck"
  )
  activation: str | None = option(
    None, "relu6 (default of edge), relu (default of fbnet, macro), hswish"
  )
  channel_multiple: int | None = option(
    None,
    "fbnet, macro: all channels are multiples of it, such as a device's vectors"
    " of 4, 8 or 16; default 2 and 1",
    low=1,
    high=MAX_SIDE,
  )
  widths: tuple[int, ...] = option(
    (),
    "mobilenet: candidates of each stage in percent of its channels, such as 50"
    " 75 100 125; default: 100 alone",
    low=10,
    high=400,
  )
  shared_kernels: bool = option(
    False,
    "mobilenet: smaller kernels are the centres of the largest, a super-kernel"
    " for all, instead of having weights of their own",
  )
  partial_channels: int | None = option(
    None,
    "darts: the supernet's operations see one channel in so many and edges are"
    " weighed (PC-DARTS, 4); default 1",
    low=1,
    high=MAX_SIDE,
  )
  block: str | None = option(
    None,
    "edge: inverted_residual (default), separable_expansion_3,"
    " group_conv_3x3_groups_4, fused_inverted_residual_3, or device: what the"
    " first device prefers",
  )
  quantization_rule: tuple[str, ...] = option(
    (),
    "what quantises and vectorises well, in any space: bounded_activations,"
    " largest_expansion=N,"
    " channel_multiple=N or =device (what fills its vectors)",
  )
  learning_rate: float = option(
    0.05, "of the weights (SGD, cosine to 0)", low=0, high=1e6
  )
  arch_learning_rate: float | None = option(
    None,
    "of the architecture parameters (Adam); default 0.02, enas 0.0035",
    low=0,
    high=1e6,
  )
  arch_weight_decay: float | None = option(
    None,
    "of the architecture parameters; default: the relaxation's own, 0.001 for"
    " softmax (DARTS), else 0",
    low=0,
    high=1e6,
  )
  controller_samples: int = option(
    10, "enas: networks that a controller step rewards", low=1, high=1000
  )
  entropy_weight: float = option(
    1e-3, "enas: reward of a nat of the controller's entropy", low=0, high=1e6
  )
  device: tuple[str, ...] = option(
    (),
    "what it must run on: a name of `nasjax hw list`, TABLE.csv or"
    " PROFILE.toml; may be repeated; default:"
    " x86-server if a limit or objective needs one, or in the default run",
  )
  from_: str | None = option(
    None,
    "run folder whose trained supernet this search starts from; its options"
    " hold where no flag says otherwise, without warm-up. With a new --device"
    " its architecture parameters are taken too, and a quarter of its epochs",
  )
  limit: tuple[str, ...] = option(
    (),
    "upper bound, METRIC=VALUE: latency_ms (ms), energy_mj (mJ), params, macs,"
    " flops, skips, peak_sram_kib, flash_kib, working_set_kib (KiB), cost; with"
    " several devices DEVICE:METRIC=VALUE; LOW..HIGH with --front; may be"
    " repeated",
  )
  front: int | None = option(
    None,
    "architectures searched at once in one supernet, spread evenly over the"
    " limits that are given as LOW..HIGH",
    low=1,
    high=64,
  )
  check_ranking: int | None = option(
    None,
    "architectures trained alone at the end, to see how well the supernet"
    " ranks them",
    low=3,
    high=1000,
  )
  retrain: int | None = option(
    None,
    "epochs that the decided network is trained alone at the end, and tested"
    " then, as by nasjax retrain",
    low=1,
    high=10**6,
  )
  device_batch: int = option(
    1, "images in the call that device metrics count", low=1, high=10**9
  )
  device_bits: int = option(
    32, "bits of the network that device metrics count: 32 or 8", low=1, high=64
  )
  interpolate: bool = option(
    False, "device metrics: also between a table's measured shapes"
  )
  in_place_depthwise: bool = option(
    False,
    "peak_sram_bytes: depthwise convolutions write over their input, one"
    " channel aside",
  )
  edp_deadline_ms: float | None = option(
    None,
    "edp_mj_ms: each network runs at its own best frequency within this time;"
    " default: at the profile's",
    low=1e-6,
    high=1e9,
  )
  operation_dropout: float = option(
    0.0,
    "rate at which skips are dropped while sampling, falling to 0",
    low=0,
    high=1,
  )
  stop_on_skips: float | None = option(
    None, "share of edges led by skips at which the search stops", low=0, high=1
  )
  remat: str = option(
    "auto",
    "cells computed anew for gradients instead of kept: auto (where faster),"
    " on (least memory), off",
    choices=("auto", "on", "off"),
  )
  activations: str = option(
    "float32",
    "type of the network's values while searching: float32, bfloat16",
    choices=("float32", "bfloat16"),
  )
  quantize_bits: int | None = low_bits.quantize_bits()
  quantize_scale: str = low_bits.quantize_scale()
  asymmetry_penalty: float = low_bits.asymmetry_penalty()
  checkpoint_minutes: float = option(
    5.0, "longest time between checkpoints; each epoch ends with one", low=0
  )
  skip_steps: int = option(
    3,
    "steps in a row that are left out when a number in them is not finite; one"
    " more and the search stops",
    low=0,
  )
  score_images: int | None = option(
    None,
    "validation images that score a network, each class by its share; default:"
    " all up to 10000, nsga2, random, staged and hybrid 2048",
    low=1,
    high=10**9,
  )
  seed: int = option(0, "of everything random", low=0, high=MAX_SEED)
  split_seed: int | None = option(
    None,
    "of the split into halves for weights and architecture; default: --seed;"
    " with --from the run's",
    low=0,
    high=MAX_SEED,
  )
  out: str | None = option(
    None, "run folder; default runs/SPACE-DATA-DATE-TIME"
  )
  row_order: int | None = option(
    None, "version of the order of the images", fact=True
  )
  classes: tuple[str, ...] = option(
    (), "names of the classes, in the order of the outputs", fact=True
  )
  data_digest: str | None = option(
    None, "SHA-256 of the images and labels", fact=True
  )
