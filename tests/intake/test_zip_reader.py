"""Archives of strangers: what is in them is given member by member, what they try is refused."""

import io
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import pytest

from lesion.core.errors import LesionError
from lesion.download.archives import ArchiveRefusedError
from lesion.intake.archive_layout import is_archive
from lesion.intake.zip_reader import LabeledFile, ZipLimits, read_zip

LIMITS = ZipLimits(max_entries=20, max_bytes=8 * 2**20, max_file_bytes=4 * 2**20, max_ratio=100)


def archive(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target:
        for name, data in files:
            target.writestr(name, data)
    return buffer


def code(member: LabeledFile) -> str:
    assert isinstance(member.content, LesionError), member
    assert len(member.content.message) > 20
    return member.content.code


def refused(buffer: io.BytesIO, limits: ZipLimits = LIMITS) -> str:
    with pytest.raises(ArchiveRefusedError) as caught:
        list(read_zip(buffer, limits))
    assert caught.value.code == "archive_refused"
    return caught.value.message


def test_folders_name_the_classes() -> None:
    made = archive(("a/1.png", b"1"), ("set/train/b/2.png", b"2"), ("a/deep/", b""), ("a/.hidden", b"x"),
                   ("__MACOSX/a/1.png", b"x"), ("a/Thumbs.db", b"x"))  # fmt: skip
    assert list(read_zip(made, LIMITS)) == [("a/1.png", "a", b"1"), ("set/train/b/2.png", "b", b"2")]


def test_one_label_for_all() -> None:
    made = archive(("1.png", b"1"), ("a/2.png", b"2"))
    assert [member.label for member in read_zip(made, LIMITS, "c")] == ["c", "c"]
    first, second = read_zip(made, LIMITS)
    assert (code(first), second.label) == ("label_missing", "a")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b.png", "..\\..\\a.png", "C:/a.png", "C:\\a.png", "\\a.png"]
)
def test_a_member_that_leads_out_is_refused_alone(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    slip, good = read_zip(archive((name, b"root"), ("a/1.png", b"1")), LIMITS)
    assert code(slip) == "archive_entry_refused"
    assert good.content == b"1"
    assert list(tmp_path.iterdir()) == []


def test_backslashes_separate_folders() -> None:
    made = archive(("a\\1.png", b"1"), ("set\\b\\2.png", b"2"), ("set\\__MACOSX\\b\\2.png", b"x"), ("set\\a\\", b""))
    assert list(read_zip(made, LIMITS)) == [("a/1.png", "a", b"1"), ("set/b/2.png", "b", b"2")]


def test_the_folder_that_is_a_class_names_the_class() -> None:
    made = archive(("a/p1/1.png", b"1"), ("p2/b/2.png", b"2"), ("x/e\u0301/p3/z/3.png", b"3"), ("a/a/4.png", b"4"))
    found = list(read_zip(made, LIMITS, classes=["a", "b", "\u00e9"]))
    assert [(member.label, member.content) for member in found] == [
        ("a", b"1"), ("b", b"2"), ("\u00e9", b"3"), ("a", b"4"),
    ]  # fmt: skip
    two, none = read_zip(archive(("a/b/1.png", b"1"), ("x/y/2.png", b"2")), LIMITS, classes=["a", "b"])
    assert code(two) == "label_ambiguous"
    assert (none.label, none.content) == ("y", b"2")


@pytest.mark.parametrize("names", [(), ("a/",), ("a/.hidden", "__MACOSX/a/1.png", "b/Thumbs.db", "c/")])
def test_an_archive_without_a_file_is_refused(names: tuple[str, ...]) -> None:
    assert "no file" in refused(archive(*((name, b"") for name in names)))


@pytest.mark.parametrize(
    ("name", "start", "expected"),
    [
        ("x.png", b"PK\x03\x04", True),
        ("x", b"7z\xbc\xaf\x27\x1c", True),
        ("x", b"Rar!\x1a\x07", True),
        ("data.zip", b"\x1f\x8b\x08", True),
        ("data.tar.gz", b"\x1f\x8b\x08", True),
        ("DATA.TGZ", b"\x1f\x8b\x08", True),
        ("x", bytes(257) + b"ustar\x0000", True),
        ("scan.nii.gz", b"\x1f\x8b\x08", False),
        ("scan", b"\x1f\x8b\x08", False),
        ("x.png", b"\x89PNG\r\n\x1a\n", False),
        ("", b"", False),
    ],
)
def test_what_counts_as_an_archive(name: str, start: bytes, expected: bool) -> None:
    assert is_archive(start, name) is expected


def test_links_and_encrypted_members_are_refused_alone() -> None:
    link = zipfile.ZipInfo("a/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    made = archive((link, b"/etc/passwd"), ("a/1.png", b"secret"), ("a/2.png", b"2"))
    data = bytearray(made.getvalue())
    entry = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 1)
    data[entry + 8] |= 1  # its flag says that it is encrypted
    assert [code(member) for member in list(read_zip(io.BytesIO(data), LIMITS))[:2]] == ["archive_entry_refused"] * 2


def test_archives_within_are_refused_whatever_their_name() -> None:
    inner = archive(("a/1.png", b"1")).getvalue()
    found = list(read_zip(archive(("a/in.zip", inner), ("a/in.png", inner), ("a/x.tar", b"tar")), LIMITS))
    assert [code(member) for member in found] == ["archive_nested"] * 3


def test_a_bomb_is_refused_by_its_ratio_and_its_size() -> None:
    bomb, large, good = read_zip(
        archive(("a/bomb.bmp", bytes(3 * 2**20)), ("a/large.bmp", bytes(5 * 2**20 - 9)), ("a/1.png", b"1")),
        ZipLimits(max_entries=9, max_bytes=16 * 2**20, max_file_bytes=4 * 2**20, max_ratio=100),
    )
    assert code(bomb) == "archive_bomb"
    assert code(large) in ("archive_bomb", "image_too_many_bytes")
    assert good.content == b"1"
    assert "unpack" in refused(archive(("a/1.bmp", bytes(5 * 2**20)), ("a/2.bmp", bytes(5 * 2**20))))
    stored = archive(("a/1.bmp", bytes(4 * 2**20 + 1)), method=zipfile.ZIP_STORED)
    assert code(next(read_zip(stored, LIMITS))) == "image_too_many_bytes"


def overlapping(names: list[str], data: bytes) -> bytes:
    """An archive whose files share their bytes: the extra field of each covers the heads of those that follow."""
    crc, size, directory, body = zlib.crc32(data), len(data), b"", b""
    heads = [30 + len(name) for name in names]
    for number, name in enumerate(names):
        facts = struct.pack("<HHHHHIII", 20, 0, 0, 0, 33, crc, size, size)
        lengths = struct.pack("<HH", len(name), sum(heads[number + 1 :]))
        entry = struct.pack("<H", 20) + facts + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, len(body))
        directory += b"PK\x01\x02" + entry + name.encode()
        body += b"PK\x03\x04" + facts + lengths + name.encode()
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(directory), len(body) + len(data), 0)
    return body + data + directory + b"PK\x05\x06" + end


def test_files_that_share_their_bytes_are_refused() -> None:
    names, data = ["a/1.png", "a/2.png", "a/3.png"], bytes(1000)
    shared = overlapping(names, data)
    assert len(zipfile.ZipFile(io.BytesIO(shared)).infolist()) == 3
    assert "its files overlap" in refused(io.BytesIO(shared))
    assert [member.content for member in read_zip(io.BytesIO(overlapping(names[:1], data)), LIMITS)] == [data]


def test_a_size_that_is_a_lie_helps_nobody() -> None:
    data = bytearray(archive(("a/1.bmp", bytes(3 * 2**20))).getvalue())
    entry = data.index(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 10)  # its size unpacked
    [member] = read_zip(io.BytesIO(data), LIMITS)
    assert code(member) in ("archive_entry_refused", "archive_bomb")


def test_a_member_that_comes_twice_is_refused_the_second_time() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        made = archive(("a/1.png", b"1"), ("a/1.png", b"2"))
    first, second = read_zip(made, LIMITS)
    assert (first.content, code(second)) == (b"1", "archive_entry_refused")


def test_rare_ways_of_packing_are_refused() -> None:
    [member] = read_zip(archive(("a/1.png", b"1"), method=zipfile.ZIP_LZMA), LIMITS)
    assert code(member) == "archive_entry_refused"


def test_too_many_members_are_refused_before_any() -> None:
    assert "21 entries" in refused(archive(*((f"a/{number}.png", b"") for number in range(21))))
    assert "table of contents" in refused(archive(*((f"a/{number:0200}.png", b"") for number in range(120))))


def zip64(data: bytes, directory: int | None = None) -> io.BytesIO:
    """The same archive in the format for more than 4 GiB, as some programs write every archive."""
    end = data.rindex(b"PK\x05\x06")
    entries, size, offset = struct.unpack_from("<HLL", data, end + 10)
    record = struct.pack(
        "<4sQHHLLQQQQ",
        b"PK\x06\x06",
        44,
        45,
        45,
        0,
        0,
        entries,
        entries,
        size if directory is None else directory,
        offset,
    )
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    last = struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return io.BytesIO(data[:end] + record + locator + last)


def test_a_small_archive_in_the_zip64_format_is_read() -> None:
    data = archive(("a/1.png", b"1"), ("b/2.png", b"2")).getvalue()
    assert list(read_zip(zip64(data), LIMITS)) == [("a/1.png", "a", b"1"), ("b/2.png", "b", b"2")]
    assert "table of contents" in refused(zip64(data, directory=2**40))
    broken = bytearray(zip64(data).getvalue())
    broken[broken.index(b"PK\x06\x06")] ^= 1
    assert "damaged" in refused(io.BytesIO(broken))


def test_what_is_no_archive_is_refused() -> None:
    data = archive(("a/1.png", b"1" * 1000)).getvalue()
    for broken in (b"", b"text", data[:-10], data[:-22], b"\x89PNG\r\n\x1a\n"):
        refused(io.BytesIO(broken))


def test_a_damaged_member_is_refused_alone() -> None:
    data = bytearray(archive(("a/1.png", b"1" * 100), ("a/2.png", b"2"), method=zipfile.ZIP_STORED).getvalue())
    data[data.index(b"1" * 100) + 50] ^= 1
    first, second = read_zip(io.BytesIO(data), LIMITS)
    assert (code(first), second.content) == ("archive_entry_refused", b"2")


def packed_tar(mode: Literal["w", "w:gz", "w:bz2", "w:xz"]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as target:
        info = tarfile.TarInfo("a/1.png")
        info.size = 1
        target.addfile(info, io.BytesIO(b"1"))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (packed_tar("w:gz"), "gzip file (.tar.gz perhaps)"),
        (packed_tar("w:bz2"), "bzip2 file (.tar.bz2 perhaps)"),
        (packed_tar("w:xz"), "xz file (.tar.xz perhaps)"),
        (packed_tar("w"), "tar archive"),
        (b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(100), "7z archive"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(100), "RAR archive"),
        (b"\x28\xb5\x2f\xfd" + bytes(100), "Zstandard file"),
    ],
    ids=["gzip", "bzip2", "xz", "tar", "7z", "rar", "zstandard"],  # a gzip file contains the time
)
def test_other_archives_are_named_as_what_they_are(data: bytes, kind: str) -> None:
    assert f"it is a {kind}" in refused(io.BytesIO(data))
    inside = archive(("a/1.png", data), ("b/2.png", b"2"))
    assert code(next(iter(read_zip(inside, LIMITS)))) == "archive_nested"


def test_a_refusal_draws_the_layout_and_names_what_was_found() -> None:
    with pytest.raises(ArchiveRefusedError) as caught:
        list(
            read_zip(archive(("x/y/1.png", b"1"), ("x/y/2.png", b"2"), ("3.png", b"3")), LIMITS, None, ["a", "b", "c"])
        )
    sentence, _, tree = caught.value.message.partition("\n")
    assert "its files are in 'x/y' (2 files), no folder (1 file). The classes are a, b, c." in sentence
    assert tree.splitlines() == [
        "archive.zip", "├── a", "│   ├── 1.png", "│   └── 2.png", "└── b", "    ├── 1.png", "    └── 2.png",
    ]  # fmt: skip
    assert "└── OTHER_CLASS" in refused(io.BytesIO(b"text"))


def test_one_file_under_two_classes_is_refused_under_both() -> None:
    made = archive(("a/1.png", b"same"), ("a/2.png", b"other"), ("set/b/3.png", b"same"), ("x/4.png", b"same"))
    found = {member.name: member for member in read_zip(made, LIMITS, classes=["a", "b"])}
    assert code(found["a/1.png"]) == code(found["set/b/3.png"]) == "label_ambiguous"
    assert "'set/b/3.png', under another class" in str(found["a/1.png"].content)
    assert "'a/1.png', under another class" in str(found["set/b/3.png"].content)
    assert (found["a/2.png"].content, found["x/4.png"].label, found["x/4.png"].content) == (b"other", "x", b"same")


def test_copies_under_one_class_and_empty_files_do_not_contradict() -> None:
    made = archive(("a/1.png", b"same"), ("a/2.png", b"same"), ("a/e.png", b""), ("b/e.png", b""))
    assert [member.content for member in read_zip(made, LIMITS)] == [b"same", b"same", b"", b""]


def test_a_label_that_contradicts_the_folder_is_refused() -> None:
    made = archive(("a/1.png", b"1"), ("b/2.png", b"2"), ("p7/3.png", b"3"), ("4.png", b"4"))
    first, second, third, fourth = read_zip(made, LIMITS, "a", ["a", "b"])
    assert [first.content, third.content, fourth.content] == [b"1", b"3", b"4"]
    assert code(second) == "label_ambiguous"
    assert "(b and a)" in str(second.content)


def test_an_archive_that_is_encrypted_whole_is_refused_whole() -> None:
    data = bytearray(archive(("a/1.png", b"1"), ("b/2.png", b"2")).getvalue())
    place = -1
    for _ in range(2):
        place = data.index(b"PK\x01\x02", place + 1)
        data[place + 8] |= 1
    assert "encrypted; send it without a password" in refused(io.BytesIO(data))


@pytest.mark.parametrize("encoding", ["utf-8", "cp437", "cp850", "cp1252"])
@pytest.mark.parametrize("name", ["l\u00e4sion", "l\u00e9sion", "\u00fcbrig"])
def test_names_without_an_encoding_are_those_of_a_class(name: str, encoding: str) -> None:
    data = archive((f"{'x' * len(name.encode(encoding))}/1.png", b"1"), ("b/2.png", b"2")).getvalue()
    data = data.replace(b"x" * len(name.encode(encoding)), name.encode(encoding))
    first, second = read_zip(io.BytesIO(data), LIMITS, classes=[name, "b"])
    assert (first.label, first.content, second.label) == (name, b"1", "b")


def test_a_name_of_macos_is_the_class_however_it_is_encoded() -> None:
    raw = "la\u0308sion".encode()
    data = archive((f"{'x' * len(raw)}/1.png", b"1")).getvalue().replace(b"x" * len(raw), raw)
    [member] = read_zip(io.BytesIO(data), LIMITS, classes=["l\u00e4sion", "b"])
    assert (member.label, member.content) == ("l\u00e4sion", b"1")


def test_an_archive_with_a_program_before_it_is_read() -> None:
    data = archive(("a/1.png", b"1")).getvalue()
    assert [member.content for member in read_zip(io.BytesIO(b"MZ" + bytes(500) + data), LIMITS)] == [b"1"]
