"""What a network costs on paper: operations, parameters, bytes."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

FLOPS_CONVENTION = "GFLOPs = 2 x multiply-accumulates of convolutions and matrix products, in 10^9"
"""Printed beside every figure. The paper's own figure for AOD-Net, 0.998, is this at 620 x 460 to 0.2 %."""


def flops(model: nn.Module, height: int, width: int, batch: int = 1) -> int:
    """Operations of one forward pass, 2 for each multiply-accumulate of convolutions and matrix products.

    Counted from the shapes alone: nothing is computed, so the size of the picture costs no time.

    Args:
        model: Network taking (N, 3, H, W).
        height: H in pixels.
        width: W in pixels.
        batch: N.
    """
    shadow = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shadow(torch.empty(batch, 3, height, width, device="meta", dtype=next(shadow.parameters()).dtype))
    return int(counter.get_total_flops())
