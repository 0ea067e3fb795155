/*
 * Kernel stacks: threads that do nothing but sleep.
 *
 *   threads AMOUNT
 *
 * makes threads until the guest's kernel stacks (16 KiB each) have grown by AMOUNT. A thread costs a
 * task_struct too, in slab; of user memory only 512 bytes, since nothing runs on its stack but the
 * call that sleeps.
 */
#include "../common/holder.h"
#include <sys/mman.h>
#include <sys/syscall.h>

#define KERNEL_STACK (16UL << 10) /* THREAD_SIZE, arch/x86/include/asm/page_64_types.h */
#define USER_STACK 512UL
#define BETWEEN_LOOKS 64

static int sleep_for_ever(void *nothing)
{
	(void)nothing;
	while (syscall(SYS_pause)) /* it never returns 0 */
		;
	return 0;
}

/* A service of systemd's may have 15 % of threads-max (DefaultTasksMax); the root has no such limit. */
static int leave_cgroup(void)
{
	int root = open("/sys/fs/cgroup/cgroup.procs", O_WRONLY | O_CLOEXEC);
	int left = root >= 0 && write(root, "0", 1) == 1;

	close(root);
	return left;
}

static void start_thread(char *stack_top)
{
	const int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

	if (clone(sleep_for_ever, stack_top, flags, NULL) >= 0)
		return;
	if (errno != EAGAIN || !leave_cgroup() || clone(sleep_for_ever, stack_top, flags, NULL) < 0)
		die("clone");
}

static void work(size_t amount)
{
	/* Noise of others can make it some more than this; twice is more than enough. */
	size_t most = amount / KERNEL_STACK * 2 + 2 * BETWEEN_LOOKS, threads = 0, before, grown;
	char *stacks = mmap(NULL, most * USER_STACK, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (stacks == MAP_FAILED)
		die("mmap");
	raise_limit("/proc/sys/kernel/threads-max", most + 4096);
	raise_limit("/proc/sys/kernel/pid_max", most + 4096 > 4194304 ? 4194304 : most + 4096);
	before = meminfo_bytes("KernelStack");
	do {
		for (int i = 0; i < BETWEEN_LOOKS; i++) {
			if (threads == most)
				give_up("kernel stacks do not grow with the number of threads");
			start_thread(stacks + ++threads * USER_STACK);
		}
		grown = meminfo_bytes("KernelStack") - before;
	} while ((ssize_t)grown < (ssize_t)amount);
	report("\"held_bytes\": %zu, \"threads\": %zu", grown, threads);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{0}};

	return hold(argc, argv, options, work, NULL);
}
