"""How long a step usually takes."""

from lazycloud.deployments.steps import Outcome, Step, StepName, usual


def deploy(outcome: Outcome, seconds: float) -> list[dict[str, object]]:
    return [Step(StepName.BUILD, outcome, 1.0, seconds).as_dict(), Step(StepName.AFTER).as_dict()]


def test_it_is_the_median_of_those_that_really_ran() -> None:
    ran = [deploy(Outcome.DONE, seconds) for seconds in (2.0, 4.0, 90.0)]
    others = [deploy(outcome, 0.5) for outcome in (Outcome.REUSED, Outcome.SKIPPED, Outcome.FAILED)]
    assert usual([*ran, *others]) == {StepName.BUILD: 4.0}


def test_what_takes_no_time_is_not_spoken_of() -> None:
    assert usual([deploy(Outcome.DONE, 0.01)]) == {}
