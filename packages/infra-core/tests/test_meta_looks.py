"""What people see on terminals of any width: nothing cut off, nothing broken in the middle."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from infra_core.azure.job_store import JobRecord, SqliteJobStore
from infra_core.batch import Summary
from infra_core.cli import main
from infra_core.cli._arguments import wrapped
from infra_core.cli._jobs import TERMINAL_LIMIT, print_for_people
from infra_core.cli._main import COMMANDS
from infra_core.cli._report import print_marked, print_rows, rows_of

URL = "https://host.example/a/path/that/does/not/fit/into/one/cell/logo.png?version=2"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def console_of(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)


def shown(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_jobs_are_readable_at_any_width(width: int, terminal: None) -> None:
    """Ids, states and URLs are whole; the error stands below its URL, which is not repeated."""
    failed = JobRecord("b", "b" * 32, payload={"url": URL}).start().fail(f"HTTP 404: {URL} is gone")
    console = console_of(width)
    print_for_people(console, [JobRecord("b", "a" * 32, payload={"url": URL}), failed])
    lines = shown(console)
    assert max(map(len, lines)) <= width
    assert "…" not in "".join(lines)
    text = "".join("".join(lines).split())
    assert text.count("https://") == text.count("logo.png?version=2") == 2
    assert [text.count(part) for part in ("aaaaaaaa", "bbbbbbbb", "pending", "failed")] == [1] * 4
    assert ("updated" in text) is (width >= 80)


def test_ids_are_as_long_as_needed_to_be_unique(terminal: None) -> None:
    """`jobs show` takes what the list shows."""
    console = console_of(100)
    print_for_people(console, [JobRecord("b", f"nightly-job-{n}") for n in "12"])
    assert "nightly-job-1" in "\n".join(shown(console))


def test_a_terminal_gets_the_first_jobs_of_many_unless_more_are_asked_for(
    terminal: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a program reads is whole."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save_many(JobRecord("b", f"{n:032x}") for n in range(TERMINAL_LIMIT + 1))
    for arguments, cut in (
        ([], True), (["--limit", "0"], False), (["--json"], False), (["--format", "csv"], False),
    ):  # fmt: skip
        console = console_of(100)
        monkeypatch.setattr("infra_core.cli._jobs.make_console", lambda console=console: console)
        assert main(["jobs", "list", "b", "--out", str(tmp_path), *arguments]) == 0
        printed = capsys.readouterr()
        assert (f"the first {TERMINAL_LIMIT} jobs; --limit 0 shows all" in printed.err) is cut
        text = printed.out + "\n".join(shown(console))
        assert text.count("pending") == TERMINAL_LIMIT + (not cut)


def test_lines_with_a_mark_go_on_below_their_text(terminal: None) -> None:
    """Broken between words."""
    console = console_of(40)
    print_marked(console, "failed", "HTTPStatusError: answered 404 Not Found: check the URL")
    first, *rest = shown(console)
    assert first.startswith("  failed HTTPStatusError: answered")
    assert rest
    assert all(line.startswith(" " * 9) for line in rest)
    assert " ".join(" ".join([first, *rest]).split()).endswith("404 Not Found: check the URL")


def test_dumb_terminals_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their width is not known: tabs, as in a file."""
    monkeypatch.setenv("TERM", "dumb")
    console = console_of(40)
    print_rows(console, ["a", "b"], [["1", URL], ["two\nlines", "a\tb"]])
    assert shown(console) == [f"1\t{URL}", "two lines\ta b"]


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
@pytest.mark.parametrize("columns", [60, 80, 102])
def test_help_fits_the_terminal(
    name: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Descriptions are wrapped between words where their lines are too long."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit):
        main([name, "--help"])
    long = [line for line in capsys.readouterr().out.splitlines() if len(line) > columns]
    assert [line for line in long if " " in line.strip()] == []


def test_lists_in_a_help_keep_their_indent() -> None:
    """Text that stands right of a word is wrapped below itself, examples a step further in."""
    assert wrapped("  1    failed; the report says", 20).splitlines() == [
        "  1    failed; the",
        "       report says",
    ]
    assert wrapped("  infra-core run a --resume", 20).splitlines()[1].startswith(" " * 6)
    assert wrapped("one two\nthree four five", 10) == "one two\nthree four\nfive"


def test_report_page_knows_narrow_screens() -> None:
    """The table becomes blocks on a telephone."""
    import infra_core.azure.run_report as report

    css = Path(report.__file__).with_name("report_assets") / "report.css"
    assert "@media (max-width: 640px)" in css.read_text(encoding="utf-8")


def test_summary_explains_only_what_there_is() -> None:
    """`skipped 0` needs no reason, one file is no plural."""
    rows = dict(rows_of(Summary("b", mirrored=1)))
    assert rows["skipped"] == "0"
    assert rows["mirrored"] == "1 file, 0 not uploaded"
    assert dict(rows_of(Summary("b", skipped=2)))["skipped"].startswith("2 (here already")
