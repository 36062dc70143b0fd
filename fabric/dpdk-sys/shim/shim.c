/* Everything that needs DPDK's inline functions or struct layouts, compiled against the headers that are installed. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "shim.h"

/* The most pieces of one frame that are sent from where they are. */
#define MAX_BURST 64

struct dmrpc_port {
	uint16_t id;
	uint8_t multi_segment;
	uint32_t frame_bytes;
	struct rte_mempool *rx_pool;
	struct rte_mempool *tx_pool;
};

/* What DPDK knows of a piece of memory that is lent to it. */
struct lent {
	struct rte_mbuf_ext_shared_info shared;
	dmrpc_release release;
	void *owner;
};

static __thread char last_error[256];

static void set_error(const char *doing, int code)
{
	snprintf(last_error, sizeof(last_error), "%s: %s", doing, rte_strerror(code < 0 ? -code : code));
}

const char *dmrpc_error(void)
{
	return last_error;
}

const char *dmrpc_version_built(void)
{
	static char version[32];

	snprintf(version, sizeof(version), "%d.%02d", RTE_VER_YEAR, RTE_VER_MONTH);
	return version;
}

const char *dmrpc_version_running(void)
{
	/* "DPDK 22.11.3" */
	return rte_version();
}

/* EAL pins the thread that starts it to its first core. Ours go where they like. */
int dmrpc_eal_init(int argc, char **argv)
{
	cpu_set_t before;
	int known = pthread_getaffinity_np(pthread_self(), sizeof(before), &before) == 0;
	int result = rte_eal_init(argc, argv);

	if (known)
		pthread_setaffinity_np(pthread_self(), sizeof(before), &before);
	if (result < 0) {
		set_error("starting EAL", rte_errno);
		return -1;
	}
	return 0;
}

uint16_t dmrpc_port_count(void)
{
	return rte_eth_dev_count_avail();
}

static struct rte_mempool *make_pool(const char *what, uint16_t port, uint32_t count, uint32_t room, int node)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	struct rte_mempool *pool;

	snprintf(name, sizeof(name), "dmrpc_%s_%u", what, port);
	/* No per-core cache: our threads are none of EAL's. */
	pool = rte_pktmbuf_pool_create(name, count, 0, 0, room, node);
	if (pool == NULL)
		set_error("making a pool of packet buffers", rte_errno);
	return pool;
}

struct dmrpc_port *dmrpc_port_start(uint16_t id, const struct dmrpc_port_options *options, struct dmrpc_port_info *info)
{
	struct rte_eth_dev_info device;
	struct rte_eth_conf conf;
	struct rte_ether_addr mac;
	struct dmrpc_port *port;
	uint16_t rx = options->rx_descriptors, tx = options->tx_descriptors;
	uint32_t room = options->frame_bytes + RTE_PKTMBUF_HEADROOM;
	int node, result;

	result = rte_eth_dev_info_get(id, &device);
	if (result < 0) {
		set_error("asking for a port", result);
		return NULL;
	}
	result = rte_eth_macaddr_get(id, &mac);
	if (result < 0) {
		set_error("asking for a port's address", result);
		return NULL;
	}
	port = calloc(1, sizeof(*port));
	if (port == NULL) {
		set_error("making a port", ENOMEM);
		return NULL;
	}
	port->id = id;
	port->frame_bytes = options->frame_bytes;
	port->multi_segment = (device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
	node = rte_eth_dev_socket_id(id);
	if (room < RTE_MBUF_DEFAULT_BUF_SIZE)
		room = RTE_MBUF_DEFAULT_BUF_SIZE;
	port->rx_pool = make_pool("rx", id, options->rx_buffers, room, node);
	port->tx_pool = make_pool("tx", id, options->tx_buffers, room, node);
	if (port->rx_pool == NULL || port->tx_pool == NULL)
		goto failed;

	/* The MTU stays 0 on purpose: virtual drivers report 1518 and pass longer frames. */
	memset(&conf, 0, sizeof(conf));
	if (port->multi_segment)
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	conf.intr_conf.rxq = 1;
	info->rx_interrupt = 1;
	result = rte_eth_dev_configure(id, 1, 1, &conf);
	if (result < 0) {
		conf.intr_conf.rxq = 0;
		info->rx_interrupt = 0;
		result = rte_eth_dev_configure(id, 1, 1, &conf);
	}
	if (result == 0)
		result = rte_eth_dev_adjust_nb_rx_tx_desc(id, &rx, &tx);
	if (result < 0) {
		set_error("configuring a port", result);
		goto failed;
	}
	result = rte_eth_rx_queue_setup(id, 0, rx, node < 0 ? 0 : node, NULL, port->rx_pool);
	if (result == 0)
		result = rte_eth_tx_queue_setup(id, 0, tx, node < 0 ? 0 : node, NULL);
	if (result < 0) {
		set_error("setting up a port's queues", result);
		goto failed;
	}
	result = rte_eth_dev_start(id);
	/* A memif client can't start before its server is there: dmrpc_port_is_up tells, dmrpc_port_restart tries again. */
	if (result < 0 && strcmp(device.driver_name, "net_memif") != 0) {
		set_error("starting a port", result);
		goto failed;
	}
	/* Some drivers are promiscuous anyhow and say that they can't be. */
	(void)rte_eth_promiscuous_enable(id);
	snprintf(info->driver, sizeof(info->driver), "%s", device.driver_name);
	memcpy(info->mac, mac.addr_bytes, sizeof(info->mac));
	info->multi_segment = port->multi_segment;
	info->numa_node = node;
	return port;
failed:
	rte_mempool_free(port->rx_pool);
	rte_mempool_free(port->tx_pool);
	free(port);
	return NULL;
}

int dmrpc_port_restart(struct dmrpc_port *port)
{
	(void)rte_eth_dev_stop(port->id);
	return rte_eth_dev_start(port->id);
}

int dmrpc_port_is_up(struct dmrpc_port *port)
{
	struct rte_eth_link link;

	memset(&link, 0, sizeof(link));
	return rte_eth_link_get_nowait(port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

/* The pools stay: frames that are still held give their buffers back to them. */
void dmrpc_port_stop(struct dmrpc_port *port)
{
	(void)rte_eth_dev_stop(port->id);
	(void)rte_eth_dev_close(port->id);
}

uint32_t dmrpc_rx_burst(struct dmrpc_port *port, struct dmrpc_frame *frames, uint32_t most)
{
	struct rte_mbuf *mbufs[MAX_BURST];
	uint32_t kept = 0;
	uint16_t count, i;

	count = rte_eth_rx_burst(port->id, 0, mbufs, most < MAX_BURST ? most : MAX_BURST);
	for (i = 0; i < count; i++) {
		/* Frames are agreed to fit one buffer; a peer that thinks otherwise is not listened to. */
		if (mbufs[i]->nb_segs > 1 && rte_pktmbuf_linearize(mbufs[i]) != 0) {
			rte_pktmbuf_free(mbufs[i]);
			continue;
		}
		frames[kept].mbuf = mbufs[i];
		frames[kept].start = rte_pktmbuf_mtod(mbufs[i], const uint8_t *);
		frames[kept].len = rte_pktmbuf_data_len(mbufs[i]);
		kept++;
	}
	return kept;
}

uint32_t dmrpc_rx_buffers_free(struct dmrpc_port *port)
{
	return rte_mempool_avail_count(port->rx_pool);
}

void dmrpc_frame_free(void *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

static void let_go(void *start, void *opaque)
{
	struct lent *lent = opaque;

	(void)start;
	lent->release(lent->owner);
	free(lent);
}

/* Appends a piece to a frame, from where it is. Takes the owner in any case but failure. */
static int lend(struct dmrpc_port *port, struct rte_mbuf *frame, const struct dmrpc_piece *piece, dmrpc_release release)
{
	struct rte_mbuf *segment = rte_pktmbuf_alloc(port->tx_pool);
	struct lent *lent = malloc(sizeof(*lent));

	if (segment == NULL || lent == NULL) {
		rte_pktmbuf_free(segment);
		free(lent);
		return -ENOMEM;
	}
	lent->shared.free_cb = let_go;
	lent->shared.fcb_opaque = lent;
	lent->release = release;
	lent->owner = piece->owner;
	rte_mbuf_ext_refcnt_set(&lent->shared, 1);
	rte_pktmbuf_attach_extbuf(segment, (void *)(uintptr_t)piece->start, rte_mem_virt2iova(piece->start), piece->len,
				  &lent->shared);
	segment->data_off = 0;
	segment->data_len = piece->len;
	segment->pkt_len = piece->len;
	if (rte_pktmbuf_chain(frame, segment) != 0) {
		rte_pktmbuf_free(segment);
		return 0;
	}
	return 0;
}

static struct rte_mbuf *build(struct dmrpc_port *port, const struct dmrpc_piece *pieces, uint32_t count,
			      dmrpc_release release)
{
	struct rte_mbuf *frame = rte_pktmbuf_alloc(port->tx_pool);
	struct rte_mbuf *last = frame;
	uint32_t i;

	for (i = 0; i < count; i++) {
		const struct dmrpc_piece *piece = &pieces[i];

		if (frame == NULL) {
			/* Out of buffers: the frame is as good as lost on the way. */
			if (piece->owner != NULL)
				release(piece->owner);
			continue;
		}
		if (piece->owner != NULL && port->multi_segment && lend(port, frame, piece, release) == 0) {
			last = NULL;
			continue;
		}
		if (last == NULL) {
			last = rte_pktmbuf_alloc(port->tx_pool);
			if (last == NULL || rte_pktmbuf_chain(frame, last) != 0) {
				rte_pktmbuf_free(last);
				rte_pktmbuf_free(frame);
				frame = NULL;
			}
		}
		if (frame != NULL) {
			char *room = rte_pktmbuf_append(frame, piece->len);

			if (room != NULL) {
				memcpy(room, piece->start, piece->len);
			} else {
				rte_pktmbuf_free(frame);
				frame = NULL;
			}
		}
		if (piece->owner != NULL)
			release(piece->owner);
	}
	return frame;
}

/* Sends; owners are released exactly once, now or when the driver is done. Returns how many frames the driver took. */
uint32_t dmrpc_tx_burst(struct dmrpc_port *port, const struct dmrpc_packet *packets, uint32_t count,
			const struct dmrpc_piece *pieces, dmrpc_release release)
{
	struct rte_mbuf *frames[MAX_BURST];
	uint32_t sent = 0, next = 0;

	while (next < count) {
		uint16_t built = 0, taken = 0, tries = 0;

		for (; next < count && built < MAX_BURST; next++) {
			struct rte_mbuf *frame =
				build(port, pieces + packets[next].first, packets[next].count, release);

			if (frame != NULL)
				frames[built++] = frame;
		}
		/* A full ring drains within a burst's time, or the frames are lost. */
		while (taken < built && tries++ < 64)
			taken += rte_eth_tx_burst(port->id, 0, frames + taken, built - taken);
		sent += taken;
		while (taken < built)
			rte_pktmbuf_free(frames[taken++]);
	}
	return sent;
}

/* Memory of DPDK's own, for pages: what a driver shares with its peer or a card can reach. */
void *dmrpc_memory_reserve(const char *name, uint64_t bytes, int32_t numa_node, uint64_t *reserved)
{
	const struct rte_memzone *zone =
		rte_memzone_reserve_aligned(name, bytes, numa_node < 0 ? SOCKET_ID_ANY : numa_node, 0, 2 << 20);

	if (zone == NULL) {
		set_error("reserving memory of DPDK's", rte_errno);
		return NULL;
	}
	*reserved = zone->len;
	return zone->addr;
}

int dmrpc_memory_is_dpdk(const void *start)
{
	return rte_mem_virt2memseg(start, NULL) != NULL;
}
