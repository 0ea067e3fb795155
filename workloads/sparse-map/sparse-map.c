/*
 * A sparse mapping: one page touched for every STRIDE bytes over SPAN bytes, then let go by
 * madvise(), and the process lives on. What stays is what its page tables cost.
 *
 *   sparse-map SPAN STRIDE dontneed|free|keep CHUNK
 *
 * Sizes are bytes; the advice is given CHUNK bytes at a time (0: all at once). When that is done it
 * prints one line of JSON and stays in the background until it gets SIGTERM.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* VmPTE of this process in kB: PTE, PMD and PUD tables together (mm_pgtables_bytes()). */
static long table_kib(void)
{
	char line[256];
	long kib = -1;
	FILE *status = fopen("/proc/self/status", "r");

	while (status && fgets(line, sizeof(line), status))
		if (sscanf(line, "VmPTE: %ld kB", &kib) == 1)
			break;
	if (status)
		fclose(status);
	return kib;
}

static _Noreturn void die(const char *what)
{
	perror(what);
	_exit(1);
}

/* strtoull() alone would take a sign, and `all` for 0. */
static int parse(const char *text, size_t *size)
{
	char *end;

	*size = strtoull(text, &end, 10);
	return isdigit((unsigned char)text[0]) && !*end;
}

static void work(int report, size_t span, size_t stride, int advice, size_t chunk)
{
	double start = seconds(), touched, let_go;
	long before;
	char *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		die("sparse-map: mmap");
	/* A huge page would need no last-level table at all. */
	if (madvise(base, span, MADV_NOHUGEPAGE))
		die("sparse-map: madvise(MADV_NOHUGEPAGE)");
	for (size_t at = 0; at < span; at += stride)
		*(volatile char *)(base + at) = 1;
	touched = seconds();
	before = table_kib();
	if (advice >= 0)
		for (size_t at = 0; at < span; at += chunk)
			if (madvise(base + at, at + chunk > span ? span - at : chunk, advice))
				die("sparse-map: madvise");
	let_go = seconds();
	dprintf(report,
		"{\"pid\": %d, \"pages_touched\": %zu, \"page_table_bytes_touched\": %ld, \"page_table_bytes_let_go\": %ld, "
		"\"touch_seconds\": %.6f, \"let_go_seconds\": %.6f}\n",
		getpid(), (span + stride - 1) / stride, before * 1024, table_kib() * 1024, touched - start,
		let_go - touched);
	/* stderr was kept so that a failure is seen; holding it on would hold whoever waits for its end. */
	dup2(open("/dev/null", O_RDWR), STDERR_FILENO);
	close(report);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	size_t span, stride, chunk;
	char answer[512];
	ssize_t length;
	int advice, report[2];

	if (argc != 5) {
		fprintf(stderr, "usage: sparse-map SPAN STRIDE dontneed|free|keep CHUNK\n");
		return 2;
	}
	advice = !strcmp(argv[3], "dontneed") ? MADV_DONTNEED : !strcmp(argv[3], "free") ? MADV_FREE : -1;
	if (!parse(argv[1], &span) || !parse(argv[2], &stride) || !parse(argv[4], &chunk) || !span || !stride ||
	    (advice < 0 && strcmp(argv[3], "keep"))) {
		fprintf(stderr, "sparse-map: bad arguments\n");
		return 2;
	}
	if (!chunk)
		chunk = span;
	if (pipe2(report, O_CLOEXEC))
		die("sparse-map: pipe");
	/* The child does it all: a fork afterwards would copy the very tables this is about. */
	switch (fork()) {
	case -1:
		die("sparse-map: fork");
	case 0: {
		int null = open("/dev/null", O_RDWR);

		close(report[0]);
		setsid();
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		work(report[1], span, stride, advice, chunk);
	}
	}
	close(report[1]);
	length = read(report[0], answer, sizeof(answer));
	if (length <= 0)
		return 1;
	fwrite(answer, 1, (size_t)length, stdout);
	return 0;
}
