"""Write with a trained model in the browser: continue, choose, undo, see what is copied, all on this machine.

    python studio.py
    python studio.py --model_path model/best_model --port 8080 --no_browser

It prints an address that ends with a token and opens it. Stories are kept in mnt/stories/, whatever happens to the
browser or to this program. Other programs that speak with an OpenAI, KoboldAI or llama.cpp server may use it, too.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from novelgpt.cli import Parser, StudioOptions
from novelgpt.messages import EXIT_INPUT, EXIT_USAGE, UserError, warn

# how a page of clr_ctrl.py begins, within so many bytes, and where its commands put it
BEGINS = re.compile(
    rb'<!DOCTYPE html>\s<html lang="[\w-]+">\s<head>\s<meta charset="utf-8">\s'
    rb'<meta http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; script-src &#39;sha256-[^"]*">\s'
    rb'<meta name="viewport"[^>]*>\s<meta name="generator" content="novelgpt corpus">'
)
LOOKED_AT = 4096
REPORTS = ("*.html", "data/*.html", "books/*/*.html", "build/*.html")


def build_parser() -> Parser[StudioOptions]:
    """Return the command line of studio.py."""
    return Parser(StudioOptions, __doc__, section="studio", prog="studio.py")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; return the exit status."""
    options = build_parser().parse_options(argv)
    check_options(options)
    # the model is loaded behind the first answers; nothing here takes torch
    from novelgpt.studio import (
        WILDCARDS,
        Api,
        Engine,
        Pages,
        Panels,
        Stories,
        address_of,
        bind,
        build_app,
        names_of,
        read_token,
        serve,
    )

    stories = Stories(options.stories_dir)
    try:
        sockets, port = bind(options.host, options.port)
    except UserError:
        stories.close()
        raise
    panels = Panels(options.model_path, options.corpus)
    engine = Engine(
        options.model_path,
        device=options.device,
        quantize=options.quantize,
        precision=options.precision,
        corpus=options.corpus,
        find=panels.find,
    )
    pages = Pages(other_pages(options))
    api = Api(engine, stories, panels, pages.others["/training"])
    token = read_token(stories.folder)
    facts = {"hosts": names_of(options.host, port), "origins": options.allow_origin}
    facts["everywhere"] = port if options.host in WILDCARDS else None
    app = build_app(api, pages, port=port, token=token, **facts)
    if not is_loopback(options.host):
        warn(f"--host {options.host} lets other machines in: whoever has the address with the token can write and read")
    url = address_of(options.host, port) + (f"/frontend?token={token}" if options.frontend else f"/#token={token}")
    return serve(app, sockets, url=url, opens_browser=not options.no_browser)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine has an address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def check_options(options: StudioOptions) -> None:
    """Raise UserError for what would be wrong later."""
    if options.frontend and not Path(options.frontend).is_file():
        raise UserError(f"--frontend {options.frontend}: no such file", "give the HTML file of the page", EXIT_INPUT)
    for origin in options.allow_origin:
        scheme, _, host = origin.partition("://")
        is_origin = scheme in ("http", "https") and host and not any(sign in host for sign in "/*?#@ ")
        if origin != "null" and not is_origin:
            message = f"--allow_origin: found {origin!r}, expected for example https://writer.example"
            raise UserError(message, "--allow_origin https://writer.example", EXIT_USAGE)
    if not Path(options.model_path).is_dir():
        message = f"--model_path {options.model_path}: no such folder"
        raise UserError(message, "--model_path model/best_model, or train one: python train.py --raw", EXIT_INPUT)


def is_report(path: Path) -> bool:
    """Tell whether a file is a page of clr_ctrl.py."""
    with open(path, "rb") as file:
        return BEGINS.match(file.read(LOOKED_AT)) is not None


def other_pages(options: StudioOptions) -> dict:
    """Return where the pages of other commands lie: path of the page -> a function that finds its file."""
    training = Path(options.run_dir) / "training.html"

    def find_corpus() -> Path | None:
        """Return the newest report of clr_ctrl.py; another page could ask for the stories."""
        found = [path for place in REPORTS for path in Path().glob(place) if path.is_file()]
        own = [path for path in found if is_report(path)]
        return max(own, key=lambda path: path.stat().st_mtime, default=None)

    pages = {"/training": lambda: training if training.is_file() else None, "/corpus": find_corpus}
    return pages | ({"/frontend": lambda: Path(options.frontend)} if options.frontend else {})
