/*
 * Directory entries and inodes that no shrinker can take: empty files in a tmpfs, whose dentries are
 * the only record of them.
 *
 *   dentries AMOUNT
 *
 * makes files until the guest's slab caches have grown by AMOUNT.
 */
#include "../common/holder.h"
#include <sys/stat.h>

#define BETWEEN_LOOKS 256

static void work(size_t amount)
{
	size_t before, grown, files = 0;
	char name[32];

	enter_tmpfs("size=1m,nr_inodes=0,mode=0700");
	before = meminfo_bytes("Slab");
	do {
		for (int i = 0; i < BETWEEN_LOOKS; i++) {
			snprintf(name, sizeof(name), "%zu", files++);
			if (mknod(name, S_IFREG | 0600, 0))
				die("mknod");
		}
		grown = meminfo_bytes("Slab") - before;
	} while ((ssize_t)grown < (ssize_t)amount);
	report("\"held_bytes\": %zu, \"files\": %zu", grown, files);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{0}};

	return hold(argc, argv, options, work, leave_tmpfs);
}
