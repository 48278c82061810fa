"""Video: container in, frames, container out; steady over time, with its times, sound and colours kept."""

from dehaze.video.convert import VideoReport, VideoSettings, dehaze_video
from dehaze.video.sink import default_target
from dehaze.video.source import VIDEO_SUFFIXES

__all__ = ["VIDEO_SUFFIXES", "VideoReport", "VideoSettings", "default_target", "dehaze_video"]
