"""What a training stage leaves while it is under way: a checkpoint, and live curves for DVC and for TensorBoard.

Looked at: DVCLive's own callback for Keras and keras.callbacks.TensorBoard hang on `model.fit`, which cannot train on
several machines (training.py).
"""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import keras
import tensorflow as tf
from dvclive.live import Live
from pydantic import BaseModel

from soundback import devices
from soundback.checkpoints import Checkpoint
from soundback.training import Logbook, Row

LIVE_PLOTS = "plots"
"""Where DVCLive puts its tables inside its folder."""


@dataclass(frozen=True, eq=False)
class StageLogbook:
    """The logbook of a training stage.

    Attributes:
      is_chief: whether this process writes the outputs, and all else.
      training: what `training.fit` takes.
      plots: folder in which the curves grow, if they are an output.
    """

    is_chief: bool
    training: Logbook
    plots: Path | None

    def keep_curves(self, folder: Path) -> None:
        """Puts the whole curves into a folder that takes the place of the plots."""
        if self.plots is not None:
            shutil.copytree(self.plots / LIVE_PLOTS, folder / LIVE_PLOTS)


@contextmanager
def open_logbook(
    model: Path, *, inputs: Sequence[Path], told: Iterable[object], plots: Path | None = None
) -> Iterator[StageLogbook]:
    """Opens the logbook of a training stage; when the block ends well, its outputs are written and it is closed.

    Checkpoints go to `.checkpoints` and TensorBoard's logs to `tensorboard` beside the folder of the model. Of several
    machines only the chief writes.

    Args:
      model: file that the stage writes; its stem says what kind of model it is.
      inputs: files and folders that the stage learns from.
      told: params and all else that decides what comes out.
      plots: folder that the stage writes, where the curves are to grow.
    """
    devices.open_strategy()
    if not devices.is_chief():
        yield StageLogbook(False, Logbook(), None)
        return
    kind, root = model.stem, model.parent.parent
    written = [each.model_dump_json() if isinstance(each, BaseModel) else json.dumps(each) for each in told]
    computed = [devices.choose_precision(), tf.__version__, keras.__version__]
    checkpoint = Checkpoint.of(kind, root, [*written, *computed], inputs)
    curves: list[Callable[[Row], None]] = [_tensorboard(root / "tensorboard" / kind)]
    if plots is not None:
        curves.append(_dvc(plots))
    yield StageLogbook(True, Logbook(checkpoint, _row_by_row(curves)), plots)
    checkpoint.remove()


def _row_by_row(curves: Sequence[Callable[[Row], None]]) -> Callable[[Sequence[Row]], None]:
    """Gives each row to each curve once."""
    drawn = 0

    def draw(rows: Sequence[Row]) -> None:
        nonlocal drawn
        for row in rows[drawn:]:
            for add in curves:
                add(row)
        drawn = len(rows)

    return draw


def _dvc(plots: Path) -> Callable[[Row], None]:
    # What lies there may be hard links into DVC's cache, to which nothing must be added.
    shutil.rmtree(plots, ignore_errors=True)
    live = _Curves(str(plots), save_dvc_exp=False, dvcyaml=None)

    def add(row: Row) -> None:
        live.step = int(row["step"])
        for name, value in row.items():
            if name != "step":
                live.log_metric(name, value)

    return add


class _Curves(Live):
    """DVCLive's tables alone.

    DVC runs the stage and knows its plots. DVCLive would look for the repository as well, make one where there is none,
    and give up where git has no commit yet.
    """

    def _init_dvc(self) -> None:
        """Leaves DVC alone."""


def _tensorboard(folder: Path) -> Callable[[Row], None]:
    # The curve is drawn again from its beginning: what was logged after the last checkpoint would stand there twice.
    shutil.rmtree(folder, ignore_errors=True)
    writer = tf.summary.create_file_writer(str(folder))

    def add(row: Row) -> None:
        with writer.as_default(step=int(row["step"])):
            for name, value in row.items():
                if name != "step":
                    tf.summary.scalar(name, value)
        writer.flush()

    return add
