from pathlib import Path

import pytest

from diptych.hardware import native_bf16


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor is not told")
def test_bfloat16_is_native_where_the_processor_has_instructions_for_it():
    words = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    assert native_bf16("cpu") == bool({"avx512_bf16", "amx_bf16"} & words)


def test_a_kind_of_device_that_is_not_known_computes_in_float32():
    assert native_bf16("mps") is False
