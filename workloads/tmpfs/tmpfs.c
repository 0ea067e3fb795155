/*
 * Files in a tmpfs: pages that may be moved, and (without swap) never reclaimed.
 *
 *   tmpfs AMOUNT [file=BYTES]
 *
 * written to the last byte, in files of the given size.
 */
#include "../common/holder.h"
#include <sys/statvfs.h>

static size_t file_bytes = 64 * MIB;

static void write_file(const char *name, const char *data, size_t size)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		die(name);
	for (size_t done = 0; done < size;) {
		ssize_t put = write(fd, data, size - done < MIB ? size - done : MIB);

		if (put <= 0)
			die("write");
		done += (size_t)put;
	}
	close(fd);
}

static void work(size_t amount)
{
	char *data = malloc(MIB), options[64], name[32];
	size_t left = amount, files = 0;
	struct statvfs now;

	if (!data)
		die("malloc");
	memset(data, 0xa5, MIB);
	/* A page more for each broken end. */
	snprintf(options, sizeof(options), "size=%zu,nr_inodes=0,mode=0700",
		 amount + ((amount - 1) / file_bytes + 1) * PAGE);
	enter_tmpfs(options);
	while (left) {
		size_t size = left < file_bytes ? left : file_bytes;

		snprintf(name, sizeof(name), "%zu", files++);
		write_file(name, data, size);
		left -= size;
	}
	free(data);
	if (statvfs(".", &now))
		die("statvfs");
	report("\"held_bytes\": %zu, \"files\": %zu", (size_t)(now.f_blocks - now.f_bfree) * now.f_bsize, files);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"file", &file_bytes, PAGE, {0}}, {0}};

	return hold(argc, argv, options, work, leave_tmpfs);
}
