"""Files of every shape to documents, and documents to a JSON list."""

import gzip
import io
import json
import sys

import pytest

from novelgpt.corpus.documents import read_documents, read_sources, write_documents
from novelgpt.messages import EXIT_ENVIRONMENT, EXIT_INPUT, UserError

FIRST = "第一章 雨夜\n山门外有人敲门，少年提着灯笼走了出去。"
SECOND = "第二章 天明\n老人已经走了，桌上只留下一把长剑。"
LIST_HINT = 'write a list of strings: ["第一章 …", "第二章 …"]'


def put(folder, name, content):
    """Write a file of text or bytes and return its path."""
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def message_of(path, **options):
    """Return the whole message of a refused file, its folder taken out."""
    with pytest.raises(UserError) as caught:
        read_documents(path, **options)
    assert caught.value.code == EXIT_INPUT
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.txt", FIRST + "\n" + SECOND, "txt"),
        ("b.json", json.dumps([FIRST, SECOND]), "json"),
        ("c.json", json.dumps([{"text": FIRST}, {"content": SECOND}], ensure_ascii=False), "json"),
        ("d.jsonl", json.dumps({"text": FIRST}) + "\r\n\n" + json.dumps(SECOND) + "\n", "jsonl"),
        ("e.json", json.dumps({"text": FIRST}) + "\n" + json.dumps({"text": SECOND}), "jsonl"),
        ("f.csv", f'id,text\r\n1,"{FIRST}"\r\n2,"{SECOND}"\r\n', "csv"),
        ("g.csv", f'正文\n"{FIRST}"\n"{SECOND}"\n', "csv"),
        ("H.TXT", FIRST + "\n" + SECOND, "txt"),
        ("novel", FIRST + "\n" + SECOND, "txt"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16"])
def test_every_shape_gives_its_documents(tmp_path, name, content, kind, packed, encoding):
    data = content.encode(encoding)
    source = read_documents(put(tmp_path, name + ".gz" * packed, gzip.compress(data) if packed else data))
    expected = [FIRST + "\n" + SECOND] if kind == "txt" else [FIRST, SECOND]
    assert (source.documents, source.kind, source.repairs) == (expected, kind, {})
    if encoding == "gb18030" and content.isascii():
        encoding = "utf-8"  # the same bytes
    assert source.decoded.encoding == {"utf-16": "utf-16-le"}.get(encoding, encoding)


def test_a_field_is_taken_when_named(tmp_path):
    path = put(tmp_path, "a.json", json.dumps([{"text": "题", "body": FIRST}]))
    assert read_documents(path, field="body").documents == [FIRST]
    path = put(tmp_path, "a.csv", f'text,body\n题,"{FIRST}"\n')
    assert read_documents(path, field="body").documents == [FIRST]


def test_raw_control_characters_and_lone_backslashes_are_repaired_and_counted(tmp_path):
    path = put(tmp_path, "a.json", '[\n"第一章\n\t他说道：\\-天\\u下\\"大势\\"\\n",\n"C:\\dir"]\n')
    source = read_documents(path)
    assert source.documents == ['第一章\n\t他说道：\\-天\\u下"大势"\n', "C:\\dir"]
    assert source.repairs == {"raw control characters": 2, "lone backslashes": 3}


def test_surrogate_pairs_are_joined_and_every_lone_one_is_dropped(tmp_path):
    path = put(tmp_path, "a.json", '["\\ud83d\\ude00", "\\ude00\\ud83d"]')
    source = read_documents(path)
    assert (source.documents, source.repairs) == (["😀", ""], {"lone surrogates": 2})
    texts = ",".join(f'"甲\\u{code:04x}乙"' for code in range(0xD800, 0xE000))
    source = read_documents(put(tmp_path, "b.json", f"[{texts}]"))
    assert (set(source.documents), source.repairs) == ({"甲乙"}, {"lone surrogates": 2048})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('["第一章",]', "not JSON at line 1 column 8: Expecting value: '[\"第一章\",]'"),
        ("['第一章']", "not JSON at line 1 column 2: Expecting value: \"['第一章']\""),
        ('["a",\n "b" "c"]', 'not JSON at line 2 column 6: Expecting \',\' delimiter: \'["a",\\n "b" "c"]\''),
        (
            '["a\\-",\n "b\\-" "c"]',
            'not JSON at line 2 column 8: Expecting \',\' delimiter: \'\\\\-",\\n "b\\\\-" "c"]\'',
        ),
        ('["第一章"', "not JSON at line 1 column 7: Expecting ',' delimiter: '[\"第一章\"'"),
    ],
)
def test_other_faults_of_json_are_shown_with_line_column_and_surroundings(tmp_path, content, message):
    path = put(tmp_path, "a.json", content)
    with pytest.raises(UserError) as caught:
        read_documents(path)
    assert caught.value.message.replace(str(path), "a.json").split(": ", 1)[1].split(": ")[0] == message.split(": ")[0]
    assert caught.value.hint.startswith("correct that place, or give the novel as plain text: ")


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ('{"a": "b"}', "the whole file: found an object, expected a list of strings", LIST_HINT),
        ('"abc"', "the whole file: found a string, expected a list of strings", LIST_HINT),
        ("null", "the whole file: found null, expected a list of strings", LIST_HINT),
        ("12", "the whole file: found a number, expected a list of strings", LIST_HINT),
        ('["a", null]', "item 1: found null, expected a string or an object with a text", LIST_HINT),
        ('["a", "b", ["c", 1]]', "item 2: found a list, expected a string or an object with a text", LIST_HINT),
        ("[true]", "item 0: found true or false, expected a string or an object with a text", LIST_HINT),
        ("[1.5]", "item 0: found a number, expected a string or an object with a text", LIST_HINT),
        ('[{"text": 3}]', "item 0, key 'text': found a number, expected a string", LIST_HINT),
        (
            '[{"story": "a"}]',
            "item 0: found story, expected 'text' or 'content'",
            "python clr_ctrl.py a.json --field story",
        ),
        (
            '[{"标题": "一", "the story": "他走了", "n": 3}]',
            "item 0: found 标题, the story, n, expected 'text' or 'content'",
            "python clr_ctrl.py a.json --field 'the story'",
        ),
        ("[{}]", "item 0: found no key, expected 'text' or 'content'", "python clr_ctrl.py a.json --field text"),
        ("[]", "no document in it, expected at least one", "give another file"),
    ],
)
def test_values_that_are_no_text_are_refused_with_index_and_type(tmp_path, content, message, hint):
    assert message_of(put(tmp_path, "a.json", content)) == f"error: a.json: {message}\n\nhint: {hint}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[NaN]", "found NaN, which is not JSON"),
        ('["a", -Infinity]', "found -Infinity, which is not JSON"),
        ("[" + "7" * 5000 + "]", "found a number of 5,000 digits, expected at most 30"),
        ('[{"text": "a", "text": "b"}]', "found the key 'text' twice in one object"),
        ("[" * 100_000, "nested too deep"),
        ('["a\n", ' + '{"a":' * 100_000, "nested too deep"),
    ],
)
def test_what_no_corpus_needs_is_refused(tmp_path, content, message):
    path = put(tmp_path, "a.json", content)
    with pytest.raises(UserError) as caught:
        read_documents(path)
    assert caught.value.message == f"{path}: {message}"


def test_json_lines_name_the_line_of_a_fault(tmp_path):
    content = json.dumps({"text": FIRST}, ensure_ascii=False) + '\n\n{"text": }\n'
    path = put(tmp_path, "a.jsonl", content)
    with pytest.raises(UserError, match=r"a\.jsonl: not JSON at line 3 column 10: Expecting value"):
        read_documents(path)


def test_tables_without_a_text_column_or_with_short_rows_are_refused(tmp_path):
    assert message_of(put(tmp_path, "a.csv", "a,b\n1,二三\n")) == (
        "error: a.csv: found the columns a, b, expected 'text' or 'content'\n\nhint: python clr_ctrl.py a.csv --field b"
    )
    assert message_of(put(tmp_path, "a.csv", "a,text\n1,one\n2\n")) == (
        "error: a.csv: line 3: found 1 cells, expected 2\n\nhint: quote the cells that hold commas or line breaks"
    )
    assert message_of(put(tmp_path, "a.csv", 'text\n"one')) == (
        "error: a.csv: line 2: not a table: unexpected end of data\n\n"
        "hint: quote the cells that hold commas or line breaks"
    )


def test_a_table_cell_may_be_a_whole_book(tmp_path):
    book = "山中无历日，" * 100_000  # beyond the limit of the csv module
    source = read_documents(put(tmp_path, "a.csv", f'text\n"{book}"\n'))
    assert source.documents == [book]


def test_line_separators_of_unicode_split_nothing(tmp_path):
    text = FIRST + "\u2028\x85\x0b\x0c" + SECOND
    path = put(tmp_path, "a.jsonl", json.dumps(text, ensure_ascii=False) + "\n")
    assert read_documents(path).documents == [text]
    assert read_documents(put(tmp_path, "a.txt", text)).documents == [text]


def test_paths_that_are_no_novel_are_refused(tmp_path):
    assert message_of(tmp_path / "none.txt") == (
        "error: none.txt: cannot be read: No such file or directory\n\nhint: give a file that can be read"
    )
    assert message_of(tmp_path) == (
        f"error: {tmp_path.name}: cannot be read: a folder, expected a file\n\nhint: give a file that can be read"
    )
    assert message_of(put(tmp_path, "a.txt", "　\n \n")) == (
        "error: a.txt: only blanks, expected the text of a novel\n\nhint: give another file"
    )
    assert message_of(put(tmp_path, "a.txt", b"\xff\xfe")) == (
        "error: a.txt: only blanks, expected the text of a novel\n\nhint: give another file"
    )


def test_damaged_and_bomb_like_gz_files_are_refused(tmp_path):
    packed = gzip.compress(FIRST.encode())
    assert message_of(put(tmp_path, "a.txt.gz", packed[:-9])) == (
        "error: a.txt.gz: damaged .gz file: Compressed file ended before the end-of-stream marker was reached\n\n"
        "hint: fetch or pack it again"
    )
    assert message_of(put(tmp_path, "a.txt.gz", b"no")) == (
        "error: a.txt.gz: damaged .gz file: Not a gzipped file (b'no')\n\nhint: fetch or pack it again"
    )
    assert message_of(put(tmp_path, "a.txt.gz", gzip.compress(b"a" * 70_000_000, 1))) == (
        "error: a.txt.gz: unpacks to more than 67,108,864 bytes, 100 times its size\n\n"
        "hint: unpack it yourself if it really is a book"
    )


def test_folders_are_searched_in_order_and_strangers_named(tmp_path, capsys):
    (tmp_path / "b" / ".git").mkdir(parents=True)
    for name in ("b/2.txt", "b/1.jsonl", "a.txt", "cover.jpg", "b/.git/x.txt", ".hidden.txt"):
        put(tmp_path, name, json.dumps(FIRST, ensure_ascii=False))
    sources = list(read_sources([tmp_path, tmp_path / "a.txt"]))
    assert [source.name.replace(f"{tmp_path}/", "") for source in sources] == ["a.txt", "b/1.jsonl", "b/2.txt"]
    warning = f"warning: left out, no kind of file that is read: {tmp_path}/cover.jpg\n"
    assert capsys.readouterr().err == warning


def test_a_folder_without_a_novel_is_refused(tmp_path):
    put(tmp_path, "cover.jpg", b"\xff\xd8")
    with pytest.raises(UserError) as caught:
        list(read_sources([tmp_path]))
    assert caught.value.message == f"{tmp_path}: nothing to read, expected at least one novel"


@pytest.mark.parametrize(
    ("content", "kind"),
    [(json.dumps([FIRST]), "json"), (json.dumps({"text": FIRST}), "jsonl"), (FIRST, "txt")],
)
def test_standard_input_is_recognised_by_its_beginning(monkeypatch, content, kind):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    (source,) = read_sources(["-"])
    assert (source.documents, source.kind, source.name) == ([FIRST], kind, "standard input")


def test_written_documents_are_read_back_and_stand_one_on_each_line(tmp_path):
    documents = [FIRST, 'quote " backslash \\ tab \t', "\u2028\x85\x00", "😀", ""]
    path = tmp_path / "data" / "train.json"
    write_documents(path, iter(documents))
    assert json.loads(path.read_bytes()) == documents
    assert path.read_bytes().count(b"\n") == len(documents) + 2
    assert read_documents(path).documents == documents
    write_documents(path, [])
    assert path.read_bytes() == b"[]\n"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = put(tmp_path, "train.json", "[]")

    def documents():
        yield FIRST
        raise UserError("stop", "no", EXIT_INPUT)

    with pytest.raises(UserError):
        write_documents(path, documents())
    assert [file.name for file in tmp_path.iterdir()] == ["train.json"]
    assert path.read_text() == "[]"
    with pytest.raises(UserError) as caught:
        write_documents(tmp_path / "train.json" / "x.json", [FIRST])
    assert caught.value.code == EXIT_ENVIRONMENT


def test_mutated_json_never_ends_in_a_traceback(tmp_path):
    import random

    rng = random.Random(17)
    whole = json.dumps([FIRST, {"text": SECOND}, {"content": "😀\n"}], ensure_ascii=False).encode()
    path = tmp_path / "a.json"
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            place = rng.randrange(len(data))
            data[place : place + rng.randrange(3)] = rng.choices(b'"\\[]{},:u0\xe4\xff\n9', k=rng.randrange(3))
        path.write_bytes(bytes(data))
        try:
            source = read_documents(path)
        except UserError as refused:
            assert refused.code == EXIT_INPUT and refused.hint
        else:
            assert all(isinstance(text, str) for text in source.documents)
