/*
 * What the programs that hold memory in a guest have in common. Each is called
 *
 *   NAME AMOUNT [option=value]...
 *
 * with sizes in bytes, does its work in a child process, prints one line of JSON with what it measured
 * and keeps the memory until SIGTERM. When it fails, it says why on standard error and ends with
 * code 1 (2: bad arguments), and nothing is held; when its child is killed by a signal, with 128 and that.
 */
#ifndef HOLDER_H
#define HOLDER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define MIB (1UL << 20)
#define GIB (1UL << 30)

/* Where `option=value` goes: a number, or the index of the word among the choices if there are any. */
struct option {
	const char *name;
	size_t *value;
	size_t least;
	const char *choices[6];
};

static int holder_report;
static double holder_began;

static inline double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline _Noreturn void die(const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
	_exit(1);
}

static inline _Noreturn void give_up(const char *why)
{
	fprintf(stderr, "%s: %s\n", program_invocation_short_name, why);
	_exit(1);
}

/* The bytes that a file of /proc has as `NAME: N kB`; 0 when there is no such line. */
static inline size_t proc_bytes(const char *path, const char *name)
{
	char line[256];
	size_t kib = 0, length = strlen(name);
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, length) && sscanf(line + length, ": %zu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024;
}

#define meminfo_bytes(name) proc_bytes("/proc/meminfo", name)
#define status_bytes(name) proc_bytes("/proc/self/status", name)

/* Raise a limit in /proc, as far as we may: what comes next says whether it was enough. */
static inline void raise_limit(const char *path, size_t least)
{
	size_t now = 0;
	FILE *file = fopen(path, "re");

	if (file && fscanf(file, "%zu", &now) == 1 && now < least) {
		FILE *out = fopen(path, "we");

		if (out) {
			fprintf(out, "%zu\n", least);
			fclose(out);
		}
	}
	if (file)
		fclose(file);
}

/* Room for that many open files (beside our own few), as far as we may. */
static inline void raise_open_files(size_t count)
{
	struct rlimit limit = {count + 64, count + 64};

	raise_limit("/proc/sys/fs/nr_open", count + 64);
	raise_limit("/proc/sys/fs/file-max", count + 4096);
	if (setrlimit(RLIMIT_NOFILE, &limit)) {
		getrlimit(RLIMIT_NOFILE, &limit);
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

/*
 * A tmpfs that only this process sees, as its working directory. However the process ends, the last
 * one to leave a mount namespace takes its mounts along.
 */
static inline void enter_tmpfs(const char *options)
{
	if (unshare(CLONE_NEWNS))
		die("unshare");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		die("mount --make-rprivate");
	if (mount("tmpfs", "/mnt", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options))
		die("mount tmpfs");
	if (chdir("/mnt"))
		die("chdir");
}

static inline void leave_tmpfs(void)
{
	if (chdir("/") || umount2("/mnt", 0))
		die("umount");
}

/* What was measured, as the inside of a JSON object. To be called once, when the work is done. */
static inline __attribute__((format(printf, 1, 2))) void report(const char *format, ...)
{
	double took = seconds() - holder_began;
	va_list values;

	dprintf(holder_report, "{\"pid\": %d, \"start_seconds\": %.6f, ", getpid(), took);
	va_start(values, format);
	vdprintf(holder_report, format, values);
	va_end(values);
	dprintf(holder_report, "}\n");
	/* stderr was kept so that a failure is seen; holding it on would hold whoever waits for its end. */
	dup2(open("/dev/null", O_RDWR | O_CLOEXEC), STDERR_FILENO);
	close(holder_report);
}

/* strtoull() alone would take a sign, and `all` for 0. */
static inline int holder_number(const char *text, size_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	return isdigit((unsigned char)text[0]) && !*end && !errno;
}

static inline int holder_set(const struct option *option, const char *text)
{
	size_t i;

	if (!option->choices[0])
		return holder_number(text, option->value) && *option->value >= option->least;
	for (i = 0; option->choices[i] && strcmp(option->choices[i], text);)
		i++;
	*option->value = i;
	return option->choices[i] != NULL;
}

static inline int holder_arguments(int argc, char **argv, size_t *amount, const struct option *options)
{
	if (argc < 2 || !holder_number(argv[1], amount) || !*amount)
		return 0;
	for (int i = 2; i < argc; i++) {
		const char *value = strchr(argv[i], '=');
		const struct option *option = options;

		while (value && option->name &&
		       (strlen(option->name) != (size_t)(value - argv[i]) ||
			strncmp(option->name, argv[i], strlen(option->name))))
			option++;
		if (!value || !option->name || !holder_set(option, value + 1)) {
			fprintf(stderr, "%s: bad option: %s\n", program_invocation_short_name, argv[i]);
			return 0;
		}
	}
	return 1;
}

/*
 * The main() of them all: `options` end with an empty one, `work` calls report(), and `release`, if there
 * is one, frees before the process ends what the kernel would free only some time after.
 */
static inline int hold(int argc, char **argv, const struct option *options, void (*work)(size_t amount),
		       void (*release)(void))
{
	char answer[4096];
	size_t amount, length = 0;
	ssize_t got;
	sigset_t term;
	pid_t child;
	int both[2], ended = 0;

	if (!holder_arguments(argc, argv, &amount, options)) {
		fprintf(stderr, "usage: %s BYTES", program_invocation_short_name);
		for (; options->name; options++)
			fprintf(stderr, " [%s=...]", options->name);
		fprintf(stderr, "\n");
		return 2;
	}
	if (pipe2(both, O_CLOEXEC))
		die("pipe");
	/* The child does it all: a fork afterwards would copy the very tables this may be about. */
	switch (child = fork()) {
	case -1:
		die("fork");
	case 0: {
		int null = open("/dev/null", O_RDWR | O_CLOEXEC);

		close(both[0]);
		setsid();
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		close(null);
		holder_report = both[1];
		holder_began = seconds();
		work(amount);
		if (!release)
			for (;;)
				pause();
		sigemptyset(&term);
		sigaddset(&term, SIGTERM);
		sigprocmask(SIG_BLOCK, &term, NULL);
		sigwaitinfo(&term, NULL);
		release();
		_exit(0);
	}
	}
	close(both[1]);
	while (length < sizeof(answer) && (got = read(both[0], answer + length, sizeof(answer) - length)) > 0)
		length += (size_t)got;
	if (!length) {
		while (waitpid(child, &ended, 0) < 0 && errno == EINTR)
			;
		return WIFSIGNALED(ended) ? 128 + WTERMSIG(ended) : 1;
	}
	fwrite(answer, 1, length, stdout);
	return 0;
}

#endif
