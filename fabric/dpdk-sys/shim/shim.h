/* What Rust sees of DPDK: plain structs of our own, and one call a burst. */
#ifndef DMRPC_SHIM_H
#define DMRPC_SHIM_H

#include <stdint.h>

struct dmrpc_port_info {
	char driver[64];
	uint8_t mac[6];
	/* Whether a packet may be sent in several pieces. */
	uint8_t multi_segment;
	int32_t numa_node;
	/* Queues each way: as many as were asked for, or as the driver has. */
	uint16_t queues;
};

struct dmrpc_port_options {
	uint16_t rx_descriptors;
	uint16_t tx_descriptors;
	/* Longest frame, Ethernet header included. */
	uint32_t frame_bytes;
	/* For each queue. */
	uint32_t rx_buffers;
	uint32_t tx_buffers;
	uint16_t queues;
};

/* A frame that came in. */
struct dmrpc_frame {
	void *mbuf;
	const uint8_t *start;
	uint32_t len;
};

/* What keeps a piece of memory, as a value of Rust's that C only moves. */
struct dmrpc_owner {
	uint64_t words[4];
};

/* A frame to be sent: a buffer, and how many bytes were written to it. */
struct dmrpc_tx_frame {
	void *mbuf;
	uint8_t *start;
	uint32_t len;
};

typedef void (*dmrpc_release)(struct dmrpc_owner *owner);

struct dmrpc_port;
/* One receive queue of a port and one transmit queue, for one thread at a time. */
struct dmrpc_queue;

int dmrpc_eal_init(int argc, char **argv);
const char *dmrpc_error(void);
const char *dmrpc_version_built(void);
const char *dmrpc_version_running(void);
int dmrpc_thread_attach(void);
void dmrpc_thread_detach(void);
uint16_t dmrpc_port_count(void);
struct dmrpc_port *dmrpc_port_start(uint16_t port, const struct dmrpc_port_options *options, struct dmrpc_port_info *info);
int dmrpc_port_restart(struct dmrpc_port *port);
int dmrpc_port_is_started(struct dmrpc_port *port);
int dmrpc_port_is_up(struct dmrpc_port *port);
void dmrpc_port_stop(struct dmrpc_port *port);
struct dmrpc_queue *dmrpc_port_queue(struct dmrpc_port *port, uint16_t queue);
uint32_t dmrpc_rx_burst(struct dmrpc_queue *queue, struct dmrpc_frame *frames, uint32_t most);
int dmrpc_rx_fd(struct dmrpc_queue *queue);
int dmrpc_rx_interrupt(struct dmrpc_queue *queue, int on);
uint32_t dmrpc_rx_buffers_free(struct dmrpc_queue *queue);
void dmrpc_frame_free(void *mbuf);
uint32_t dmrpc_tx_alloc(struct dmrpc_queue *queue, struct dmrpc_tx_frame *frames, uint32_t count);
int dmrpc_tx_append(struct dmrpc_queue *queue, void *mbuf, const uint8_t *start, uint32_t len);
int dmrpc_tx_lend(struct dmrpc_queue *queue, void *mbuf, const uint8_t *start, uint32_t len, const struct dmrpc_owner *owner,
		  dmrpc_release release);
uint32_t dmrpc_tx_burst(struct dmrpc_queue *queue, const struct dmrpc_tx_frame *frames, uint32_t count);
void dmrpc_tx_reap(struct dmrpc_queue *queue);
void *dmrpc_memory_reserve(const char *name, uint64_t bytes, int32_t numa_node);
int dmrpc_memory_file(const void *start, uint64_t bytes, uint64_t *offset);

#endif
