"""What a task is."""

from datetime import UTC, datetime

# Checked by the database at every write. What it does not name may be there all the same: another commit's fields.
SCHEMA = {
    "type": "object",
    "required": ["text", "done", "made"],
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 500},
        "done": {"type": "boolean"},
    },
}
FIELDS = {"text", "done"}  # that a page may set


def new(fields):
    return {"done": False, **fields, "made": datetime.now(UTC)}


def shown(task):
    """As JSON for the page."""
    return {**task, "key": task.key, "made": task["made"].isoformat()}
