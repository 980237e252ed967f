"""Writing with the book in the browser: stories on disk, jobs of one engine, a local server and its page.

    page, other front ends ─server─ requests ─engine─ jobs that grow ─ pieces of text
                               └─ stories: journals on disk

The door of this wing. Each name is loaded when it is first asked for, so that the server answers before torch is there.
"""

import importlib

PLACES = {
    "Busy": "jobs",
    "Job": "jobs",
    "Piece": "jobs",
    "Request": "jobs",
    "Token": "jobs",
    "Engine": "engine",
    "Api": "routes",
    "Pages": "server",
    "Panels": "panels",
    "Stories": "stories",
    "WILDCARDS": "server",
    "address_of": "server",
    "bind": "server",
    "build_app": "server",
    "names_of": "server",
    "open_at_terminal": "terminal",
    "read_token": "security",
    "serve": "server",
}


def __getattr__(name: str) -> object:
    """Load a name of the wing."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{PLACES[name]}"), name)
