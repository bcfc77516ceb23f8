"""Everything that an exception wraps, the nearest first."""

import sys

import pytest

from infra_core.runtime import error_chain


def test_causes_contexts_arguments_and_attributes() -> None:
    """In order of their distance, each once, circles included."""
    inner = OSError("inner")
    argument = ValueError("argument")
    error = RuntimeError("outer", argument)
    error.__cause__ = inner
    inner.__context__ = error
    argument.reason = deep = KeyError("reason")  # type: ignore[attr-defined]
    assert list(error_chain(error)) == [error, inner, argument, deep]


@pytest.mark.parametrize("name", ["reason", "os_error", "certificate_error", "inner_exception"])
def test_what_libraries_keep(name: str) -> None:
    """urllib3, aiohttp and the Azure SDK have attributes of their own for it."""
    error, inner = RuntimeError("outer"), OSError("inner")
    setattr(error, name, inner)
    assert list(error_chain(error)) == [error, inner]


def test_a_suppressed_context_is_left_out_unless_asked_for() -> None:
    """Text without secrets must look there too; a judgement must not."""
    try:
        try:
            raise OSError("hidden")
        except OSError:
            raise RuntimeError("outer") from None
    except RuntimeError as error:
        assert [type(link) for link in error_chain(error)] == [RuntimeError]
        assert [type(link) for link in error_chain(error, suppressed=True)] == [
            RuntimeError,
            OSError,
        ]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs exception groups")
def test_members_of_groups() -> None:
    """Which asyncio's task groups raise."""
    group_type = __builtins__["ExceptionGroup"]  # type: ignore[index]
    member = OSError("member")
    assert member in list(error_chain(group_type("several", [member])))
