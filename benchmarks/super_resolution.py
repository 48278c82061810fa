"""How well teachers enlarge clear pictures, side by side: the PSNR of the paper's Tables 1 to 4.

    python benchmarks/super_resolution.py SOTS/indoor/gt runs/teacher/best.safetensors runs/b/best.safetensors
    python benchmarks/super_resolution.py SOTS/indoor/gt runs/teacher/best.safetensors --enlarge 2

Each picture is reduced by the teacher's factor (antialiased bicubic) and enlarged back; the paper does not
say how it reduced. `--enlarge 2` makes truths of twice the size first, as the 1240 x 920 of Tables 2 and 4
must have been made from 620 x 460: such pictures hold no fine detail, which is why their figures are so high.
Bicubic interpolation by the same factors stands beside the teachers.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from dehaze.training.validation import SuperResolutionValidator
from dehaze.weights.checkpoint import Header, load_checkpoint

Pixels = npt.NDArray[np.uint8]


class Bicubic(nn.Module):
    """Plain interpolation: (N, 3, H, W) -> (N, 3, scale H, scale W)."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge."""
        return functional.interpolate(x, scale_factor=self.scale, mode="bicubic")


def pictures(folder: Path, enlarge: int) -> list[Pixels]:
    """Read a folder's PNG and JPEG files as RGB, enlarged by bicubic interpolation."""
    found = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in {".png", ".jpg", ".jpeg"}]
    if not found:
        raise SystemExit(f"no PNG or JPEG files in {folder}")
    read = [cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in found]
    if enlarge > 1:
        read = [cv2.resize(p, None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC) for p in read]
    return [np.asarray(p, np.uint8) for p in read]


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of clear pictures")
    parser.add_argument("teachers", type=Path, nargs="+", help="checkpoints of teachers")
    parser.add_argument("--enlarge", type=int, default=1, help="make truths this much larger first")
    options = parser.parse_args()
    clear = pictures(options.data, options.enlarge)
    height, width = clear[0].shape[:2]
    device = torch.device("cpu")
    loaded = [(str(path), *load_checkpoint(path)) for path in options.teachers]
    scales = sorted({model.limits.scale for _, model, _ in loaded})
    plain = [(f"bicubic {scale}x", Bicubic(scale), Header("bicubic", "bicubic")) for scale in scales]
    print(f"PSNR in dB, {len(clear)} pictures, the first {width} x {height}")
    for name, model, header in plain + loaded:
        scale = model.scale if isinstance(model, Bicubic) else model.limits.scale
        judge = SuperResolutionValidator(clear, scale, device)
        print(f"{judge(model, header)['psnr']:6.2f}  {name}")


if __name__ == "__main__":
    main()
