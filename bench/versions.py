"""What bench/first_gpu.sh runs on: versions of the libraries, GPUs as torch sees them, whether Numba compiles here.

python bench/versions.py
"""

import platform
import time
from importlib.metadata import PackageNotFoundError, version

PACKAGES = "torch transformers tokenizers safetensors numpy numba llvmlite triton accelerate xllamacpp gguf ctranslate2"


def find_version(package: str) -> str:
    """Return the version of a package, or that it is not there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """Print it all; what fails raises, and the script goes on with its next step."""
    print(f"python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES.split():
        print(f"{package} {find_version(package)}")
    import torch

    print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, available: {torch.cuda.is_available()}")
    for index in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(index)
        print(f"GPU {index}: {facts.name}, {facts.total_memory / 2**30:.1f} GiB, sm_{facts.major}{facts.minor}")
        free, total = torch.cuda.mem_get_info(index)
        print(f"  free {free / 2**30:.1f} of {total / 2**30:.1f} GiB, bf16 {torch.cuda.is_bf16_supported(False)}")
    if torch.cuda.device_count() > 1:
        print(f"NCCL {torch.cuda.nccl.version()}, 0 reads 1: {torch.cuda.can_device_access_peer(0, 1)}")
    # the loops of training and writing on a CPU are compiled by Numba
    start = time.perf_counter()
    from numba import njit

    assert njit(lambda value: value + 1)(1) == 2
    print(f"Numba compiles: {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
