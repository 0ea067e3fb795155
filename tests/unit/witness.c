/*
 * Linked with pt-bench, a witness of what its first round asks the kernel for and of what comes of that: each call
 * that begins or ends a phase (--wrap of ld), with what /proc/self has of the mapping before and after it, as a line
 * of JSON in the file that WITNESS names.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Where pt-bench maps, and no other mapping is. */
#define FIRST (1UL << 44)
#define PAST (1UL << 46)

extern int __real_madvise(void *, size_t, int);
extern void *__real_mremap(void *, size_t, size_t, int, ...);
extern int __real_munmap(void *, size_t);
extern pid_t __real_fork(void);

/* One round is enough: it ends with munmap(). */
static volatile int over;

struct state {
	unsigned long from, to;
	size_t rss, anonymous, huge, dirty, tables, faults;
	char flags[128], name[64];
};

static size_t kib(const char *line, const char *name)
{
	size_t value = 0, length = strlen(name);

	return !strncmp(line, name, length) && sscanf(line + length, ": %zu kB", &value) == 1 ? value * 1024 : 0;
}

static struct state look(void)
{
	struct state found = {0};
	struct rusage usage;
	unsigned long from, to;
	char line[512];
	int ours = 0;
	FILE *file = fopen("/proc/self/smaps", "re");

	while (file && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			ours = from >= FIRST && to <= PAST;
			if (ours) {
				found.from = found.from ? found.from : from;
				found.to = to;
				sscanf(line, "%*s %*s %*s %*s %*s %63[^\n]", found.name);
			}
		} else if (ours) {
			found.rss += kib(line, "Rss");
			found.anonymous += kib(line, "Anonymous");
			found.huge += kib(line, "AnonHugePages");
			found.dirty += kib(line, "Shared_Dirty") + kib(line, "Private_Dirty");
			sscanf(line, "VmFlags: %127[a-z0-9 ]", found.flags);
		}
	}
	if (file)
		fclose(file);
	file = fopen("/proc/self/status", "re");
	while (file && fgets(line, sizeof(line), file))
		found.tables += kib(line, "VmPTE");
	if (file)
		fclose(file);
	getrusage(RUSAGE_THREAD, &usage);
	found.faults = (size_t)usage.ru_minflt;
	return found;
}

static int described(char *to, size_t room, const char *when, const struct state *state)
{
	return snprintf(to, room,
			", \"%s\": {\"from\": %lu, \"to\": %lu, \"rss\": %zu, \"anonymous\": %zu, "
			"\"huge\": %zu, \"dirty\": %zu, \"tables\": %zu, \"faults\": %zu, \"flags\": \"%s\", "
			"\"name\": \"%s\"}",
			when, state->from, state->to, state->rss, state->anonymous, state->huge,
			state->dirty, state->tables, state->faults, state->flags, state->name);
}

static void tell(const char *call, const struct state *before, const void *from, size_t length, int argument)
{
	struct state after = look();
	char line[2048];
	int fd = open(getenv("WITNESS"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	int size = snprintf(line, sizeof(line),
			    "{\"call\": \"%s\", \"thread\": %d, \"from\": %" PRIuPTR ", \"length\": %zu, \"argument\": %d",
			    call, gettid(), (uintptr_t)from, length, argument);

	size += described(line + size, sizeof(line) - (size_t)size, "before", before);
	size += described(line + size, sizeof(line) - (size_t)size, "after", &after);
	size += snprintf(line + size, sizeof(line) - (size_t)size, "}\n");
	if (write(fd, line, (size_t)size) != size)
		abort();
	close(fd);
}

int __wrap_madvise(void *from, size_t length, int advice)
{
	struct state before;
	int result;

	if (over)
		return __real_madvise(from, length, advice);
	before = look();
	result = __real_madvise(from, length, advice);
	tell("madvise", &before, from, length, advice);
	return result;
}

void *__wrap_mremap(void *from, size_t length, size_t to_length, int flags, ...)
{
	struct state before = look();
	va_list more;
	void *to, *result;

	va_start(more, flags);
	to = va_arg(more, void *);
	va_end(more);
	result = __real_mremap(from, length, to_length, flags, to);
	tell("mremap", &before, from, length, flags);
	return result;
}

int __wrap_munmap(void *from, size_t length)
{
	struct state before;
	int result;

	if (over)
		return __real_munmap(from, length);
	before = look();
	result = __real_munmap(from, length);
	tell("munmap", &before, from, length, 0);
	over = 1;
	return result;
}

pid_t __wrap_fork(void)
{
	struct state before = look();
	pid_t child = __real_fork();

	tell(child ? "fork" : "child", &before, NULL, 0, 0);
	return child;
}
