"""Exported networks computed by ONNX Runtime, which starts many times faster than PyTorch."""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from dehaze.errors import ModelError, UsageError
from dehaze.machine import available_cpus
from dehaze.runtimes import Precision
from dehaze.upsample import Map
from dehaze.weights.exported import Exported

if TYPE_CHECKING:
    from torch import Tensor

_CUDA = "CUDAExecutionProvider"
_FATAL = 4
"""Severity below which ONNX Runtime is to print nothing: its errors reach us as exceptions."""

_CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
"""Full float32 precision, and no search for the fastest algorithm at every new size of picture."""


class OnnxNetwork:
    """See `dehaze.runtimes.Network`.

    Args:
        model: An exported network.
        device: ``auto`` is the CPU; ``cuda`` and ``cuda:N`` need a build of ONNX Runtime for them.
        precision: ``auto`` or ``fp32``.

    Raises:
        UsageError: The device is not there, or the precision is another.
        ModelError: ONNX Runtime is not installed, or cannot run the file.
    """

    def __init__(self, model: Exported, *, device: str, precision: Precision) -> None:
        if precision not in ("auto", "fp32"):
            raise UsageError(
                f"{model.path} computes in fp32; precision {precision} is not possible",
                "use --precision fp32, or the model's .safetensors file",
            )
        self.parameters = model.header.parameters
        self.precision = "fp32"
        self.device = "cpu" if device == "auto" else device
        runtime = _runtime(model)
        self._session = _open_session(runtime, model, self.device)
        self._path, self._errors = model.path, _errors(runtime)

    def __call__(self, batch: Map) -> Map:
        """See `dehaze.runtimes.Network`."""
        answer = self._run(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
        return np.ascontiguousarray(answer.transpose(0, 2, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See `dehaze.runtimes.Network`."""
        import torch

        return torch.from_numpy(self._run(x.contiguous().cpu().numpy())).to(x.device)

    def free_memory(self) -> int | None:
        """See `dehaze.runtimes.Network`; on a GPU, ONNX Runtime does not tell."""
        return None

    def _run(self, x: Map) -> Map:
        """(N, 3, h, w) -> (N, 3, h, w), one at a time, as the file is made for."""
        try:
            answers: list[Map] = [self._session.run(["clear"], {"hazy": one[None]})[0] for one in x]
        except self._errors as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"ONNX Runtime cannot run {self._path}: {reason}", "export it again") from error
        return answers[0] if len(answers) == 1 else np.concatenate(answers)


def _open_session(runtime: Any, model: Exported, device: str) -> Any:
    providers = _providers(device, runtime)
    options = runtime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = available_cpus()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    # Threads that have nothing to do sleep: others decode and encode meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        # Its own fallback to another device would announce itself on stdout, where a picture may go.
        session = runtime.InferenceSession(
            model.path.read_bytes(), options, providers=providers, enable_fallback=False
        )
    except _errors(runtime) as error:
        reason = str(error).splitlines()[0]
        raise ModelError(
            f"ONNX Runtime {runtime.__version__} cannot run {model.path} on device '{device}': {reason}",
            "export it again" if device == "cpu" else "use --device cpu",
        ) from error
    if device != "cpu" and _CUDA not in session.get_providers():
        raise UsageError(
            f"device '{device}' is not available: ONNX Runtime finds no usable NVIDIA GPU or CUDA libraries",
            "use --device cpu",
        )
    return session


def _errors(runtime: Any) -> tuple[type[Exception], ...]:
    """Its exceptions, which have no base class of their own, and what damaged text in a file raises."""
    members = vars(runtime.capi.onnxruntime_pybind11_state).values()
    own = (m for m in members if isinstance(m, type) and issubclass(m, Exception))
    return (*own, UnicodeDecodeError)


def _providers(device: str, runtime: Any) -> list[Any]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    cuda = re.fullmatch(r"cuda(?::(\d+))?", device)
    if cuda is None and device != "mps":
        raise UsageError(f"unknown device '{device}': expected auto, cpu, cuda, cuda:N or mps")
    if cuda is None or _CUDA not in runtime.get_available_providers():
        raise UsageError(
            f"device '{device}' is not available: this ONNX Runtime does not support it",
            "use --device cpu, or the model's .safetensors file",
        )
    return [(_CUDA, {"device_id": cuda[1] or "0", **_CUDA_OPTIONS}), "CPUExecutionProvider"]


def _runtime(model: Exported) -> Any:
    try:
        runtime = importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"to use {model.path} as a model, the package 'onnxruntime' is needed, which is not installed",
            'pip install "dehaze-cli[onnx]"',
        ) from error
    runtime.disable_telemetry_events()
    runtime.set_default_logger_severity(_FATAL)
    return runtime
