"""JSON Schema of the files that other programs read and people write: report.json and the plan."""

from typing import Any


def schema_of(record: type, *, title: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of a record; as strict as the reader, which refuses keys that it does not know."""
    from pydantic import TypeAdapter

    found: dict[str, Any] = TypeAdapter(record).json_schema()
    for part in (found, *found.get("$defs", {}).values()):
        if part.get("type") == "object" and "properties" in part:
            part["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": title}
