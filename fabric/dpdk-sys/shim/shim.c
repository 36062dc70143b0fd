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
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_mempool.h>
#include <rte_version.h>

#include "shim.h"

/* Frames that cross in one call. */
#define MAX_BURST 64
/* Room that drivers want beyond the longest frame. */
#define SPARE_ROOM 256
/* Buffers that each thread keeps for itself of a pool. */
#define POOL_CACHE 256

/* Queues of a port that are used, at most. */
#define MAX_QUEUES 64

struct dmrpc_queue {
	struct dmrpc_port *port;
	uint16_t port_id;
	uint16_t id;
	uint8_t multi_segment;
	struct rte_mempool *rx_pool;
	struct rte_mempool *tx_pool;
	/* Frames that the driver had no room for. */
	uint32_t pending_count;
	struct rte_mbuf *pending[MAX_BURST];
} __rte_cache_aligned;

struct dmrpc_port {
	uint16_t id;
	/* Whether the driver was started: a client of memif can't be before its server is there. */
	uint8_t started;
	uint8_t interrupts;
	uint16_t queue_count;
	struct dmrpc_queue queues[MAX_QUEUES];
};

/* What DPDK knows of a piece of memory that is lent to it: in the private part of the buffer that stands for the piece. */
struct lent {
	struct rte_mbuf_ext_shared_info shared;
	dmrpc_release release;
	struct dmrpc_owner owner;
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

/* A thread that EAL knows has buffers of its own in each pool, and takes them without asking the others. */
int dmrpc_thread_attach(void)
{
	return rte_lcore_id() != LCORE_ID_ANY ? 0 : rte_thread_register();
}

void dmrpc_thread_detach(void)
{
	rte_thread_unregister();
}

uint16_t dmrpc_port_count(void)
{
	return rte_eth_dev_count_avail();
}

static struct rte_mempool *make_pool(const char *what, const struct dmrpc_queue *queue, uint32_t count,
				     uint16_t private_bytes, uint32_t room, int node)
{
	char name[RTE_MEMPOOL_NAMESIZE];
	struct rte_mempool *pool;

	snprintf(name, sizeof(name), "dmrpc_%s_%u_%u", what, queue->port_id, queue->id);
	pool = rte_pktmbuf_pool_create(name, count, POOL_CACHE, private_bytes, room, node);
	if (pool == NULL)
		set_error("making a pool of packet buffers", rte_errno);
	return pool;
}

static void free_port(struct dmrpc_port *port)
{
	uint16_t i;

	for (i = 0; i < port->queue_count; i++) {
		rte_mempool_free(port->queues[i].rx_pool);
		rte_mempool_free(port->queues[i].tx_pool);
	}
	free(port);
}

static int make_queue(struct dmrpc_port *port, uint16_t id, const struct dmrpc_port_options *options, uint8_t multi_segment,
		      int node)
{
	struct dmrpc_queue *queue = &port->queues[id];
	uint32_t room = options->frame_bytes + RTE_PKTMBUF_HEADROOM + SPARE_ROOM;

	if (room < RTE_MBUF_DEFAULT_BUF_SIZE)
		room = RTE_MBUF_DEFAULT_BUF_SIZE;
	queue->port = port;
	queue->port_id = port->id;
	queue->id = id;
	queue->multi_segment = multi_segment;
	queue->rx_pool = make_pool("rx", queue, options->rx_buffers, 0, room, node);
	queue->tx_pool = make_pool("tx", queue, options->tx_buffers, RTE_ALIGN(sizeof(struct lent), RTE_MBUF_PRIV_ALIGN), room,
				   node);
	return queue->rx_pool == NULL || queue->tx_pool == NULL ? -1 : 0;
}

struct dmrpc_port *dmrpc_port_start(uint16_t id, const struct dmrpc_port_options *options, struct dmrpc_port_info *info)
{
	struct rte_eth_dev_info device;
	struct rte_eth_conf conf;
	struct rte_ether_addr mac;
	struct dmrpc_port *port;
	uint16_t rx = options->rx_descriptors, tx = options->tx_descriptors, queues = options->queues, i;
	uint8_t multi_segment;
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
	queues = RTE_MIN(RTE_MIN(queues, MAX_QUEUES), RTE_MIN(device.max_rx_queues, device.max_tx_queues));
	if (posix_memalign((void **)&port, RTE_CACHE_LINE_SIZE, sizeof(*port)) != 0) {
		set_error("making a port", ENOMEM);
		return NULL;
	}
	memset(port, 0, sizeof(*port));
	port->id = id;
	port->queue_count = queues;
	multi_segment = (device.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS) != 0;
	node = rte_eth_dev_socket_id(id);
	for (i = 0; i < queues; i++)
		if (make_queue(port, i, options, multi_segment, node) != 0)
			goto failed;

	/* The MTU stays 0 on purpose: virtual drivers report 1518 and pass longer frames. */
	memset(&conf, 0, sizeof(conf));
	if (multi_segment)
		conf.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	/* Where the device spreads frames over queues by their addresses and ports; others keep to the queue of the sender. */
	if (queues > 1 && (device.flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_UDP) != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
	}
	conf.intr_conf.rxq = 1;
	result = rte_eth_dev_configure(id, queues, queues, &conf);
	if (result < 0) {
		conf.intr_conf.rxq = 0;
		result = rte_eth_dev_configure(id, queues, queues, &conf);
	}
	if (result == 0)
		result = rte_eth_dev_adjust_nb_rx_tx_desc(id, &rx, &tx);
	if (result < 0) {
		set_error("configuring a port", result);
		goto failed;
	}
	for (i = 0; i < queues && result == 0; i++) {
		result = rte_eth_rx_queue_setup(id, i, rx, node < 0 ? 0 : node, NULL, port->queues[i].rx_pool);
		if (result == 0)
			result = rte_eth_tx_queue_setup(id, i, tx, node < 0 ? 0 : node, NULL);
	}
	if (result < 0) {
		set_error("setting up a port's queues", result);
		goto failed;
	}
	result = rte_eth_dev_start(id);
	port->started = result == 0;
	/* dmrpc_port_is_started tells, dmrpc_port_restart tries again. */
	if (result < 0 && strcmp(device.driver_name, "net_memif") != 0) {
		set_error("starting a port", result);
		goto failed;
	}
	/* Some drivers are promiscuous anyhow and say that they can't be. */
	(void)rte_eth_promiscuous_enable(id);
	port->interrupts = conf.intr_conf.rxq != 0;
	snprintf(info->driver, sizeof(info->driver), "%s", device.driver_name);
	memcpy(info->mac, mac.addr_bytes, sizeof(info->mac));
	info->multi_segment = multi_segment;
	info->numa_node = node;
	info->queues = queues;
	return port;
failed:
	free_port(port);
	return NULL;
}

struct dmrpc_queue *dmrpc_port_queue(struct dmrpc_port *port, uint16_t queue)
{
	return &port->queues[queue];
}

/* Becomes readable when a frame comes in after dmrpc_rx_interrupt(queue, 1); -1 if the driver can't be waited on. */
int dmrpc_rx_fd(struct dmrpc_queue *queue)
{
	if (!queue->port->interrupts || rte_eth_dev_rx_intr_enable(queue->port_id, queue->id) != 0)
		return -1;
	(void)rte_eth_dev_rx_intr_disable(queue->port_id, queue->id);
	return rte_eth_dev_rx_intr_ctl_q_get_fd(queue->port_id, queue->id);
}

static void drop_pending(struct dmrpc_port *port)
{
	uint16_t i;

	for (i = 0; i < port->queue_count; i++) {
		struct dmrpc_queue *queue = &port->queues[i];

		while (queue->pending_count > 0)
			rte_pktmbuf_free(queue->pending[--queue->pending_count]);
	}
}

/* Nobody may use the port's queues meanwhile. */
int dmrpc_port_restart(struct dmrpc_port *port)
{
	int result;

	drop_pending(port);
	(void)rte_eth_dev_stop(port->id);
	result = rte_eth_dev_start(port->id);
	port->started = result == 0;
	return result;
}

int dmrpc_port_is_started(struct dmrpc_port *port)
{
	return port->started;
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
	drop_pending(port);
	(void)rte_eth_dev_stop(port->id);
	(void)rte_eth_dev_close(port->id);
}

uint32_t dmrpc_rx_burst(struct dmrpc_queue *queue, struct dmrpc_frame *frames, uint32_t most)
{
	struct rte_mbuf *mbufs[MAX_BURST];
	uint32_t kept = 0;
	uint16_t count, i;

	if (!queue->port->started)
		return 0;
	count = rte_eth_rx_burst(queue->port_id, queue->id, mbufs, most < MAX_BURST ? most : MAX_BURST);
	for (i = 0; i < count; i++)
		rte_prefetch0(rte_pktmbuf_mtod(mbufs[i], const void *));
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

int dmrpc_rx_interrupt(struct dmrpc_queue *queue, int on)
{
	return on ? rte_eth_dev_rx_intr_enable(queue->port_id, queue->id) :
		    rte_eth_dev_rx_intr_disable(queue->port_id, queue->id);
}

uint32_t dmrpc_rx_buffers_free(struct dmrpc_queue *queue)
{
	return rte_mempool_avail_count(queue->rx_pool);
}

void dmrpc_frame_free(void *mbuf)
{
	rte_pktmbuf_free(mbuf);
}

static void let_go(void *start, void *opaque)
{
	struct lent *lent = opaque;

	(void)start;
	lent->release(&lent->owner);
}

/* Takes empty buffers for frames to be sent; as many as there are. */
uint32_t dmrpc_tx_alloc(struct dmrpc_queue *queue, struct dmrpc_tx_frame *frames, uint32_t count)
{
	struct rte_mbuf *mbufs[MAX_BURST];
	uint32_t i;

	count = RTE_MIN(count, (uint32_t)MAX_BURST);
	if (count == 1 || rte_pktmbuf_alloc_bulk(queue->tx_pool, mbufs, count) != 0) {
		/* Or fewer are left than were asked for. */
		mbufs[0] = rte_pktmbuf_alloc(queue->tx_pool);
		count = mbufs[0] != NULL;
	}
	for (i = 0; i < count; i++) {
		frames[i].mbuf = mbufs[i];
		frames[i].start = rte_pktmbuf_mtod(mbufs[i], uint8_t *);
		frames[i].len = 0;
	}
	return count;
}

/* Appends bytes to a frame behind what was lent to it, as a copy. */
int dmrpc_tx_append(struct dmrpc_queue *queue, void *mbuf, const uint8_t *start, uint32_t len)
{
	struct rte_mbuf *segment = rte_pktmbuf_alloc(queue->tx_pool);
	char *room;

	if (segment == NULL)
		return -ENOMEM;
	room = rte_pktmbuf_append(segment, len);
	if (room == NULL || rte_pktmbuf_chain(mbuf, segment) != 0) {
		rte_pktmbuf_free(segment);
		return -ENOMEM;
	}
	memcpy(room, start, len);
	return 0;
}

/* Appends memory of DPDK's to a frame, from where it is. Takes the owner in any case. */
int dmrpc_tx_lend(struct dmrpc_queue *queue, void *mbuf, const uint8_t *start, uint32_t len, const struct dmrpc_owner *owner,
		  dmrpc_release release)
{
	struct rte_mbuf *segment = rte_pktmbuf_alloc(queue->tx_pool);
	struct dmrpc_owner copy = *owner;
	struct lent *lent;

	if (segment == NULL) {
		release(&copy);
		return -ENOMEM;
	}
	lent = rte_mbuf_to_priv(segment);
	lent->shared.free_cb = let_go;
	lent->shared.fcb_opaque = lent;
	lent->release = release;
	lent->owner = copy;
	rte_mbuf_ext_refcnt_set(&lent->shared, 1);
	rte_pktmbuf_attach_extbuf(segment, (void *)(uintptr_t)start, rte_mem_virt2iova(start), len, &lent->shared);
	segment->data_off = 0;
	segment->data_len = len;
	segment->pkt_len = len;
	/* Fails for frames of too many segments; with the segment the owner goes. */
	if (rte_pktmbuf_chain(mbuf, segment) != 0) {
		rte_pktmbuf_free(segment);
		return -ENOMEM;
	}
	return 0;
}

/* Sends; takes the buffers. Returns for how many more frames there is room. */
uint32_t dmrpc_tx_burst(struct dmrpc_queue *queue, const struct dmrpc_tx_frame *frames, uint32_t count)
{
	uint32_t next, taken = 0, step;

	for (next = 0; next < count; next++) {
		struct rte_mbuf *frame = frames[next].mbuf;

		if (queue->pending_count == MAX_BURST) {
			rte_pktmbuf_free(frame);
			continue;
		}
		frame->data_len = frames[next].len;
		frame->pkt_len += frames[next].len;
		queue->pending[queue->pending_count++] = frame;
	}
	if (!queue->port->started)
		return MAX_BURST - queue->pending_count;
	do {
		step = rte_eth_tx_burst(queue->port_id, queue->id, queue->pending + taken, queue->pending_count - taken);
		taken += step;
	} while (step > 0 && taken < queue->pending_count);
	queue->pending_count -= taken;
	if (queue->pending_count > 0 && taken > 0)
		memmove(queue->pending, queue->pending + taken, queue->pending_count * sizeof(queue->pending[0]));
	return MAX_BURST - queue->pending_count;
}

/* Drivers that can't say so give buffers back by themselves. */
void dmrpc_tx_reap(struct dmrpc_queue *queue)
{
	if (queue->port->started)
		(void)rte_eth_tx_done_cleanup(queue->port_id, queue->id, 0);
}

/* Memory of DPDK's own, for pages: what a driver shares with its peer or a card can reach. */
void *dmrpc_memory_reserve(const char *name, uint64_t bytes, int32_t numa_node)
{
	const struct rte_memzone *zone =
		rte_memzone_reserve_aligned(name, bytes, numa_node < 0 ? SOCKET_ID_ANY : numa_node, 0, 2 << 20);

	if (zone == NULL) {
		set_error("reserving memory of DPDK's (give it more: -m, or huge pages)", rte_errno);
		return NULL;
	}
	return zone->addr;
}

int dmrpc_memory_file(const void *start, uint64_t bytes, uint64_t *offset)
{
	const struct rte_memseg *first = rte_mem_virt2memseg(start, NULL);
	const struct rte_memseg *last = rte_mem_virt2memseg((const char *)start + bytes - 1, NULL);
	size_t first_at, last_at;
	int fd;

	if (first == NULL || last == NULL)
		return -1;
	fd = rte_memseg_get_fd(first);
	if (fd < 0 || rte_memseg_get_fd(last) != fd || rte_memseg_get_fd_offset(first, &first_at) != 0 ||
	    rte_memseg_get_fd_offset(last, &last_at) != 0)
		return -1;
	if (last_at - first_at != (size_t)((char *)last->addr - (char *)first->addr))
		return -1;
	*offset = first_at + (uint64_t)((const char *)start - (const char *)first->addr);
	return fd;
}
