"""The pages of the site, and the Python on them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {path.stem: path.read_text() for path in sorted(DOCS.glob("*.md"))}
# what `pip install ".[test]"` has, and every page may use
AT_HAND = {*sys.stdlib_module_names, "make_a_video_pytorch", "safetensors", "torch"}
NEEDED_BESIDE = {"onnxruntime": {"onnxscript"}}


class Block(NamedTuple):
    """A block of Python, and the libraries that it needs."""

    code: str
    needs: frozenset[str]
    line: int  # of the page, before the first of the block


def blocks_of(page: str) -> list[Block]:
    """The blocks of Python on a page, in their order."""
    text = PAGES[page]
    found = []
    for match in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        needs = imported(match[1]) - AT_HAND
        for library in list(needs):
            needs |= NEEDED_BESIDE.get(library, set())
        if found:  # a page that begins with a library is about it
            needs |= found[0].needs
        found.append(Block(match[1], frozenset(needs), text[: match.start(1)].count("\n")))
    return found


def imported(code: str) -> set[str]:
    """The packages that `code` imports."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def run(page: str, blocks: list[Block]) -> dict[str, object]:
    """Run `blocks` of a page one after another, as a reader would; return what they define."""
    namespace: dict[str, object] = {"__name__": page}
    for block in blocks:
        code = "\n" * block.line + block.code  # a traceback then has the page's lines
        exec(compile(code, f"docs/{page}.md", "exec", dont_inherit=True), namespace)
    return namespace
