"""Networks computed by PyTorch."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from dehaze.device import check_precision, resolve_device, settle
from dehaze.errors import UsageError
from dehaze.limits import Limits
from dehaze.models import count_parameters
from dehaze.runtimes import Precision
from dehaze.upsample import Map

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchNetwork:
    """See `dehaze.runtimes.Network`.

    Args:
        model: A dehazing network from `dehaze.models`; copied, so the caller's stays as it is.
        name: What messages call it.
        device: As for `resolve_device`.
        precision: ``auto`` is fp32 but on CUDA, where it is fp16 if the network allows.

    Raises:
        UsageError: The device is not there, or the network does not go with the precision there.
    """

    def __init__(self, model: nn.Module, name: str, *, device: str, precision: Precision) -> None:
        limits: Limits = model.limits  # type: ignore[assignment]
        self._device = resolve_device(device)
        self.parameters = count_parameters(model)
        self.device = str(self._device)
        self.precision = _choose_precision(precision, self._device, limits, name)
        self._dtype = _DTYPES[self.precision]
        settle(self._device)
        ready = copy.deepcopy(model).eval().requires_grad_(False)
        self._model = ready.to(self._device, self._dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def __call__(self, batch: Map) -> Map:
        """See `dehaze.runtimes.Network`."""
        # Channels last is how pictures lie in memory: neither permute moves a byte on the CPU.
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device).permute(0, 3, 1, 2)
        answer: Map = self.forward(x).permute(0, 2, 3, 1).contiguous().cpu().numpy()
        return answer

    def forward(self, x: Tensor) -> Tensor:
        """See `dehaze.runtimes.Network`."""
        with torch.inference_mode():
            if self._dtype == torch.float32:
                return self._model(x)  # type: ignore[no-any-return]
            with torch.autocast(self._device.type, self._dtype):
                # Weights are in half precision already; autocast keeps the picture itself and the residual in
                # float32, as bfloat16 near 1 steps by two 8-bit levels.
                answer: Tensor = self._model(x).float()
            if not answer.isfinite().all():  # float16 ends at 65504
                answer = copy.deepcopy(self._model).float()(x)
            return answer

    def free_memory(self) -> int | None:
        """See `dehaze.runtimes.Network`."""
        return int(torch.cuda.mem_get_info(self._device)[0]) if self._device.type == "cuda" else None


def _choose_precision(asked: str, device: torch.device, limits: Limits, name: str) -> str:
    if asked == "auto":
        return "fp16" if device.type == "cuda" and limits.half else "fp32"
    check_precision(asked, device)
    if asked != "fp32" and not limits.half:
        raise UsageError(f"model '{name}' does not hold in half precision", "use --precision fp32")
    return asked
