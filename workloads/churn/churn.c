/*
 * What an allocator keeps: objects of mixed sizes, of which most are freed at random, again and again.
 *
 *   churn AMOUNT [rounds=N] [keep_one_in=N] [smallest=BYTES] [largest=BYTES] [seed=N]
 *               [allocator=glibc|jemalloc|tcmalloc]
 *
 * A round allocates until AMOUNT bytes are live, then frees each object unless a die with that many
 * faces says otherwise. Sizes are as likely in each octave between the two. The allocator is whatever
 * LD_PRELOAD brings; the option says which one that has to be.
 */
#include "../common/holder.h"
#include <dlfcn.h>
#include <stdbool.h>
#include <sys/mman.h>

enum { GLIBC, JEMALLOC, TCMALLOC };

static size_t rounds = 3, keep_one_in = 16, smallest = 64, largest = 16384, seed = 1, allocator = GLIBC;

/* An object begins with its size. */
static size_t **objects;
static size_t live, live_bytes;

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled") */
static uint64_t random_state;

static uint64_t random_word(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dULL;
}

/* 0 <= number < limit; the bias of so small a limit is nothing here. */
static size_t random_below(size_t limit)
{
	return (size_t)((random_word() >> 32) % limit);
}

static size_t random_size(void)
{
	size_t octaves = 1, size;

	while (smallest << octaves <= largest)
		octaves++;
	size = smallest << random_below(octaves);
	size += random_below(size);
	return size < largest ? size : largest;
}

/* ld.so goes on with glibc's when it does not find what it is to preload. */
static void check_allocator(void)
{
	char line[512];
	size_t found = GLIBC;
	FILE *maps = fopen("/proc/self/maps", "re");

	if (!maps)
		die("/proc/self/maps");
	while (fgets(line, sizeof(line), maps))
		found = strstr(line, "/libjemalloc") ? JEMALLOC : strstr(line, "/libtcmalloc") ? TCMALLOC : found;
	fclose(maps);
	if (found != allocator)
		give_up("this is not the allocator that was asked for");
}

/* jemalloc stops its background threads in a child (background_thread_postfork_child()). */
static void restart_background_threads(void)
{
	typedef int (*control)(const char *, void *, size_t *, void *, size_t);
	const char *settings = getenv("MALLOC_CONF");
	control mallctl = (control)dlsym(RTLD_DEFAULT, "mallctl");
	bool on = true;

	if (mallctl && settings && strstr(settings, "background_thread:true") &&
	    mallctl("background_thread", NULL, NULL, &on, sizeof(on)))
		give_up("jemalloc does not start its background threads");
}

static void allocate(size_t amount)
{
	while (live_bytes < amount) {
		size_t size = random_size(), *object = malloc(size);

		if (!object)
			die("malloc");
		memset(object, 0xa5, size);
		*object = size;
		objects[live++] = object;
		live_bytes += size;
	}
}

static void free_most(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < live; i++)
		if (random_below(keep_one_in)) {
			live_bytes -= *objects[i];
			free(objects[i]);
		} else {
			objects[kept++] = objects[i];
		}
	live = kept;
}

static void work(size_t amount)
{
	size_t most = amount / smallest + 1, rss = 0, tables = 0;

	if (smallest > largest)
		give_up("smallest is larger than largest");
	check_allocator();
	restart_background_threads();
	random_state = (seed + 1) * 0x9e3779b97f4a7c15ULL; /* never 0, which would stay 0 */
	/* Not of the allocator that is looked at. */
	objects = mmap(NULL, most * sizeof(*objects), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (objects == MAP_FAILED)
		die("mmap");
	for (size_t round = 0; round < rounds; round++) {
		allocate(amount);
		rss = status_bytes("VmRSS");
		tables = status_bytes("VmPTE");
		free_most();
	}
	report("\"held_bytes\": %zu, \"live_bytes\": %zu, \"live_objects\": %zu, \"rss_bytes_full\": %zu, "
	       "\"page_table_bytes_full\": %zu, \"page_table_bytes_freed\": %zu",
	       status_bytes("VmRSS"), live_bytes, live, rss, tables, status_bytes("VmPTE"));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"rounds", &rounds, 1, {0}},
		{"keep_one_in", &keep_one_in, 1, {0}},
		{"smallest", &smallest, sizeof(size_t), {0}},
		{"largest", &largest, sizeof(size_t), {0}},
		{"seed", &seed, 0, {0}},
		{"allocator", &allocator, 0, {"glibc", "jemalloc", "tcmalloc"}},
		{0},
	};

	return hold(argc, argv, options, work, NULL);
}
