"""Files to arrays and back: ffmpeg, sound, Parquet shards of frames."""
