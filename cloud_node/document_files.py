"""Files that people have, as documents: which are meant, the id of each, and its text."""

from __future__ import annotations

import codecs
import contextlib
import glob
import html
import io
import itertools
import logging
import os
import re
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from cloud_node.documents import MAX_DOCUMENT_CHARS

MAX_FILE_BYTES: Final = 64 << 20
"""Larger files are not read."""


@dataclass(frozen=True, slots=True)
class Meant:
    """A file, and its path below the folder that was named; `root` is that folder, None for a file by itself."""

    path: Path
    name: str
    root: Path | None = None

    def resolved(self) -> str:
        """The path without links.

        Raises:
            ValueError: it leads out of the folder that was named.
        """
        real = os.path.realpath(self.path)  # Path.resolve raises RuntimeError where links go round
        if self.root is not None and not Path(real).is_relative_to(os.path.realpath(self.root)):
            raise ValueError(f"a link that leads out of {self.root}; name the file itself to read it")
        return real


def meant(named: str) -> list[Meant]:
    """The files that a path means: the file itself, those of a folder and its folders, or those of a pattern.

    A folder means its files of the suffixes in `READERS`, hidden ones left out, by name; `left_out` has the others. A
    pattern has *, ? or [, and ** for any depth.

    Raises:
        OSError: there is nothing of that name.
        ValueError: there is no file in it that could be meant.
    """
    if not named:
        raise ValueError("an empty path; . is the current folder")
    path = Path(named)
    if path.is_dir():
        files = filter(_has_reader, _files(path))
        found = [Meant(file, file.relative_to(path).as_posix(), path) for file in files]
        if not found:
            raise ValueError(f"{named} holds no {', '.join(READERS)}")
        return found
    if path.exists() or not glob.has_magic(named):
        path.stat()
        return [Meant(path, path.name)]
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts[:-1]))
    pattern = path.relative_to(fixed).as_posix()
    names = ((file, file.relative_to(fixed).as_posix()) for file in sorted(fixed.glob(pattern)))
    found = [Meant(file, name, fixed) for file, name in names if file.is_file() and not _HIDDEN.search(name)]
    if not found:
        raise ValueError(f"no file matches {named}")
    return found


def left_out(named: str) -> list[Path]:
    """The files below a folder that it does not mean, for their suffix; none of what is no folder."""
    return list(itertools.filterfalse(_has_reader, _files(Path(named))))


def id_of(name: str) -> str:
    """The id of the document in a file: its path, with - for what an id may not have, and letters without accents.

    Raises:
        ValueError: nothing of the file's name is left.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    made = re.sub(r"[^A-Za-z0-9._:/@+-]+", "-", plain).lstrip("._:/@+-")
    if not re.search("[A-Za-z0-9]", Path(plain).stem):
        raise ValueError("its name has no letters or digits that an id may have; give one with --id")
    return made


def read(path: Path, encoding: str | None = None) -> str:
    """The text of a file, by its suffix; a suffix that is not in `READERS` is taken for plain text.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no text in it, or what is there cannot be read.
        ModuleNotFoundError: the library for it is not installed (the extra `documents`).
    """
    if not path.is_file():
        raise ValueError("no regular file; - reads standard input")
    with path.open("rb") as file:
        raw = whole(file)
    return READERS.get(path.suffix.lower(), decoded)(raw, encoding)


def whole(stream: BinaryIO) -> bytes:
    """All bytes of a stream.

    Raises:
        ValueError: there are more than `MAX_FILE_BYTES`.
    """
    raw = stream.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"its bytes are over {MAX_FILE_BYTES:,}, the most of one file")
    return raw


def decoded(raw: bytes, encoding: str | None = None) -> str:
    """Bytes as text, by one rule: UTF-8, or UTF-16 where it begins with a byte order mark, or `encoding` where given.

    The mark is dropped; CR LF becomes LF.

    Raises:
        ValueError: they are not in that encoding, or hold a NUL.
    """
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    used = encoding or ("utf-16" if marked else "utf-8")
    try:
        text = raw.decode(used)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"byte {error.start:,} (0x{raw[error.start]:02x}) is not {used}; "
            "say what it is in, such as --encoding latin-1"
        ) from None
    nul = text.find("\0")
    if nul >= 0:
        raise ValueError(f"character {nul:,} is NUL: this is no text, or UTF-16 without a byte order mark")
    return text.removeprefix("\ufeff").replace("\r\n", "\n")


def _html(raw: bytes, encoding: str | None) -> str:
    return _text_of(decoded(raw, encoding))


def _pdf(raw: bytes, encoding: str | None) -> str:
    import pypdf

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # how a file falls short of the standard
    with _parsing("PDF"):
        reader = pypdf.PdfReader(io.BytesIO(raw))
        locked = reader.is_encrypted and not reader.decrypt("")
        pages: list[str] = []
        room = MAX_DOCUMENT_CHARS
        for page in () if locked else reader.pages:
            pages.append(page.extract_text().strip())
            room -= len(pages[-1])
            if room < 0:
                break
    if locked:
        raise ValueError("a PDF with a password")
    if room < 0:
        raise ValueError(
            f"its first {len(pages):,} pages are over {MAX_DOCUMENT_CHARS:,} characters; store it in parts"
        )
    text = "\n\n".join(page for page in pages if page)
    if not text:
        raise ValueError(f"no text on its {len(pages)} pages: scanned pages need OCR first")
    # A glyph whose letter the file does not tell may come as one of these.
    return re.sub("[\0\ud800-\udfff]", "\ufffd", text)


def _docx(raw: bytes, encoding: str | None) -> str:
    import mammoth

    with _parsing("Word document"), zipfile.ZipFile(io.BytesIO(raw)) as parts:
        unpacked = sum(part.file_size for part in parts.infolist())
    if unpacked > MAX_FILE_BYTES:
        raise ValueError(f"{unpacked:,} bytes unpacked are over {MAX_FILE_BYTES:,}, the most of one file")
    with _parsing("Word document"):
        without_images = mammoth.images.img_element(lambda image: {})
        page = mammoth.convert_to_html(io.BytesIO(raw), convert_image=without_images).value
    return _text_of(page)


READERS: Final[dict[str, Callable[[bytes, str | None], str]]] = {
    ".txt": decoded,
    ".md": decoded,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
}
"""By the suffix of a file; what a folder means has one of these."""


@contextlib.contextmanager
def _parsing(kind: str) -> Iterator[None]:
    """Whatever a library raises over a broken file becomes one ValueError that names the kind of file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"no {kind} that can be read ({type(error).__name__})") from error


class _Shown:
    """Collects the text that a page shows: one line for each block, blank lines between paragraphs."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._kept = 0

    def begin(self, tag: str) -> None:
        self._kept += tag == "pre"
        self.parts.append(_BREAKS.get(tag, ""))

    def end(self, tag: str) -> None:
        self._kept = max(0, self._kept - (tag == "pre"))
        self.parts.append("" if tag in _BEFORE else _BREAKS.get(tag, ""))

    def show(self, escaped: str) -> None:
        text = html.unescape(escaped)
        self.parts.append(text if self._kept else re.sub(r"\s+", " ", text))


_BEFORE: Final = {**dict.fromkeys(("br", "li", "tr", "dt", "dd"), "\n"), **dict.fromkeys(("td", "th"), "\t")}
"""What stands before a tag alone, and not after its end."""
_BREAKS: Final = {
    **_BEFORE,
    **dict.fromkeys(("div", "section", "article", "header", "footer"), "\n"),
    **dict.fromkeys(("p", "h1", "h2", "h3", "h4", "h5", "h6"), "\n\n"),
    **dict.fromkeys(("ul", "ol", "dl", "table", "pre", "blockquote", "title", "hr"), "\n\n"),
}


_MARKUP: Final = re.compile(r"<(?:!--|[!?]|/(?![A-Za-z])|(?P<end>/?)(?P<tag>[A-Za-z][^\s/>]*+))")
_TAG_END: Final = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')|=(?!\s*+["']))*+>""")
"""From behind a tag's name; a > in a quoted value is none."""


def _text_of(page: str) -> str:
    """The text that a page shows, in one pass: html.parser looks for the end of each unclosed tag in the whole rest.

    Raises:
        ValueError: there is a tag or comment without an end.
    """
    shown = _Shown()
    at = 0
    while markup := _MARKUP.search(page, at):
        shown.show(page[at : markup.start()])
        at = _end_of(page, markup)
        if markup["tag"] is None:
            continue
        tag = markup["tag"].lower()
        alone = page.startswith("/>", at - 2)
        if not markup["end"]:
            shown.begin(tag)
        if markup["end"] or alone:
            shown.end(tag)
        elif tag in ("script", "style"):
            unseen = re.compile(rf"</{tag}(?=[\s/>])", re.IGNORECASE).search(page, at)
            at = unseen.start() if unseen else len(page)
    shown.show(page[at:])
    lines = [re.sub(r"^[ \t](?=\S)", "", line.rstrip()) for line in "".join(shown.parts).split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _end_of(page: str, markup: re.Match[str]) -> int:
    if markup["tag"] is not None:
        found = _TAG_END.match(page, markup.end())
        end = found.end() if found else 0
    elif markup[0] == "<!--":
        end = page.find("-->", markup.start() + 2) + len("-->")
        end = end if end >= len("<!-->") else 0
    else:
        end = page.find(">", markup.end()) + 1
    if not end:
        raise ValueError(f"the tag or comment at character {markup.start():,} has no end")
    return end


def _files(folder: Path) -> Iterator[Path]:
    """Below a folder, hidden ones aside; none of what is no folder."""
    for path, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(path, name)


def _has_reader(file: Path) -> bool:
    return file.suffix.lower() in READERS


_HIDDEN: Final = re.compile(r"(^|/)\.")
