"""Which shard of a run this process is: three variables, set by a Kubernetes Indexed Job.

They are no keys of the file, since each process of the Job has others. Without RETL_SHARDS, or with
1, a process is alone, and the other two say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.errors import Fault
from pipeline.ports import WHOLE, Shard

SHARDS, INDEX, JOB = "RETL_SHARDS", "JOB_COMPLETION_INDEX", "RETL_JOB"

VARIABLES: Mapping[str, str] = {
    SHARDS: "How many processes share each run; the Job's `completions`. Left out, or 1: each "
    "process runs alone. More need `state` in Postgres.",
    INDEX: "Which of them this one is, from 0 on. Kubernetes sets it in an Indexed Job.",
    JOB: "What all processes of one Job have in common and no other Job has; in Kubernetes the pod "
    "label `batch.kubernetes.io/controller-uid`, by the downward API.",
}
"""The variables, and what they do."""

# A read session has no more streams (cloud.google.com/bigquery/docs/reference/storage/rpc, 1,000),
# and a shard without one has nothing to do.
MOST = 1_000
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def shard_of(env: Mapping[str, str], state: object) -> tuple[Shard, list[Fault]]:
    """The shard that the environment names, and what is wrong with it.

    state: the file's key, as far as it is known; None: the default, a file.
    """
    shards = env.get(SHARDS, "").strip()
    if not shards:
        return WHOLE, []
    if not _NUMBER.fullmatch(shards) or not 1 <= int(shards) <= MOST:
        remedy = f"Set the number of processes, 1 to {MOST:,}; the Job's `completions`."
        return WHOLE, [Fault(SHARDS, "This is no number of shards.", remedy)]
    of = int(shards)
    if of == 1:
        return WHOLE, []
    index, job = env.get(INDEX, "").strip(), env.get(JOB, "").strip()
    faults = [*_of_index(index, of), *_of_job(job)]
    if state is None or str(state).startswith("sqlite:"):
        what = f"{of} processes can't share a state in a file."
        remedy = "Let `state` (RETL_STATE) name a Postgres, or unset it."
        faults.append(Fault(SHARDS, what, remedy))
    return (WHOLE if faults else Shard(index=int(index), of=of, job=job)), faults


def _of_index(index: str, of: int) -> list[Fault]:
    if not index:
        what = f"It is not set, and {SHARDS} is {of}: which of them this process is, is not known."
        remedy = f"Kubernetes sets it in a Job with `completionMode: Indexed`; or unset {SHARDS}."
    elif not _NUMBER.fullmatch(index):
        what, remedy = "This is no number of a shard.", f"Set 0 to {of - 1}."
    elif int(index) >= of:
        what = f"There is no shard {int(index)} of {of}: they count from 0 to {of - 1}."
        remedy = f"Let {SHARDS} be the Job's `completions`."
    else:
        return []
    return [Fault(INDEX, what, remedy)]


def _of_job(job: str) -> list[Fault]:
    if not job:
        what = f"It is not set, and {SHARDS} is more than 1."
        remedy = (
            "Set what all processes of this Job have in common and no other Job has: the pod label "
            "`batch.kubernetes.io/controller-uid`, by the downward API."
        )
    elif not _JOB_NAME.fullmatch(job):
        what = "This can't name a Job."
        remedy = "Use letters, digits, `.`, `_`, `:` and `-`, 128 at most."
    else:
        return []
    return [Fault(JOB, what, remedy)]
