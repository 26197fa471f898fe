"""From results to verdicts."""

import attrs

from tests.benchmarks.targets import LIMITS, TARGETS

OK, MISS, NONE = "ok", "MISS", "-"


@attrs.frozen
class Verdict:
    """How one comparison came out.

    Attributes:
        metric, unit: of the target.
        ours, peer: who is compared.
        value, theirs: the medians of all rounds; None where there is none.
        ratio: by how much ours is the better one; for a limit, how much of it is taken.
        worst: the same in the worst round.
        floor, aim: what it has to be, and what it might be.
        verdict: ok; MISS; how many rounds hold the floor, where the median does; or - where something is missing.
        reason: what is missing.
    """

    metric: str
    unit: str
    ours: str
    peer: str
    value: float | None = None
    theirs: float | None = None
    ratio: float | None = None
    worst: float | None = None
    floor: float = 0.0
    aim: float | None = None
    verdict: str = NONE
    reason: str = ""


def judge(tally, ours, keys):
    """Judge all that was measured.

    Args:
        tally: the results.
        ours: the names of our communicators.
        keys: of the results that were asked for: the others are no matter of this run.
    """
    verdicts = []
    for target in TARGETS:
        if target.key in keys:
            for name in _names(tally, target, ours):
                verdicts += [_compare(tally, target, name, peer) for peer in target.against]
    for limit in LIMITS:
        if limit.key in keys:
            verdicts += [_hold(tally, limit, name) for name in limit.ours]
    return verdicts


def _names(tally, target, ours):
    if target.ours != ("*",):
        return target.ours
    known = [name for name in ours if tally.rounds(name, target.key, target.value)]
    choose = min if target.less else max
    return [choose(known, key=lambda name: tally.median(name, target.key, target.value))] if known else ["the best"]


def _compare(tally, target, name, peer):
    floor, aim = target.against[peer]
    who = {"metric": target.metric, "unit": target.unit, "ours": name, "peer": peer, "floor": floor, "aim": aim}
    rounds, theirs = (tally.rounds(one, target.key, target.value) for one in (name, peer))
    values = {
        "value": tally.median(name, target.key, target.value) * target.factor if rounds else None,
        "theirs": tally.median(peer, target.key, target.value) * target.factor if theirs else None,
    }
    missing = name if not rounds else peer if not theirs else None
    if missing:
        return Verdict(**who, **values, reason=f"{missing}: {tally.reason(missing, target.key) or 'not measured'}")

    def better(one, other):
        return other / one if target.less else one / other

    ratios = [better(one, other) for one, other in zip(rounds, theirs, strict=False)]
    ratio = better(values["value"], values["theirs"])
    held = sum(one >= floor for one in ratios)
    verdict = MISS if ratio < floor else OK if held == len(ratios) else f"{held} of {len(ratios)}"
    return Verdict(**who, **values, ratio=ratio, worst=min(ratios), verdict=verdict)


def _hold(tally, limit, name):
    who = {"metric": limit.metric, "unit": limit.unit, "ours": name, "peer": "at most", "floor": limit.most}
    value = tally.median(name, limit.key, limit.value)
    if value is None:
        return Verdict(**who, reason=f"{name}: {tally.reason(name, limit.key) or 'not measured'}")
    worst = max(tally.rounds(name, limit.key, limit.value))
    return Verdict(**who, value=value, worst=worst, verdict=OK if worst <= limit.most else MISS)
