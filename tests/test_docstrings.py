"""What `help()`, an editor and the site show: every argument is explained, every example runs."""

import ast
import doctest
import inspect
import sys
from pathlib import Path
from typing import is_typeddict

import pytest
import torch
from torch import nn

import make_a_video_pytorch as library

PACKAGE = Path(library.__file__).parent
PUBLIC = {
    name: thing
    for module in (library, library.guidance, library.recipes)
    for name in module.__all__
    if not inspect.ismodule(thing := getattr(module, name)) and not is_typeddict(thing)
}
public = pytest.mark.parametrize("thing", PUBLIC.values(), ids=PUBLIC)


def arguments_of(thing):
    """The names of the arguments that a constructor or a function takes."""
    return [name for name in inspect.signature(thing).parameters if name not in ("args", "kwargs")]


def explained_in(docstring):
    """The names of what the `Args:` of a docstring explain, in their order."""
    _, _, rest = inspect.cleandoc(docstring or "").partition("\nArgs:\n")
    names = []
    for line in rest.splitlines():
        if line and not line.startswith("    "):
            break
        if line.startswith("    ") and not line.startswith("     ") and ":" in line:
            names.extend(name.strip(" `*") for name in line.partition(":")[0].split(","))
    return names


def run_example(thing, **further):
    """Run the examples in a docstring, with these `further` names; how many there are."""
    finder = doctest.DocTestFinder(recurse=False)
    names = {**vars(library), **vars(sys.modules[thing.__module__]), "torch": torch, "nn": nn}
    names.update({thing.__name__: thing, **further})
    (test,) = finder.find(thing, thing.__name__, module=False, globs=names)
    report = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    return len(test.examples)


@public
def test_every_argument_is_explained(thing):
    """Of a class in a list; a short function may name them in what it says of itself."""
    arguments, explained = arguments_of(thing), explained_in(thing.__doc__)
    if not explained and not inspect.isclass(thing):
        explained = [name for name in arguments if f"`{name}`" in thing.__doc__]
    assert explained == arguments


MEMBERS = {
    f"{name}.{member}": getattr(thing, member)
    for name, thing in PUBLIC.items()
    if inspect.isclass(thing)
    for member in ("forward", "grow", "from_unet", "run", "check")
    if member in vars(thing) and arguments_of(getattr(thing, member)) not in ([], ["self"])
}


@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_every_argument_of_a_method_is_explained_or_named(member):
    said = inspect.getdoc(member)
    for name in arguments_of(member):
        known = name in ("self", "cls", "x", "enable_time")
        assert known or name in explained_in(said) or f"`{name}`" in said, name


@public
def test_there_is_an_example_of_a_few_lines_and_it_is_right(thing):
    assert 1 <= run_example(thing) <= 6


def test_an_example_that_is_wrong_is_found():
    def three() -> int:
        """Three.

        Example:
            >>> three()
            4
        """
        return 3

    with pytest.raises(AssertionError, match=r"Expected:\s+4\s+Got:\s+3"):
        run_example(three)


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_arguments_are_explained_in_docstrings_and_not_in_comments(path):
    """Which neither `help()` nor an editor shows."""
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            signature = lines[node.lineno - 1 : node.body[0].lineno - 1]
            assert not any("  #" in line for line in signature), f"{path.name}:{node.lineno}"


def test_no_public_signature_takes_anything():
    """Types are checked by mypy; `Any` would pass it by."""
    for path in PACKAGE.rglob("*.py"):
        names = (n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name))
        assert "Any" not in names, path
