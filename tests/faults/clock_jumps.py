"""The machine's clock is set forward, or back, while a run goes on.

CLOCK_REALTIME cannot be another one for some processes only (time_namespaces(7)): a library in the
orchestrator's process adds to what it gives, so that this machine's clock stays as it is.
"""

from __future__ import annotations

import json
import subprocess
from functools import partial

from campaign.fault import STEP, Expected, Fault
from campaign.scene import Scene

_YEAR_SECONDS = 365 * 86400
_LIBRARY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long *offset(void)
{
	static volatile long *at;
	static volatile long none;
	const char *path = getenv("FAULTS_CLOCK"); /* libvirt gives QEMU LD_PRELOAD, and not this */

	if (!at) {
		int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

		at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*at), PROT_READ, MAP_SHARED, fd, 0);
		if (at == MAP_FAILED)
			at = &none;
	}
	return at;
}

int clock_gettime(clockid_t which, struct timespec *now)
{
	static int (*real)(clockid_t, struct timespec *);
	int done;

	if (!real)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	done = real(which, now);
	if (which == CLOCK_REALTIME)
		now->tv_sec += *offset();
	return done;
}

time_t time(time_t *at)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *at, void *zone)
{
	struct timespec now;

	(void)zone;
	clock_gettime(CLOCK_REALTIME, &now);
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

/*
 * libvirt waits for its turn until a time of this clock (virCondWaitUntil() in src/util/virthread.c), and the
 * kernel, which ends the wait, has the other one. What waits by CLOCK_MONOTONIC has that in its flags
 * (__PTHREAD_COND_CLOCK_MONOTONIC_MASK in glibc's nptl/pthread_cond_common.c).
 */
int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *until)
{
	static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
	struct timespec own = *until;

	if (!real)
		real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
	if (!(cond->__data.__wrefs & 2))
		own.tv_sec -= *offset();
	return real(cond, mutex, &own);
}
"""


def _own_clock(scene: Scene) -> None:
    source, library = scene.folder / "clock.c", scene.folder / "clock.so"
    source.write_text(_LIBRARY)
    subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
    (scene.folder / "clock").write_bytes((0).to_bytes(8, "little"))
    scene.orchestrator.before = (
        "env",
        f"LD_PRELOAD={library}",
        f"FAULTS_CLOCK={scene.folder / 'clock'}",
    )


def _jump(scene: Scene, seconds: int) -> None:
    with (scene.folder / "clock").open("r+b") as file:
        file.write(seconds.to_bytes(8, "little", signed=True))


def _durations_are_true(scene: Scene, years: int) -> None:
    assert scene.run is not None
    meta = json.loads((scene.run / "meta.json").read_text())
    began, ended = int(meta["started_at"][:4]), int(meta["finished_at"][:4])
    assert ended - began == years or abs(ended - began - years) == 1, "the clock had not jumped"
    (path,) = scene.run.glob("trials/*/events.jsonl")
    times = [json.loads(line)["t_ns"] for line in path.read_text().splitlines()]
    assert times == sorted(times), "times of events go back"
    assert times[-1] < 600e9, "times of events jump"


def _clock(name: str, words: str, seconds: int) -> Fault:
    return Fault(
        f"clock-{name}",
        "machine",
        f"the system's clock is set {words} by a year",
        "step",
        Expected(0, "completed", (), 90),
        steps=("wait: {time: 5s}", "snapshot: {label: only}"),
        moment=STEP,
        prepare=_own_clock,
        strike=partial(_jump, seconds=seconds),
        check=partial(_durations_are_true, years=seconds // _YEAR_SECONDS),
    )


FAULTS = [_clock("forward", "forward", _YEAR_SECONDS), _clock("back", "back", -_YEAR_SECONDS)]
