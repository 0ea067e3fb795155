"""Fixtures of several test modules."""

from __future__ import annotations

import played
import pytest


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> played.Trials:
    return played.play(monkeypatch)
