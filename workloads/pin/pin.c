/*
 * Long-term pins: anonymous 4 KiB pages registered with io_uring as fixed buffers (FOLL_LONGTERM), which
 * may not be moved, as those of a device under vfio or RDMA may not.
 *
 *   pin AMOUNT
 *
 * Pages of a movable zone are moved out of it before they are pinned (check_and_migrate_movable_folios()).
 */
#include "../common/holder.h"
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static int ring;

/*
 * Pins of whoever has no limit are in no process's VmPin on 7.3 (those of others are; on 6.12, both): so be
 * one who has a limit, and make that infinite.
 */
static void be_counted(void)
{
	struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	setrlimit(RLIMIT_MEMLOCK, &all); /* io_uring_register() says whether that was needed */
	if (syscall(SYS_capget, &header, data))
		die("capget");
	data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
	if (syscall(SYS_capset, &header, data))
		die("capset");
}

static void work(size_t amount)
{
	/* io_uring takes at most 1 GiB in one buffer (io_buffer_validate()). */
	size_t buffers = (amount - 1) / GIB + 1, pinned;
	struct iovec *parts = calloc(buffers, sizeof(*parts));
	struct io_uring_params params = {0};
	char *base = mmap(NULL, amount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!parts)
		die("calloc");
	if (base == MAP_FAILED)
		die("mmap");
	if (madvise(base, amount, MADV_NOHUGEPAGE))
		die("madvise(MADV_NOHUGEPAGE)");
	for (size_t at = 0; at < amount; at += PAGE)
		*(volatile char *)(base + at) = 1;
	for (size_t i = 0; i < buffers; i++) {
		parts[i].iov_base = base + i * GIB;
		parts[i].iov_len = i + 1 < buffers ? GIB : amount - i * GIB;
	}
	be_counted();
	ring = (int)syscall(SYS_io_uring_setup, 1, &params);
	if (ring < 0)
		die("io_uring_setup");
	if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_BUFFERS, parts, buffers))
		die("io_uring_register");
	pinned = status_bytes("VmPin");
	if (pinned < amount)
		give_up("the kernel counts fewer pins than were registered");
	report("\"held_bytes\": %zu, \"buffers\": %zu", pinned, buffers);
}

/* A ring's end is left to a kernel thread (io_ring_exit_work()): after the process is gone. */
static void release(void)
{
	syscall(SYS_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL, 0);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{0}};

	return hold(argc, argv, options, work, release);
}
