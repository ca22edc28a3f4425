"""What can go wrong in a way that a user can act on."""


class SoundbackError(Exception):
    """Says in one sentence what is wrong, where, what was expected and found, and what to do."""


class ParamsError(SoundbackError):
    """A params file does not say what it must."""


class SettingsError(SoundbackError):
    """An environment variable SOUNDBACK_* does not say what it must, or what it names is not there."""


class DataContractError(SoundbackError):
    """A table or folder does not follow its schema."""


class SourceError(SoundbackError):
    """A source of videos did not answer as it must."""


class LabelError(SourceError):
    """Nothing can be had of one label; the others are none the worse for it."""


class TransientError(SourceError):
    """A source did not answer now, and may in a minute.

    Attributes:
      exit_status: of a stage that ends with it.
    """

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


class ModelError(SoundbackError):
    """A model file is missing, or does not fit what it is used for."""


class MediaError(SoundbackError):
    """A video or sound file cannot be used.

    Attributes:
      status: why, from a closed list: missing, not_media, no_video, no_audio, corrupt, too_short, refused.
    """

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, str]]:
        """Survives the way from a worker process to its parent."""
        return type(self), (self.status, str(self))
