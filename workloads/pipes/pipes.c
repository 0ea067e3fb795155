/*
 * Pipes full of data that is not read: plain kernel pages, one for every 4 KiB.
 *
 *   pipes AMOUNT [capacity=BYTES]
 *
 * Root has no limit of pages in pipes; others have fs.pipe-user-pages-soft and fs.pipe-max-size.
 */
#include "../common/holder.h"
#include <sys/ioctl.h>

static size_t capacity = MIB;

static size_t unread(const int (*pipes)[2], size_t count)
{
	size_t sum = 0;

	for (size_t i = 0; i < count; i++) {
		int bytes;

		if (ioctl(pipes[i][0], FIONREAD, &bytes))
			die("FIONREAD");
		sum += (size_t)bytes;
	}
	return sum;
}

static void work(size_t amount)
{
	size_t count = (amount - 1) / capacity + 1, left = amount;
	int(*pipes)[2] = calloc(count, sizeof(*pipes));
	char *data = calloc(1, capacity);

	if (!pipes || !data)
		die("calloc");
	raise_open_files(count * 2);
	for (size_t i = 0; i < count; i++) {
		size_t size = left < capacity ? left : capacity;

		/* O_NONBLOCK: a pipe that became smaller than it should is an error, not a wait for ever. */
		if (pipe2(pipes[i], O_CLOEXEC | O_NONBLOCK))
			die("pipe");
		if (fcntl(pipes[i][1], F_SETPIPE_SZ, (int)capacity) < (int)capacity)
			die("F_SETPIPE_SZ");
		if (write(pipes[i][1], data, size) != (ssize_t)size)
			give_up("a pipe took less than its capacity");
		left -= size;
	}
	free(data);
	report("\"held_bytes\": %zu, \"pipes\": %zu", unread(pipes, count), count);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"capacity", &capacity, PAGE, {0}}, {0}};

	return hold(argc, argv, options, work, NULL);
}
