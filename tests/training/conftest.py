"""The examples can be imported: what they train with is what is tested here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
