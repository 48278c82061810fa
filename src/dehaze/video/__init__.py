"""Video: container in, frames, container out; steady over time, with its times, sound and colours kept."""

from dehaze.video.convert import (
    VideoReport,
    VideoSettings,
    check_target,
    check_video,
    dehaze_video,
    middle,
    still,
)
from dehaze.video.sink import default_target
from dehaze.video.source import VIDEO_SUFFIXES, check_source, is_pattern

__all__ = [
    "VIDEO_SUFFIXES",
    "VideoReport",
    "VideoSettings",
    "check_source",
    "check_target",
    "check_video",
    "default_target",
    "dehaze_video",
    "is_pattern",
    "middle",
    "still",
]
