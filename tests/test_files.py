"""A file or folder appears complete or not at all, and damage is named."""

import errno
import json
import os

import pytest

from novelgpt import files
from novelgpt.files import (
    atomic_folder,
    atomic_writer,
    find_damage,
    move_aside,
    old_name,
    read_json,
    recover_folder,
    remove_leftovers,
    sha256_of,
    write_json,
    write_text,
)
from novelgpt.messages import UserError


def names_in(folder) -> list[str]:
    """List a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def whole(tmp_path):
    """A folder of two files that matches its manifest."""
    path = tmp_path / "step-1"
    with atomic_folder(path, step=1) as hidden:
        write_text(hidden / "a.txt", "剑")
        write_text(hidden / "b.txt", "")
    return path


def test_a_file_is_written_with_its_parents_and_no_leftovers(tmp_path):
    write_text(tmp_path / "书 📖" / "内" / "a.txt", "第一行\r\n第二行\n")
    assert (tmp_path / "书 📖" / "内" / "a.txt").read_bytes() == "第一行\r\n第二行\n".encode()
    assert names_in(tmp_path / "书 📖" / "内") == ["a.txt"]


@pytest.mark.parametrize("problem", [ValueError("no"), KeyboardInterrupt(), SystemExit(1), MemoryError()])
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, problem):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(problem)), atomic_writer(path) as file:
        file.write(b"half of the new")
        raise problem
    assert path.read_text(encoding="utf-8") == "old"
    assert names_in(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(("is_windows", "tries"), [(True, 3), (False, 1)])
def test_where_a_virus_scanner_reads_what_is_new_the_name_is_tried_again(tmp_path, monkeypatch, is_windows, tries):
    calls, pauses, replace = [], [], os.replace

    def refuse_twice(old, new):
        calls.append(new)
        if len(calls) < 3:
            raise PermissionError(errno.EACCES, "Permission denied")
        replace(old, new)

    monkeypatch.setattr(files, "IS_WINDOWS", is_windows)
    monkeypatch.setattr("time.sleep", pauses.append)
    monkeypatch.setattr("os.replace", refuse_twice)
    if is_windows:
        write_text(tmp_path / "a.txt", "剑")
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "剑"
    else:
        with pytest.raises(UserError, match=r"a\.txt: cannot be written: Permission denied"):
            write_text(tmp_path / "a.txt", "剑")
    assert (len(calls), len(pauses)) == (tries, tries - 1)


def test_nothing_bears_the_name_before_the_block_ends(tmp_path):
    with atomic_writer(tmp_path / "a.txt") as file:
        file.write(b"new")
        file.flush()
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_bytes() == b"new"


def test_a_refusing_disk_is_an_error_with_the_place_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(UserError) as caught, atomic_writer(path) as file:
        file.write(b"half")
        raise OSError(28, "No space left on device")
    assert str(caught.value) == (
        f"error: {path}: cannot be written: No space left on device\n\n"
        f"hint: free some space or choose another place than {tmp_path}"
    )
    assert caught.value.code == 4
    assert (path.read_text(encoding="utf-8"), names_in(tmp_path)) == ("old", ["a.txt"])


def test_a_file_in_the_place_of_a_parent_folder_is_an_error(tmp_path):
    write_text(tmp_path / "file", "x")
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "file" / "b.txt", "y")
    assert caught.value.code == 4
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / ("长" * 200), "y")
    assert caught.value.message.endswith("cannot be written: File name too long")


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError) as caught:
        write_text(tmp_path / "a", "y")
    assert caught.value.message == f"{tmp_path / 'a'}: cannot be written: Is a directory"
    assert names_in(tmp_path) == ["a"]


def test_json_is_strict_readable_and_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"书": ["萧炎", 1.5, None]})
    assert "萧炎" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"书": ["萧炎", 1.5, None]}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert read_json(tmp_path / "a.json") == {"书": ["萧炎", 1.5, None]}


def test_a_huge_json_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "a.json"
    with open(path, "wb") as file:
        file.truncate(1 << 30)  # sparse
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert caught.value.message == f"{path}: 1,073,741,824 bytes, expected at most 67,108,864"


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, example B.1
    assert sha256_of(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_appears_whole_with_its_facts(whole):
    assert names_in(whole.parent) == ["step-1"]
    manifest = json.loads((whole / "manifest.json").read_text(encoding="utf-8"))
    digest = sha256_of(whole / "a.txt")
    assert manifest["files"]["a.txt"] == {"bytes": 3, "sha256": digest}
    assert manifest["step"] == 1
    assert find_damage(whole) is None


@pytest.mark.parametrize("problem", [ValueError("no"), OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_while_a_folder_is_written_leaves_the_old_one_and_nothing_else(whole, problem):
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    expected = UserError if isinstance(problem, OSError) else type(problem)
    with pytest.raises(expected), atomic_folder(whole) as hidden:
        write_text(hidden / "a.txt", "new")
        raise problem
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before
    assert names_in(whole.parent) == ["step-1"]


def test_a_new_folder_replaces_the_old_one_wholly(whole):
    with atomic_folder(whole) as hidden:
        write_text(hidden / "c.txt", "new")
    assert names_in(whole) == ["c.txt", "manifest.json"]
    assert names_in(whole.parent) == ["step-1"]


def test_a_kill_between_the_two_renames_is_mended(whole):
    os.rename(whole, old_name(whole))
    recover_folder(whole)
    assert find_damage(whole) is None
    assert names_in(whole.parent) == ["step-1"]


def test_leftovers_of_killed_writers_go_and_what_they_replaced_comes_back(whole):
    folder = whole.parent
    (folder / ".half.123.tmp").mkdir()
    (folder / ".half.123.tmp" / "x").write_bytes(b"x")
    (folder / ".a.json.99.tmp").write_bytes(b"{")
    os.rename(whole, old_name(whole))  # killed in the middle of a replacement
    with atomic_folder(folder / "other") as hidden:
        write_text(hidden / "a.txt", "new")
    (folder / ".other.old").mkdir()  # killed after it
    remove_leftovers(folder)
    assert names_in(folder) == ["other", "step-1"]
    assert find_damage(whole) is None and find_damage(folder / "other") is None


def damage_by_removal(folder):
    (folder / "a.txt").unlink()
    return "a.txt is missing"


def damage_by_cut(folder):
    (folder / "a.txt").write_bytes(b"ab")
    return "a.txt has 2 bytes, expected 3"


def damage_by_flip(folder):
    (folder / "a.txt").write_bytes(b"abc")
    return "a.txt has changed: its sha256 differs from the manifest"


def damage_by_folder(folder):
    (folder / "b.txt").unlink()
    (folder / "b.txt").mkdir()
    return "b.txt is missing"


def damage_by_link(folder):
    os.rename(folder / "a.txt", folder.parent / "outside")
    (folder / "a.txt").symlink_to(folder.parent / "outside")
    return "manifest.json names 'a.txt', which is not a file of its own folder"


def damage_by_swap(folder):
    (folder / "a.txt").write_bytes(b"")
    (folder / "b.txt").write_bytes("剑".encode())
    return "a.txt has 0 bytes, expected 3"


def damage_by_no_manifest(folder):
    (folder / "manifest.json").unlink()
    return f"{folder / 'manifest.json'}: cannot be read: No such file or directory"


def damage_by_cut_manifest(folder):
    text = (folder / "manifest.json").read_bytes()
    (folder / "manifest.json").write_bytes(text[: len(text) // 2])
    return f"{folder / 'manifest.json'}: not valid JSON: "


DAMAGES = (
    damage_by_removal, damage_by_cut, damage_by_flip, damage_by_folder, damage_by_link, damage_by_swap,
    damage_by_no_manifest, damage_by_cut_manifest,
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(whole, damage):
    expected = damage(whole)
    found = find_damage(whole)
    assert found is not None and found.startswith(expected)


@pytest.mark.parametrize(
    "files",
    [
        None, [], 3, "a", {"a.txt": None}, {"a.txt": {}}, {"a.txt": {"bytes": "x", "sha256": ""}},
        {"a.txt": {"bytes": float("inf"), "sha256": ""}}, {"a.txt": {"bytes": None, "sha256": ""}},
        {"../outside": {"bytes": 0, "sha256": ""}}, {"/etc/passwd": {"bytes": 0, "sha256": ""}},
        {"x/../a.txt": {"bytes": 0, "sha256": ""}}, {"a\0": {"bytes": 0, "sha256": ""}},
        {"长" * 300: {"bytes": 0, "sha256": ""}}, {"": {"bytes": 0, "sha256": ""}}, {"..": {"bytes": 0, "sha256": ""}},
        {".": {"bytes": 0, "sha256": ""}},
    ],
)  # fmt: skip
def test_a_manifest_of_nonsense_is_damage_and_no_traceback(whole, files):
    (whole / "manifest.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    assert find_damage(whole)
    (whole / "manifest.json").write_text(json.dumps(files), encoding="utf-8")
    assert find_damage(whole)


def test_moving_aside_takes_the_first_free_number(tmp_path):
    assert move_aside(tmp_path / "samples.txt") is None
    for number in (1, 2, 3):
        write_text(tmp_path / "samples.txt", str(number))
        assert move_aside(tmp_path / "samples.txt") == tmp_path / f"samples.{number}.txt"
    assert [(tmp_path / f"samples.{number}.txt").read_text(encoding="utf-8") for number in (1, 2, 3)] == ["1", "2", "3"]
    (tmp_path / "model").mkdir()
    assert move_aside(tmp_path / "model") == tmp_path / "model.1"
