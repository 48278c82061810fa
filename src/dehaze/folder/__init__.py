"""Whole directories: what to do, and doing it with reading, network and writing at the same time."""

from dehaze.folder.album import Album
from dehaze.folder.plan import Job, Plan, parse_shard, plan_folder
from dehaze.folder.work import FolderSettings, Outcome, dehaze_folder

__all__ = ["Album", "FolderSettings", "Job", "Outcome", "Plan", "dehaze_folder", "parse_shard", "plan_folder"]
