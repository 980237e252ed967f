"""The corpus page and the surprise page in a real browser: both languages, light and dark, large and small."""

import json
import math
import random
import time
from types import SimpleNamespace

import pytest
from conftest import ROOT, find_barriers

import clr_ctrl
from novelgpt.files import write_text
from novelgpt.pages import surprise_page

pytestmark = pytest.mark.browser
SIZES = {"desktop": {"width": 1280, "height": 800}, "phone": {"width": 360, "height": 640, "touch": True}}
LOOKS = [
    (language, colours, size) for language in ("zh-CN", "en-US") for colours in ("light", "dark") for size in SIZES
]
HOSTILE = "</script><img src=x onerror=alert(1)>\"'&\x07\u202e\u2066<!--"


def make_spans(text: str, seed: int = 0) -> list:
    """Return spans of single characters with costs drawn by chance, some of them not scored."""
    chance = random.Random(seed)
    return [
        SimpleNamespace(text=char, nats=math.nan if chance.random() < 0.02 else 9 * chance.random() ** 3)
        for char in text
    ]


@pytest.fixture(scope="module")
def corpus_file(tmp_path_factory):
    """The page of the bundled novel, with a line that is removed and a hostile heading."""
    folder = tmp_path_factory.mktemp("corpus")
    novel = (ROOT / "data/sample/novel.txt").read_bytes().decode("gb18030")
    (folder / "novel.txt").write_text(
        f"{novel}\n第四十章 {HOSTILE}\n{'他推开门，外面下着雪。' * 5}\n", encoding="utf-8"
    )
    output = ["--output", str(folder / "train.json"), "--report", str(folder / "report.html")]
    assert clr_ctrl.main([str(folder / "novel.txt"), *output]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def surprise_file(tmp_path_factory):
    """The surprise page of two chapters."""
    novel = (ROOT / "data/sample/novel.txt").read_bytes().decode("gb18030")
    chapters = [make_spans(novel[:3000]), make_spans(f"第二章 {HOSTILE}\n" + novel[3000:9000], 1)]
    path = tmp_path_factory.mktemp("surprise") / "page.html"
    write_text(path, surprise_page(f"held out {HOSTILE}", [("loss", "3.9"), ("model", HOSTILE)], chapters))
    return path


def assert_fits(page) -> None:
    """Assert that nothing is wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


@pytest.mark.parametrize(("language", "colours", "size"), LOOKS)
def test_the_corpus_page_is_open_to_everybody(open_page, corpus_file, language, colours, size):
    page = open_page(corpus_file, language=language, colours=colours, **SIZES[size])
    assert find_barriers(page) == []
    assert_fits(page)
    shown = page.inner_text("main")
    assert ("Style of the book" in shown, "本书的文风" in shown) == (language == "en-US", language == "zh-CN")
    assert "onerror=alert(1)" in shown


@pytest.mark.parametrize(("language", "colours", "size"), LOOKS)
def test_the_surprise_page_is_open_to_everybody(open_page, surprise_file, language, colours, size):
    page = open_page(surprise_file, language=language, colours=colours, **SIZES[size])
    page.wait_for_selector(".text span[class]")
    assert find_barriers(page) == []
    assert_fits(page)
    shown = page.inner_text("main")
    assert ("Strangest paragraphs" in shown) == (language == "en-US")


def test_a_document_is_opened_by_keys_and_by_a_click_on_its_bar(open_page, corpus_file):
    page = open_page(corpus_file)
    facts = page.evaluate("page.data('books')[0]")
    assert page.inner_text(".chapter strong") == (facts["headings"][0] or "—")
    page.focus(".picker input")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.inner_text(".chapter strong") == facts["headings"][3]
    assert f"{facts['characters'][3]:,} characters" in page.inner_text(".chapter")
    assert f"{facts['surprise'][3]:.2f} nats" in page.inner_text(".chapter")
    box = page.locator(".bars").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2)
    assert page.inner_text(".chapter strong") == facts["headings"][-1]
    assert page.locator(".bars rect.chosen").count() == 1


def test_language_and_colours_are_switched_by_keys_and_stay_over_a_reload(open_page, corpus_file):
    page = open_page(corpus_file, language="fr-FR")
    assert page.inner_text("#language") == "中文" and page.evaluate("document.documentElement.lang") == "en"
    page.focus("#language")
    page.keyboard.press("Enter")
    assert page.inner_text("#language") == "English" and "词表覆盖" in page.inner_text("main")
    page.select_option("#theme", "paper")
    assert find_barriers(page) == []
    page.reload()
    assert page.evaluate("[document.documentElement.lang, document.documentElement.dataset.theme]") == [
        "zh-CN",
        "paper",
    ]


def test_removed_lines_are_struck_out_with_their_reason(open_page, corpus_file):
    page = open_page(corpus_file)
    report = json.loads(corpus_file.with_name("train.report.json").read_text(encoding="utf-8"))
    notices = report["books"][0]["notices"]
    removed = page.locator("del").all_inner_texts()
    assert len(removed) >= len(notices) > 0 and notices[0]["text"] in removed


def test_every_character_has_its_own_colour_and_figure(open_page, tmp_path):
    costs = [0.04, 1.0, 6.98, 7.25, 30.0, math.nan]
    spans = [SimpleNamespace(text=char, nats=nats) for char, nats in zip("他走了\n𠮷\x07", costs, strict=True)]
    write_text(tmp_path / "page.html", surprise_page("t", [], [spans]))
    page = open_page(tmp_path / "page.html")
    page.wait_for_selector(".text span[class]")
    found = page.eval_on_selector_all(
        ".text span", "all => all.map(each => [each.textContent, each.className, each.title])"
    )
    assert found == [
        ["他", "n0", "0.04"], ["走", "n1", "1.00"], ["了", "n6", "6.98"], ["↵", "n7", "7.24"],
        ["𠮷", "n9", "25.88"], ["\\x07", "unscored", ""],
    ]  # fmt: skip
    page.click(".text .n1")
    assert page.inner_text("#told") == "“走” cost 1.00 nats: one chance in 3"
    page.click("#language")
    assert page.inner_text("#told") == "“走”：1.00 nats，模型给它的机会是 1/3"


def test_a_strange_paragraph_is_reached_from_the_list(open_page, surprise_file):
    page = open_page(surprise_file)
    page.click("tbody a >> nth=0")
    place = page.evaluate("location.hash")
    page.wait_for_selector(f"{place} span[class]")
    box = page.locator(place).bounding_box()
    assert -50 < box["y"] < 800


def test_a_million_characters_open_at_once(open_page, tmp_path):
    chance = random.Random(0)
    line = "".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(99)) + "\n"
    spans = make_spans(line * 10)
    write_text(tmp_path / "page.html", surprise_page("t", [], [spans * 10] * 100))
    assert (tmp_path / "page.html").stat().st_size < 6.5e6
    page = open_page("about:blank")
    began = time.monotonic()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector(".text span[class]")
    assert time.monotonic() - began < 8  # 1.5 s on two free cores
    assert page.locator(".text p").count() == 10_000 and page.locator(".text span").count() < 10_000


def test_without_scripts_the_text_is_there(open_page, surprise_file):
    page = open_page(surprise_file, java_script_enabled=False)
    assert "乔一斗" in page.inner_text(".text >> nth=0")
