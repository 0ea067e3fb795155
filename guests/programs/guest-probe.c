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
 *   guest-probe snapshot FILE...
 *       Until standard input ends; for each line `all` there the named files as above, then
 *           #online LENGTH           and the numbers of the memory blocks that are online, as text
 *       and for that line and each line `flags`
 *           #flags LENGTH            and /proc/kpageflags, run-length coded: little-endian pairs
 *                                    (u64 flags, u64 frames); a few hundred kB where the plain file
 *                                    has 8 bytes for each frame
 *           #cpu NS FLAGS_NS SSHD_NS all CPU time that this process has used, the part of it that went
 *                                    into #flags, and all that its parent has used
 *       At the start it prints #cpu, and #page_owner 1 or 0: whether there is one to ask.
 *       A line `owners COUNT`, followed by that many frame numbers (little-endian u64, ascending), asks
 *       page_owner (CONFIG_PAGE_OWNER, booted with page_owner=on) who allocated them:
 *           #stack LENGTH            and the text of a call stack, each once, in the order of first use
 *           #owners LENGTH CUT       and (u64 first frame, u32 order, u32 number of its stack) records;
 *                                    CUT is 1 if it broke off
 *           #cpu ...
 *       It is started before a trial's first step and stays: a process that came for each snapshot
 *       would put page tables of its own into the very memory that is looked at.
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
#include <sys/mman.h>
#include <sys/wait.h>
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

static uint64_t cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

/* The sshd that carries what we write. Its schedstat begins with the nanoseconds that it ran. */
static uint64_t parent_cpu_ns(void)
{
	char path[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/schedstat", (int)getppid());
	length = slurp(path);
	if (length <= 0)
		return 0;
	text[length < (ssize_t)sizeof(text) ? length : length - 1] = '\0';
	return strtoull(text, NULL, 10);
}

static uint64_t flags_ns;

static void emit_cpu(void)
{
	printf("#cpu %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", cpu_ns(), flags_ns, parent_cpu_ns());
}

static void online(void)
{
	DIR *blocks = opendir("/sys/devices/system/memory");
	struct dirent *entry;
	char *list = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&list, &length);

	while (blocks && out && (entry = readdir(blocks))) {
		char path[128];

		if (strncmp(entry->d_name, "memory", 6) || !isdigit((unsigned char)entry->d_name[6]))
			continue;
		snprintf(path, sizeof(path), "/sys/devices/system/memory/%.32s/online", entry->d_name);
		if (slurp(path) > 0 && text[0] == '1')
			fprintf(out, "%s ", entry->d_name + 6);
	}
	if (blocks)
		closedir(blocks);
	if (out)
		fclose(out);
	printf("#online %zu\n%s\n", length, list ? list : "");
	free(list);
}

struct run {
	uint64_t flags, frames;
};

static int pageflags(void)
{
	static uint64_t flags[1 << 16];
	static struct run *runs;
	static size_t room;
	size_t count = 0;
	uint64_t begin = cpu_ns();
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
			if (count && runs[count - 1].flags == flags[i]) {
				runs[count - 1].frames++;
				continue;
			}
			if (count == room) {
				room = room ? 2 * room : 1 << 12;
				runs = realloc(runs, room * sizeof(*runs));
				if (!runs) {
					perror("guest-probe");
					return 1;
				}
			}
			runs[count++] = (struct run){flags[i], 1};
		}
	}
	close(fd);
	printf("#flags %zu\n", count * sizeof(*runs));
	fwrite(runs, sizeof(*runs), count, stdout);
	putchar('\n');
	if (fflush(stdout))
		return 1;
	flags_ns += cpu_ns() - begin;
	emit_cpu();
	return fflush(stdout) ? 1 : 0;
}

#define PAGE_OWNER "/sys/kernel/debug/page_owner"

struct owner {
	uint64_t pfn;
	uint32_t order, stack;
};

#define MOST_STACKS (1 << 12)
#define STACK_TEXT (1 << 21)

/* What the child has found so far; the parent reads it when the child has ended, however that came. */
struct answers {
	size_t count;
	uint32_t stacks;
	uint64_t hash[MOST_STACKS];
	uint32_t at[MOST_STACKS + 1];
	char text[STACK_TEXT];
	struct owner found[];
};

/* Number of the stack in a record of page_owner, kept if it is new. */
static uint32_t stack_number(struct answers *answers, char *record)
{
	char *stack = strstr(record, "\n "), *end;
	uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
	uint32_t i, have = answers->stacks, at = answers->at[have];

	if (!stack)
		return UINT32_MAX;
	for (end = ++stack; *end == ' '; end++) {
		for (; *end && *end != '\n'; end++)
			hash = (hash ^ (unsigned char)*end) * 0x100000001b3u;
		if (!*end)
			break;
	}
	for (i = 0; i < have; i++)
		if (answers->hash[i] == hash)
			return i;
	if (have == MOST_STACKS || (size_t)(end - stack) > STACK_TEXT - at)
		return UINT32_MAX;
	memcpy(answers->text + at, stack, (size_t)(end - stack));
	answers->hash[have] = hash;
	answers->at[have + 1] = at + (uint32_t)(end - stack);
	answers->stacks++;
	return have;
}

/*
 * page_owner takes a frame number for a file offset and answers with the first owner from there on
 * (lseek_page_owner() and read_page_owner(), mm/page_owner.c): one read for each chunk that is asked for.
 */
static void ask_page_owner(int fd, const uint64_t *pfns, size_t asked, struct answers *answers)
{
	uint64_t next = 0;

	for (size_t i = 0; i < asked; i++) {
		static char record[1 << 14];
		char *line;
		ssize_t length;
		unsigned order;
		uint64_t at;

		if (pfns[i] < next)
			continue;
		length = pread(fd, record, sizeof(record) - 1, (off_t)pfns[i]);
		if (length <= 0)
			continue;
		record[length] = '\0';
		line = strstr(record, "\nPFN 0x");
		if (!line || sscanf(record, "Page allocated via order %u", &order) != 1 || order > 20 ||
		    sscanf(line, "\nPFN 0x%" SCNx64, &at) != 1)
			continue;
		next = at + (1u << order);
		answers->found[answers->count] = (struct owner){at, order, stack_number(answers, record)};
		answers->count++;
	}
}

static int owners(size_t asked)
{
	int fd = open(PAGE_OWNER, O_RDONLY | O_CLOEXEC), status = 0;
	size_t size = sizeof(struct answers) + asked * sizeof(struct owner);
	uint64_t *pfns = calloc(asked + 1, sizeof(*pfns));
	struct answers *answers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t child;

	if (fd < 0 || !pfns || answers == MAP_FAILED || fread(pfns, sizeof(*pfns), asked, stdin) != asked) {
		perror("guest-probe: owners");
		return 1;
	}
	/* Reading this file has been seen to kill the reader (an oops in 6.12.117's print_page_owner_memcg()). */
	child = fork();
	if (child == 0) {
		ask_page_owner(fd, pfns, asked, answers);
		_exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		status = -1;
	for (uint32_t i = 0; i < answers->stacks; i++) {
		int length = (int)(answers->at[i + 1] - answers->at[i]);

		printf("#stack %d\n%.*s\n", length, length, answers->text + answers->at[i]);
	}
	printf("#owners %zu %d\n", answers->count * sizeof(struct owner), status != 0);
	fwrite(answers->found, sizeof(struct owner), answers->count, stdout);
	putchar('\n');
	close(fd);
	munmap(answers, size);
	free(pfns);
	emit_cpu();
	return fflush(stdout) ? 1 : 0;
}

/* Page in what is needed, so that the first answer costs the guest no more than the others. */
static void warm_up(int argc, char **argv)
{
	FILE *real = stdout, *nowhere = fopen("/dev/null", "we");

	if (!nowhere)
		return;
	stdout = nowhere;
	for (int i = 0; i < argc; i++)
		emit(argv[i]);
	online();
	pageflags();
	stdout = real;
	fclose(nowhere);
}

static int snapshot(int argc, char **argv)
{
	char line[32];
	size_t asked;

	warm_up(argc, argv);

	emit_cpu();
	printf("#page_owner %d\n", access(PAGE_OWNER, R_OK) == 0);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "owners %zu\n", &asked) == 1) {
			if (asked > 1 << 20 || owners(asked))
				return 1;
			continue;
		}
		if (!strcmp(line, "all\n")) {
			for (int i = 0; i < argc; i++)
				emit(argv[i]);
			online();
		}
		if (pageflags())
			return 1;
	}
	return 0;
}

/* Where memory runs out, the one who tells of it is to be the last to go. */
static void stay(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Without the right to it, it is killed like any other. */
	if (fd >= 0 && write(fd, "-1000", 5) == 5)
		close(fd);
}

int main(int argc, char **argv)
{
	stay();
	if (argc > 1 && !strcmp(argv[1], "sample"))
		return sample(argc - 2, argv + 2);
	if (argc > 1 && !strcmp(argv[1], "snapshot"))
		return snapshot(argc - 2, argv + 2);
	fprintf(stderr, "usage: guest-probe sample INTERVAL_MS FILE... [-- COMM...] | guest-probe snapshot FILE...\n");
	return 2;
}
