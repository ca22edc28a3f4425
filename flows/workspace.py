"""A run's hold on the workspace: one at a time, and what it changes for itself is put back however it ends."""

import fcntl
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from flows import PROJECT
from soundback.errors import ParamsError, SoundbackError
from soundback.outputs import whole_file, whole_folder

if TYPE_CHECKING:
    from dvc.repo import Repo

log = logging.getLogger(__name__)

LOCK = Path(".dvc/tmp/flow.lock")
SAVED = Path(".dvc/tmp/flow-saved")
GIT = "git.json"
CHANGED = (Path("params.yaml"), Path("dvc.lock"))
DVC_NOTE = Path(".dvc/tmp/rwlock")
TRAINING_SLOT = Path(tempfile.gettempdir()) / "soundback-training.lock"
LOOK_AGAIN_S = 0.5
DVC_IS_BUSY_S = 60.0


class BusyError(SoundbackError):
    """Another run holds the workspace."""


@contextmanager
def one_run_at_a_time(
    run: str = "a run", identity: str = "", *, hold: Callable[[str], None] | None = None
) -> Iterator[str]:
    """Holds the workspace for this run; the system frees it however the run ends.

    What the last run changed for itself is put back first, if it was killed before it could.

    Args:
      run: what to call this run in a sentence.
      identity: Prefect's id of it; "" without one.
      hold: told once, in a sentence, which run to wait for; without it, nobody waits.

    Yields:
      The identity of the run that held the workspace last if that was killed, else "".

    Raises:
      BusyError: naming the run that holds it.
    """
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a+", encoding="utf-8") as lock:
        _wait_for(lock, hold)
        # A run that ends, however badly, says nothing more of itself; one that is killed cannot take its words back.
        _, _, killed = _read(lock).partition("\n")
        _write(lock, f"{run} (process {os.getpid()}, started {datetime.now():%Y-%m-%d %H:%M:%S})\n{identity}")
        try:
            _forget_dead_dvc()
            _put_back()
            yield killed
        finally:
            _write(lock, "")


@contextmanager
def settings_of_this_run(overrides: Sequence[str], *, keep: bool) -> Iterator[None]:
    """Has params.yaml say what this run wants; afterwards it, dvc.lock and data/ are as they were.

    Also if the run is killed: then another process puts them back, or at the latest the next run. What is unfinished in
    data/ stays, so that a run with the same settings goes on from there. Call it while holding the workspace.

    Args:
      overrides: in DVC's syntax, as after `dvc exp run --set-param`, e.g. "dataset.videos_per_label=50".
      keep: leave all of it as the run left it if it ends well.

    Raises:
      ParamsError: if DVC cannot read an override, or params.yaml has no such setting.
    """
    if not overrides:
        yield
        return
    with whole_folder(SAVED) as folder:
        for path in CHANGED:
            if path.exists():
                shutil.copy2(path, folder / path.name)
    with _looked_after():
        try:
            _apply(overrides)
            yield
        except Exception:
            _put_back()
            raise
        except BaseException:
            # Who cancels a run does not wait until data/ is back: what looks after it sees to that.
            _put_back_files()
            raise
        if keep:
            shutil.rmtree(SAVED)
        else:
            _put_back()


@contextmanager
def git_of_this_run() -> Iterator[None]:
    """Within the block, somebody may move git's HEAD and the tracked files away; if killed there, they come back.

    `dvc exp save` does so for about a second. Call it within `settings_of_this_run`.
    """
    with suppress(subprocess.CalledProcessError):  # of a repository without a commit, or on no branch
        now = {"branch": _git("symbolic-ref", "HEAD"), "files": _git("stash", "create"), "stash": _git_stash()}
        with whole_file(SAVED / GIT) as partial:
            partial.write_text(json.dumps(now), encoding="utf-8")
    try:
        yield
    finally:
        (SAVED / GIT).unlink(missing_ok=True)


@contextmanager
def training_slot(hold: Callable[[str], None], pause: Callable[[], None]) -> Iterator[None]:
    """Holds the one slot that stages which train share on a machine, whatever workspace they belong to.

    Args:
      hold: told once, in a sentence, if another training has it.
      pause: called between one look and the next; gives up by raising.
    """
    with suppress(FileExistsError, PermissionError):
        TRAINING_SLOT.touch(exist_ok=False)
    with TRAINING_SLOT.open(encoding="utf-8") as slot:
        if not _take(slot):
            hold("Another workspace on this machine trains; waiting until it has ended.")
            while not _take(slot):
                pause()
        yield


def _apply(overrides: Sequence[str]) -> None:
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides

    try:
        apply_overrides("params.yaml", list(overrides))
    except DvcException as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise ParamsError(f"{', '.join(overrides)} cannot be applied to params.yaml: {why}") from error


def _put_back() -> None:
    if not SAVED.is_dir():
        return
    _put_back_files()
    if not _put_back_data():
        log.warning(
            "Not all of data/ is as dvc.lock says; `dvc status dvc.yaml` says what is not, `dvc repro` builds it."
        )
    shutil.rmtree(SAVED)


def _put_back_files() -> None:
    try:
        _put_back_git()
    except subprocess.CalledProcessError as error:
        # It must not keep the rest from being put back, now and for every run to come.
        log.warning("git cannot be put back (%s); `git stash list` has what was edited.", error.stderr.strip())
    for path in CHANGED:
        saved = SAVED / path.name
        if not saved.exists():
            path.unlink(missing_ok=True)
            continue
        with whole_file(path) as partial:
            shutil.copy2(saved, partial)


def _put_back_git() -> None:
    if not (SAVED / GIT).exists():
        return
    before = json.loads((SAVED / GIT).read_text(encoding="utf-8"))
    with suppress(FileNotFoundError):
        # Nobody else is at work, so it is of the git that was killed.
        Path(_git("rev-parse", "--git-path", "index.lock")).unlink()
    _git("symbolic-ref", "HEAD", before["branch"])
    _git("checkout", "--quiet", before["files"] or "HEAD", "--", ".")
    _git("reset", "--quiet")
    if _git_stash() != before["stash"]:
        _git("stash", "drop", "--quiet")
    (SAVED / GIT).unlink()


def _git_stash() -> str:
    """The newest of what git has stashed; "" if there is nothing."""
    return _git("for-each-ref", "--format=%(objectname)", "refs/stash")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def _forget_dead_dvc() -> None:
    """Takes away DVC's note of who reads and writes what, if none of those is at work.

    A DVC that is killed while it writes the note leaves one that no other DVC can read; and one that names a process
    holds others off if the system has given its number to another since.
    """
    if not DVC_NOTE.exists():
        return
    try:
        noted = json.loads(DVC_NOTE.read_text(encoding="utf-8"))
        writers, readers = noted["write"].values(), noted["read"].values()
        processes = [*writers, *(each for several in readers for each in several)]
        if any(_is_dvc(int(each["pid"])) for each in processes):
            return
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        log.info("DVC's %s is broken (%s); it was killed while it wrote it.", DVC_NOTE, error)
    DVC_NOTE.unlink(missing_ok=True)


def _is_dvc(process: int) -> bool:
    with suppress(psutil.Error):
        found = psutil.Process(process)
        return found.status() != psutil.STATUS_ZOMBIE and "dvc" in " ".join(found.cmdline())
    return False


def _put_back_data() -> bool:
    """Has data/ as dvc.lock says, but for what is unfinished, and for what DVC's cache no longer has."""
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    if not CHANGED[1].exists():
        return True
    deadline = time.monotonic() + DVC_IS_BUSY_S
    while True:
        try:
            with Repo() as repo:
                return _check_out(repo)
        except LockError:
            # A DVC that was killed counts as being at work until the system has taken note of its end.
            if time.monotonic() > deadline:
                return False
            time.sleep(LOOK_AGAIN_S)
        except DvcException:
            return False


def _check_out(repo: "Repo") -> bool:
    from dvc.exceptions import DvcException

    changed = [out for out in repo.index.outs if out.hash_info and out.workspace_status()]
    kept = [out.fs_path for out in changed if not out.changed_cache()]
    if len(kept) == len(changed):
        with suppress(DvcException):  # Something is unfinished.
            repo.checkout()
            return True
    restored = 0
    for path in kept:
        with suppress(DvcException):
            repo.checkout(targets=[path])
            restored += 1
    return restored == len(changed)


@contextmanager
def _looked_after() -> Iterator[None]:
    """Has another process put back what this one leaves changed, as when it is killed."""
    # In a session of its own: what is sent to the run and its children is not meant for it.
    command = [sys.executable, "-m", "flows.workspace"]
    paths = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths}
    keeper = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        # Ours may be a pipe to a worker that was killed: whoever writes to it dies.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        assert keeper.stdin is not None  # noqa: S101 (for mypy; Popen was asked for a pipe)
        keeper.stdin.close()
        if not SAVED.is_dir():
            keeper.wait()


def _wait_for(lock: TextIOWrapper, hold: Callable[[str], None] | None) -> None:
    if _take(lock):
        return
    holder, _, _ = _read(lock).partition("\n")
    # The name comes early: Prefect's pages cut off what is long.
    said = f"The workspace is taken by {holder}, in {Path.cwd()}."
    if hold is None:
        raise BusyError(f"{said} Wait for it, or cancel it.")
    hold(f"{said} This one begins when that has ended.")
    while not _take(lock):
        time.sleep(LOOK_AGAIN_S)


def _take(lock: TextIOWrapper) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(lock: TextIOWrapper) -> str:
    lock.seek(0)
    return lock.read().strip()


def _write(lock: TextIOWrapper, words: str) -> None:
    lock.truncate(0)
    lock.write(words)
    lock.flush()


def main() -> None:
    """Waits until the process that started this one has ended, and puts back what it left changed."""
    sys.stdin.read()
    with LOCK.open("a+", encoding="utf-8") as lock:
        # A process that is killed lets go of one thing after the other. Whoever else takes the lock puts back as well.
        while SAVED.is_dir():
            if not _take(lock):
                time.sleep(LOOK_AGAIN_S / 10)
                continue
            named = _read(lock)
            _forget_dead_dvc()
            _write(lock, named or f"what puts data/ back after a cancelled run (process {os.getpid()})")
            _put_back()
            _write(lock, named)


if __name__ == "__main__":
    main()
