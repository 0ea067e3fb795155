/*
 * Reads the guest's own view of its memory and writes it to standard output, unparsed: the
 * orchestrator does the parsing, so that a probe is one file there and nothing here.
 *
 *   guest-probe sample INTERVAL_MS FILE... [-- COMM...]
 *       Every INTERVAL_MS until standard output closes, a record:
 *           #tick UPTIME_NS
 *           #file PATH LENGTH        followed by LENGTH bytes and a newline
 *           #process COMM PID        followed by the same for /proc/PID/status as #file
 *           #end
 *       for the named files, and the status of every process with one of the names COMM.
 *
 *   guest-probe pageflags
 *       /proc/kpageflags, run-length coded: little-endian (u64 flags, u64 frames) pairs.
 *       A few hundred kB where the plain file has 8 bytes for each frame.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char text[1 << 18];

/* A file of /proc or /sys as it is now; -1 when it cannot be read. */
static ssize_t slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t have = 0;

	if (fd < 0)
		return -1;
	while (have < sizeof(text)) {
		ssize_t got = read(fd, text + have, sizeof(text) - have);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		have += (size_t)got;
	}
	close(fd);
	return (ssize_t)have;
}

static void emit(const char *path)
{
	ssize_t length = slurp(path);

	printf("#file %s %zd\n", path, length);
	if (length > 0)
		fwrite(text, 1, (size_t)length, stdout);
	putchar('\n');
}

static void emit_processes(char **names, int count)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;

	if (!proc)
		return;
	while ((entry = readdir(proc))) {
		char path[64];
		ssize_t length;

		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		length = slurp(path);
		if (length <= 1)
			continue;
		text[length - 1] = '\0'; /* the newline */
		for (int i = 0; i < count; i++) {
			if (strcmp(text, names[i]))
				continue;
			printf("#process %s %s\n", names[i], entry->d_name);
			snprintf(path, sizeof(path), "/proc/%.20s/status", entry->d_name);
			emit(path);
			break;
		}
	}
	closedir(proc);
}

static int sample(int argc, char **argv)
{
	long interval_ms = argc > 0 ? strtol(argv[0], NULL, 10) : 0;
	struct timespec next;
	int files = 1;

	if (interval_ms < 10) {
		fprintf(stderr, "guest-probe: the interval is at least 10 ms\n");
		return 2;
	}
	while (files < argc && strcmp(argv[files], "--"))
		files++;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		struct timespec now, uptime;

		clock_gettime(CLOCK_BOOTTIME, &uptime);
		printf("#tick %" PRIu64 "\n", (uint64_t)uptime.tv_sec * 1000000000u + (uint64_t)uptime.tv_nsec);
		for (int i = 1; i < files; i++)
			emit(argv[i]);
		if (files + 1 < argc)
			emit_processes(argv + files + 1, argc - files - 1);
		printf("#end\n");
		if (fflush(stdout))
			return 0;
		/* Absolute times, so that reading does not make the interval longer; what was missed is not made up for. */
		clock_gettime(CLOCK_MONOTONIC, &now);
		do {
			next.tv_nsec += interval_ms % 1000 * 1000000;
			next.tv_sec += interval_ms / 1000 + next.tv_nsec / 1000000000;
			next.tv_nsec %= 1000000000;
		} while (next.tv_sec < now.tv_sec || (next.tv_sec == now.tv_sec && next.tv_nsec < now.tv_nsec));
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}

static int pageflags(void)
{
	static uint64_t flags[1 << 16];
	uint64_t run[2] = {0, 0};
	int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		perror("guest-probe: /proc/kpageflags");
		return 1;
	}
	for (;;) {
		ssize_t got = read(fd, flags, sizeof(flags));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			perror("guest-probe: /proc/kpageflags");
			return 1;
		}
		if (got == 0)
			break;
		for (ssize_t i = 0; i < got / 8; i++) {
			if (run[1] && run[0] == flags[i]) {
				run[1]++;
				continue;
			}
			if (run[1])
				fwrite(run, sizeof(run), 1, stdout);
			run[0] = flags[i];
			run[1] = 1;
		}
	}
	if (run[1])
		fwrite(run, sizeof(run), 1, stdout);
	return fflush(stdout) ? 1 : 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "sample"))
		return sample(argc - 2, argv + 2);
	if (argc == 2 && !strcmp(argv[1], "pageflags"))
		return pageflags();
	fprintf(stderr, "usage: guest-probe sample INTERVAL_MS FILE... [-- COMM...] | guest-probe pageflags\n");
	return 2;
}
