"""One table of media types and their categories, the same on every machine.

`mimetypes` reads the machine's own files and registry, so one name gets two types on two hosts;
download, upload and manifest must agree, so they all look here. Where `mimetypes` knows a type
without those files, this table says the same (a test compares them); for the rest the sources are
the IANA media type registry and, for unregistered formats, what their makers document.
"""

import functools
import os
import re
import sys
from pathlib import PurePath
from typing import Final

__all__ = ["media_category", "media_extension", "media_type"]

DEFAULT_TYPE: Final = "application/octet-stream"

_OFFICE: Final = "application/vnd.openxmlformats-officedocument"
_ODF: Final = "application/vnd.oasis.opendocument"

# Each type with its extensions, the usual one first.
_IMAGES: Final = {
    "image/apng": "apng",
    "image/avif": "avif",
    "image/bmp": "bmp",
    "image/x-icon": "cur",
    "image/gif": "gif",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/vnd.microsoft.icon": "ico",
    "image/jpeg": "jpg jfif jpe jpeg",
    "image/jxl": "jxl",
    "image/x-portable-bitmap": "pbm",
    "image/x-portable-graymap": "pgm",
    "image/png": "png",
    "image/x-portable-anymap": "pnm",
    "image/x-portable-pixmap": "ppm",
    "image/vnd.adobe.photoshop": "psd",
    "image/svg+xml": "svg svgz",
    "image/tiff": "tif tiff",
    "image/webp": "webp",
}
_DOCUMENTS: Final = {
    "text/asciidoc": "adoc",
    "application/msword": "doc dot",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "message/rfc822": "eml mht mhtml",
    "application/epub+zip": "epub",
    "text/html": "html htm",
    "text/calendar": "ics",
    "text/markdown": "md markdown",
    f"{_ODF}.presentation": "odp",
    f"{_ODF}.spreadsheet": "ods",
    f"{_ODF}.text": "odt",
    "application/pdf": "pdf",
    "application/vnd.ms-powerpoint": "ppt pps",
    f"{_OFFICE}.presentationml.presentation": "pptx",
    "application/postscript": "ps eps",
    "text/x-rst": "rst",
    "text/rtf": "rtf",
    "application/x-tex": "tex",
    "text/plain": "txt cfg conf ini log srt text",
    "text/x-vcard": "vcf",
    "application/xhtml+xml": "xhtml",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
}
_DATA: Final = {
    "application/vnd.apache.arrow.file": "arrow feather",
    "application/atom+xml": "atom",
    "application/avro": "avro",
    "text/csv": "csv",
    "application/vnd.sqlite3": "db sqlite sqlite3",
    "application/geo+json": "geojson",
    "application/x-hdf5": "h5 hdf5",
    "application/x-ipynb+json": "ipynb",
    "application/json": "json har map",
    "application/json5": "json5",
    "application/jsonl": "jsonl",
    "application/ld+json": "jsonld",
    "application/vnd.google-earth.kml+xml": "kml",
    "application/x-ndjson": "ndjson",
    "application/x-npy": "npy",
    "application/x-npz": "npz",
    "application/vnd.apache.orc": "orc",
    "application/vnd.apache.parquet": "parquet",
    "application/x-protobuf": "pb",
    "application/xml": "rdf xsl",
    "application/rss+xml": "rss",
    "application/sql": "sql",
    "application/toml": "toml",
    "text/tab-separated-values": "tsv",
    "text/vtt": "vtt",
    "application/manifest+json": "webmanifest",
    "text/xml": "xml xsd",
    "application/yaml": "yaml yml",
}
_OTHER: Final = {
    "application/x-7z-compressed": "7z",
    "audio/aac": "aac",
    "audio/x-aiff": "aif aiff",
    "video/x-msvideo": "avi",
    "text/plain": "bat",
    DEFAULT_TYPE: "bin dll exe so",
    "application/x-bzip2": "bz2",
    "text/css": "css",
    "audio/flac": "flac",
    "application/gzip": "gz tgz",
    "application/x-iso9660-image": "iso",
    "application/java-archive": "jar",
    "text/javascript": "js mjs",
    "application/vnd.apple.mpegurl": "m3u8 m3u",
    "audio/mp4": "m4a",
    "video/x-m4v": "m4v",
    "video/x-matroska": "mkv",
    "video/quicktime": "mov qt",
    "audio/mpeg": "mp3 mp2",
    "video/mp4": "mp4",
    "video/mpeg": "mpg mpe mpeg",
    "audio/ogg": "ogg oga",
    "video/ogg": "ogv",
    "audio/opus": "opus",
    "font/otf": "otf",
    "text/x-python": "py",
    "application/vnd.rar": "rar",
    "application/x-sh": "sh",
    "application/x-shockwave-flash": "swf",
    "application/x-tar": "tar",
    "video/mp2t": "ts",
    "font/ttf": "ttf",
    "application/wasm": "wasm",
    "audio/x-wav": "wav",
    "audio/webm": "weba",
    "video/webm": "webm",
    "font/woff": "woff",
    "font/woff2": "woff2",
    "application/x-xz": "xz",
    "application/zip": "zip whl",
    "application/zstd": "zst",
}

_TABLES: Final = (_IMAGES, _DOCUMENTS, _DATA, _OTHER)
_TYPES: Final = {
    extension: kind
    for table in _TABLES
    for kind, extensions in table.items()
    for extension in extensions.split()
}
_CATEGORIES: Final = {
    **dict.fromkeys(_OTHER, "other"),
    **dict.fromkeys(_DATA, "data"),
    **dict.fromkeys(_DOCUMENTS, "document"),
}
# What servers send in place of the types above, with the extension that it stands for.
_OTHER_SPELLINGS: Final = {
    "application/csv": "csv",
    "application/javascript": "js",
    "application/x-parquet": "parquet",
    "application/x-sqlite3": "sqlite",
    "application/x-yaml": "yaml",
    "application/xml": "xml",
    "audio/wav": "wav",
    "image/jpg": "jpg",
    "text/json": "json",
    "text/yaml": "yaml",
}
_TYPE_FORM: Final = re.compile(
    r"(application|audio|chemical|font|image|message|model|multipart|text|video)"
    r"/[\w!#$&^.+-]+",
    re.ASCII,
)


def media_type(name: "str | PurePath") -> str:
    """Return the media (MIME) type that a file's name stands for.

    The same on every machine, except for types that the program itself has added by
    `mimetypes.add_type`: those come first.

    Args:
        name: A file name, path or URL; only the last extension counts, in any letter case.

    Returns:
        A type without parameters; `application/octet-stream` when the name says nothing.

    Example:
        >>> media_type("photos/Portrait.WEBP"), media_type("rows.jsonl"), media_type("README")
        ('image/webp', 'application/jsonl', 'application/octet-stream')
    """
    extension = _extension(name)
    return _added_type(extension) or _TYPES.get(extension, DEFAULT_TYPE)


def media_extension(kind: str) -> str:
    """Return the usual extension of a media type, such as `.html`; empty where there is none.

    Args:
        kind: A media type, with or without parameters.

    Example:
        >>> media_extension("text/html; charset=utf-8"), media_extension("application/octet-stream")
        ('.html', '')
    """
    name = kind.partition(";")[0].strip().lower()
    extension = _extensions().get(name, "")
    if not extension and name.endswith(("+json", "+xml")):
        extension = name.rpartition("+")[2]
    return f".{extension}" if extension else ""


@functools.cache
def _extensions() -> "dict[str, str]":
    usual = {
        kind: extensions.partition(" ")[0]
        for table in reversed(_TABLES)
        for kind, extensions in table.items()
    }
    return {**usual, **_OTHER_SPELLINGS, DEFAULT_TYPE: ""}


def _added_type(extension: str) -> str | None:
    """Return the type that the program has added to `mimetypes`, if it uses that at all."""
    mimetypes = sys.modules.get("mimetypes")
    if mimetypes is None or not getattr(mimetypes, "inited", False) or not extension:
        return None
    known: str | None = mimetypes.types_map.get(f".{extension}")
    return None if known is None or known == _machine_types().get(f".{extension}") else known


@functools.cache
def _machine_types() -> "dict[str, str]":
    """Return what `mimetypes` knows on this machine before the program adds to it."""
    import mimetypes

    known = mimetypes.MimeTypes()
    if hasattr(known, "read_windows_registry"):
        known.read_windows_registry()
    for file in mimetypes.knownfiles:
        if os.path.isfile(file):  # noqa: PTH113 - pathlib would cost its import here
            known.read(file)
    return known.types_map[True]


def media_category(name_or_type: "str | PurePath") -> str:
    """Return the category of a file name or a media type.

    Args:
        name_or_type: A name, path or URL, or a media type with or without parameters.
            `image/logo.png` is taken for a path: its ending is a known extension.

    Returns:
        `image`, `document` (text and office formats for people, HTML and Markdown among them),
        `data` (JSON, CSV, XML, Parquet and other formats for programs) or `other` (archives,
        fonts, sound, film, code, unknown).

    Example:
        >>> [media_category(x) for x in ("a.svg", "index.html", "text/csv; charset=utf-8", "a.zip")]
        ['image', 'document', 'data', 'other']
    """
    if isinstance(name_or_type, str):
        kind = name_or_type.partition(";")[0].strip().lower()
        if kind in _CATEGORIES or (_TYPE_FORM.fullmatch(kind) and _extension(kind) not in _TYPES):
            return _category_of_type(kind)
    extension = _extension(name_or_type)
    if extension == "bat":  # text to a browser, and no document to a reader
        return "other"
    return _category_of_type(media_type(name_or_type))


def _category_of_type(kind: str) -> str:
    known = _CATEGORIES.get(_TYPES.get(_OTHER_SPELLINGS.get(kind, ""), kind))
    if known:
        return known
    if kind.startswith("image/"):
        return "image"
    if kind.endswith(("+json", "+xml", "+yaml", "+cbor")):
        return "data"
    return "document" if kind.startswith("text/") else "other"


def _extension(name: "str | PurePath") -> str:
    text = os.fspath(name)
    if "://" in text:  # a URL: what follows the path is not part of the name
        text = text.partition("#")[0].partition("?")[0]
    last = text.replace("\\", "/").rpartition("/")[2]
    stem, _, extension = last.rpartition(".")
    return extension.lower() if stem.strip(".") else ""
