"""Fields of what people write that were called otherwise: accepted under these names for one version."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from pydantic import BaseModel, model_validator


class OlderNames(BaseModel):
    """A model that takes its fields under their older names, too; of two that are given, one is unknown."""

    older_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Older name -> field; one that a class has not is left out."""

    @model_validator(mode="before")
    @classmethod
    def _take_older_names(cls, value: Any) -> Any:  # whatever a file has there
        if not isinstance(value, dict):
            return value
        fields = {older: field for older, field in cls.older_names.items() if field in cls.model_fields}
        named = {key: fields.get(key, key) for key in value}
        return {key if field in value else field: value[key] for key, field in named.items()}
