/*
 * Contents under reclaim: threads fill, check, discard and fill again, while others fault beside them.
 *
 *   integrity AMOUNT [threads=N] [discard=dontneed|free|mixed] [beside=none|collapse|pageout|both]
 *             [thp=guest|always|never] [seconds=N] [stuck_seconds=N] [seed=N]
 *             [inject=none|flip|skip|lose|hang]
 *
 * AMOUNT is a mapping of groups of four PMD ranges, 8 MiB. Each group has one *owner*, a thread that discards
 * in it: a whole PMD range, several with parts of others, a part, a range without an edge or with a page
 * beside it, a single page. All pages of a group are the owner's alone, but for eight of each PMD range (the
 * first, the last and six in between): these are a *visitor's*, another thread, which writes and checks them
 * whenever it likes, so that it faults in a range while that is discarded. Groups of different owners are
 * neighbours.
 *
 * A word holds a function of its address, a generation and the seed, so that a foreign word says whose it is.
 * An owner knows of each of its pages what every word has to be: of what was discarded, 0. A visitor's word
 * is its own last one or, since the owner discards, 0; nothing else.
 *
 * `beside` is one more thread that asks for what must not change contents: MADV_COLLAPSE, MADV_PAGEOUT.
 * `inject` makes one fault on purpose, which has to be found: a bit flipped, a discard left out, a page of a
 * fill lost, a thread that does not go on.
 *
 * What was written is checked before it is written over or discarded, so nothing that went wrong is lost.
 *
 * The program reports once every thread has gone round (and the fault is made), and goes on until SIGTERM, or
 * for `seconds`. On SIGTERM it checks all pages once more and writes its result, JSON, to the file that
 * INTEGRITY_RESULT names.
 */
#include "../common/holder.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#ifndef MADV_PAGEOUT /* 5.4, include/uapi/asm-generic/mman-common.h */
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_COLLAPSE /* 6.1 */
#define MADV_COLLAPSE 25
#endif

#define PMD (2 * MIB)
#define PMD_PAGES (PMD / PAGE)
#define GROUP_RANGES 4
#define GROUP_PAGES (GROUP_RANGES * PMD_PAGES)
#define PAGE_WORDS (PAGE / sizeof(uint64_t))
#define VISITED 8
#define MOST_THREADS 64
#define MOST_FINDINGS 16
#define TICK_NS 50000000L

enum { DONTNEED, FREE, MIXED };
enum { NONE, COLLAPSE, PAGEOUT, BOTH };
enum { THP_GUEST, THP_ALWAYS, THP_NEVER };
enum { INJECT_NONE, FLIP, SKIP, LOSE, HANG };
enum { MISMATCH, FAULT, STUCK };

static size_t threads = 4, discard = DONTNEED, beside, thp, run_seconds, stuck_seconds = 30, seed = 1, inject;

static uint64_t *base, factor, inverse;
static size_t pages, groups, visitors;

/* Of each page, by whom it is written alone: its generation (0: zeroes), and whether it may be zero instead. */
static uint32_t *generation;
static uint8_t *may_be_zero;
static uint8_t *visited; /* is_visited() of each page */

struct worker {
	pthread_t thread;
	const char *role;
	size_t index, total;
	uint64_t random;
	bool owner, joined;
	/* Written by the worker, read by the watchdog. */
	_Atomic uint64_t steps, rounds, checked, mismatches, discards, whole, visits, collapses, pageouts, refused;
	_Atomic uintptr_t at;
	_Atomic(const char *) doing;
	_Atomic bool dead;
	/* The watchdog's. */
	uint64_t seen;
	double since, gap;
	bool stuck;
};

static struct worker workers[2 * MOST_THREADS + 1];
static size_t worker_count;
static _Thread_local struct worker *self;
static _Atomic bool stopping;
static pthread_t watchdog;
static double began;

struct finding {
	int kind;
	uintptr_t address;
	uint64_t expected, found;
	char text[400];
};

static struct finding findings[MOST_FINDINGS];
static _Atomic size_t found_count;
static _Atomic uintptr_t injected_at;
static _Atomic bool injected;

/* xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled") */
static uint64_t random_word(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dULL;
}

static size_t below(size_t limit)
{
	return (size_t)((random_word(&self->random) >> 32) % limit);
}

/* An odd factor has an inverse modulo 2^64, so it is known of a word whose it is; and no word is 0. */
static uint64_t pattern(uintptr_t address, uint64_t number)
{
	return ((uint64_t)(address >> 3) << 20 | (number & 0xfffff)) * factor;
}

static uint64_t *page_at(size_t page)
{
	return base + page * PAGE_WORDS;
}

static size_t whose(char *text, size_t room, uint64_t word)
{
	uint64_t plain = word * inverse;
	uintptr_t address = (uintptr_t)(plain >> 20) << 3, first = (uintptr_t)base;

	if (!word)
		return (size_t)snprintf(text, room, "zero");
	if (address >= first && address - first < pages * PAGE)
		return (size_t)snprintf(text, room, "what belongs at 0x%lx, generation %lu", address,
					(unsigned long)(plain & 0xfffff));
	return (size_t)snprintf(text, room, "nothing of ours");
}

static struct finding *new_finding(int kind, uintptr_t address)
{
	size_t slot = atomic_fetch_add(&found_count, 1);

	if (slot >= MOST_FINDINGS)
		return NULL;
	findings[slot].kind = kind;
	findings[slot].address = address;
	return &findings[slot];
}

/* Of a page that is wrong, its first wrong byte. */
static void mismatch(uint64_t *word, uint64_t expected, uint64_t found, bool zero_too, size_t wrong)
{
	unsigned int byte = (unsigned int)__builtin_ctzll(expected ^ found) / 8;
	struct finding *one = new_finding(MISMATCH, (uintptr_t)word + byte);
	char is[120], should[120];

	atomic_fetch_add(&self->mismatches, 1);
	if (!one)
		return;
	one->expected = expected;
	one->found = found;
	whose(should, sizeof(should), expected);
	whose(is, sizeof(is), found);
	snprintf(one->text, sizeof(one->text),
		 "%s %zu after %.1f s: at 0x%lx expected 0x%016lx (%s)%s, found 0x%016lx (%s); %zu of %lu words of "
		 "the page are wrong",
		 self->role, self->index, seconds() - began, one->address, expected, should,
		 zero_too ? " or zero" : "", found, is, wrong, PAGE_WORDS);
}

static void doing(const char *what, size_t page)
{
	atomic_store_explicit(&self->doing, what, memory_order_relaxed);
	atomic_store_explicit(&self->at, (uintptr_t)page_at(page), memory_order_relaxed);
	atomic_fetch_add_explicit(&self->steps, 1, memory_order_relaxed);
}

static void set_page(size_t page, uint32_t number)
{
	volatile uint64_t *words = page_at(page);

	doing("fill", page);
	for (size_t i = 0; i < PAGE_WORDS; i++)
		words[i] = pattern((uintptr_t)&words[i], number);
	generation[page] = number;
	may_be_zero[page] = 0;
}

/* Whether the one fault is to be made now: by the first owner, once there is something to lose. */
static bool inject_now(size_t what)
{
	return inject == what && self->owner && self->index == 0 && self->rounds &&
	       !atomic_exchange(&injected, true);
}

static bool has_contents(size_t page)
{
	return !visited[page] && generation[page] && !may_be_zero[page];
}

static void next_fill(size_t page)
{
	uint32_t number = generation[page] % 0xfffff + 1;

	/* As if the stores had gone to a frame that is not ours any more. */
	if (has_contents(page) && inject_now(LOSE)) {
		set_page(page, generation[page]);
		generation[page] = number;
		injected_at = (uintptr_t)page_at(page);
		return;
	}
	set_page(page, number);
}

/* Returns whether the page is as it has to be; if not, it is taken as it is no further: written anew. */
static bool check_page(size_t page, bool zero_too)
{
	volatile uint64_t *words = page_at(page);
	uint32_t number = generation[page];
	uint64_t first = 0, first_expected = 0;
	size_t wrong = 0, at = 0;

	zero_too |= may_be_zero[page];
	doing("check", page);
	for (size_t i = 0; i < PAGE_WORDS; i++) {
		uint64_t word = words[i], expected = number ? pattern((uintptr_t)&words[i], number) : 0;

		if (word == expected || (zero_too && !word))
			continue;
		if (!wrong++) {
			first = word;
			first_expected = expected;
			at = i;
		}
	}
	atomic_fetch_add_explicit(&self->checked, PAGE, memory_order_relaxed);
	if (!wrong)
		return true;
	mismatch(page_at(page) + at, first_expected, first, zero_too, wrong);
	set_page(page, number % 0xfffff + 1);
	return false;
}

/* The pages of a PMD range that its visitor writes; the same in each run with the same seed. */
static void visited_pages(size_t range, size_t *chosen)
{
	uint64_t state = (range + 1) * 0x9e3779b97f4a7c15ULL ^ factor;

	chosen[0] = 0;
	chosen[VISITED - 1] = PMD_PAGES - 1;
	for (size_t i = 1; i < VISITED - 1; i++)
		chosen[i] = 1 + i * 70 + (random_word(&state) >> 32) % 60;
}

static bool is_visited(size_t page)
{
	size_t chosen[VISITED], offset = page % PMD_PAGES;

	visited_pages(page / PMD_PAGES, chosen);
	for (size_t i = 0; i < VISITED; i++)
		if (chosen[i] == offset)
			return true;
	return false;
}

static void check_span(size_t from, size_t to)
{
	for (size_t page = from; page < to && !stopping; page++)
		if (!visited[page])
			check_page(page, false);
}

/*
 * Each page, or one in `every` of them. What has contents is checked first; of what was discarded only some,
 * since a page that is read first is faulted in another way than one that is written first.
 */
static void fill_span(size_t from, size_t to, size_t every)
{
	bool look = below(2);

	for (size_t page = from; page < to && !stopping; page++)
		if (!visited[page] && (every == 1 || !below(every))) {
			if (look || generation[page])
				check_page(page, false);
			next_fill(page);
		}
}

struct span {
	size_t from, to;
};

static struct span choose_span(size_t group)
{
	size_t first = group * GROUP_PAGES, from = first + below(GROUP_RANGES) * PMD_PAGES, a, b;
	size_t last = first + GROUP_PAGES, to = from + PMD_PAGES;

	switch (below(8)) {
	case 0: /* a whole range */
	case 1:
		return (struct span){from, to};
	case 2: /* several, and parts of the outer ones */
		a = first + below(GROUP_PAGES);
		b = first + below(GROUP_PAGES);
		return a < b ? (struct span){a, b + 1} : (struct span){b, a + 1};
	case 3: /* a part of one */
		a = from + below(PMD_PAGES);
		return (struct span){a, a + 1 + below(to - a)};
	case 4: /* one without its first or its last page */
		return below(2) ? (struct span){from + 1, to} : (struct span){from, to - 1};
	case 5: /* one, and a page of its neighbour */
		return below(2) ? (struct span){from > first ? from - 1 : from, to}
				: (struct span){from, to < last ? to + 1 : to};
	case 6: /* all of the group */
		return (struct span){first, last};
	default: /* a single page */
		a = from + below(PMD_PAGES);
		return (struct span){a, a + 1};
	}
}

static void discard_span(struct span span)
{
	bool lazily = discard == FREE || (discard == MIXED && below(2));
	size_t whole = span.to / PMD_PAGES, from = (span.from + PMD_PAGES - 1) / PMD_PAGES;

	for (size_t page = span.from; page < span.to; page++)
		if (!visited[page] && generation[page])
			check_page(page, false);
	doing(lazily ? "MADV_FREE" : "MADV_DONTNEED", span.from);
	for (size_t page = span.from; page < span.to && inject == SKIP && !lazily; page++)
		if (has_contents(page) && inject_now(SKIP)) {
			generation[page] = 0;
			injected_at = (uintptr_t)page_at(page);
			return check_span(page, page + 1);
		}
	if (madvise(page_at(span.from), (span.to - span.from) * PAGE, lazily ? MADV_FREE : MADV_DONTNEED))
		die("madvise");
	for (size_t page = span.from; page < span.to; page++)
		if (!visited[page]) {
			if (lazily && generation[page])
				may_be_zero[page] = 1;
			else
				generation[page] = may_be_zero[page] = 0;
		}
	self->discards++;
	self->whole += whole > from ? whole - from : 0;
}

static void flip_one_bit(size_t group)
{
	for (size_t page = group * GROUP_PAGES; page < (group + 1) * GROUP_PAGES && inject == FLIP; page++)
		if (has_contents(page) && inject_now(FLIP)) {
			uint8_t *byte = (uint8_t *)page_at(page) + below(PAGE);

			*(volatile uint8_t *)byte ^= (uint8_t)(1U << below(8));
			injected_at = (uintptr_t)byte;
			return;
		}
}

/* A table with little in it, emptied at once: made and unmade again as fast as it goes. */
static void make_and_unmake(size_t group)
{
	size_t from = group * GROUP_PAGES + below(GROUP_RANGES) * PMD_PAGES;
	struct span span = {from, from + PMD_PAGES};

	for (size_t i = 0; i < 128 && !stopping; i++) {
		size_t page = from + below(PMD_PAGES);

		fill_span(page, page + 1, 1);
		discard_span(span);
		if (below(2))
			check_span(page, page + 1);
	}
	check_span(span.from, span.to);
}

static void owner_round(size_t group)
{
	size_t first = group * GROUP_PAGES, last = first + GROUP_PAGES;
	struct span span = choose_span(group), wider = {span.from > first ? span.from - 1 : first,
							span.to < last ? span.to + 1 : last};
	bool all = below(16) == 0;

	if (all)
		fill_span(first, last, 1);
	else
		fill_span(span.from, span.to, below(2) ? 1 : 16);
	flip_one_bit(group);
	if (all)
		check_span(first, last);
	discard_span(span);
	/* What was discarded is sometimes read first, and sometimes written first. */
	if (below(4))
		check_span(wider.from, wider.to);
	fill_span(span.from, span.to, 1 + below(32));
	check_span(all ? first : wider.from, all ? last : wider.to);
	make_and_unmake(group);
}

static void *own(void *worker)
{
	self = worker;
	for (size_t group = self->index; group < groups; group += self->total)
		fill_span(group * GROUP_PAGES, (group + 1) * GROUP_PAGES, 1);
	while (!stopping) {
		size_t mine = (groups - self->index + self->total - 1) / self->total;

		owner_round(self->index + below(mine) * self->total);
		self->rounds++;
		if (inject_now(HANG))
			while (!stopping)
				usleep(1000);
	}
	return NULL;
}

static void *visit(void *worker)
{
	self = worker;
	while (!stopping) {
		for (size_t group = self->index; group < groups && !stopping; group += self->total)
			for (size_t range = 0; range < GROUP_RANGES; range++) {
				size_t at = group * GROUP_RANGES + range, chosen[VISITED], pick;

				visited_pages(at, chosen);
				pick = at * PMD_PAGES + chosen[below(VISITED)];
				/* What is found wrong is written anew, so each is found once. */
				if (check_page(pick, true)) {
					next_fill(pick);
					check_page(pick, true);
				}
				self->visits++;
			}
		self->rounds++;
	}
	return NULL;
}

static void *advise(void *worker)
{
	self = worker;
	while (!stopping) {
		bool collapse = beside == COLLAPSE || (beside == BOTH && below(2));
		size_t range = below(groups * GROUP_RANGES) * PMD_PAGES;
		size_t from = collapse || below(2) ? 0 : below(PMD_PAGES);

		doing(collapse ? "MADV_COLLAPSE" : "MADV_PAGEOUT", range + from);
		/* EAGAIN, EINVAL: for example where nothing is mapped. Contents must not change either way. */
		if (madvise(page_at(range + from), (PMD_PAGES - from) * PAGE, collapse ? MADV_COLLAPSE : MADV_PAGEOUT))
			self->refused++;
		else if (collapse)
			self->collapses++;
		else
			self->pageouts++;
		self->rounds++;
		usleep(1000);
	}
	return NULL;
}

/* Memory of ours is there to be read and written: a fault that comes through says it is not. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	struct finding *one = new_finding(FAULT, (uintptr_t)info->si_addr);

	(void)context;
	if (!self)
		_exit(128 + number);
	self->mismatches++;
	if (one)
		snprintf(one->text, sizeof(one->text), "%s %zu after %.1f s: %s at 0x%lx, at work on 0x%lx (%s)",
			 self->role, self->index, seconds() - began, number == SIGBUS ? "SIGBUS" : "SIGSEGV",
			 one->address, self->at, self->doing);
	self->dead = true;
	stopping = true;
	for (;;)
		pause();
}

static void look_at(struct worker *worker, double now)
{
	uint64_t steps = worker->steps;
	struct finding *one;

	if (steps != worker->seen || worker->dead) {
		worker->seen = steps;
		worker->since = now;
		return;
	}
	if (now - worker->since > worker->gap)
		worker->gap = now - worker->since;
	if (worker->stuck || worker->gap < (double)stuck_seconds)
		return;
	worker->stuck = true;
	one = new_finding(STUCK, worker->at);
	if (one)
		snprintf(one->text, sizeof(one->text), "%s %zu has not gone on for %.1f s: at 0x%lx (%s)", worker->role,
			 worker->index, worker->gap, one->address, worker->doing ? worker->doing : "began");
}

static void nap(void)
{
	struct timespec tick = {0, TICK_NS};

	nanosleep(&tick, NULL);
}

static void *watch(void *nothing)
{
	while (!stopping) {
		double now = seconds();

		for (size_t i = 0; i < worker_count; i++)
			look_at(&workers[i], now);
		if (run_seconds && now - began >= (double)run_seconds)
			stopping = true;
		nap();
	}
	return nothing;
}

static void start_worker(void *(*what)(void *), const char *role, size_t index, size_t total)
{
	struct worker *worker = &workers[worker_count++];

	worker->role = role;
	worker->index = index;
	worker->owner = what == own;
	worker->total = total;
	worker->since = seconds();
	worker->random = (seed * (2 * MOST_THREADS + 1) + worker_count) * 0x9e3779b97f4a7c15ULL | 1;
	if (pthread_create(&worker->thread, NULL, what, worker))
		die("pthread_create");
}

static void *map(size_t bytes)
{
	char *at = mmap(NULL, bytes + PMD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		die("mmap");
	return (void *)(((uintptr_t)at + PMD - 1) & ~(PMD - 1));
}

static void catch_faults(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
}

#define SUM(field)                                                                                                     \
	({                                                                                                             \
		uint64_t sum_ = 0;                                                                                     \
		for (size_t i_ = 0; i_ < worker_count; i_++)                                                           \
			sum_ += workers[i_].field;                                                                     \
		sum_;                                                                                                  \
	})

static void work(size_t amount)
{
	sigset_t term;
	size_t around = 0;

	groups = amount / (GROUP_PAGES * PAGE);
	pages = groups * GROUP_PAGES;
	if (threads > MOST_THREADS)
		give_up("more threads than 64");
	if (groups < threads)
		give_up("less than a group of 8 MiB for each thread");
	if (inject == SKIP && discard == FREE)
		give_up("MADV_FREE may leave what it discards, so none that is left out can be found");
	factor = (2 * (uint64_t)seed + 1) * 0x9e3779b97f4a7c15ULL;
	inverse = factor;
	for (int i = 0; i < 6; i++) /* Newton: each step doubles the bits that are right, 3 at first */
		inverse *= 2 - factor * inverse;
	base = map(pages * PAGE);
	generation = map(pages * sizeof(*generation));
	may_be_zero = map(pages);
	visited = map(pages);
	for (size_t page = 0; page < pages; page++)
		visited[page] = is_visited(page);
	if (thp != THP_GUEST && madvise(base, pages * PAGE, thp == THP_ALWAYS ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		die("madvise");
	/* hold() waits for it; no thread is to take it. */
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	pthread_sigmask(SIG_BLOCK, &term, NULL);
	catch_faults();
	began = seconds();
	for (size_t i = 0; i < threads; i++)
		start_worker(own, "owner", i, threads);
	/* Half as many: they go round much faster, and would leave the owners too little time to discard. */
	visitors = (threads + 1) / 2;
	for (size_t i = 0; i < visitors; i++)
		start_worker(visit, "visitor", i, visitors);
	if (beside != NONE)
		start_worker(advise, "adviser", 0, 1);
	if (pthread_create(&watchdog, NULL, watch, NULL))
		die("pthread_create");
	while ((around < worker_count || (inject != INJECT_NONE && !injected)) && !stopping) {
		nap();
		around = 0;
		for (size_t i = 0; i < worker_count; i++)
			around += workers[i].rounds > 0 || workers[i].stuck;
	}
	report("\"held_bytes\": %zu, \"threads\": %zu, \"checked_bytes\": %lu", status_bytes("VmRSS"), worker_count,
	       SUM(checked));
}

/* Waits for all threads but those that are stuck; a thread in an endless fault never comes. */
static void join_all(void)
{
	double deadline = seconds() + (double)stuck_seconds;
	size_t left = worker_count;

	stopping = true;
	pthread_join(watchdog, NULL);
	while (left) {
		left = 0;
		for (size_t i = 0; i < worker_count; i++) {
			struct worker *worker = &workers[i];

			if (!worker->joined && !pthread_tryjoin_np(worker->thread, NULL))
				worker->joined = true;
			if (!worker->joined && !worker->dead)
				left++;
		}
		if (left)
			nap();
		if (seconds() > deadline)
			break;
	}
	for (size_t i = 0; i < worker_count && left; i++)
		if (!workers[i].joined && !workers[i].dead) {
			/* It has not come to look whether it is to stop, however it went before. */
			workers[i].since = deadline - (double)stuck_seconds;
			workers[i].seen = workers[i].steps;
			look_at(&workers[i], seconds());
		}
}

/* By the thread that waited for all: whatever is left has to be what was last written, or zero. */
static void check_all(void)
{
	static struct worker last = {.role = "last look, thread"};

	self = &last;
	for (size_t page = 0; page < pages; page++) {
		size_t group = page / GROUP_PAGES;

		if (workers[group % threads].joined && workers[threads + group % visitors].joined)
			check_page(page, visited[page]);
	}
	workers[0].mismatches += last.mismatches;
	workers[0].checked += last.checked;
}

static void write_result(const char *path)
{
	static const char *const kinds[] = {"mismatch", "fault", "stuck"};
	size_t listed = found_count < MOST_FINDINGS ? found_count : MOST_FINDINGS;
	char fresh[4096];
	double gap = 0;
	FILE *file;

	for (size_t i = 0; i < worker_count; i++)
		gap = workers[i].gap > gap ? workers[i].gap : gap;
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	file = fopen(fresh, "we");
	if (!file)
		die(fresh);
	fprintf(file,
		"{\"figures\": {\"mismatches\": %lu, \"stuck_threads\": %lu, \"checked_bytes\": %lu, "
		"\"run_seconds\": %.3f, \"longest_gap_seconds\": %.3f, \"owner_rounds\": %lu, \"visits\": %lu, "
		"\"discards\": %lu, \"ranges_discarded\": %lu, \"collapses\": %lu, \"pageouts\": %lu, "
		"\"advice_refused\": %lu, \"injected\": %d}, \"injected_address\": \"0x%lx\", \"findings\": [",
		SUM(mismatches), SUM(stuck), SUM(checked), seconds() - began, gap, SUM(owner * workers[i_].rounds),
		SUM(visits), SUM(discards), SUM(whole), SUM(collapses), SUM(pageouts), SUM(refused), injected, injected_at);
	for (size_t i = 0; i < listed; i++)
		fprintf(file, "%s{\"kind\": \"%s\", \"address\": \"0x%lx\", \"expected\": \"0x%016lx\", \"found\": \"0x%016lx\", "
			"\"text\": \"%s\"}",
			i ? ", " : "", kinds[findings[i].kind], findings[i].address, findings[i].expected, findings[i].found,
			findings[i].text);
	fprintf(file, "]}\n");
	if (fclose(file) || rename(fresh, path))
		die(path);
}

static void finish(void)
{
	const char *path = getenv("INTEGRITY_RESULT");

	join_all();
	check_all();
	write_result(path ? path : "/run/integrity.json");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"threads", &threads, 1, {0}},
		{"discard", &discard, 0, {"dontneed", "free", "mixed"}},
		{"beside", &beside, 0, {"none", "collapse", "pageout", "both"}},
		{"thp", &thp, 0, {"guest", "always", "never"}},
		{"seconds", &run_seconds, 0, {0}},
		{"stuck_seconds", &stuck_seconds, 1, {0}},
		{"seed", &seed, 0, {0}},
		{"inject", &inject, 0, {"none", "flip", "skip", "lose", "hang"}},
		{0},
	};

	return hold(argc, argv, options, work, finish);
}
