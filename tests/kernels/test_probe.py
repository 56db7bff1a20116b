"""What `qtool doctor` says about compiled products: that they are used, or why not."""

import pytest

from qtool.kernels import probe
from qtool.kernels.cpu import native_build, native_cpu


def test_compiled_products_are_named_as_used_or_with_the_reason_why_not() -> None:
    refusal = native_cpu.refusal()
    line = next(remark for remark in probe.capabilities().remarks if remark.startswith("compiled products"))
    assert native_build.SWITCH in line if not refusal else refusal in line
    kernels = {choice.scheme: choice.kernel for choice in probe.capabilities().kernels}
    assert ("compiled" in kernels["w4a16 g128"]) == (not refusal)


def test_without_them_torch_does_the_work_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_cpu, "refusal", lambda: "g++ was not found")
    found = probe.capabilities()
    assert any("g++ was not found" in remark for remark in found.remarks)
    assert not any("compiled" in choice.kernel for choice in found.kernels)
