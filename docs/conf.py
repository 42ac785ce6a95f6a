"""The site: `sphinx-build -W docs docs/_build`."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

project = "make-a-video-pytorch"
release = re.search(r'version="(.*?)"', (ROOT / "setup.py").read_text())[1]
html_title = f"{project} {release}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
smartquotes = False
default_role = "code"  # what stands between single backticks in a docstring

# The integrations' classes are documented where their libraries are not installed.
autodoc_mock_imports = [
    "dalle2_pytorch", "diffusers", "huggingface_hub", "imagen_pytorch", "safetensors",
]  # fmt: skip
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]
