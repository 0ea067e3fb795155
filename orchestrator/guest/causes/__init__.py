"""Why a guest was lost: a cause is one file here, with one class."""

from orchestrator.guest.causes.base import BOOT_ID, CAUSES, Cause, Scene, Seen, find_cause

__all__ = ["BOOT_ID", "CAUSES", "Cause", "Scene", "Seen", "find_cause"]
