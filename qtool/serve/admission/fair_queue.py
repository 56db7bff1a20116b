"""Who is next: turns go round among keys, and within a key among its users, by the tokens that each has been given."""

from collections import deque
from collections.abc import Iterator

from qtool.serve.supervision.jobs import Job


def cost(job: Job) -> int:
    """Tokens a job may take: its prompt and all that it may generate."""
    return len(job.request.ids) + job.request.max_new_tokens


class _Line:
    """The jobs of one user, in order of arrival, and the tokens given to that user."""

    def __init__(self, given: float) -> None:
        self.given = given
        self.jobs: deque[Job] = deque()


class FairQueue:
    """Jobs waiting. The next is the oldest job of the user with the fewest tokens so far, of the key with the fewest.

    A key that was away comes back at the level of those that are here: it neither saves up turns nor pays for old ones.
    """

    def __init__(self) -> None:
        self._keys: dict[str, dict[str, _Line]] = {}
        self._given: dict[str, float] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Job]:
        for users in self._keys.values():
            for line in users.values():
                yield from line.jobs

    def push(self, job: Job, *, first: bool = False) -> None:
        """Adds `job` at the end of its user's line, or at its front."""
        owner = job.owner
        if owner.key not in self._keys:
            self._keys[owner.key] = {}
            self._given[owner.key] = min(self._given.values(), default=0.0)
        users = self._keys[owner.key]
        if owner.user not in users:
            users[owner.user] = _Line(min((line.given for line in users.values()), default=0.0))
        line = users[owner.user]
        if first:
            line.jobs.appendleft(job)
        else:
            line.jobs.append(job)
        self._size += 1

    def pop(self) -> Job:
        """The job whose turn it is. There must be one."""
        key = min(self._keys, key=self._given.__getitem__)
        user, line = min(self._keys[key].items(), key=lambda item: item[1].given)
        job = line.jobs.popleft()
        self._given[key] += cost(job)
        line.given += cost(job)
        self._tidy(key, user)
        self._size -= 1
        return job

    def remove(self, job: Job) -> bool:
        """Takes `job` out wherever it stands; False where it is not here."""
        line = self._keys.get(job.owner.key, {}).get(job.owner.user)
        if line is None or job not in line.jobs:
            return False
        line.jobs.remove(job)
        self._tidy(job.owner.key, job.owner.user)
        self._size -= 1
        return True

    def waiting_of(self, key: str) -> int:
        """Jobs of `key` that wait."""
        return sum(len(line.jobs) for line in self._keys.get(key, {}).values())

    def ahead_of(self, key: str) -> int:
        """Jobs that start before a new one of `key` would: its own, and as many of every other key."""
        own = self.waiting_of(key)
        others = (self.waiting_of(other) for other in self._keys if other != key)
        return own + sum(min(waiting, own + 1) for waiting in others)

    def _tidy(self, key: str, user: str) -> None:
        if not self._keys[key][user].jobs:
            del self._keys[key][user]
        if not self._keys[key]:
            del self._keys[key]
            del self._given[key]
