"""Pictures of the pages for the README, as a browser shows them: docs/training.png, surprise.png and studio.png.

python bench/pictures.py --run_dir model/ --model_path model/best_model --text_path data/sample/novel.txt

Needs Debian's chromium-headless-shell and fonts-wqy-microhei, playwright and pillow. The training page is shown from
its verdict to its chart, without the samples that do not begin with unread text; the surprise page from its first
chapter; the writing page while a card is open, after the model has gone on from --beginning.
A picture has 128 colours, and is cut where it would become larger than 150 kB.
"""

import argparse
import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from novelgpt import evaluate
from novelgpt.messages import EXIT_ENVIRONMENT, UserError
from novelgpt.pages import write_training_page

ROOT = Path(__file__).resolve().parent.parent
BROWSER = "chromium-headless-shell"
LARGEST, COLOURS = 150_000, 128  # bytes of a picture, and its colours
WIDTH, STEP = 900, 40  # pixels
STUDIO = {"width": 1200, "height": 680}  # pixels
CANDIDATES, LINES, INTO = "3", 3, 4  # lines and characters before the one whose card is shown
TALLEST = {"training": 2400, "surprise": 900}  # pixels
FIRST = {"training": "body", "surprise": "main section"}  # what a picture begins with
ESSENCE = '.card[data-kind]:not([data-kind="held_out"]), .drop { display: none } .player { position: static }'


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, default=Path("model/"), help="run folder with a log.jsonl")
    parser.add_argument("--model_path", default="model/best_model", help="model that reads the text")
    parser.add_argument("--text_path", default="data/sample/novel.txt", help="text to colour")
    parser.add_argument("--beginning", default="那天夜里没有月亮。", help="what the writing page goes on from")
    parser.add_argument("--folder", type=Path, default=Path("docs/"), help="where the pictures go")
    parser.add_argument("--language", default="en-US", choices=("en-US", "zh-CN"), help="language of the pages")
    return parser


def take_picture(browser, page_path: Path, path: Path, language: str) -> dict:
    """Write a picture of a page; return its name, size in bytes and height in pixels."""
    context = browser.new_context(locale=language, viewport={"width": WIDTH, "height": 1000}, color_scheme="light")
    page = context.new_page()
    page.goto(page_path.resolve().as_uri())
    page.add_style_tag(content=ESSENCE)
    ends = page.evaluate("[...document.querySelectorAll('#reading')].map((it) => it.getBoundingClientRect().bottom)")
    top = page.locator(FIRST[path.stem]).first.bounding_box()["y"]
    height = int(min([TALLEST[path.stem], *ends, page.evaluate("document.documentElement.scrollHeight") - top]))
    taken = keep_picture(page, path, {"x": 0, "y": top, "width": WIDTH, "height": height})
    context.close()
    return taken


@contextlib.contextmanager
def serve_studio(model_path: str, folder: Path):
    """Serve the writing page with its stories in a folder; yield its address."""
    command = [sys.executable, ROOT / "studio.py", "--model_path", model_path, "--stories_dir", folder]
    with subprocess.Popen([*command, "--port", "0", "--no_browser"], stderr=subprocess.PIPE, text=True) as server:
        try:
            yield next(word for line in server.stderr for word in line.split() if "#token=" in word)
        finally:
            server.terminate()


def take_studio(browser, address: str, path: Path, beginning: str, language: str) -> dict:
    """Let the model go on from a beginning on the writing page, open the card of a character, take the picture."""
    context = browser.new_context(locale=language, viewport=STUDIO, color_scheme="light")
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    page.click("#tab-settings")
    page.locator("#setting-list input[type=range]").first.fill(CANDIDATES)
    page.focus("#text")
    page.keyboard.type(beginning)
    page.keyboard.press("Control+Enter")
    wait_while(lambda: not re.search(r"\d 字|\d char", page.locator("#status").text_content()))  # model, text
    page.keyboard.press("Control+Home")
    for key in (*["ArrowDown"] * LINES, *["ArrowRight"] * INTO):
        page.keyboard.press(key)
    page.keyboard.press("Alt+KeyP")
    page.wait_for_selector("#card:not([hidden])")
    page.evaluate("document.querySelector('#state').textContent = ''")  # where the model lies on this machine
    taken = keep_picture(page, path, {"x": 0, "y": 0, **STUDIO})
    context.close()
    return taken


def wait_while(condition) -> None:
    """Wait as long as a condition holds, a minute at most."""
    end = time.monotonic() + 60
    while condition():
        if time.monotonic() > end:
            raise UserError("the writing page does not write", "python studio.py shows why", EXIT_ENVIRONMENT)
        time.sleep(0.01)


def keep_picture(page, path: Path, clip: dict) -> dict:
    """Write a picture of a stretch of a page, lower where it would be too large; return name, bytes and height."""
    while len(data := paint(page, clip)) >= LARGEST:
        clip = clip | {"height": clip["height"] - STEP}
    path.write_bytes(data)
    return {"picture": str(path), "bytes": len(data), "height": clip["height"]}


def paint(page, clip: dict) -> bytes:
    """Return a stretch of a page as a PNG of few colours."""
    from PIL import Image

    picture, data = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=clip))).convert("RGB"), io.BytesIO()
    # the commonest colours stay as they are, so areas of one colour do too; edges of letters take the nearest
    common = sorted(picture.getcolors(picture.width * picture.height), reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in common for part in colour])
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(data, "PNG", optimize=True)
    return data.getvalue()


def main(argv: list[str] | None = None) -> int:
    """Take all pictures."""
    options = build_parser().parse_args(argv)
    program = shutil.which(BROWSER)
    if program is None:
        hint = f"apt-get install --no-install-recommends {BROWSER} fonts-wqy-microhei"
        raise UserError(f"{BROWSER} is not installed", hint, EXIT_ENVIRONMENT)
    from playwright.sync_api import sync_playwright

    options.folder.mkdir(parents=True, exist_ok=True)
    write_training_page(options.run_dir)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        surprise = Path(folder, "surprise.html")
        evaluate(options.model_path, path=options.text_path, html=str(surprise))
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        places = {"training": options.run_dir / "training.html", "surprise": surprise}
        taken = [
            take_picture(browser, page, options.folder / f"{name}.png", options.language)
            for name, page in places.items()
        ]
        with serve_studio(options.model_path, Path(folder, "stories")) as address:
            place = options.folder / "studio.png"
            taken.append(take_studio(browser, address, place, options.beginning, options.language))
        browser.close()
    print(json.dumps({"pictures": taken}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
