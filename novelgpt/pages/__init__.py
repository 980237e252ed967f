"""What people look at in a browser: single HTML pages that load nothing from elsewhere.

The door of this wing. Jinja2 stands behind it, so each name is loaded when it is first asked for.
"""

import importlib

PLACES = {"report_page": "corpus", "surprise_page": "surprise", "write_surprise_page": "surprise"}


def __getattr__(name: str) -> object:
    """Load a name of the wing."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
