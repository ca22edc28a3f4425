"""What moves and sounds in the demo's videos: each a pure function of the world's seed and the video's id."""

import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from soundback.errors import SourceError
from soundback.params import DemoSource
from soundback.sources.demo.drawing import Canvas, chance
from soundback.sources.demo.flowing import Engine, Rain, Waterfall
from soundback.sources.demo.sounds import shaped_noise
from soundback.sources.demo.struck import Basketball, Bell, Drum
from soundback.sources.demo.surroundings import MARGIN, MOVERS, Backdrop, Camera, Mover, Shot

MIDS = {
    "Basketball": "/m/018w8",
    "Bell": "/m/0395lw",
    "Drum": "/m/026t6",
    "Engine": "/m/02mk9",
    "Rain": "/m/06mb1",
    "Waterfall": "/m/0j2kx",
}
"""YouTube-8M's own names and machine ids."""

Thing = Basketball | Bell | Drum | Engine | Rain | Waterfall
THINGS: dict[str, type[Thing]] = {
    "Basketball": Basketball,
    "Bell": Bell,
    "Drum": Drum,
    "Engine": Engine,
    "Rain": Rain,
    "Waterfall": Waterfall,
}

STRUCK = ("Basketball", "Bell", "Drum")
"""What sounds by being struck; the others flow."""

Defect = Literal["gone", "no_audio", "truncated", "missing", "silent", "garbage"]
DEFECTS: tuple[Defect, ...] = ("gone", "no_audio", "truncated", "missing", "silent", "garbage")
VIDEOS_PER_DEFECT = 9
"""Of so many videos listed one after another, one is broken."""

SHARED = {"Bell": "Drum", "Waterfall": "Rain"}
"""The first label lists one video of the second as well: YouTube's labels overlap."""
FEWEST_TO_SHARE = 20

SIZES = ((320, 240), (320, 240), (320, 180), (288, 216), (240, 320), (180, 240), (256, 256), (321, 243))
"""Width and height in pixels; some portrait, one that most encoders refuse."""
MOVER_SHARES = (0.15, 0.15, 0.15, 0.4, 0.15)
"""How often each kind of silent mover appears; most of all the banner, which moves the most."""
LOUDNESS_RATE = 100
"""Points per second of the true loudness curve."""


@dataclass(frozen=True)
class Video:
    """One video that a label lists, and what it is like as a file.

    Attributes:
      short_id: 4 characters, as the label index lists it; differs from others perhaps in case only.
      video_id: 11 characters, as YouTube knows it.
      label: name of what sounds in it.
      defect: what is wrong with it, if anything.
    """

    short_id: str
    video_id: str
    label: str
    defect: Defect | None


@dataclass(frozen=True)
class Truth:
    """What really happens in a video, for judging alone.

    Attributes:
      impact_times_s: float64 [n], seconds from the start of the video; empty for what flows.
      loudness_db: float32 [n], dBFS RMS over 160 ms around each point, `LOUDNESS_RATE` points per second.
    """

    impact_times_s: npt.NDArray[np.float64]
    loudness_db: npt.NDArray[np.float32]


class World:
    """All videos of the demo. Nothing is drawn before it is asked for."""

    def __init__(self, params: DemoSource) -> None:
        self._params = params

    @cached_property
    def listed(self) -> dict[str, tuple[Video, ...]]:
        """The videos under each label."""
        n_videos = self._params.videos_per_label
        own = {label: tuple(self._video(label, number) for number in range(n_videos)) for label in MIDS}
        if n_videos < FEWEST_TO_SHARE:
            return own
        return own | {label: (*own[label][:-1], own[other][0]) for label, other in SHARED.items()}

    @cached_property
    def videos(self) -> dict[str, Video]:
        """Every listed video by its 11-character id."""
        return {video.video_id: video for videos in self.listed.values() for video in videos}

    @cached_property
    def by_short_id(self) -> dict[str, Video]:
        """Every listed video by its 4-character id."""
        return {video.short_id: video for video in self.videos.values()}

    def scene(self, video_id: str) -> "Scene":
        """What a video shows.

        Raises:
          SourceError: no video has this id in this world.
        """
        if video_id not in self.videos:
            raise SourceError(
                f"The demo's world {self._params.seed} has no video {video_id!r}; "
                "its ids follow from source.seed and source.videos_per_label in params.yaml."
            )
        return Scene(self._params.seed, self.videos[video_id], self._params.duration_s)

    def truth(self, video_id: str) -> Truth:
        """What really happens in a video. For the evaluation alone: no training may see it.

        Raises:
          SourceError: no video has this id in this world.
        """
        return self.scene(video_id).truth()

    def _video(self, label: str, number: int) -> Video:
        random = chance(self._params.seed, "id", label, number)
        letters = string.ascii_letters + string.digits
        # The middle of the short id counts, so that no two videos share it: 62 * 62 is more than any label lists.
        place = list(MIDS).index(label) * 620 + number
        first, last = (letters[i] for i in random.integers(0, len(letters), 2))
        short_id = first + letters[place // 62 % 62] + letters[place % 62] + last
        video_id = "".join((letters + "-_")[i] for i in random.integers(0, 64, 11))
        return Video(short_id, video_id, label, self._defect(label, number))

    def _defect(self, label: str, number: int) -> Defect | None:
        block, place = divmod(number, VIDEOS_PER_DEFECT)
        if chance(self._params.seed, "defect", label, block).integers(VIDEOS_PER_DEFECT) != place:
            return None
        return DEFECTS[(block + list(MIDS).index(label)) % len(DEFECTS)]


class Scene:
    """One video's pictures and sound.

    Attributes:
      video_id: 11 characters.
      label: name of what sounds in it.
      width: of the picture in pixels.
      height: of the picture in pixels.
      frame_rate: pictures per second.
      n_frames: how many pictures.
      sample_rate: of the sound in Hz.
      variable_frame_rate: whether some pictures are to be left out of the file.
      separate: whether picture and sound are to be served as two files behind a manifest.
      tint: chroma (blue and red difference, -128 to 127) of the shadows and of the lights.
    """

    def __init__(self, seed: int, video: Video, typical_duration_s: float) -> None:
        self._key = f"{seed}/{video.video_id}"
        self.video_id = video.video_id
        self.label = video.label
        random = chance(self._key, "format")
        self.width, self.height = SIZES[random.integers(len(SIZES))]
        self.frame_rate = int(random.choice([25, 30, 24], p=[0.5, 0.4, 0.1]))
        self.n_frames = round(typical_duration_s * random.uniform(0.92, 1.12) * self.frame_rate)
        self.sample_rate = int(random.choice([44100, 48000]))
        self.variable_frame_rate = random.random() < 0.06
        self.separate = random.random() < 1 / 6
        self.tint = tuple(random.integers(-14, 15, 2).tolist()), tuple(random.integers(-14, 15, 2).tolist())
        self._shot = Shot(
            key=self._key,
            width=self.width + 2 * MARGIN,
            height=self.height + 2 * MARGIN,
            duration_s=self.n_frames / self.frame_rate,
            backdrop=random.uniform(75, 180),
        )

    @property
    def duration_s(self) -> float:
        """Of picture and sound, in seconds."""
        return self._shot.duration_s

    @cached_property
    def _thing(self) -> Thing:
        return THINGS[self.label](self._shot)

    @cached_property
    def _movers(self) -> list[Mover]:
        random = self._shot.chance("movers")
        n_movers = random.choice(4, p=[0.15, 0.3, 0.3, 0.25])
        # Beside the sounding thing rather than behind it.
        places = self._thing.x + self._shot.width * (0.5 + random.uniform(-0.22, 0.22, n_movers))
        return [
            MOVERS[kind](self._shot, random, place % self._shot.width)
            for kind, place in zip(random.choice(len(MOVERS), n_movers, p=MOVER_SHARES), places.tolist(), strict=True)
        ]

    @cached_property
    def _backdrop(self) -> Canvas:
        return Backdrop(self._shot).picture

    @cached_property
    def _camera(self) -> Camera:
        return Camera(self._shot)

    def canvas(self, time_s: float, *, thing: bool = True, movers: bool = True) -> Canvas:
        """The scene at one time, before the camera: float32 [height, width] with a margin, 0 to 255.

        Args:
          time_s: seconds from the start.
          thing: whether to show what sounds.
          movers: whether to show what moves without a sound.
        """
        canvas = self._backdrop.copy()
        for mover in self._movers if movers else ():
            mover.draw(canvas, time_s)
        if thing:
            self._thing.draw(canvas, time_s)
        return canvas

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """The picture shown at `index / frame_rate`: uint8 [height, width]."""
        time_s = index / self.frame_rate
        return self._camera.expose(self.canvas(time_s), time_s, index)

    def frames(self) -> Iterator[npt.NDArray[np.uint8]]:
        """All pictures in order, uint8 [height, width] each."""
        return map(self.frame, range(self.n_frames))

    def waveform(self) -> npt.NDArray[np.int16]:
        """The sound, as long as the pictures: int16 [time]."""
        n_samples = round(self.duration_s * self.sample_rate)
        random = self._shot.chance("sound")
        waveform = self._thing.sound(random, n_samples, self.sample_rate)
        room = shaped_noise(random, n_samples, self.sample_rate, lambda frequencies: 1 / (1 + frequencies / 300))
        peak = random.uniform(0.3, 0.9)
        waveform = waveform * (peak / np.abs(waveform).max()) + room * 10 ** random.uniform(-3.4, -2.9)
        return np.round(np.minimum(np.maximum(waveform, -1), 1) * 32767).astype(np.int16)

    def impact_times_s(self) -> npt.NDArray[np.float64]:
        """When something is struck, in seconds: float64 [n], empty for what flows."""
        thing = self._thing
        if isinstance(thing, Basketball | Bell | Drum):
            return thing.blows.seen_in(self.duration_s)
        return np.array([])

    def truth(self) -> Truth:
        """What really happens in this video."""
        power = np.cumsum(np.concatenate([[0], (self.waveform() / 32768.0) ** 2]))
        centres = np.arange(int(self.duration_s * LOUDNESS_RATE)) / LOUDNESS_RATE * self.sample_rate
        first = np.maximum(centres - 0.08 * self.sample_rate, 0).astype(int)
        last = np.minimum(centres + 0.08 * self.sample_rate, len(power) - 1).astype(int)
        mean = (power[last] - power[first]) / (last - first)
        return Truth(self.impact_times_s(), (10 * np.log10(np.maximum(mean, 1e-12))).astype(np.float32))
