"""The sizes of files and functions, for which no linter of the project has a rule."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("pipeline", "jobs", "benchmarks", "tests")
FILES = [file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py") if ".peers" not in file.parts]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40


def test_no_file_is_longer_than_300_lines() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in FILES}
    assert {file: count for file, count in lines.items() if count > MAX_FILE_LINES} == {}


def test_no_function_is_longer_than_40_lines() -> None:
    long = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long[f"{file.relative_to(ROOT)}: {node.name}"] = lines
    assert long == {}
