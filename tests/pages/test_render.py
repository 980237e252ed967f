"""The HTML pages: whole, escaped, complete, and in need of nothing from elsewhere."""

import json
import math
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from types import SimpleNamespace

import jinja2
import pytest
import torch
from conftest import ROOT, STORY, TINY

import clr_ctrl
import eval as eval_script
from novelgpt import languages
from novelgpt.cli import run
from novelgpt.evaluation.report import Span
from novelgpt.network import build_model, save_model
from novelgpt.pages import render, surprise
from novelgpt.pages.corpus import MAX_BARS, MAX_LINES, draw_lengths, report_page
from novelgpt.pages.surprise import surprise_page

SENTENCE = "他推开门，外面下着雪，山路上一个人也没有。"
SCRIPT = "<script>alert(1)</script>"
HOSTILE = f"{SCRIPT}\"&'\x07"


class Page(HTMLParser):
    """Collects tags, addresses, data and the texts of one language; fails where a tag is closed that is not open.

    Its only script must be the one that its policy names by its hash.
    """

    def __init__(self, text: str, *, hidden: str = "zh"):
        super().__init__()
        self.open, self.tags, self.addresses, self.texts, self.paragraphs = [], Counter(), [], [], []
        self.hidden, self.policy, self.scripts, self.data = hidden, "", [], {}
        self.feed(text)
        self.close()
        assert self.open == []
        assert len(self.scripts) == 1 and f"script-src '{render.script_hash(self.scripts[0])}';" in self.policy
        assert self.policy.startswith("default-src 'none'; ")

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags[tag] += 1
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        assert not [name for name in given if name.startswith("on")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag not in ("meta", "input"):
            self.open.append((tag, given))
        if tag == "p" and "id" in given and given["id"] != "told":
            self.paragraphs.append("")

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, given = self.open[-1] if self.open else ("", {})
        if tag == "script":
            kind = self.scripts.append if "type" not in given else lambda text: self.data.update({given["id"]: text})
            kind(data)
        elif self.open and tag != "style" and self.hidden not in [each.get("class") for _, each in self.open]:
            self.texts.append(" ".join(data.split()))
            if tag == "p" and "id" in given:
                self.paragraphs[-1] += data


def clean(folder, monkeypatch, text: str, *flags: str) -> tuple[dict, str]:
    """Clean a novel by the script; return the JSON report and the page."""
    monkeypatch.chdir(folder)
    (folder / "novel.txt").write_text(text, encoding="utf-8")
    assert clr_ctrl.main(["novel.txt", "--output", "train.json", "--report", "report.html", *flags]) == 0
    report = json.loads((folder / "train.report.json").read_text(encoding="utf-8"))
    return report, (folder / "report.html").read_text(encoding="utf-8")


def make_report(**changes) -> dict:
    """Return a report of one book with something in every part, all numbers different."""
    odd = {"character": "Ж", "code": "U+0416", "name": "CYRILLIC ZHE", "count": 4101, "line": 4102, "text": "他Ж走"}
    book = {
        "name": "book.txt", "kind": "txt", "encoding": "big5", "reason": "reads as Chinese", "bad_bytes": 4103,
        "bad_offsets": [9], "segments": [[4104, 4105, "UTF-16"]], "torn_lines": [4140],
        "repairs": {"double bytes": 4106},
        "characters_in": 4107, "characters": 4108, "documents": 4109, "cleaned": {"tabs": 4110},
        "code_points": {"U+200B": 4111},
        "examples": {"tabs": [{"line": 4112, "text": "前"}, {"line": 4113, "text": "后"}]},
        "notices": [{"line": 4114, "reason": "address", "text": "来网站看书", "kept": "看书"}],
        "how": "4115 headings", "chapters": 4116, "volumes": 0, "missing": [41, 42, 43], "repeated": [51],
        "out_of_order": [61], "headings_removed": [{"line": 4117, "reason": "contents", "text": "目录"}],
        "lengths": [
            {"line": 4118, "heading": "第一章", "characters": 4119},
            {"line": 4120, "heading": "", "characters": 4121},
        ],
        "odd": {"characters": 4122, "kinds": 1, "shown": [odd]}, "masked": 0,
        "lost": {"against": "GB2312", "characters": 4123, "kinds": 1, "shown": [{**odd, "character": "镕"}]},
        "quotes": {"pairs": {"“”": [4124, 4125]}, "ascii": 4126, "unbalanced_documents": 4127, "unbalanced_shown": []},
        "repeated_passages": {
            "passages": 4128, "characters": 9,
            "shown": [{"line": 4129, "times": 4130, "characters": 9, "text": "又来"}],
        },
        "verdict": "usable: look at it",
    }  # fmt: skip
    book |= changes
    return {
        "output": "train.json", "verdict": book["verdict"], "documents": 4131, "characters": 4132, "books": [book],
        "left_out": [{"path": "gone.txt", "error": "no such file"}],
    }  # fmt: skip


def test_every_fact_of_the_report_is_on_the_page():
    texts = Page(report_page(make_report())).texts
    shown = " | ".join(filter(None, texts))
    for fact in (
        *("book.txt", "Big5", "reads as Chinese", "usable: look at it", "gone.txt", "no such file", "4115 headings"),
        *("missing | 41–43", "repeated | 51", "out of order | 61", "lines 4,104 to 4,105 | UTF-16"),
        *("repaired: double bytes | 4,106", "characters read | 4,107", "characters kept | 4,108", "bad bytes | 4,103"),
        "lines garbled or in two encodings | 4140",
        *(
            "documents | 4,109",
            "chapters | 4,116",
            "tabs | 4,110 | line 4,112: | 前 | line 4,113: | 后",
            "U+200B | 4,111",
        ),
        *("Removed lines: 2", "4,114 | address | 来网站看书 | → | 看书", "4,117 | contents | 目录"),
        *("4,118 | 第一章 | 4,119", "4,120 | — | 4,121", "第一章: 4,119", "4,120: 4,121"),
        *("Odd characters: 4,122", "Ж | U+0416 | CYRILLIC ZHE | 4,101 | 4,102 | 他Ж走"),
        *("Outside GB2312: 4,123 characters", "镕 | U+0416 | CYRILLIC ZHE | 4,101 | 4,102", "“” | 4,124 | 4,125"),
        *("“ and ” or 「 and 」 differ in 4,127 documents; ASCII quotes: 4,126", "Repeated paragraphs: 4,128"),
        *("4,129 | 4,130 | 又来", "train.json: 4,131 documents, 4,132 characters"),
    ):
        assert fact in shown, fact


def test_parts_without_anything_to_show_have_no_title():
    nothing = {"characters": 0, "kinds": 0, "shown": []}
    report = make_report(
        **{name: {} for name in ("cleaned", "code_points", "examples", "repairs")},
        **{name: [] for name in ("notices", "headings_removed", "missing", "repeated", "out_of_order", "segments")},
        **{"odd": nothing, "lost": {"against": "GB2312", **nothing}},
        repeated_passages={"passages": 0, "characters": 0, "shown": []},
    )
    page = Page(report_page({**report, "left_out": []}))
    assert {"Chapters", "Reading", "Quotes"} < {*page.texts}
    assert page.tags["h3"] == 3 and page.tags["details"] == 1 and "left out" not in page.texts


def test_a_long_list_ends_with_a_pointer_to_the_json_report():
    notices = [{"line": number, "reason": "address", "text": "广告"} for number in range(MAX_LINES + 7)]
    page = Page(report_page(make_report(notices=notices)))
    assert page.texts.count("广告") == MAX_LINES and "8 more in the JSON report" in page.texts


def test_several_books_have_a_verdict_for_all():
    report = make_report()
    report |= {"books": report["books"] * 2, "verdict": "2 books: 0 good, 2 with faults"}
    page = Page(report_page(report))
    assert page.texts.count("2 books: 0 good, 2 with faults") == 1 and page.texts.count("book.txt") == 2


def test_the_page_of_a_novel_loads_nothing_and_escapes_what_the_book_says(tmp_path, monkeypatch):
    chapters = "".join(f"第{number}章 山村<3\n{SENTENCE * 3}{chr(0x4E00 + number)}\n" for number in (1, 2, 4))
    extra = f"{SCRIPT}Ж\nwww.example.com<img src=x>小说\n"
    _, text = clean(tmp_path, monkeypatch, f"{chapters}\x07{extra}\n(本章完)\n")
    page = Page(text)
    assert page.addresses == []
    assert page.tags["script"] == 2 and page.tags["img"] == page.tags["link"] == 0  # one of them is data
    assert page.tags["svg"] == 1 and page.tags["rect"] == 3
    assert 'name="viewport"' in text and "https://" not in text
    assert text.count("http://") == text.count("http://www.w3.org/2000/svg") == 1  # a name and no address
    assert "第1章 山村&lt;3: 73" in text
    assert "\\x07" in text and "\x07" not in text


def test_a_hostile_chapter_title_is_harmless_on_both_pages(tmp_path, monkeypatch):
    title = f"第1章 {SCRIPT}\"&'"
    novel = f"{title}\n{SENTENCE}\n第2章 乙\n{SENTENCE}\n"
    report, text = clean(tmp_path, monkeypatch, novel, "--keep_ads")  # otherwise the tags go
    assert report["books"][0]["lengths"][0]["heading"] == title
    chapter = [Span(char, 1.0) for char in f"{title}\n{SENTENCE}"]
    for page in (text, surprise_page(title, [(title, title)], [chapter])):
        assert SCRIPT not in page
        parsed = Page(page)
        assert parsed.tags["script"] == 2 and any(title in shown for shown in parsed.texts)


def test_whatever_string_a_report_holds_is_escaped():
    def poison(value):
        if isinstance(value, dict):
            return {key: poison(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [poison(entry) for entry in value]
        return HOSTILE if isinstance(value, str) else value

    report = poison(make_report())
    report["books"][0] |= {name: {HOSTILE: 1} for name in ("repairs", "cleaned", "code_points")}
    report["books"][0]["examples"] = {HOSTILE: [{"line": 1, "text": HOSTILE}]}
    report["books"][0]["quotes"]["pairs"] = {HOSTILE: [1, 2]}
    text = report_page(report)
    assert Page(text).tags["script"] == 2 and "\x07" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&amp;&#39;\\x07") > 30


@pytest.mark.parametrize("number", [600, 601, 2500])
def test_many_chapters_share_the_bars_of_the_picture(number):
    lengths = [{"line": 1, "heading": "第1章", "characters": 10}] * number
    bars = draw_lengths(lengths)["bars"]
    assert len(bars) == -(-number // -(-number // MAX_BARS)) <= MAX_BARS
    assert report_page(make_report(lengths=lengths)).count("<rect") == len(bars)


def test_a_bar_is_as_high_as_its_documents_are_long_on_the_average():
    lengths = [{"line": number, "heading": "", "characters": number} for number in (0, 50, 100)]
    # the longest one fills 160 units, as its length is a round number; an empty document still shows a line
    chart = draw_lengths(lengths)
    assert [bar["height"] for bar in chart["bars"]] == ["1.0", "80.0", "160.0"]
    assert (chart["marks"], chart["ticks"]) == ([100, 50, 0], [1, 2, 3])


def test_a_chapter_of_another_book_is_named():
    chapters = [f"第{number}章 山村\n" + SENTENCE * (8 + number) for number in range(1, 6)]
    foreign = "第6章 异书\n" + "量子场论的重整化群方程描述耦合常数如何随能标跑动。" * 4
    report = make_report(lengths=[{"line": 1, "heading": text[:6], "characters": 9} for text in [*chapters, foreign]])
    page = Page(report_page(report, [*chapters, foreign]))
    assert page.texts.count("第6章 异书") == 2 and page.texts.count("第5章 山村") == 1  # besides the table
    assert any(text.startswith("document 6, ") for text in page.texts)
    facts = json.loads(page.data["books"])[0]
    assert facts["surprise"][5] > 3 * max(facts["surprise"][:5]) and facts["repeats"] == [0] * 6


def test_repeated_paragraphs_are_marked_in_all_chapters_that_have_them():
    twice = "他推开门，外面下着雪，山路上一个人也没有，只有风。"
    documents = [f"第1章\n{twice}", "第2章\n别的", f"第3章\n{twice}\n{twice}"]
    report = make_report(lengths=[{"line": 1, "heading": text[:3], "characters": 9} for text in documents])
    text = report_page(report, documents)
    assert json.loads(Page(text).data["books"])[0]["repeats"] == [1, 0, 2]
    assert text.count('class="repeated"') == 2


def test_the_flight_plan_weighs_tokens_against_parameters(tmp_path, monkeypatch):
    _, text = clean(tmp_path, monkeypatch, "".join(f"第{n}章 雪\n{SENTENCE * 30}\n" for n in range(1, 5)))
    page = Page(text)
    shown = " | ".join(filter(None, page.texts))
    # 4 chapters of 30 sentences of 21 characters and a heading of 5 with its line break, and a mark each: 4 · 637;
    # a window at 0 and, every 128 tokens, until one reaches the end: 1 + 2292 / 128
    assert "| demo | " in shown and "| 2,548 | 0.001 | 256 | 19 |" in shown


def test_the_picture_has_its_axes_in_words_that_keep_their_size():
    lengths = [{"line": number, "heading": "第1章", "characters": 1_000 + number} for number in range(120)]
    shown = " | ".join(filter(None, Page(report_page(make_report(lengths=lengths))).texts))
    assert "Chapters | 1,200 | 600 | 0 | 第1章: 1,000 | " in shown
    assert " | 1 | 60 | 120 | characters of 120 documents, at most 1,119; grey: without a heading | found | " in shown


def test_the_surprise_page_is_whole_escaped_and_needs_nothing_from_elsewhere():
    chapter = [Span("第", 2.0), Span("一", math.nan), Span("\n", 0.25)]
    chapter += [Span(char, 12.5) for char in f"{SCRIPT}\x07"]
    text = surprise_page("<b>&", [("loss", "1.5"), ("tokens", 1200)], [chapter, [Span("完", 7.25)]])
    page = Page(text)
    assert all(address.startswith("#p") for address in page.addresses)
    assert not {"b", "link", "img", "iframe"} & {*page.tags} and page.tags["script"] == 2
    assert "url(" not in text and "https" not in text and "prefers-color-scheme: dark" in text and "\x07" not in text
    assert page.paragraphs == ["第一↵", f"{SCRIPT}\\x07", "完"]
    # 2.00, none, 0.25 (of 0.02 each), then 12.50; the last of them is shown as four signs
    lengths = ",".join("1" * len(SCRIPT))
    assert json.loads(page.data["nats"]) == ["2szz0c", f"{'hd' * (len(SCRIPT) + 1)}|{lengths},4", "a2"]
    assert '<html lang="en">' in text and 'lang="zh-CN"' in text
    assert "1.5" in page.texts and '<td class="n">1,200</td>' in text and "<h1>&lt;b&gt;&amp;</h1>" in text


def test_a_page_speaks_both_languages_and_begins_with_that_of_whoever_writes_it(monkeypatch):
    chapters = [[Span("第一章他走了好远", 1.0), Span("完", math.nan)]]
    for language, lang in (("zh_CN", "zh-CN"), ("en_US", "en")):
        monkeypatch.setenv("LANGUAGE", language)
        text = surprise_page("Strangest paragraphs", [], chapters)
        assert (
            f'<html lang="{lang}">' in text and "<h1>Strangest paragraphs</h1>" in text
        )  # the title is never translated
        english, chinese = Page(text).texts, Page(text, hidden="en").texts
        there = languages.translate("not scored", context="page")
        assert "not scored" in english and there not in english
        assert there in chinese and "not scored" not in chinese


def test_the_strangest_paragraphs_come_first():
    calm, strange = (
        [Span(char, nats) for char in text]
        for text, nats in (("风平浪静的一天过去。", 1.0), ("龘靐齉龗麤爩龖鱻。", 9.0))
    )
    page = surprise_page("t", [], [[*calm, Span("\n", 0.1), *strange]])
    listing = page[page.index("Strangest") : page.index("<section>")]
    assert listing.index("龘靐齉") < listing.index("风平浪静") and "9.000" in listing
    assert '<a href="#p1">龘靐齉' in listing and '<p id="p1">龘靐齉' in page


def test_a_paragraph_costs_the_mean_of_its_scored_characters():
    spans = [Span("炎", 3.0), Span("……", 2.0), Span("大", math.nan)]
    assert surprise.mean_nats(spans) == pytest.approx(5 / 3)
    assert math.isnan(surprise.mean_nats(spans[2:]))
    blank = [Span("\n", 1.0), Span(" \n", 1.0)]
    assert [*surprise.cut_paragraphs([*spans, *blank, *spans])] == [[*spans, blank[0]], [blank[1], *spans]]


@pytest.mark.sweep
def test_no_character_is_left_out_of_however_many():
    chapters = [[*(Span("长", 1.0) for _ in range(400_000)), Span("\n", 1.0)], [Span("短长", 1.0)]]
    page = Page(surprise_page("t", [], chapters))
    assert [len(text) for text in page.paragraphs] == [400_001, 2]
    assert [len(code) for code in json.loads(page.data["nats"])] == [800_002, 4]


@pytest.mark.parametrize("nats", [0.0, 0.01, 0.5, 3.14159, 9.99, 25.87])
def test_what_a_character_costs_is_told_to_a_hundredth(nats):
    assert int(surprise.encode_cost(nats), 36) / 50 == pytest.approx(nats, abs=0.0101)


def test_a_name_that_a_template_lacks_is_an_error():
    report = make_report()
    del report["books"][0]["reason"]
    with pytest.raises(jinja2.UndefinedError, match="reason"):
        report_page(report)


def test_spans_are_anything_with_text_and_nats():
    assert ">水</p>" in surprise_page("t", [], [[SimpleNamespace(text="水", nats=1.0)]])


@pytest.fixture
def saved(tiny_tokenizer, tmp_path):
    """The folder of a network whose losses differ widely between tokens."""
    network = build_model({**TINY, "attn_pdrop": 0.1}, tiny_tokenizer, seed=1).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(4)
    save_model(network, tiny_tokenizer, tmp_path / "saved")
    return tmp_path / "saved"


def test_eval_writes_the_page_and_the_same_figures_as_without_it(saved, tmp_path, capsys):
    words = [f"--model_path={saved}", f"--text={STORY[0]}", "--device=cpu"]
    assert run(eval_script.main, words) == 0
    plain = capsys.readouterr().out
    assert run(eval_script.main, [*words, f"--html={tmp_path / 'page.html'}"]) == 0
    said = capsys.readouterr()
    with_page = json.loads(said.out)
    without = json.loads(plain)
    assert with_page.pop("loss") == pytest.approx(without.pop("loss"), rel=1e-6)
    assert {name: with_page[name] for name in ("scored_tokens", "accuracy")} == {
        name: without[name] for name in ("scored_tokens", "accuracy")
    }
    assert f"written {tmp_path / 'page.html'}\n" in said.err
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "".join(page.paragraphs).replace("↵", "\n") == STORY[0]
    assert str(with_page["scored_tokens"]) in page.texts and str(saved) in page.texts


def test_a_folder_in_the_place_of_the_page_is_refused(saved, tmp_path, capsys):
    (tmp_path / "page").mkdir()
    words = [f"--model_path={saved}", "--text=水", "--device=cpu", f"--html={tmp_path / 'page'}"]
    assert run(eval_script.main, words) == 4
    assert f"error: {tmp_path / 'page'}: cannot be written: Is a directory\n" in capsys.readouterr().err


def test_cleaning_without_a_page_does_not_load_jinja(tmp_path):
    (tmp_path / "novel.txt").write_text(f"第1章 井\n{SENTENCE}\n", encoding="utf-8")
    code = (
        "import sys, clr_ctrl\n"
        "clr_ctrl.main([sys.argv[1], '--output', sys.argv[2]])\n"
        "assert not {'jinja2', 'markupsafe', 'torch'} & set(sys.modules), sys.modules.keys()"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "novel.txt"), str(tmp_path / "train.json")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
