"""What the pages of the site say: their Python runs, their links lead somewhere."""

import inspect
import re

import pytest

import make_a_video_pytorch as library
from make_a_video_pytorch import SpaceTimeUnet
from tests.pages import DOCS, PAGES, ROOT, blocks_of, imported, run

WITH_CODE = [page for page in PAGES if blocks_of(page)]
LINK = re.compile(r"!?\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.mark.parametrize("page", WITH_CODE)
def test_every_block_runs(page, tmp_path, monkeypatch):
    """Those that need another library are run by tests/integrations."""
    monkeypatch.chdir(tmp_path)
    run(page, [block for block in blocks_of(page) if not block.needs])


@pytest.mark.parametrize("page", WITH_CODE)
def test_a_page_stands_alone_and_asserts_what_it_says(page):
    blocks = blocks_of(page)
    assert imported(blocks[0].code)
    assert any("assert" in block.code for block in blocks)


def anchors(text):
    """What headings are linked to by."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    kept = (re.sub(r"[^\w\s-]", "", heading.lower().replace(".", "-")) for heading in headings)
    return {"-".join(heading.split()) for heading in kept}


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [*PAGES, "README"])
def test_links_and_pictures_are_there(page):
    path = ROOT / "README.md" if page == "README" else DOCS / f"{page}.md"
    text = path.read_text()
    for target, anchor in LINK.findall(without_code(text)):
        there = path.parent / target if target else path
        assert there.is_file(), target
        if anchor:
            assert anchor in anchors(there.read_text()), f"{target}#{anchor}"
    for included in re.findall(r"^```\{include\} (.*)$", text, flags=re.MULTILINE):
        assert (path.parent / included).is_file(), included


def test_every_page_is_in_the_toctree_once():
    trees = re.findall(r"```\{toctree\}\n((?:[^`]*\n)*?)```", PAGES["index"])
    lines = [line for tree in trees for line in tree.split("\n") if re.match(r"[^:]", line)]
    listed = [re.sub(r"^.* <(.*)>$", r"\1", line) for line in lines]
    assert sorted(listed) == sorted(set(PAGES) - {"index"})


@pytest.mark.parametrize("attribute", ["config", "image_size_multiple", "frame_multiple"])
def test_attributes_of_the_unet_are_explained(attribute):
    assert hasattr(SpaceTimeUnet(dim=4), attribute)
    assert f"`unet.{attribute}`" in PAGES["training"]
    assert f"\n    {attribute}: " in inspect.getdoc(SpaceTimeUnet)


def public_names():
    for name in library.__all__:
        value = getattr(library, name)
        if inspect.ismodule(value):
            yield from (f"{name}.{inner}" for inner in value.__all__)
        else:
            yield name


@pytest.mark.parametrize("name", list(public_names()))
def test_the_api_has_every_public_name(name):
    assert re.search(rf"^\.\. auto\w+:: make_a_video_pytorch\.{name}$", PAGES["api"], re.MULTILINE)
