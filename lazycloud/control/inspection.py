"""The stages of a commit as JSON: what their keys are made of, what is there, and how two commits differ."""

from __future__ import annotations

import asyncio
from typing import Any

from lazycloud.build.commit import Commit
from lazycloud.build.recipe import Recipe, Stage
from lazycloud.build.stages import Made
from lazycloud.deployments.app import App
from lazycloud.deployments.deployment import Deployment
from lazycloud.errors import LazycloudError

Json = dict[str, Any]


async def stages_view(app: App, commit: Commit, deployment: Deployment) -> list[Json]:
    """Each stage with its key and inputs; none for a commit that cannot be planned: its failure tells why."""
    try:
        found = await _stages(app, commit)
    except LazycloudError:
        return []
    steps = {step.name.value: step.state.value for step in deployment.steps.values()}
    return [_view(stage, made) | {"outcome": steps[stage.name]} for stage, made in found]


async def comparison_view(app: App, first: Commit, second: Commit) -> list[Json]:
    """Stage by stage, which inputs differ, and what a deploy of the second has to do: "reuse", "run", "nothing".

    Raises BadInput, StepFailed for a commit that cannot be planned.
    """
    before = {(stage.name, stage.kind): stage for stage, _ in await _stages(app, first)}
    after = {(stage.name, stage.kind): (stage, made) for stage, made in await _stages(app, second)}
    views = []
    for place in sorted(
        {*before, *after}, key=lambda place: ("source", "dependencies", "build").index(place[0])
    ):
        stage, made = after.get(place, (None, None))
        old = before.get(place)
        views.append(
            {
                "name": place[0],
                "kind": place[1],
                "keys": [old.key if old else None, stage.key if stage else None],
                "same": bool(old and stage and old.key == stage.key),
                "differences": _differences(old, stage),
                "deploy": "nothing" if stage is None else "reuse" if made else "run",
            }
        )
    return views


async def _stages(app: App, commit: Commit) -> list[tuple[Stage, Made | None]]:
    recipe: Recipe
    _, recipe = await app.stages.recipe(commit)
    return await asyncio.to_thread(app.stages.made, recipe)


def _view(stage: Stage, made: Made | None) -> Json:
    facts = made.facts if made else {}
    return {
        "name": stage.name,
        "kind": stage.kind,
        "key": stage.key,
        "inputs": dict(stage.inputs),
        "there": made is not None,
        "seconds": facts.get("seconds"),
        "made": facts.get("made"),
        "used": made.used if made else None,
        "fetched": facts.get("fetched"),
    }


def _differences(old: Stage | None, new: Stage | None) -> list[Json]:
    before, after = (dict(stage.inputs) if stage else {} for stage in (old, new))
    names = dict.fromkeys([*before, *after])
    return [
        {"input": name, "values": [before.get(name), after.get(name)]}
        for name in names
        if before.get(name) != after.get(name)
    ]
