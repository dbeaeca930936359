"""Which files are meant, what their documents are called, and what text is in them."""

import io
import time
import zipfile
from pathlib import Path

import pytest

from cloud_node.document_files import MAX_FILE_BYTES, decoded, id_of, left_out, meant, read

TEXT = "Müller's café: 图书馆 🌧️\n\nThe key lies here.\n"


def put(path: Path, raw: bytes | str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
def test_utf_8_and_marked_utf_16_are_read_without_their_mark(encoding: str) -> None:
    crlf = TEXT.replace("\n", "\r\n")
    raw = (
        ("\ufeff" + crlf).encode(encoding.removesuffix("-bom"))
        if encoding.endswith("-bom")
        else crlf.encode(encoding)
    )
    assert decoded(raw) == TEXT


def test_an_encoding_that_is_given_is_used(tmp_path: Path) -> None:
    file = put(tmp_path / "latin.txt", "Prüfung".encode("latin-1"))
    assert read(file, "latin-1") == "Prüfung"
    assert read(put(tmp_path / "page.html", "<p>Prüfung</p>".encode("latin-1")), "latin-1") == "Prüfung"
    assert decoded(b"\xef\xbb\xbftext", "utf-8") == "text"


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("Prüfung".encode("latin-1"), r"byte 2 \(0xfc\) is not utf-8; .*--encoding latin-1"),
        (b"\xff\xfea\x00\x00\xd8", r"byte 4 \(0x00\) is not utf-16"),
        (b"ab\0c", "character 2 is NUL"),
        ("abc".encode("utf-16-le"), "character 1 is NUL"),
        ("abc".encode("utf-32"), "character 0 is NUL"),
    ],
)
def test_bytes_that_are_no_text_are_refused_where_they_stop_being_one(raw: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decoded(raw)


def test_a_page_is_read_as_it_shows(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>Keys &amp; tides</title><style>p {color: red}</style>
    <script>if (a < b) { document.write("<p>hidden</p>") }</script></head>
    <body><h1>The   boat
    house</h1><p>The key lies <b>under</b> the&nbsp;stone.<br>Not the mat.</p>
    <ul><li>one</li><li>two</li></ul><table><tr><td>tide</td><td>9</td></tr><tr><td>key</td><td>3</td></tr></table>
    <pre>def area(w):
    return w * 2</pre></body></html>"""
    assert read(put(tmp_path / "page.HTM", page)) == (
        "Keys & tides\n\nThe boat house\n\nThe key lies under the stone.\nNot the mat.\n\none\ntwo\n\n"
        "tide\t9\nkey\t3\n\ndef area(w):\n    return w * 2"
    )


@pytest.mark.parametrize("unit", ["<a ", "<a b='>'", "<!--", "</", "</a ", "<!", '<a b="', "<a ="])
def test_a_page_of_tags_without_ends_is_refused_at_once(tmp_path: Path, unit: str) -> None:
    page = put(tmp_path / "page.html", unit * ((1 << 20) // len(unit)))
    begun = time.process_time()
    with pytest.raises(ValueError, match="at character 0 has no end"):
        read(page)
    assert time.process_time() - begun < 10


def test_comments_quoted_signs_and_scripts_are_not_taken_for_text(tmp_path: Path) -> None:
    page = """a < b <!-- <p>old</p> --><!--><i title="x > y" data-n=1>&lt;c&gt;</i>
    <?xml?><![CDATA[no]]></ ><SCRIPT a='>'>"</p><x " </SCRIPTS></Script ><br/>it's<p it's>end"""
    assert read(put(tmp_path / "page.html", page)) == "a < b <c>\nit's\n\nend"


def pdf(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    kids = " ".join(f"{4 + 2 * n} 0 R" for n in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for n, line in enumerate(pages):
        shown = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET" if line else ""
        objects += [
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {5 + 2 * n} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>",
            f"<< /Length {len(shown)} >>\nstream\n{shown}\nendstream",
        ]
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    return out + f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()


def docx(body: str) -> bytes:
    """A Word document with this XML as its body."""
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
        'wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r1" Type="{office}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>',
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return file.getvalue()


def test_the_pages_of_a_pdf_are_read(tmp_path: Path) -> None:
    file = put(tmp_path / "note.pdf", pdf("The key lies under the stone.", "", "The tide is at nine."))
    assert read(file) == "The key lies under the stone.\n\nThe tide is at nine."


def test_a_word_document_is_read_with_its_tables(tmp_path: Path) -> None:
    def line(text: str) -> str:
        return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"

    cells = "".join(f"<w:tc>{line(text)}</w:tc>" for text in ("tide", "9"))
    file = put(
        tmp_path / "note.docx",
        docx(line("The key &amp; the stone.") + f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>" + line("End.")),
    )
    words = read(file).split()
    assert words == ["The", "key", "&", "the", "stone.", "tide", "9", "End."]
    assert read(file).startswith("The key & the stone.\n\n")


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("empty.pdf", pdf("", ""), "no text on its 2 pages"),
        ("broken.pdf", b"%PDF-1.4 and no more", "no PDF that can be read"),
        ("broken.docx", b"PK no zip", "no Word document that can be read"),
    ],
)
def test_what_a_library_cannot_read_is_refused_in_our_words(
    tmp_path: Path, name: str, raw: bytes, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        read(put(tmp_path / name, raw))


def test_a_word_document_that_unpacks_to_far_more_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO(docx("<w:p><w:r><w:t>text</w:t></w:r></w:p>"))
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/styles.xml", b" " * MAX_FILE_BYTES)
    with pytest.raises(ValueError, match="bytes unpacked are over"):
        read(put(tmp_path / "bomb.docx", packed.getvalue()))


def test_a_pdf_of_more_text_than_a_document_may_have_is_refused_where_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_node.document_files.MAX_DOCUMENT_CHARS", 20)
    with pytest.raises(ValueError, match="its first 2 pages are over 20 characters"):
        read(put(tmp_path / "long.pdf", pdf("fifteen letters", "fifteen letters", "never read")))


def test_an_empty_path_means_nothing() -> None:
    with pytest.raises(ValueError, match="an empty path"):
        meant("")


def test_a_file_that_is_none_or_far_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no regular file"):
        read(Path("/dev/null"))
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ValueError, match="bytes are over"):
        read(large)


def test_a_folder_means_its_texts_and_a_pattern_what_it_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.txt", "a/deep/c.MD", "a/page.html", "a/image.png", ".git/d.txt", "a/.e.txt", "notes.log"):
        put(tmp_path / "notes" / name)
    monkeypatch.chdir(tmp_path)
    assert [file.name for file in meant("notes")] == ["b.txt", "a/page.html", "a/deep/c.MD"]
    assert left_out("notes") == [Path("notes/notes.log"), Path("notes/a/image.png")]
    assert left_out("notes/*") == left_out("notes/b.txt") == []
    assert [file.name for file in meant("notes/notes.log")] == ["notes.log"]
    assert [file.name for file in meant("notes/*")] == ["b.txt", "notes.log"]
    assert [file.name for file in meant("notes/**/*.[hM]*")] == ["a/deep/c.MD", "a/page.html"]
    assert [file.path for file in meant("*/b.txt")] == [Path("notes/b.txt")]
    assert [file.name for file in meant(f"{tmp_path}/notes/b.???")] == ["b.txt"]
    put(tmp_path / "odd[1].txt")
    assert [file.name for file in meant("odd[1].txt")] == ["odd[1].txt"]
    with pytest.raises(FileNotFoundError):
        meant("nowhere.txt")
    with pytest.raises(ValueError, match="no file matches"):
        meant("nowhere*.txt")
    with pytest.raises(ValueError, match=r"notes/a/none holds no \.txt, \.md"):
        (tmp_path / "notes/a/none").mkdir()
        meant("notes/a/none")


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("note.txt", "note.txt"),
        ("a/b c.txt", "a/b-c.txt"),
        ("Prüfung (2).pdf", "Prufung-2-.pdf"),
        ("_draft.txt", "draft.txt"),
        ("图书馆 3.txt", "3.txt"),
    ],
)
def test_an_id_is_the_path_with_what_an_id_may_have(name: str, made: str) -> None:
    from cloud_node.document_reader import DOCUMENT_ID

    assert id_of(name) == made and DOCUMENT_ID.fullmatch(made)


@pytest.mark.parametrize("name", ["图书馆.txt", "a/---.txt"])
def test_a_name_without_letters_makes_no_id(name: str) -> None:
    with pytest.raises(ValueError, match="--id"):
        id_of(name)
