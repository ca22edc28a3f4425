"""Which labels a params file names, under which folders, and which of them share a branch of dvc.yaml."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import yaml
from slugify import slugify

from soundback.errors import ParamsError
from soundback.outputs import whole_file
from soundback.params import load_params

MAX_KEY_LENGTH = 40

_LABELS_BLOCK = re.compile(r"^labels:[^\n]*\n(?:[ \t][^\n]*\n|\n(?=[ \t]))*", re.MULTILINE)


def write_labels(params: Path, settings: Path, keys: Mapping[str, str], *, note: str) -> bool:
    """Makes a params file name labels.

    Args:
      params: the file to write.
      settings: the file to take all else from; its comments stay.
      keys: labels by folder, as `Params.labels`.
      note: how the labels are said, for the file's reader.

    Returns:
      Whether the file changed.

    Raises:
      ParamsError: if the settings do not have their labels where they can be replaced.
    """
    block = "".join([f"labels: # folder name: label, {note}\n", *_lines(keys)])
    text = _LABELS_BLOCK.sub(lambda _: block, settings.read_text(encoding="utf-8"), count=1)
    if params.exists() and text == params.read_text(encoding="utf-8"):
        return False
    with whole_file(params) as partial:
        partial.write_text(text, encoding="utf-8")
        if not _names(partial, keys):
            raise ParamsError(f"The labels of {settings} are not written a line each, KEY: LABEL. Write them so.")
    return True


def name_keys(labels: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Gives every label a key, fit for a folder's name and for dvc.yaml.

    Args:
      labels: as params.yaml is to say them.
      known: labels by key; a label that has a key keeps it, and with it all that was made.
    """
    kept = {label: key for key, label in known.items()}
    named: dict[str, str] = {}
    branches = {key.split("/")[0] for key in known if "/" in key}
    for label in sorted(set(labels), key=lambda label: (label not in kept, label)):
        key = stem = kept.get(label) or key_of(label)
        number = 1
        while key in named or key in branches:
            number += 1
            key = f"{stem}-{number}"
        named[key] = label
    return dict(sorted(named.items(), key=lambda item: item[0].split("/")))


def share_branches(
    names: Sequence[tuple[str, str]], known: Mapping[str, str], *, count: int, per_branch: int
) -> dict[str, str]:
    """Has the first labels of a vocabulary share branches, by their place in it: more labels move none.

    Args:
      names: name and MID of each label of the vocabulary.
      known: labels by key; those stay where they are.
      count: how many are wanted.
      per_branch: how many share one.

    Returns:
      Labels by key, BRANCH/LABEL for those that are new. One that has no name, or not for itself, is said by its MID.
    """
    held_by = Counter(name.strip().casefold() for name, _ in names)
    folders = {label: key for key, label in known.items()}
    found: dict[str, str] = {}
    for place, (name, mid) in enumerate(names[:count]):
        label = name if name.strip() and held_by[name.strip().casefold()] == 1 else mid
        branch = f"branch-{place // per_branch:03d}"
        key = folders.get(label) or folders.get(mid) or f"{branch}/{key_of(name.strip() or mid)}"
        found[key if key not in found else f"{key}-{place}"] = known.get(key, label)
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))


def key_of(label: str) -> str:
    """The folder name of a label: what params.yaml and DVC take as it is."""
    key = slugify(label, max_length=MAX_KEY_LENGTH)
    # YAML takes `on` for a truth and 1e3 for a number.
    plain = key[:1].isalpha() and yaml.safe_load(key) == key
    return key if plain else f"label-{key}".rstrip("-")


def _lines(keys: Mapping[str, str]) -> Iterator[str]:
    """Of params.yaml: a line for each label, under the name of its branch where several share one."""
    for branch, ours in itertools.groupby(keys.items(), key=lambda item: item[0].split("/")[0]):
        for number, (key, label) in enumerate(ours):
            if number == 0 and key != branch:
                yield f"  {branch}:\n"
            indent = "  " if key == branch else "    "
            yield f"{indent}{key.split('/')[-1]}: {json.dumps(label, ensure_ascii=False)}\n"


def _names(params: Path, keys: Mapping[str, str]) -> bool:
    try:
        return load_params(params).labels == keys
    except ParamsError:
        return False
