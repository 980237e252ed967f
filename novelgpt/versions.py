"""The oldest libraries that are safe and right for this project, checked with one line."""

import re
from importlib.metadata import PackageNotFoundError, version

from novelgpt.messages import EXIT_ENVIRONMENT, UserError

# torch: its restricted loader was unsafe before; transformers: config could load code; safetensors: atomic saves;
# numba: kernels/ was never compiled by an older one
FLOORS = {"torch": (2, 10), "transformers": (5, 3), "safetensors": (0, 8), "numba": (0, 68)}


def check_versions(find=version) -> None:
    """Raise when a library is missing or too old.

    Args:
        find: package name -> version text, raises PackageNotFoundError.

    Raises:
        UserError: with the command that repairs it.
    """
    for package, floor in FLOORS.items():
        needed = ".".join(map(str, floor))
        try:
            found = find(package)
        except PackageNotFoundError:
            found = "no version"
        numbers = tuple(int(number) for number in re.findall(r"\d+", found)[:2])
        if numbers < floor:
            message = f"{package}: found {found}, expected {needed} or newer"
            raise UserError(message, "pip install -r requirements.txt", EXIT_ENVIRONMENT)
