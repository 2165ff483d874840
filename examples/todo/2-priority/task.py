"""What a task is: it has a priority, if somebody gave it one."""

from datetime import UTC, datetime

# Checked by the database at every write. What it does not name may be there all the same: another commit's fields.
SCHEMA = {
    "type": "object",
    "required": ["text", "done", "made"],
    "properties": {
        "text": {"type": "string", "minLength": 1, "maxLength": 500},
        "done": {"type": "boolean"},
        "priority": {"enum": ["now", "soon", "someday"]},
    },
}
FIELDS = {"text", "done", "priority"}  # that a page may set


def new(fields):
    return {"done": False, "priority": "soon", **fields, "made": datetime.now(UTC)}


def shown(task):
    """As JSON for the page. Tasks of before there were priorities are for some day."""
    return {"priority": "someday", **task, "key": task.key, "made": task["made"].isoformat()}
