/*
 * Virtual memory areas: a mapping in which every other page has another protection, none ever touched.
 *
 *   vmas AMOUNT
 *
 * makes areas until the guest's slab caches have grown by AMOUNT; vm_area_struct, maple_node and, up
 * to 6.14, vma_lock are those that grow.
 */
#include "../common/holder.h"
#include <sys/mman.h>

#define BETWEEN_LOOKS 256
#define LEAST_BYTES 32UL /* of slab for an area: how far the mapping may reach, should others free some */

static void work(size_t amount)
{
	size_t most = amount / LEAST_BYTES + 2 * BETWEEN_LOOKS, areas = 1, at = 1, before, grown;
	char *base = mmap(NULL, most * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		die("mmap");
	raise_limit("/proc/sys/vm/max_map_count", most + 1024);
	before = meminfo_bytes("Slab");
	do {
		for (int i = 0; i < BETWEEN_LOOKS; i++, at += 2, areas += 2) {
			if (at >= most)
				give_up("slab does not grow with the number of areas");
			if (mprotect(base + at * PAGE, PAGE, PROT_READ))
				die("mprotect");
		}
		grown = meminfo_bytes("Slab") - before;
	} while ((ssize_t)grown < (ssize_t)amount);
	report("\"held_bytes\": %zu, \"areas\": %zu", grown, areas);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{0}};

	return hold(argc, argv, options, work, NULL);
}
