"""What a network costs: workloads, tables, devices."""

from nasjax.hardware.device import Device, device, device_names
from nasjax.hardware.workload import (
  SpaceWorkloads,
  Workload,
  additive_metric,
  flops,
  macs,
  params,
)

__all__ = [
  "Device",
  "SpaceWorkloads",
  "Workload",
  "additive_metric",
  "device",
  "device_names",
  "flops",
  "macs",
  "params",
]
