"""The JSON schema of scenario files, so that editors complete and check them."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from orchestrator.actions.base import ACTIONS, Action
from orchestrator.registry import Registry
from orchestrator.scenario.model import IN, ScenarioText, StepText
from orchestrator.units import Duration, Size, write_size

Schema: TypeAlias = dict[str, Any]


def scenario_schema(actions: Registry[type[Action]] = ACTIONS) -> Schema:
    """A JSON schema (draft 2020-12) of a scenario with every action's parameters."""
    schema = ScenarioText.model_json_schema()
    definitions: Schema = schema["$defs"]
    properties: Schema = {}
    for name, action in actions:
        own = action.model_json_schema()
        definitions |= own.pop("$defs", {})
        _take_older_names(action, own["properties"])
        definitions[f"action.{name}"] = own
        reference = {"$ref": f"#/$defs/action.{name}"}
        # `- snapshot:` alone is fine when no parameter has to be given.
        properties[name] = reference if own.get("required") else {"anyOf": [reference, {"type": "null"}]}
        properties[name]["description"] = own.get("description", "")
    definitions["Step"] = {
        "type": "object",
        "description": "One action and its parameters, and the arms that have it.",
        "properties": StepText.model_json_schema()["properties"] | properties,
        "additionalProperties": False,
        # One action, with or without arms beside it.
        "if": {"required": [IN]},
        "then": {"minProperties": 2, "maxProperties": 2},
        "else": {"minProperties": 1, "maxProperties": 1},
    }
    schema["properties"]["steps"]["items"] = {"$ref": "#/$defs/Step"}
    # The arms of a matrix are arms, too.
    schema["required"].remove("arms")
    schema["anyOf"] = [{"required": ["arms"]}, {"required": ["matrix"]}]
    for key, name in (("machine", "Machine"), ("setup", "Setup"), ("host_setup", "HostSetup")):
        definitions["ArmText"]["properties"][key] |= _overriding(definitions, name)
    _tidy(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _take_older_names(action: type[Action], properties: Schema) -> None:
    """Editors say of these that they are deprecated."""
    for older, field in action.older_names.items():
        if field in properties:
            about = {"description": f"Older name of `{field}`.", "deprecated": True}
            properties[older] = {**properties[field], **about}


def _overriding(definitions: Schema, name: str) -> Schema:
    """A reference to a copy of a definition (and of those it refers to) in which nothing is required."""
    partial = f"Partial{name}"
    if partial not in definitions:
        copied = deepcopy(definitions[name])
        copied.pop("required", None)
        definitions[partial] = copied
        for value in copied["properties"].values():
            for holder in (value, *value.get("anyOf", ())):
                if "$ref" in holder:
                    holder.update(_overriding(definitions, holder["$ref"].rsplit("/", 1)[1]))
    return {"$ref": f"#/$defs/{partial}"}


_SIZE_PATTERN = TypeAdapter(Size).json_schema()["pattern"]
_DURATION_PATTERN = TypeAdapter(Duration).json_schema()["pattern"]


def _tidy(value: Any) -> None:
    """Give defaults as a person writes them: with a unit, and without what a nested default repeats.

    A mapping whose names follow a pattern has no others.
    """
    if isinstance(value, list):
        for item in value:
            _tidy(item)
    elif isinstance(value, dict):
        default = value.get("default")
        if isinstance(default, int | float) and value.get("pattern") == _SIZE_PATTERN:
            value["default"] = write_size(int(default))
        elif isinstance(default, int | float) and value.get("pattern") == _DURATION_PATTERN:
            value["default"] = f"{default:g}s"
        elif "$ref" in value and isinstance(default, dict):
            del value["default"]
        if "patternProperties" in value:
            value["additionalProperties"] = False
        for item in value.values():
            _tidy(item)
