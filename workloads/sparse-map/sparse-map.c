/*
 * A sparse mapping: one page touched for every STRIDE bytes over SPAN bytes, then discarded by
 * madvise(), and the process lives on. What stays is what its page tables cost.
 *
 *   sparse-map SPAN [stride=BYTES] [advice=dontneed|free|keep] [chunk=BYTES] [backing=anonymous|file]
 *              [window=BYTES]
 *
 * The advice is given CHUNK bytes at a time (0: all at once). With a WINDOW that many bytes are touched and
 * discarded before the next ones are touched (0: all at once), so that tables grow where pages do not. A file is a sparse one on the guest's
 * disk, mapped shared and only read: each page touched is a page of the page cache, which the advice
 * leaves there.
 */
#include "../common/holder.h"
#include <sys/mman.h>

enum { DONTNEED, FREE, KEEP };
enum { ANONYMOUS, SHARED_FILE };

static size_t stride = 2 * MIB, advice = DONTNEED, chunk, backing = ANONYMOUS, window;

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

static void touch(char *at)
{
	if (backing == SHARED_FILE)
		(void)*(volatile char *)at;
	else
		*(volatile char *)at = 1;
}

static void discard(char *base, size_t size)
{
	size_t step = chunk ? chunk : size;

	for (size_t at = 0; at < size; at += step)
		if (madvise(base + at, step > size - at ? size - at : step,
			    advice == FREE ? MADV_FREE : MADV_DONTNEED))
			die("madvise");
}

static void work(size_t span)
{
	double touching = 0, discarding = 0;
	size_t most = 0, tables, size, at = 0;
	char *base = backing == SHARED_FILE ? map_file(span) : map_anonymous(span);

	/* A piece begins where the one before ended, and a page is touched at each multiple of STRIDE in it. */
	for (size_t from = 0; from < span; from += size) {
		double start = seconds(), touched;

		size = window && window < span - from ? window : span - from;
		for (; at < from + size; at += stride)
			touch(base + at);
		touched = seconds();
		touching += touched - start;
		/* VmPTE: PTE, PMD and PUD tables together (mm_pgtables_bytes()). */
		tables = status_bytes("VmPTE");
		most = tables > most ? tables : most;
		start = seconds();
		if (advice != KEEP)
			discard(base + from, size);
		discarding += seconds() - start;
	}
	tables = status_bytes("VmPTE");
	report("\"held_bytes\": %zu, \"pages_touched\": %zu, \"page_table_bytes_touched\": %zu, "
	       "\"page_table_bytes_discarded\": %zu, \"touch_seconds\": %.6f, \"discard_seconds\": %.6f",
	       tables, (span - 1) / stride + 1, most, tables, touching, discarding);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"stride", &stride, 1, {0}},
		{"advice", &advice, 0, {"dontneed", "free", "keep"}},
		{"chunk", &chunk, 0, {0}},
		{"backing", &backing, 0, {"anonymous", "file"}},
		{"window", &window, 0, {0}},
		{0},
	};

	return hold(argc, argv, options, work, NULL);
}
