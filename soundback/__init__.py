"""Soundback gives silent video its sound back."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soundback.soundtrack import Soundtrack as Soundtrack
    from soundback.takes import Take as Take

__all__ = ["Soundtrack", "Take"]

# TensorFlow greets with a page of notes about this machine when it is imported, wherever that is; errors still show.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def __getattr__(name: str) -> Any:
    """`from soundback import Soundtrack`; only then is TensorFlow imported, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module 'soundback' has no attribute {name!r}")
    if name == "Take":
        from soundback import takes

        return takes.Take
    from soundback import soundtrack

    return soundtrack.Soundtrack
