"""The floors of the libraries."""

from importlib.metadata import PackageNotFoundError

import pytest

from novelgpt.messages import UserError
from novelgpt.versions import check_versions

GOOD = {"torch": "2.13.0+cpu", "transformers": "5.17.0", "safetensors": "0.8.0", "numba": "0.68.1"}


def test_the_versions_here_are_new_enough():
    check_versions()


@pytest.mark.parametrize(
    ("package", "found", "needed"),
    [
        ("torch", "2.9.1", "2.10"),
        ("transformers", "4.57.6", "5.3"),
        ("safetensors", "0.7.9rc1", "0.8"),
        ("numba", "0.67.0", "0.68"),
    ],
)
def test_an_old_library_is_refused_with_the_command_that_repairs_it(package, found, needed):
    with pytest.raises(UserError) as caught:
        check_versions({**GOOD, package: found}.__getitem__)
    expected = f"error: {package}: found {found}, expected {needed} or newer\n\nhint: pip install -r requirements.txt"
    assert (str(caught.value), caught.value.code) == (expected, 4)


def test_a_missing_library_is_named():
    def find(package):
        raise PackageNotFoundError(package)

    with pytest.raises(UserError, match=r"torch: found no version, expected 2\.10 or newer"):
        check_versions(find)
