"""Change the code of a package a little, and see whether its tests notice.

    mutate.py infra-core-fs                        20 changes, drawn with seed 1
    mutate.py infra-core-runtime --modules _redaction _secret_names --sample 40 --seed 7 \
        --tests test_runtime_redaction.py          some modules, judged by some tests

Each change is made to a copy of the package. The tests that came to its line in a first run are run
against the copy, then, if none of them notices, all tests. A change that no test notices survives,
and is printed: a test is missing, or the change means the same. Fails when anything survives. Takes
long: on demand, not in CI.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import coverage

from tree import PACKAGES, ROOT, Package

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    path: Path
    line: int
    before: str
    after: str
    source: str


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", choices=[package.name for package in PACKAGES])
    parser.add_argument("--modules", nargs="*", help="names of files without .py; all by default")
    parser.add_argument("--tests", nargs="*", help="files of its tests; all by default")
    parser.add_argument("--sample", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    package = next(package for package in PACKAGES if package.name == options.package)
    files = sorted(package.source.rglob("*.py"))
    chosen = [path for path in files if not options.modules or path.stem in options.modules]
    mutants = [mutant for path in chosen for mutant in mutants_of(path)]
    drawn = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    tests = [str(package.folder / "tests" / name) for name in options.tests or ["."]]
    started = time.monotonic()
    reached = tests_by_line(package, tests)
    if reached is None:
        print("the tests fail without any change", file=sys.stderr)
        return 2
    bound = 30 + 5 * (time.monotonic() - started)

    def survives(mutant: Mutant) -> bool:
        nearest = reached.get((str(mutant.path.relative_to(package.source)), mutant.line), [])
        few = nearest[:: 1 + len(nearest) // 40]
        with copied(package, mutant) as source:
            return not (few and not passes(source, few, bound)) and passes(source, tests, bound)

    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        judged = pool.map(survives, drawn)
        for mutant, still in zip(drawn, judged, strict=True):
            survivors += still
            if still:
                where = f"{mutant.path.relative_to(ROOT)}:{mutant.line}"
                print(f"{where}: {mutant.before} -> {mutant.after}", flush=True)
    print(f"{len(drawn) - survivors} of {len(drawn)} changes noticed ({len(mutants)} possible)")
    return int(survivors > 0 or not drawn)


def mutants_of(path: Path) -> Iterator[Mutant]:
    """Every change of a module that this tool knows, one at a time."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for number, node in enumerate(ast.walk(tree)):
        for variant in range(len(variants(node))):
            changed = copy.deepcopy(tree)
            target = list(ast.walk(changed))[number]
            before = ast.unparse(target)
            replacement = variants(target)[variant]
            if not replace(changed, target, replacement):
                continue
            ast.fix_missing_locations(changed)
            after = ast.unparse(replacement)
            # From shortly before they differ: a call without its last argument is long.
            pairs = enumerate(zip_longest(before, after))
            start = max(0, next((at for at, (a, b) in pairs if a != b), 0) - 40)
            old, new = (" ".join(text[start:].split())[:80] for text in (before, after))
            yield Mutant(path, getattr(node, "lineno", 0), old, new, ast.unparse(changed))


def variants(node: ast.AST) -> list[ast.AST]:
    """What may take the place of a node."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        swapped = copy.deepcopy(node)
        swapped.ops[0] = COMPARISONS[type(node.ops[0])]()
        return [swapped]
    if isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return [ast.BoolOp(other, node.values)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [node.operand]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return [ast.BinOp(node.left, OPERATIONS[type(node.op)](), node.right)]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return [ast.Constant(not node.value)]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return [ast.Constant(node.value + 1)]
    if isinstance(node, ast.Return) and node.value is not None and not is_none(node.value):
        return [ast.Return(ast.Constant(None))]
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and not is_text(node.value)):
        return [ast.Pass()]
    if isinstance(node, ast.Call) and node.keywords:
        return [
            ast.Call(node.func, node.args, node.keywords[:at] + node.keywords[at + 1 :])
            for at in range(len(node.keywords))
        ]
    if isinstance(node, (ast.If, ast.IfExp)):
        forced = copy.deepcopy(node)
        forced.test = ast.Constant(False)
        return [forced]
    return []


def is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (str, type(...)))


def replace(tree: ast.AST, target: ast.AST, replacement: ast.AST) -> bool:
    """Put a node in the place of another; False where that is an annotation or a class's field."""
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if field in {"annotation", "returns", "decorator_list"}:
                continue
            if value is target:
                setattr(parent, field, replacement)
                return True
            if isinstance(value, list) and any(item is target for item in value):
                value[:] = [replacement if item is target else item for item in value]
                return True
    return False


def tests_by_line(package: Package, tests: list[str]) -> dict[tuple[str, int], list[str]] | None:
    """Run the tests on the unchanged code; returns which of them came to a line, None if any fails.

    What a test does in processes of its own is not seen.
    """
    with copied(package, None) as source:
        data = source / "coverage"
        options = [f"--cov={source}", "--cov-context=test", "--cov-report=", "-p", "xdist"]
        if not passes(source, [*tests, *options], 1200, COVERAGE_FILE=str(data)):
            return None
        measured = coverage.CoverageData(str(data))
        measured.read()
        reached: dict[tuple[str, int], list[str]] = {}
        for path in measured.measured_files():
            if not path.startswith(f"{source}{os.sep}"):  # of another package
                continue
            name = str(Path(path).relative_to(source))
            for line, contexts in measured.contexts_by_lineno(path).items():
                tests_of_line = {context.rpartition("|")[0] for context in contexts} - {""}
                reached[name, line] = sorted(tests_of_line)
        return reached


@contextmanager
def copied(package: Package, mutant: Mutant | None) -> Iterator[Path]:
    """A copy of the package's source, with a change."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder).resolve() / "src"
        shutil.copytree(package.source, source, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            changed = source / mutant.path.relative_to(package.source)
            changed.write_text(mutant.source, encoding="utf-8")
        yield source


def passes(source: Path, arguments: list[str], seconds: float, **variables: str) -> bool:
    """Whether pytest passes within a time on the package whose source this is."""
    # before the installed packages: the copy's folder is found first in the namespace
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    tested = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-o", "timeout=60", *arguments],
        cwd=ROOT,
        env=environment | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return tested.wait(seconds) == 0
    except subprocess.TimeoutExpired:  # it runs for ever: noticed
        return False
    finally:
        with suppress(ProcessLookupError):  # what its tests have started ends with it
            os.killpg(tested.pid, signal.SIGKILL)
        tested.wait()


if __name__ == "__main__":
    sys.exit(main())
