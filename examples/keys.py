"""Names that follow from what they say."""

from __future__ import annotations

import hashlib
import json


def key_of(what: object) -> str:
    """A name for `what`, which is fit for JSON."""
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:40]
