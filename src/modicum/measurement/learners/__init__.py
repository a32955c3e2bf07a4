"""What is trained on a subset to say what the subset is worth: learners that are cheap to train very often."""

from modicum.measurement.learners.problem import Growing, Learner, Outputs, Problem
from modicum.measurement.learners.ridge import Ridge

__all__ = ["Growing", "Learner", "Outputs", "Problem", "Ridge", "make_learner"]

LEARNERS: dict[str, type] = {"ridge": Ridge}


def make_learner(learner: object) -> Learner:
    """A learner from its key with options, such as `ridge(l2=0.1)`, or the learner itself.

    Raises:
        ModicumError: There is none of that key, or an option is unknown.

    Example:
        >>> make_learner("ridge(l2=0.1)")
        Ridge(l2=0.1)
    """
    import dataclasses

    from modicum.errors import ModicumError
    from modicum.spec import parse_call

    if not isinstance(learner, str):
        if isinstance(learner, Learner):
            return learner
        raise ModicumError(f"learner={learner!r}; expected one of {', '.join(LEARNERS)}, or a learner")
    key, options = parse_call(learner)
    if key not in LEARNERS:
        raise ModicumError(f"learner={learner!r} is unknown; expected one of {', '.join(LEARNERS)}")
    known = [f.name for f in dataclasses.fields(LEARNERS[key])]
    wrong = sorted(set(options) - set(known))
    if wrong:
        raise ModicumError(f"learner {key!r} has no option {wrong[0]!r}; its options are {', '.join(known) or 'none'}")
    made: Learner = LEARNERS[key](**options)
    return made
