import importlib
import sys

import pytest

PACKAGE = "make_a_video_pytorch.integrations"


@pytest.mark.parametrize(
    ("name", "library"),
    [("dalle2", "dalle2_pytorch"), ("diffusers", "diffusers"), ("imagen", "imagen_pytorch")],
)
def test_a_missing_library_is_named_with_what_to_install(name, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.delitem(sys.modules, f"{PACKAGE}.{name}", raising=False)
    named = library.replace("_", "-")
    with pytest.raises(ImportError, match=f"^this needs {named}: pip install {named}$"):
        importlib.import_module(f"{PACKAGE}.{name}")
