"""devices.cpp -> a shared library beside the wheel's own, built once for each torch and kept in build/pretended."""

import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

SOURCE = Path(__file__).with_name("devices.cpp")


def find_torch() -> Path:
    """Return the folder of torch without importing it."""
    return Path(importlib.util.find_spec("torch").submodule_search_locations[0])


def why_not() -> str | None:
    """Return why this machine cannot pretend a GPU; None where it can."""
    if not sys.platform.startswith("linux"):
        return "GPUs are pretended on Linux only"
    if not shutil.which("g++"):
        return "no g++, which builds the library of the pretended GPUs"
    if not (find_torch() / "include/c10").is_dir() or (find_torch() / "lib/libtorch_cuda.so").exists():
        return "GPUs are pretended in a torch for CPUs that has its headers"
    return None


def build_library() -> Path:
    """Return the library's path, compiled if it is not there yet."""
    key = hashlib.sha256(SOURCE.read_bytes() + version("torch").encode()).hexdigest()[:16]
    path = SOURCE.parents[2] / "build" / "pretended" / f"{key}.so"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    torch, half = find_torch(), path.with_suffix(f".{os.getpid()}")
    words = ["g++", "-shared", "-fPIC", "-std=c++20", f"-I{torch}/include", str(SOURCE), "-o", str(half)]
    subprocess.run([*words, f"-L{torch}/lib", "-lc10", "-ltorch_cpu"], check=True)
    half.rename(path)  # whole or not at all: two processes may build at once
    return path


def load_library(path: Path) -> None:
    """Load the library; torch looks into its registries at the first question, so this comes before it is imported."""
    assert "torch" not in sys.modules
    for name in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(find_torch() / "lib" / name), ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(path))
