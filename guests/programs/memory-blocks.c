/*
 * Takes Linux memory blocks offline, or brings them back, through /sys/devices/system/memory
 * (Documentation/admin-guide/mm/memory-hotplug.rst), and says how each one went.
 *
 *   memory-blocks offline BYTES PER_BLOCK_MS WITHIN_MS highest|lowest
 *       Online blocks, from the highest one down or from the lowest one up, until BYTES are
 *       offline, all were tried, or the time is over.
 *   memory-blocks online WITHIN_MS
 *       All offline blocks, from the lowest one up.
 *
 *   Prints   blocks BLOCK_BYTES COUNT          how many there are to try
 *            INDEX SECONDS RESULT BYTES        as each is done with: seconds since the beginning,
 *                                              OK or the name of the errno, and all bytes so far
 *            end enough|all|time               why it ended
 *
 * The kernel tries to empty a block for ever: offline_pages() (mm/memory_hotplug.c) gives up only
 * when what is in the way cannot be moved at all (EBUSY), or at a signal (EINTR). So an alarm
 * interrupts the write, and goes on ringing, since the first one may come before the kernel looks.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef FOLDER /* tests have one of their own */
#define FOLDER "/sys/devices/system/memory"
#endif
#define RING_AGAIN_US 100000

static void die(const char *what)
{
	fprintf(stderr, "memory-blocks: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int usage(void)
{
	fputs("usage: memory-blocks offline BYTES PER_BLOCK_MS WITHIN_MS highest|lowest\n"
	      "       memory-blocks online WITHIN_MS\n", stderr);
	return 2;
}

static int number(const char *text, uint64_t *value)
{
	char *end;

	errno = 0;
	*value = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno;
}

static uint64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The beginning of a sysfs file as text; 0 when it cannot be read. */
static int slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

static int ascending(const void *left, const void *right)
{
	const unsigned int *a = left, *b = right;

	return (*a > *b) - (*a < *b);
}

/* The numbers of the blocks whose `online` says `state`, lowest first. */
static unsigned int *blocks_that_are(char state, size_t *count)
{
	DIR *folder = opendir(FOLDER);
	unsigned int *found = NULL;
	size_t room = 0;
	struct dirent *entry;

	*count = 0;
	if (!folder)
		die(FOLDER);
	while ((entry = readdir(folder))) {
		char path[PATH_MAX], text[8], rest;
		unsigned int index;

		if (sscanf(entry->d_name, "memory%u%c", &index, &rest) != 1)
			continue;
		snprintf(path, sizeof(path), FOLDER "/memory%u/online", index);
		if (!slurp(path, text, sizeof(text)) || text[0] != state)
			continue;
		if (*count == room) {
			room = room ? 2 * room : 64;
			found = reallocarray(found, room, sizeof(*found));
			if (!found)
				die("memory");
		}
		found[(*count)++] = index;
	}
	closedir(folder);
	qsort(found, *count, sizeof(*found), ascending);
	return found;
}

static void ring(int signal)
{
	(void)signal;
}

static void set_alarm(uint64_t ms)
{
	struct itimerval timer = {
		.it_interval = { .tv_usec = ms ? RING_AGAIN_US : 0 },
		.it_value = { .tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000) },
	};

	setitimer(ITIMER_REAL, &timer, NULL);
}

/* Write a block's `online`, for `ms` at the most; 0, or the errno. */
static int change(unsigned int index, char state, uint64_t ms)
{
	char path[PATH_MAX];
	int fd, error = 0;

	snprintf(path, sizeof(path), FOLDER "/memory%u/online", index);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	set_alarm(ms ? ms : 1);
	if (write(fd, &state, 1) != 1)
		error = errno;
	set_alarm(0);
	close(fd);
	return error;
}

int main(int argc, char **argv)
{
	/* No SA_RESTART: the write is to end. */
	struct sigaction action = { .sa_handler = ring };
	uint64_t wanted = UINT64_MAX, per_block, within, block, begin, done = 0;
	int offline = argc == 6 && !strcmp(argv[1], "offline");
	const char *end = "all";
	unsigned int *blocks;
	char text[32];
	size_t count;

	if (offline) {
		if (!number(argv[2], &wanted) || !number(argv[3], &per_block) || !number(argv[4], &within) ||
		    (strcmp(argv[5], "highest") && strcmp(argv[5], "lowest")))
			return usage();
	} else {
		if (argc != 3 || strcmp(argv[1], "online") || !number(argv[2], &within))
			return usage();
		per_block = within;
	}
	sigaction(SIGALRM, &action, NULL);
	if (!slurp(FOLDER "/block_size_bytes", text, sizeof(text)))
		die(FOLDER "/block_size_bytes");
	block = strtoull(text, NULL, 16);
	blocks = blocks_that_are(offline ? '1' : '0', &count);
	printf("blocks %" PRIu64 " %zu\n", block, count);
	begin = milliseconds();
	for (size_t turn = 0; turn < count; turn++) {
		int down = offline && !strcmp(argv[5], "highest");
		unsigned int index = blocks[down ? count - 1 - turn : turn];
		uint64_t spent = milliseconds() - begin;
		int error;

		if (done >= wanted)
			break;
		if (spent >= within) {
			end = "time";
			break;
		}
		error = change(index, offline ? '0' : '1',
			       within - spent < per_block ? within - spent : per_block);
		if (!error)
			done += block;
		spent = milliseconds() - begin;
		printf("%u %" PRIu64 ".%03" PRIu64 " %s %" PRIu64 "\n", index, spent / 1000, spent % 1000,
		       error ? strerrorname_np(error) : "OK", done);
		fflush(stdout);
	}
	if (done >= wanted)
		end = "enough";
	printf("end %s\n", end);
	return 0;
}
