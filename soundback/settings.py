"""Environment variables SOUNDBACK_*: how to run. They never change what comes out."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """How to run on this machine."""

    model_config = SettingsConfigDict(env_prefix="SOUNDBACK_", frozen=True)

    executor: Literal["processes", "threads"] = "processes"
    workers: int | None = Field(default=None, gt=0, description="concurrent videos; by default one per core")
    cookies: Path | None = Field(default=None, description="a Netscape cookie file for yt-dlp")
    progress: Literal["auto", "lines"] = Field(
        default="auto", description="lines: plain `PROGRESS done total what` lines, for a program that reads them"
    )
