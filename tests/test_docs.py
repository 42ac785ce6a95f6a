"""What the pages of the site say: their Python runs, their links lead somewhere."""

import inspect
import re

import pytest

import make_a_video_pytorch as library
from make_a_video_pytorch import SpaceTimeUnet
from tests.pages import DOCS, PAGES, ROOT, blocks_of, imported, rows, run

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


def test_nobody_is_sent_to_the_package_index_for_this_library():
    """What has this name there is another library."""
    for text in (*PAGES.values(), (ROOT / "CHANGELOG.md").read_text()):
        assert not re.search(r"pip install.*make-a-video-pytorch", text)


def test_commands_name_what_exists():
    extras = re.search(
        r"extras_require=\{(.*?)\n    \}", (ROOT / "setup.py").read_text(), re.DOTALL
    )
    for text in PAGES.values():
        for script in re.findall(r"^.*?python (\S+\.py)", text, flags=re.MULTILINE):
            assert (ROOT / script.strip("`")).is_file(), script
        for extra in re.findall(r'"\.\[(.*?)\]"', text):
            assert f'"{extra}":' in extras[1], extra


@pytest.mark.parametrize("attribute", ["config", "image_size_multiple", "frame_multiple"])
def test_attributes_of_the_unet_are_explained(attribute):
    assert hasattr(SpaceTimeUnet(dim=4), attribute)
    assert f"`unet.{attribute}`" in PAGES["training"]
    assert f"| `{attribute}` |" in PAGES["api"]


# The argument tables of the API


TABLES = [
    "SpaceTimeUnet", "PseudoConv3d", "SpatioTemporalAttention", "ResnetBlock", "Downsample",
    "Upsample", "TimestepEmbedding", "inflate",
]  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_a_table_holds_every_argument_with_its_default(name):
    parameters = inspect.signature(getattr(library, name)).parameters
    expected = {
        argument: None if p.default is inspect.Parameter.empty else repr(p.default)
        for argument, p in parameters.items()
    }
    table = rows(name)
    assert {argument: table.get(argument, "missing") for argument in expected} == expected
    unknown = {argument for argument in table if argument not in expected}
    assert all(argument.startswith(("upsample_", "downsample_")) for argument in unknown)


def public_names():
    for name in library.__all__:
        value = getattr(library, name)
        if not inspect.ismodule(value):
            yield name
            continue
        for inner, thing in vars(value).items():
            own = getattr(thing, "__module__", None) == value.__name__
            if own and not inner.startswith("_"):
                yield f"{name}.{inner}"


INTERNAL = {
    "guidance.must_be_conditions", "guidance.learned",
    "recipes.shared_and_own", "recipes.device_of",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(public_names()) - INTERNAL))
def test_the_api_has_every_public_name(name):
    assert re.search(rf"^\.\. auto\w+:: make_a_video_pytorch\.{name}$", PAGES["api"], re.MULTILINE)
