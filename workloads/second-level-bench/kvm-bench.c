/*
 * What a second-level page table costs when it is needed again: in a guest that is a KVM host, a VM of a few
 * instructions touches a page of each range of 2 MiB of its memory, after KVM has dropped all tables and before.
 *
 *   kvm-bench SPAN [rounds=N] [warm_up=N]
 *
 * SPAN bytes, whole ranges of 2 MiB, are the VM's memory, of base pages that are all there: what is measured is
 * KVM, and no fault of this process. The VM has no page tables of its own (paging is off in it). A round drops all
 * tables, by nx_huge_pages as the lever `flush` does (set_nx_huge_pages(), arch/x86/kvm/mmu/mmu.c); then
 *
 *   table   a page of each range: KVM makes the range's table and the page's entry
 *   entry   another page of each range: the table is there
 *   walk    the same pages again: nothing is missing
 *
 * Each is read in the VM, between two of its RDTSC, which KVM does not intercept: the exits to KVM and what KVM does
 * are in between. See pt-bench.c for the clock that counts instructions. One line of JSON: for each phase its rounds,
 * and of all measured rounds together KVM's own counts of exits and of faults that it answered; SecPageTables once
 * dropped, and once made again.
 */
#include "../common/clock.h"
#include "../common/holder.h"
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define RANGE (2 * MIB)
#define MOST_ROUNDS 64
#define MEMORY_AT GIB
#define SETTING "/sys/module/kvm/parameters/nx_huge_pages"

enum { TABLE, ENTRY, WALK, PHASES };

static const char *const phase_names[] = {"table", "entry", "walk"};

static size_t rounds = 20, warm_up = 5;
static uint64_t took[PHASES][2 * MOST_ROUNDS], exits[PHASES], fixed[PHASES];
static int vm, vcpu;
static struct kvm_run *run;

/* 32-bit code, at 0: ecx times a byte at ebx, and on by esi. The clock before is left in ebp:edi, after in edx:eax. */
static const unsigned char code[] = {
	0x0f, 0x31,	  /* rdtsc */
	0x89, 0xc7,	  /* mov edi, eax */
	0x89, 0xd5,	  /* mov ebp, edx */
	0xc6, 0x03, 0x01, /* mov byte [ebx], 1 */
	0x01, 0xf3,	  /* add ebx, esi */
	0x49,		  /* dec ecx */
	0x75, 0xf8,	  /* jnz to the mov */
	0x0f, 0x31,	  /* rdtsc */
	0xf4,		  /* hlt */
};

static int ask(int fd, unsigned long what, void *argument, const char *name)
{
	int result = ioctl(fd, what, argument);

	if (result < 0)
		die(name);
	return result;
}

static void slot(unsigned number, uint64_t at, void *memory, size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = number, .guest_phys_addr = at, .memory_size = size, .userspace_addr = (uintptr_t)memory};

	ask(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
}

static char *memory(size_t size)
{
	char *found = mmap(NULL, size + RANGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (found == MAP_FAILED)
		die("mmap");
	found += RANGE - (uintptr_t)found % RANGE;
	if (madvise(found, size, MADV_NOHUGEPAGE))
		die("madvise(MADV_NOHUGEPAGE)");
	return found;
}

static void set_up(size_t span)
{
	struct kvm_sregs segments;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	char *text = memory(PAGE), *data = memory(span);

	if (kvm < 0)
		die("/dev/kvm");
	vm = ask(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	memcpy(text, code, sizeof(code));
	for (size_t at = 0; at < span; at += RANGE)
		data[at] = data[at + PAGE] = 1;
	slot(0, 0, text, PAGE);
	slot(1, MEMORY_AT, data, span);
	vcpu = ask(vm, KVM_CREATE_VCPU, NULL, "KVM_CREATE_VCPU");
	run = mmap(NULL, (size_t)ask(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE"),
		   PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		die("mmap of the vCPU");
	ask(vcpu, KVM_GET_SREGS, &segments, "KVM_GET_SREGS");
	segments.cs = (struct kvm_segment){.limit = ~0U, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
	segments.ds = segments.es = segments.fs = segments.gs = segments.ss =
		(struct kvm_segment){.limit = ~0U, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
	segments.cr0 |= 1; /* PE */
	ask(vcpu, KVM_SET_SREGS, &segments, "KVM_SET_SREGS");
}

static uint64_t count_of(const char *name)
{
	char path[96];
	unsigned long long count;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/%s", getpid(), vm, name);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%llu", &count) != 1)
		die(path);
	fclose(file);
	return count;
}

static void set(const char *value)
{
	int fd = open(SETTING, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die(SETTING);
	close(fd);
}

static void go(int phase, size_t ranges, size_t round)
{
	struct kvm_regs registers = {.rflags = 2, .rbx = MEMORY_AT + (phase == TABLE ? 0 : PAGE), .rcx = ranges, .rsi = RANGE};
	uint64_t exits_before = count_of("exits"), fixed_before = count_of("pf_fixed");

	ask(vcpu, KVM_SET_REGS, &registers, "KVM_SET_REGS");
	while (ioctl(vcpu, KVM_RUN, NULL) < 0)
		if (errno != EINTR && errno != EAGAIN)
			die("KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT) {
		fprintf(stderr, "the VM ended with exit reason %u, not at its HLT\n", run->exit_reason);
		_exit(1);
	}
	ask(vcpu, KVM_GET_REGS, &registers, "KVM_GET_REGS");
	took[phase][round] = (registers.rdx << 32 | registers.rax) - (registers.rbp << 32 | registers.rdi);
	if (round >= warm_up) {
		exits[phase] += count_of("exits") - exits_before - 1; /* but the one at HLT */
		fixed[phase] += count_of("pf_fixed") - fixed_before;
	}
}

static void print_each(const char *name, const uint64_t *values)
{
	printf(", \"%s\": {", name);
	for (int phase = 0; phase < PHASES; phase++)
		printf("%s\"%s\": %llu", phase ? ", " : "", phase_names[phase], (unsigned long long)values[phase]);
	printf("}");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"rounds", &rounds, 1, {0}},
		{"warm_up", &warm_up, 0, {0}},
		{0},
	};
	size_t span, dropped = 0, made = 0;

	if (!holder_arguments(argc, argv, &span, options) || span % RANGE || span > 2 * GIB || rounds > MOST_ROUNDS ||
	    warm_up > MOST_ROUNDS) {
		fprintf(stderr,
			"usage: kvm-bench BYTES [rounds=1..%d] [warm_up=0..%d]\n"
			"BYTES are whole ranges of 2 MiB, at most 2 GiB\n",
			MOST_ROUNDS, MOST_ROUNDS);
		return 2;
	}
	if (!counts_instructions())
		give_up("the clock of this guest does not count instructions: give the scenario `clock: instructions`");
	set_up(span);
	for (size_t round = 0; round < warm_up + rounds; round++) {
		set("force");
		set("off");
		dropped = meminfo_bytes("SecPageTables");
		for (int phase = 0; phase < PHASES; phase++) {
			go(phase, span / RANGE, round);
			if (phase == TABLE)
				made = meminfo_bytes("SecPageTables");
		}
	}
	printf("{\"ranges\": %zu, \"second_level_bytes_dropped\": %zu, \"second_level_bytes_made\": %zu",
	       span / RANGE, dropped, made);
	print_each("exits", exits);
	print_each("faults", fixed);
	printf(", \"rounds\": {");
	for (int phase = 0; phase < PHASES; phase++) {
		printf("%s\"%s\": [", phase ? ", " : "", phase_names[phase]);
		for (size_t round = warm_up; round < warm_up + rounds; round++)
			printf("%s%llu", round > warm_up ? ", " : "", (unsigned long long)took[phase][round]);
		printf("]");
	}
	printf("}}\n");
	return 0;
}
