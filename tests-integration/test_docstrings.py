"""Every example of a docstring shows what happens."""

import ast
import doctest
import importlib
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.mark.parametrize("package", ["fs", "runtime", "polling", "http", "azure", ""])
def test_examples_of_docstrings_hold(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every module, class, function and method, private ones too, found in the source."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = ROOT / "packages" / f"infra-core-{package}".rstrip("-") / "src"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    for path in sorted(source.rglob("*.py")):
        nodes = [n for n in ast.walk(ast.parse(path.read_bytes())) if isinstance(n, DOCUMENTED)]
        examples = [text for n in nodes if ">>>" in (text := ast.get_docstring(n) or "")]
        if not examples:
            continue
        parts = path.relative_to(source).with_suffix("").parts
        top, module = (importlib.import_module(".".join(names)) for names in (parts[:2], parts))
        names = {name: getattr(top, name) for name in getattr(top, "__all__", ())}
        names |= {"Path": Path, "tempfile": tempfile, **vars(module)}
        for text in examples:
            runner.run(doctest.DocTestParser().get_doctest(text, dict(names), str(path), None, 0))
    assert runner.tries > 5
    assert runner.failures == 0
