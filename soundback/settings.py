"""Environment variables SOUNDBACK_*: how to run. They never change what comes out."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from soundback.errors import SettingsError


class Settings(BaseSettings):
    """How to run on this machine."""

    model_config = SettingsConfigDict(env_prefix="SOUNDBACK_", frozen=True)

    executor: Literal["processes", "threads", "dask"] = "processes"
    dask_address: str | None = Field(default=None, description="of the scheduler, tcp://HOST:PORT")
    workers: int | None = Field(default=None, gt=0, description="concurrent videos; by default one per core")
    cookies: Path | None = Field(default=None, description="a Netscape cookie file for yt-dlp")
    videos_per_hour: float = Field(
        default=300.0,
        ge=0,
        description="asked of one host, by all workers together; YouTube allows a guest 300; 0: any",
    )
    retry: Annotated[frozenset[str], NoDecode] = Field(
        default=frozenset(), description="statuses, with commas between: videos that failed so are asked again"
    )
    devices: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="that train, with commas between, as GPU:0,GPU:1; by default all GPUs, or the processor"
    )
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="auto",
        description="that trainings compute in; auto: mixed on GPUs that gain by it; models stay float32",
    )
    checkpoint_s: float = Field(default=20.0, ge=0, description="seconds of training that a kill may cost")
    progress: Literal["auto", "lines"] = Field(
        default="auto", description="lines: plain `PROGRESS done total what` lines, for a program that reads them"
    )

    @field_validator("retry", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return frozenset(value.replace(",", " ").split()) if isinstance(value, str) else value

    @field_validator("devices", mode="before")
    @classmethod
    def _split_in_order(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        names = tuple(value.upper().replace(",", " ").split())
        if len(set(names)) < len(names) or not all(re.fullmatch(r"(CPU|GPU):\d+", name) for name in names):
            raise ValueError("must be different devices such as GPU:0,GPU:1")
        return names


def load_settings() -> Settings:
    """Reads the environment.

    Raises:
      SettingsError: naming every variable that is wrong.
    """
    try:
        return Settings()
    except ValidationError as error:
        faults = [
            f"  SOUNDBACK_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']} (found {fault['input']!r})"
            for fault in error.errors()
        ]
        raise SettingsError("\n".join([f"{len(faults)} wrong environment variable(s):", *faults])) from error
