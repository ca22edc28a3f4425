"""params.yaml as frozen, closed models without defaults: what to compute."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from rapidfuzz import process

from soundback.errors import ParamsError

Share = Annotated[float, Field(ge=0, lt=1)]
Steps = Annotated[int, Field(gt=0)]
# An index of YouTube-8M is a number in YAML.
KEY = "[a-z0-9][a-z0-9_-]*"
LabelName = Annotated[str, Field(coerce_numbers_to_str=True)]
Minutes = Annotated[float, Field(gt=0, description="a cap; a model stopped by it says so in its metrics")]


class Section(BaseModel):
    """Closed and without defaults: every value is in params.yaml, where DVC sees it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DemoSource(Section):
    """The rendered world, served on loopback while a stage runs."""

    kind: Literal["demo"]
    seed: int = Field(ge=0, description="of the world: ids, and what each video shows")
    videos_per_label: int = Field(gt=0, description="how many the label index lists")
    duration_s: float = Field(gt=0, description="seconds, typical length of a video")


class YouTube8MSource(Section):
    """YouTube-8M's own endpoints; the formats are in sources/youtube8m.py."""

    kind: Literal["youtube8m"]
    vocabulary: str = Field(description="address of vocabulary.csv")
    label_index: str = Field(description="base address; /<mid>.js is appended")
    id_map: str = Field(description="base address; /<first two>/<id>.js is appended")
    watch: str = Field(description="base address; the video id is appended")


class TableSource(Section):
    """One's own files or addresses, listed in videos.csv; the format is in sources/table.py."""

    kind: Literal["table"]


Source = DemoSource | YouTube8MSource | TableSource


class Dataset(Section):
    """Which videos, and which of them to train on."""

    videos_per_label: int = Field(gt=0)
    seed: int = Field(ge=0, description="of the sample from the label index")
    validation_share: Share
    test_share: Share


class Download(Section):
    """What is fetched and kept of each video."""

    max_height: int = Field(gt=0, description="pixels, the largest picture asked for")
    min_duration_s: float = Field(ge=0)
    max_duration_s: float = Field(gt=0)
    clip_s: float = Field(gt=0, description="seconds cut from each video")
    clips_per_video: int = Field(gt=0)
    keep_source: bool = Field(description="whether the whole video stays beside its clips")
    max_retryable_share: Share = Field(description="of network and rate-limit rows; above it the stage fails")


class Curation(Section):
    """Which clips are had but not wanted. null: not looked for, and costs nothing."""

    min_motion: float | None = Field(
        ge=0, description="gray levels, mean change of a small picture in 0.2 s; less is still"
    )
    max_clipped_share: Share | None = Field(description="of samples that lie at full scale in a row; more is clipped")
    silence_db: float = Field(lt=0, description="dBFS RMS, before normalisation; quieter tenths of a second are silent")
    max_silence_share: Share | None = Field(description="of tenths of a second that are silent; more is silent")
    min_agreement: float | None = Field(
        ge=-1, le=1, description="correlation of picture change and sound at the best lag; less is offset"
    )
    max_offset_s: float = Field(gt=0, description="seconds; a best lag beyond it is offset too")
    max_print_distance: Share | None = Field(
        description="of fingerprint bits that differ; two clips nearer than this, one held out, are duplicates"
    )


class Audio(Section):
    """How sound is stored."""

    sample_rate: int = Field(gt=0, description="Hz, mono")
    loudness_lufs: float = Field(lt=0, description="LUFS, integrated, EBU R 128, reached by linear gain")
    true_peak_db: float = Field(le=0, description="dBTP, the gain stops here if that comes first")
    min_duration_s: float = Field(gt=0, description="shorter sound is too_short")
    silence_db: float = Field(lt=0, description="dBFS RMS; quieter windows count as silence")


class Frames(Section):
    """How pictures are stored."""

    frame_rate: int = Field(gt=0, description="per second")
    size: int = Field(gt=0, description="pixels, square, grayscale")
    fit: Literal["stretch", "pad", "crop"]
    encoding: Literal["jpeg", "png"]
    jpeg_quality: int = Field(ge=1, le=100)
    shard_bytes: int = Field(gt=0)
    row_group_frames: int = Field(ge=64, le=256)


class Cues(Section):
    """How a cue sheet is measured on real sound."""

    loudness_window_s: float = Field(gt=0, description="seconds, over which RMS is taken around each frame")
    loudness_floor_db: float = Field(lt=0, description="dBFS; nothing is quieter")
    hit_quantile: float = Field(gt=0, le=1, description="of the training split's onset strengths; this one counts as 1")
    hit_threshold: float = Field(gt=0, lt=1, description="weaker onsets are not hits")


class Training(Section):
    """What the trainings share."""

    steps: Steps
    max_minutes: Minutes
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    patience: int = Field(gt=0, description="validations in a row without a better value after which it stops")
    seed: int = Field(ge=0)


class Classifier(Training):
    """What is seen."""

    picture_size: int = Field(gt=0, description="pixels; frames are averaged down to this before the network")
    architecture: Literal["residual", "paper"]
    channels: tuple[int, ...] = Field(min_length=1, description="per residual stage, or per 3x3 convolution")
    unsure_below: Share = Field(description="probability below which a frame is nothing we know")
    odd_share: Share = Field(description="of validation frames; what is odder than all others is nothing we know")


class Spotter(Training):
    """When it sounds, how loud."""

    picture_size: int = Field(gt=0, description="pixels; frames are averaged down to this before the network")
    channels: tuple[int, ...] = Field(min_length=1, description="of the strided convolutions over each frame")
    hidden: int = Field(gt=0, description="width of the temporal convolutions")
    context_s: float = Field(ge=1, description="seconds seen on each side of a frame")
    sees: Literal["appearance", "change", "both"] = Field(description="of each frame; all but both is for comparison")
    crop_frames: int = Field(gt=0, description="consecutive frames per training example")
    double_speed: Share = Field(description="share of training examples that are shown twice as fast")
    exposure: Share = Field(description="share of training examples whose exposure changes, which makes no sound")


class WaveNet(Training):
    """Cues to waveform."""

    layers: int = Field(gt=0)
    cycles: int = Field(gt=0, description="the dilations start again at 1 this many times")
    kernel_size: int = Field(ge=2)
    residual_channels: int = Field(gt=0)
    gate_channels: int = Field(gt=0, description="of the tanh half; the sigmoid half has as many")
    skip_channels: int = Field(gt=0)
    cue_channels: int = Field(gt=0, description="of the non-causal convolutions over the cues")
    crop_frames: int = Field(gt=0, description="frames per training example that carry loss")
    beta_2: float = Field(gt=0, lt=1, description="of Adam")
    clip_norm: float = Field(gt=0)
    ema_decay: float = Field(gt=0, lt=1)
    cue_dropout: Share = Field(description="share of crops that hear the category alone")
    perturbed: float = Field(
        ge=0, le=1, description="share of crops whose cues are a little wrong, as those of the watchers are"
    )
    cue_noise_db: float = Field(ge=0, description="dB, of the loudness in training")
    confidence_low: float = Field(gt=0, le=1, description="confidences in training are drawn from here to 1")
    hit_weight: float = Field(ge=0, description="how much more the frames around a hit count in training")
    cold_start: Share = Field(description="share of crops with silence in front, as where a segment starts")
    splice: Share = Field(description="share of crops with another sound and its cues in front")
    history_noise: float = Field(ge=0, description="mu-law classes, at most so much (RMS) on what is heard in training")

    @model_validator(mode="after")
    def _cycles_divide_layers(self) -> Self:
        if self.layers % self.cycles:
            raise ValueError(f"layers ({self.layers}) must be a multiple of cycles ({self.cycles})")
        return self

    @cached_property
    def dilations(self) -> tuple[int, ...]:
        """Dilation of each layer, in samples."""
        return tuple(self.kernel_size**i for _ in range(self.cycles) for i in range(self.layers // self.cycles))

    @cached_property
    def receptive_field(self) -> int:
        """Samples of the past, the newest included, that one output sees."""
        return (self.kernel_size - 1) * sum(self.dilations) + 1


class Judge(Training):
    """The listener that judges generated sound."""

    channels: tuple[int, ...] = Field(min_length=1)
    embedding: int = Field(gt=0, le=32)
    window_s: float = Field(gt=0, description="seconds of sound heard at once")


class Soundtrack(Section):
    """From frame-wise opinions to segments, and from segments to one track."""

    smoothing_s: float = Field(gt=0, description="seconds, over which category probabilities are averaged")
    min_segment_s: float = Field(gt=0)
    max_segment_s: float = Field(gt=0, description="longer ones are cut where it is quiet")
    crossfade_s: float = Field(gt=0)
    temperature: float = Field(gt=0, le=2)
    top_p: float = Field(gt=0, le=1, description="each sample is one of the likeliest that are so likely together")
    weights: Literal["float32", "bfloat16"] = Field(description="as the sampler reads them; half as wide, faster")


class Evaluation(Section):
    """How the evaluation draws its samples and intervals."""

    seed: int = Field(ge=0)
    bootstrap: int = Field(gt=0, description="resamples of the test videos")
    max_videos_per_label: int = Field(gt=0)
    probe_videos_per_label: int = Field(
        gt=0, description="videos drawn anew with something altered that must not, or must, be noticed; demo alone"
    )
    examples_per_label: int = Field(gt=0, description="videos written out to look at and listen to")


class Params(Section):
    """The whole of params.yaml."""

    source: Annotated[Source, Field(discriminator="kind")]
    labels: dict[Annotated[str, Field(pattern=f"^{KEY}(/{KEY})?$")], LabelName] = Field(
        min_length=2, description="by folder; those of a branch that several share are BRANCH/LABEL"
    )
    dataset: Dataset
    download: Download
    curation: Curation
    audio: Audio
    frames: Frames
    cues: Cues
    classifier: Classifier
    spotter: Spotter
    wavenet: WaveNet
    judge: Judge
    soundtrack: Soundtrack
    evaluation: Evaluation

    @field_validator("labels", mode="before")
    @classmethod
    def _by_folder(cls, labels: Any) -> Any:
        """Has labels that stand under the name of a branch beside those that have one of their own."""
        if not isinstance(labels, dict):
            return labels
        found: dict[Any, Any] = {}
        for key, value in labels.items():
            if "/" in str(key) or value == {}:
                raise ValueError(f"{key!r} must be a folder's name, with a label or with FOLDER: LABEL lines under it")
            found |= (
                {f"{key}/{each}": label for each, label in value.items()} if isinstance(value, dict) else {key: value}
            )
        return found

    @model_validator(mode="after")
    def _frames_cover_whole_samples(self) -> Self:
        if self.audio.sample_rate % self.frames.frame_rate:
            raise ValueError(
                f"audio.sample_rate ({self.audio.sample_rate}) must be a multiple of "
                f"frames.frame_rate ({self.frames.frame_rate}), so that every frame covers whole samples"
            )
        return self

    @cached_property
    def hop(self) -> int:
        """Audio samples per frame."""
        return self.audio.sample_rate // self.frames.frame_rate


def load_params(path: Path = Path("params.yaml"), changes: Sequence[str] = ()) -> Params:
    """Reads and checks a params file.

    Args:
      path: the file.
      changes: settings that differ from it, as "section.name=value" each, the value as YAML.

    Raises:
      ParamsError: naming the file and every setting that is missing, misspelt or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ParamsError(f"{path} cannot be read ({error.strerror}). Run from the project's folder.") from error
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not YAML: {error}") from error
    for change in changes:
        _change(values, change)
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        faults = [_describe(fault, values) for fault in error.errors()]
        raise ParamsError("\n".join([f"{path} has {len(faults)} wrong setting(s):", *faults])) from error


def _change(values: Any, change: str) -> None:
    """Sets one value of what was read from a params file; whether there is such a setting, its check says."""
    where, is_set, value = change.partition("=")
    *sections, name = where.split(".")
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
    if not is_set or not name or not isinstance(values, dict):
        raise ParamsError(f"{change!r} sets nothing: expected SECTION.NAME=VALUE, e.g. wavenet.seed=1.")
    try:
        values[name] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ParamsError(f"{change!r}: the value is not YAML: {error}") from error


def _describe(fault: Any, values: Any) -> str:
    """One line per fault: where, what is wrong, and the nearest right name."""
    # Pydantic puts the tag of a discriminated union into the location; the file has no such level.
    location = [
        str(part)
        for part in fault["loc"]
        if not (fault["loc"][0] == "source" and part in ("demo", "youtube8m", "table"))
    ]
    where = ".".join(location) or "the file"
    if fault["type"] == "extra_forbidden":
        nearest = process.extractOne(location[-1], _names_beside(location))
        return (
            f"  {where}: there is no such setting; did you mean {nearest[0]}?"
            if nearest
            else f"  {where}: no such setting"
        )
    if fault["type"] == "missing":
        return f"  {where}: is missing"
    return f"  {where}: {fault['msg']} (found {fault['input']!r})"


def _names_beside(location: list[str]) -> list[str]:
    """The right names at the level of a wrong one."""
    if len(location) == 1:
        return list(Params.model_fields)
    section: Any = Params.model_fields[location[0]].annotation
    sections = section.__args__ if hasattr(section, "__args__") else (section,)
    return [name for each in sections if hasattr(each, "model_fields") for name in each.model_fields]
