"""What the kinds of `params.Source` have in common once a catalog is written: what its addresses lead to."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from soundback.params import DemoSource, Source, TableSource
from soundback.sources.youtube8m import open_endpoints


def identify(source: Source) -> dict[str, object]:
    """Says what decides, beside the catalog, which bytes a video id leads to.

    For YouTube that is an address, for the rendered world its whole recipe, for a table nothing: its addresses are in
    the catalog as they are, and its ids stand for them.
    """
    if isinstance(source, TableSource):
        return {"kind": source.kind}
    if isinstance(source, DemoSource):
        return {**source.model_dump(mode="json"), "code": _hash_demo()}
    return {"kind": source.kind, "watch": source.watch}


@contextmanager
def open_base(source: Source) -> Iterator[str]:
    """Yields what stands in front of a catalog's addresses; the rendered world is served while the context is open."""
    if isinstance(source, TableSource):
        yield ""
        return
    with open_endpoints(source) as endpoints:
        yield endpoints.watch


def _hash_demo() -> str:
    code = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "demo").glob("*.py")):
        code.update(path.read_bytes())
    return code.hexdigest()
