import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from diptych import hardware
from diptych.hardware import free_memory, native_bf16, peak_memory, resident_memory


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="the processor is not told")
def test_bfloat16_is_native_where_the_processor_has_instructions_for_it():
    words = set(Path("/proc/cpuinfo").read_text(errors="replace").split())
    assert native_bf16("cpu") == bool({"avx512_bf16", "amx_bf16"} & words)


def test_a_kind_of_device_that_is_not_known_computes_in_float32():
    assert native_bf16("mps") is False


def test_a_limit_of_the_address_space_is_respected():
    code = """
import resource, sys
from diptych.hardware import free_memory
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
print(free_memory())
"""
    free = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert (32 << 20) < free <= (64 << 20)


def test_a_containers_limit_is_respected_and_cached_files_give_way(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("2900\n")
    (tmp_path / "memory.stat").write_text("anon 2400\ninactive_file 500\n")
    here = (str(tmp_path / "memory.max"), str(tmp_path / "memory.current"), "inactive_file")
    monkeypatch.setattr(hardware, "CGROUPS", (here,))
    assert free_memory() == 600
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 600


def test_what_a_process_has_taken_is_known():
    before = resident_memory()
    with mmap.mmap(-1, 64 << 20) as held:  # new pages, whatever the process had taken and freed before
        held.write(b"\1" * len(held))
        assert resident_memory() - before > len(held) // 2
    assert peak_memory() >= resident_memory() // 2
