"""What a device could do at most, and how much memory this process has used."""

from __future__ import annotations

import re

import torch

from headrace.flow.worker import peak_bytes
from headrace.recipe.training import TrainSection

# Dense bf16 operations per second, by the name that torch.cuda.get_device_name gives; the first match counts. From the
# makers' documents, halved where these state the rate with sparsity (*): NVIDIA's Blackwell technical brief, table 3
# (GB200 5,000*, HGX B200 4,500*, B300 too), data sheets of H200 (SXM 1,979*, NVL 1,671*), H100 (1,979*, NVL 1,671*,
# PCIe 1,513*), GH200, A100 (312), L40S (362.05 | 733*), L40 (181.05 | 362.1*), L4 (242*), A40 (149.7 | 299.4*), A30
# (165), A10 (125), and the Ada whitepaper, appendix A (RTX 4090: 165.2, accumulating in float32); AMD's data sheets of
# MI300X and MI325X (1,307.4) and MI250X (383 for two devices). V100 and T4 have no bf16, TPUs are not torch.cuda's.
# Looked up for B200, B300, H100 SXM, L40, L40S, A40 and MI250X; the others are as commonly cited.
PEAKS = (
    (r"\bGB[23]00\b", 2500e12),
    (r"\bB[23]00\b", 2250e12),
    (r"\bH[12]00 NVL\b", 835.5e12),
    (r"\bH100 PCIe\b", 756e12),
    (r"\bG?H[128]00\b", 989.4e12),
    (r"\bA[18]00\b", 312e12),
    (r"\bL40S\b", 362e12),
    (r"\bL40\b", 181e12),
    (r"\bL4\b", 121e12),
    (r"\bA40\b", 149.7e12),
    (r"\bA30\b", 165e12),
    (r"\bA10\b", 125e12),
    (r"\bRTX 4090\b", 165.2e12),
    (r"\bMI3(00|25)X\b", 1307.4e12),
    (r"\bMI250X\b", 191.5e12),
)


def peak_flops(section: TrainSection, device: torch.device) -> float | None:
    """The peak that a utilization of the device is told against; None if nothing can be claimed.

    It is what the recipe states, or else the table's for products in bfloat16.
    """
    if section.peak_flops is not None:
        return section.peak_flops
    if device.type != "cuda" or section.precision != "bf16":
        return None
    return known_peak(torch.cuda.get_device_name(device))


def known_peak(name: str) -> float | None:
    """The table's peak for a device's name; None for a slice of a device, and for others."""
    return None if "MIG" in name else next((peak for pattern, peak in PEAKS if re.search(pattern, name)), None)


def peak_memory(device: torch.device) -> int:
    """The most bytes that this process has had at once: allocated on its accelerator, or resident."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()
