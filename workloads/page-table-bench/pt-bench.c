/*
 * What page tables cost: rounds of the same six phases on one mapping, each phase between two readings of a
 * clock. It holds nothing when it is done.
 *
 *   pt-bench SPAN [unit=instructions|nanoseconds] [layout=sparse|dense] [backing=anonymous|shared|file]
 *            [discard=dontneed|free] [chunk=all|pmd|page] [thp=guest|always|never] [threads=N]
 *            [rounds=N] [warm_up=N]
 *
 * SPAN bytes, whole PMD ranges, are mapped anew for each round. `sparse` is one page of each range, `dense` all
 * of them. The phases:
 *
 *   touch        each page is written (of a file: read) for the first time
 *   discard      madvise(), `chunk` at a time
 *   touch_again  as the first
 *   fork         a child that ends at once, and its end is waited for
 *   mremap       the mapping moves by a distance of whole PMD ranges, not of whole GiB: table by table
 *   munmap
 *
 * Threads share the first three, each with a part of the ranges of its own; a phase lasts until all are done.
 * Addresses are the same in each run, or the number of upper tables would follow from where mmap() put it.
 *
 * `instructions`: the time-stamp counter (../common/clock.h). Instructions of a known number are run first: a clock
 * that counts something else is refused, and so is one that counts them under the name of nanoseconds.
 *
 * One line of JSON: what was done, page tables (VmPTE) of the last round, and for each phase its rounds, the
 * first `warm_up` of them apart. `cpu` is how much of the measured rounds was CPU time of this process and its
 * children by the kernel's account: the rest was of other tasks and interrupts.
 */
#include "../common/clock.h"
#include "../common/holder.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define PMD (2 * MIB)
#define MOST_ROUNDS 64
#define MOST_THREADS 4
/* Far from what the kernel places by itself, at the top of the address space and below the program. */
#define AT ((char *)(1UL << 44))
#define MOVED_TO ((char *)((1UL << 45) + PMD))

enum { INSTRUCTIONS, NANOSECONDS };
enum { SPARSE, DENSE };
enum { ANONYMOUS, SHARED, BY_FILE };
enum { DONTNEED, FREE };
enum { ALL, BY_PMD, BY_PAGE };
enum { THP_GUEST, THP_ALWAYS, THP_NEVER };
enum { TOUCH, DISCARD, TOUCH_AGAIN, FORK, MREMAP, MUNMAP, PHASES };

static const char *const phase_names[] = {"touch", "discard", "touch_again", "fork", "mremap", "munmap"};

static size_t unit, layout, backing, discard, chunk, thp, threads = 1, rounds = 20, warm_up = 5;

static size_t span;
static int file = -1;
static pthread_barrier_t begin, done;
static int doing; /* a phase, or PHASES: there are no more */
static uint64_t took[PHASES][2 * MOST_ROUNDS], used;

static uint64_t now(void)
{
	struct timespec time;

	if (unit == INSTRUCTIONS)
		return __rdtsc();
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Nanoseconds of CPU time of this process and of the children that have ended. */
static uint64_t cpu_time(void)
{
	struct timespec own;
	struct rusage children;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	getrusage(RUSAGE_CHILDREN, &children);
	return (uint64_t)(own.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1000000000 +
	       (uint64_t)own.tv_nsec + (uint64_t)(children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1000;
}

static void map(void)
{
	int share = backing == ANONYMOUS ? MAP_PRIVATE | MAP_ANONYMOUS
		    : backing == SHARED	 ? MAP_SHARED | MAP_ANONYMOUS
					 : MAP_SHARED;
	int may = backing == BY_FILE ? PROT_READ : PROT_READ | PROT_WRITE;

	if (mmap(AT, span, may, share | MAP_NORESERVE | MAP_FIXED_NOREPLACE, file, 0) != AT)
		die("mmap");
	if (thp != THP_GUEST && madvise(AT, span, thp == THP_ALWAYS ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("madvise of huge pages");
	/* Without read-ahead, which would fill the cache around each page (do_sync_mmap_readahead()). */
	if (backing == BY_FILE && madvise(AT, span, MADV_RANDOM))
		die("madvise(MADV_RANDOM)");
}

static void touch(char *from, char *to)
{
	size_t step = layout == SPARSE ? PMD : PAGE;

	for (; from < to; from += step)
		if (backing == BY_FILE)
			(void)*(volatile char *)from;
		else
			*(volatile char *)from = 1;
}

static void advise(char *from, char *to)
{
	size_t step = chunk == ALL ? (size_t)(to - from) : chunk == BY_PMD ? PMD : PAGE;
	/* A page at a time, where only one of each range is there: that page, or it would be calls that count. */
	size_t stride = chunk == BY_PAGE && layout == SPARSE ? PMD : step;

	for (; from < to; from += stride)
		if (madvise(from, step, discard == FREE ? MADV_FREE : MADV_DONTNEED))
			die("madvise");
}

static void part(size_t thread)
{
	size_t ranges = span / PMD;
	char *from = AT + ranges * thread / threads * PMD, *to = AT + ranges * (thread + 1) / threads * PMD;

	if (doing == DISCARD)
		advise(from, to);
	else
		touch(from, to);
}

static void *helper(void *number)
{
	for (;;) {
		pthread_barrier_wait(&begin);
		if (doing == PHASES)
			return NULL;
		part((size_t)number);
		pthread_barrier_wait(&done);
	}
}

static void together(void)
{
	if (threads > 1)
		pthread_barrier_wait(&begin);
	part(0);
	if (threads > 1)
		pthread_barrier_wait(&done);
}

static void fork_and_wait(void)
{
	pid_t child = fork();

	if (child < 0)
		die("fork");
	if (!child)
		_exit(0);
	if (waitpid(child, NULL, 0) != child)
		die("waitpid");
}

static void go_round(size_t round)
{
	uint64_t cpu;

	map();
	cpu = cpu_time();
	for (doing = 0; doing < PHASES; doing++) {
		uint64_t before = now();

		if (doing <= TOUCH_AGAIN)
			together();
		else if (doing == FORK)
			fork_and_wait();
		else if (doing == MREMAP && mremap(AT, span, span, MREMAP_MAYMOVE | MREMAP_FIXED, MOVED_TO) != MOVED_TO)
			die("mremap");
		else if (doing == MUNMAP && munmap(MOVED_TO, span))
			die("munmap");
		took[doing][round] = now() - before;
	}
	if (round >= warm_up)
		used += cpu_time() - cpu;
}

/* A round that is not measured, for reading /proc in the midst of it. */
static void look(size_t *before, size_t *touched, size_t *discarded)
{
	map();
	*before = status_bytes("VmPTE");
	doing = TOUCH;
	together();
	*touched = status_bytes("VmPTE");
	doing = DISCARD;
	together();
	*discarded = status_bytes("VmPTE");
	if (munmap(AT, span))
		die("munmap");
}

static void make_file(void)
{
	char path[] = "/var/tmp/pt-bench-XXXXXX";

	file = mkostemp(path, O_CLOEXEC);
	if (file < 0)
		die(path);
	unlink(path); /* it is gone with the process, however that ends */
	if (ftruncate(file, (off_t)span))
		die("ftruncate");
}

static void print_rounds(const char *name, size_t from, size_t to)
{
	printf("\"%s\": {", name);
	for (int phase = 0; phase < PHASES; phase++) {
		printf("%s\"%s\": [", phase ? ", " : "", phase_names[phase]);
		for (size_t round = from; round < to; round++)
			printf("%s%llu", round > from ? ", " : "", (unsigned long long)took[phase][round]);
		printf("]");
	}
	printf("}");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"unit", &unit, 0, {"instructions", "nanoseconds"}},
		{"layout", &layout, 0, {"sparse", "dense"}},
		{"backing", &backing, 0, {"anonymous", "shared", "file"}},
		{"discard", &discard, 0, {"dontneed", "free"}},
		{"chunk", &chunk, 0, {"all", "pmd", "page"}},
		{"thp", &thp, 0, {"guest", "always", "never"}},
		{"threads", &threads, 1, {0}},
		{"rounds", &rounds, 1, {0}},
		{"warm_up", &warm_up, 0, {0}},
		{0},
	};
	size_t before, touched, discarded;
	pthread_t helpers[MOST_THREADS];

	if (!holder_arguments(argc, argv, &span, options) || span % PMD || threads > MOST_THREADS ||
	    threads > span / PMD || rounds > MOST_ROUNDS || warm_up > MOST_ROUNDS) {
		fprintf(stderr,
			"usage: pt-bench BYTES [unit=instructions|nanoseconds] [layout=sparse|dense]\n"
			"  [backing=anonymous|shared|file] [discard=dontneed|free] [chunk=all|pmd|page]\n"
			"  [thp=guest|always|never] [threads=1..%d] [rounds=1..%d] [warm_up=0..%d]\n"
			"BYTES are whole ranges of 2 MiB, at least one for each thread\n",
			MOST_THREADS, MOST_ROUNDS, MOST_ROUNDS);
		return 2;
	}
	if (backing != ANONYMOUS && discard == FREE)
		give_up("discard=free is for anonymous memory only (madvise(2), MADV_FREE)");
	if (counts_instructions() != (unit == INSTRUCTIONS))
		give_up(unit == INSTRUCTIONS ? "the clock of this guest does not count instructions: give the scenario "
					       "`clock: instructions`, or the workload `unit: nanoseconds`"
					     : "the clock of this guest counts instructions, not nanoseconds");
	if (backing == BY_FILE)
		make_file();
	pthread_barrier_init(&begin, NULL, (unsigned)threads);
	pthread_barrier_init(&done, NULL, (unsigned)threads);
	for (size_t i = 1; i < threads; i++)
		if (pthread_create(&helpers[i], NULL, helper, (void *)i))
			give_up("pthread_create failed");
	for (size_t round = 0; round < warm_up + rounds; round++)
		go_round(round);
	look(&before, &touched, &discarded);
	doing = PHASES;
	if (threads > 1)
		pthread_barrier_wait(&begin);
	for (size_t i = 1; i < threads; i++)
		pthread_join(helpers[i], NULL);
	printf("{\"unit\": \"%s\", \"ranges\": %zu, \"pages\": %zu, \"cpu\": %llu, "
	       "\"page_table_bytes_mapped\": %zu, \"page_table_bytes_touched\": %zu, "
	       "\"page_table_bytes_discarded\": %zu, ",
	       unit == INSTRUCTIONS ? "instructions" : "nanoseconds", span / PMD,
	       span / (layout == SPARSE ? PMD : PAGE), (unsigned long long)used, before, touched, discarded);
	print_rounds("warm_up", 0, warm_up);
	printf(", ");
	print_rounds("rounds", warm_up, warm_up + rounds);
	printf("}\n");
	return 0;
}
