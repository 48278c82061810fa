"""What is said of devices that this machine may not have."""

from __future__ import annotations

import pytest

from dehaze.device import computes_bf16


@pytest.mark.parametrize(
    ("machine", "capability", "expected"),
    [
        ("x86_64", "AVX2", False),
        ("AMD64", "DEFAULT", False),
        ("x86_64", "AVX512", True),
        ("arm64", "DEFAULT", True),
    ],
)
def test_old_processors_have_no_bfloat16(
    machine: str, capability: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dehaze.device.platform.machine", lambda: machine)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert computes_bf16("cpu") is expected
    assert computes_bf16("cuda")
