"""The search spaces: what can be built."""

from nasjax.spaces.darts import darts
from nasjax.spaces.decision import decide
from nasjax.spaces.edge import edge
from nasjax.spaces.fbnet import fbnet
from nasjax.spaces.macro import macro
from nasjax.spaces.mobilenet import mobilenet
from nasjax.spaces.nasbench201 import (
  from_string as nasbench201_from_string,
)
from nasjax.spaces.nasbench201 import nasbench201
from nasjax.spaces.nasbench201 import (
  to_string as nasbench201_to_string,
)
from nasjax.spaces.space import Architecture, architecture
from nasjax.spaces.tiny import shrink, tiny

__all__ = [
  "Architecture",
  "architecture",
  "darts",
  "decide",
  "edge",
  "fbnet",
  "macro",
  "mobilenet",
  "nasbench201",
  "nasbench201_from_string",
  "nasbench201_to_string",
  "shrink",
  "tiny",
]
