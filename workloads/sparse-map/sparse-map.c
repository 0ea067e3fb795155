/*
 * A sparse mapping: one page touched for every STRIDE bytes over SPAN bytes, then discarded by
 * madvise(), and the process lives on. What stays is what its page tables cost.
 *
 *   sparse-map SPAN [stride=BYTES] [advice=dontneed|free|keep] [chunk=BYTES] [backing=anonymous|file]
 *
 * The advice is given CHUNK bytes at a time (0: all at once). A file is a sparse one on the guest's
 * disk, mapped shared and only read: each page touched is a page of the page cache, which the advice
 * leaves there.
 */
#include "../common/holder.h"
#include <sys/mman.h>

enum { DONTNEED, FREE, KEEP };
enum { ANONYMOUS, SHARED_FILE };

static size_t stride = 2 * MIB, advice = DONTNEED, chunk, backing = ANONYMOUS;

static char *map_anonymous(size_t span)
{
	char *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		die("mmap");
	/* A huge page would need no last-level table at all. */
	if (madvise(base, span, MADV_NOHUGEPAGE))
		die("madvise(MADV_NOHUGEPAGE)");
	return base;
}

static char *map_file(size_t span)
{
	char path[] = "/var/tmp/sparse-map-XXXXXX", *base;
	int fd = mkostemp(path, O_CLOEXEC);

	if (fd < 0)
		die(path);
	unlink(path); /* it is gone with the process, however that ends */
	if (ftruncate(fd, (off_t)span))
		die("ftruncate");
	base = mmap(NULL, span, PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		die("mmap of a file");
	/* Without read-ahead, which would fill the cache around each page (do_sync_mmap_readahead()). */
	if (madvise(base, span, MADV_RANDOM))
		die("madvise(MADV_RANDOM)");
	return base;
}

static void work(size_t span)
{
	double start = seconds(), touched, discarded;
	size_t before, after, step = chunk ? chunk : span;
	char *base = backing == SHARED_FILE ? map_file(span) : map_anonymous(span);

	for (size_t at = 0; at < span; at += stride)
		if (backing == SHARED_FILE)
			(void)*(volatile char *)(base + at);
		else
			*(volatile char *)(base + at) = 1;
	touched = seconds();
	/* VmPTE: PTE, PMD and PUD tables together (mm_pgtables_bytes()). */
	before = status_bytes("VmPTE");
	if (advice != KEEP)
		for (size_t at = 0; at < span; at += step)
			if (madvise(base + at, step > span - at ? span - at : step,
				    advice == FREE ? MADV_FREE : MADV_DONTNEED))
				die("madvise");
	discarded = seconds();
	after = status_bytes("VmPTE");
	report("\"held_bytes\": %zu, \"pages_touched\": %zu, \"page_table_bytes_touched\": %zu, "
	       "\"page_table_bytes_discarded\": %zu, \"touch_seconds\": %.6f, \"discard_seconds\": %.6f",
	       after, (span - 1) / stride + 1, before, after, touched - start, discarded - touched);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"stride", &stride, 1, {0}},
		{"advice", &advice, 0, {"dontneed", "free", "keep"}},
		{"chunk", &chunk, 0, {0}},
		{"backing", &backing, 0, {"anonymous", "file"}},
		{0},
	};

	return hold(argc, argv, options, work, NULL);
}
