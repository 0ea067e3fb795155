/*
 * Locked memory: anonymous pages that may be moved, and neither swapped nor reclaimed.
 *
 *   mlock AMOUNT [thp=never|guest]
 *
 * in 4 KiB pages only, or as the guest's policy of huge pages has it.
 */
#include "../common/holder.h"
#include <sys/mman.h>

enum { NEVER, GUEST };

static size_t thp = NEVER;

static void work(size_t amount)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	char *base = mmap(NULL, amount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED)
		die("mmap");
	if (thp == NEVER && madvise(base, amount, MADV_NOHUGEPAGE))
		die("madvise(MADV_NOHUGEPAGE)");
	setrlimit(RLIMIT_MEMLOCK, &all); /* mlock() says whether that was needed */
	if (mlock(base, amount))
		die("mlock");
	for (size_t at = 0; at < amount; at += PAGE)
		*(volatile char *)(base + at) = 1;
	report("\"held_bytes\": %zu", status_bytes("VmLck"));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"thp", &thp, 0, {"never", "guest"}}, {0}};

	return hold(argc, argv, options, work, NULL);
}
