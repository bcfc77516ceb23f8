"""The formats of a list, apart from the readers: the command names them before it starts."""

from typing import Literal

__all__ = ["FORMATS", "Format", "format_of"]

Format = Literal["text", "csv", "jsonl"]
FORMATS: tuple[Format, ...] = ("text", "csv", "jsonl")


def format_of(name: str) -> Format:
    """The format that a file's extension speaks of; text for any other."""
    extension = name.rpartition(".")[2].lower()
    if extension == "csv":
        return "csv"
    return "jsonl" if extension in {"jsonl", "ndjson", "json"} else "text"
