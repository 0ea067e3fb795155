/*
 * Network buffers: connections of this machine with itself, whose data is not read.
 *
 *   sockets AMOUNT [family=tcp|unix] [connections=N]
 *
 * AMOUNT is payload. Of a TCP connection it lies in page fragments of its receive queue (order-3 pages,
 * skb_page_frag_refill()); of a UNIX one, about a tenth is in kmalloc'ed heads, the rest in pages.
 */
#include "../common/holder.h"
#include <arpa/inet.h>
#include <linux/sock_diag.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define ARRIVES_SECONDS 10.0

enum { TCP, UNIX };

static size_t family = TCP, connections = 64;

/* Room for `size` bytes, which the kernel doubles; what root may ask for has no limit. */
static void make_room(int fd, int forced, int limited, size_t size)
{
	int bytes = size > INT32_MAX / 2 ? INT32_MAX / 2 : (int)size;

	if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) &&
	    setsockopt(fd, SOL_SOCKET, limited, &bytes, sizeof(bytes)))
		die("setsockopt");
}

static void bring_loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request))
		die("lo");
	if (!(request.ifr_flags & IFF_UP)) {
		request.ifr_flags |= IFF_UP; /* which gives it 127.0.0.1 as well: inetdev_event() */
		if (ioctl(fd, SIOCSIFFLAGS, &request))
			die("bring lo up");
	}
	close(fd);
}

/* TCP as a whole has three limits, in pages; from the second on, windows would shrink. */
static void raise_tcp_memory(size_t amount)
{
	const char *path = "/proc/sys/net/ipv4/tcp_mem";
	size_t low, pressure, high, pages = amount / PAGE * 2;
	FILE *file = fopen(path, "re");

	if (file && fscanf(file, "%zu %zu %zu", &low, &pressure, &high) == 3 && low < pages) {
		FILE *out = fopen(path, "we");

		if (out) {
			fprintf(out, "%zu %zu %zu\n", pages, pages * 2, pages * 3);
			fclose(out);
		}
	}
	if (file)
		fclose(file);
}

static int listener(size_t share, struct sockaddr_in *where)
{
	socklen_t length = sizeof(*where);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*where = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0)
		die("socket");
	make_room(fd, SO_RCVBUFFORCE, SO_RCVBUF, share * 2); /* accepted sockets inherit it */
	if (bind(fd, (struct sockaddr *)where, sizeof(*where)) || listen(fd, 16) ||
	    getsockname(fd, (struct sockaddr *)where, &length))
		die("listen on 127.0.0.1");
	return fd;
}

static void connect_pair(int listening, const struct sockaddr_in *where, size_t share, int pair[2])
{
	struct timeval patience = {.tv_sec = 2};

	if (family == UNIX) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
			die("socketpair");
		make_room(pair[0], SO_SNDBUFFORCE, SO_SNDBUF, share * 2); /* the sender is charged */
	} else {
		pair[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (pair[0] < 0 || connect(pair[0], (const struct sockaddr *)where, sizeof(*where)))
			die("connect");
		pair[1] = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
		if (pair[1] < 0)
			die("accept");
	}
	/* A full queue is to be an error, not a wait for ever. */
	if (setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)))
		die("setsockopt");
}

static size_t send_all(int fd, const char *data, size_t size)
{
	size_t done = 0;
	ssize_t sent;

	while (done < size && (sent = send(fd, data + done, size - done, MSG_NOSIGNAL)) > 0)
		done += (size_t)sent;
	return done;
}

static size_t unread(const int (*pairs)[2])
{
	size_t sum = 0;

	for (size_t i = 0; i < connections; i++) {
		int bytes;

		if (ioctl(pairs[i][1], FIONREAD, &bytes))
			die("FIONREAD");
		sum += (size_t)bytes;
	}
	return sum;
}

/* What the sockets are charged for it, buffers with all that is around the payload. */
static size_t charged(const int (*pairs)[2])
{
	size_t sum = 0;

	for (size_t i = 0; i < connections; i++) {
		uint32_t words[SK_MEMINFO_VARS] = {0};
		socklen_t length = sizeof(words);
		int at = family == UNIX ? SK_MEMINFO_WMEM_ALLOC : SK_MEMINFO_RMEM_ALLOC;

		if (getsockopt(pairs[i][family == UNIX ? 0 : 1], SOL_SOCKET, SO_MEMINFO, words, &length))
			die("SO_MEMINFO");
		sum += words[at];
	}
	return sum;
}

static void work(size_t amount)
{
	size_t share = (amount - 1) / connections + 1, sent = 0, there;
	int(*pairs)[2] = calloc(connections, sizeof(*pairs));
	char *data = calloc(1, share);
	struct sockaddr_in where;
	int listening = -1;
	double end;

	if (!pairs || !data)
		die("calloc");
	raise_open_files(connections * 2);
	if (family == TCP) {
		bring_loopback_up();
		raise_tcp_memory(amount);
		listening = listener(share, &where);
	}
	for (size_t i = 0; i < connections; i++) {
		size_t size = share < amount - sent ? share : amount - sent;

		connect_pair(listening, &where, share, pairs[i]);
		if (send_all(pairs[i][0], data, size) != size)
			die("send");
		sent += size;
	}
	free(data);
	for (end = seconds() + ARRIVES_SECONDS; (there = unread(pairs)) < sent; usleep(10000))
		if (seconds() > end)
			give_up("what was sent did not arrive");
	report("\"held_bytes\": %zu, \"charged_bytes\": %zu, \"connections\": %zu", there, charged(pairs), connections);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"family", &family, 0, {"tcp", "unix"}},
		{"connections", &connections, 1, {0}},
		{0},
	};

	return hold(argc, argv, options, work, NULL);
}
