/*
 * A guest's time-stamp counter, where it counts instructions: under QEMU's icount with shift=0
 * (cpus_get_elapsed_ticks(), system/cpu-timers.c).
 */
#ifndef CLOCK_H
#define CLOCK_H

#include "holder.h"
#include <x86intrin.h>

#define CHECKED_LOOPS 10000
#define CHECKED_INSTRUCTIONS (10UL * CHECKED_LOOPS)

static inline uint64_t checked_loop(void)
{
	uint64_t before = __rdtsc();
	unsigned left = CHECKED_LOOPS;

	asm volatile("1: nop; nop; nop; nop; nop; nop; nop; nop; dec %0; jnz 1b" : "+r"(left) : : "cc");
	return __rdtsc() - before;
}

/* Whether the time-stamp counter counts instructions; an interrupt may be in one try or another. */
static inline int counts_instructions(void)
{
	int right = 0;

	for (int i = 0; i < 7; i++) {
		uint64_t count = checked_loop();

		right += count >= CHECKED_INSTRUCTIONS && count <= CHECKED_INSTRUCTIONS + CHECKED_INSTRUCTIONS / 1000;
	}
	return right >= 4;
}
#endif
