//! Queue pairs: where work is posted.

use crate::raw::*;
use crate::{CompletionQueue, Gid, Port, ProtectionDomain, RdmaError};
use std::ptr;

/// How large a queue pair is.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairOptions {
    /// Work requests that may be posted for sending, one-sided ones included.
    pub sends: u32,
    /// Receives that may be posted.
    pub receives: u32,
    /// The longest message that is copied when it is posted.
    pub inline_bytes: u32,
}

/// When a peer is given up.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long to wait for an answer before asking again: 4 µs × 2 to the power of this. Hardware waits up to four times as long.
    pub timeout: u8,
    /// How often to ask again, at most 6: some drivers take 7 for infinity.
    pub retries: u8,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its port.
    pub gid: Gid,
    /// Its queue pair.
    pub number: u32,
    /// The number of its first packet.
    pub first_packet: u32,
    /// The largest packet that both take, as verbs count it.
    pub mtu: u8,
    /// READs that it has in flight at a time, at most.
    pub reads_answered: u8,
    /// READs that it answers at a time.
    pub reads_asked: u8,
}

/// A reliable connection: what is posted is done in order, once, or the pair goes into error and everything is given back.
pub struct QueuePair {
    pair: *mut ibv_qp,
    domain: ProtectionDomain,
    inline_bytes: u32,
    /// Its number of sends, as the device rounded it.
    sends: u32,
    // Gone after the pair.
    _queues: (CompletionQueue, CompletionQueue),
}

// SAFETY: the functions of the library may be called from any thread.
unsafe impl Send for QueuePair {}
// SAFETY: as above: it locks what it has to.
unsafe impl Sync for QueuePair {}

impl QueuePair {
    /// A pair that is not connected. Its completions go to these queues.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`].
    pub fn new(
        domain: &ProtectionDomain,
        (sends, receives): (&CompletionQueue, &CompletionQueue),
        options: QueuePairOptions,
    ) -> Result<Self, RdmaError> {
        let most = domain.device().limits().max_work_requests;
        let mut inline_bytes = options.inline_bytes;
        loop {
            let mut attributes = ibv_qp_init_attr {
                qp_context: ptr::null_mut(),
                send_cq: sends.raw(),
                recv_cq: receives.raw(),
                srq: ptr::null_mut(),
                cap: ibv_qp_cap {
                    max_send_wr: options.sends.min(most),
                    max_recv_wr: options.receives.min(most),
                    max_send_sge: 1,
                    max_recv_sge: 1,
                    max_inline_data: inline_bytes,
                },
                qp_type: IBV_QPT_RC,
                sq_sig_all: 0,
            };
            // SAFETY: a domain and queues of one device; the attributes are read, and written with what they became.
            let pair = unsafe { (domain.device().library().ibv_create_qp)(domain.raw(), &mut attributes) };
            if !pair.is_null() {
                return Ok(Self {
                    pair,
                    domain: domain.clone(),
                    inline_bytes: attributes.cap.max_inline_data.min(inline_bytes),
                    sends: options.sends.min(attributes.cap.max_send_wr),
                    _queues: (sends.clone(), receives.clone()),
                });
            }
            if inline_bytes == 0 {
                return Err(RdmaError::last("making a queue pair"));
            }
            // Not every device copies so much, and none says how much it does.
            inline_bytes /= 2;
        }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        // SAFETY: it is there.
        unsafe { (*self.pair).qp_num }
    }

    /// The longest message that is copied when it is posted.
    pub fn inline_bytes(&self) -> usize {
        self.inline_bytes as usize
    }

    /// How many sends may be posted.
    pub fn sends(&self) -> usize {
        self.sends as usize
    }

    /// Connects it. `receives` is called when receives can be posted, and nothing can come yet. The peer may reach what is
    /// registered for it in this pair's domain from then on.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`], and what `receives` says.
    pub fn connect(
        &self,
        port: &Port,
        first_packet: u32,
        peer: &Peer,
        timing: Timing,
        receives: impl FnOnce(&Self) -> Result<(), RdmaError>,
    ) -> Result<(), RdmaError> {
        assert!(timing.retries < 7, "seven is for ever");
        let mut attributes = ibv_qp_attr {
            qp_state: IBV_QPS_INIT,
            port_num: port.number,
            qp_access_flags: (IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE) as u32,
            ..ibv_qp_attr::default()
        };
        self.modify(&mut attributes, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)?;
        receives(self)?;
        let mut attributes = ibv_qp_attr {
            qp_state: IBV_QPS_RTR,
            path_mtu: peer.mtu.into(),
            dest_qp_num: peer.number,
            rq_psn: peer.first_packet,
            max_dest_rd_atomic: peer.reads_answered,
            // 0.64 ms, should there ever be no receive posted.
            min_rnr_timer: 12,
            ah_attr: ibv_ah_attr {
                grh: ibv_global_route {
                    dgid: ibv_gid { raw: peer.gid.0 },
                    sgid_index: port.gid_index,
                    hop_limit: 64,
                    ..ibv_global_route::default()
                },
                is_global: 1,
                port_num: port.number,
                ..ibv_ah_attr::default()
            },
            ..ibv_qp_attr::default()
        };
        let to_receive = IBV_QP_STATE
            | IBV_QP_AV
            | IBV_QP_PATH_MTU
            | IBV_QP_DEST_QPN
            | IBV_QP_RQ_PSN
            | IBV_QP_MAX_DEST_RD_ATOMIC
            | IBV_QP_MIN_RNR_TIMER;
        self.modify(&mut attributes, to_receive)?;
        let mut attributes = ibv_qp_attr {
            qp_state: IBV_QPS_RTS,
            sq_psn: first_packet,
            timeout: timing.timeout,
            retry_cnt: timing.retries,
            rnr_retry: 6,
            max_rd_atomic: peer.reads_asked,
            ..ibv_qp_attr::default()
        };
        let to_send = IBV_QP_STATE
            | IBV_QP_TIMEOUT
            | IBV_QP_RETRY_CNT
            | IBV_QP_RNR_RETRY
            | IBV_QP_SQ_PSN
            | IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut attributes, to_send)
    }

    /// Has it do nothing more, for either side. What is posted comes back as completions with an error.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`].
    pub fn fail(&self) -> Result<(), RdmaError> {
        let mut attributes = ibv_qp_attr { qp_state: IBV_QPS_ERR, ..ibv_qp_attr::default() };
        self.modify(&mut attributes, IBV_QP_STATE)
    }

    fn modify(&self, attributes: &mut ibv_qp_attr, mask: i32) -> Result<(), RdmaError> {
        // SAFETY: a pair that is there; the attributes are read.
        let modified = unsafe { (self.domain.device().library().ibv_modify_qp)(self.pair, attributes, mask) };
        RdmaError::check("changing the state of a queue pair", modified)
    }

    /// Posts a chain of work requests behind one doorbell.
    ///
    /// # Errors
    ///
    /// [`RdmaError::Verb`] if the pair takes no more; some of them may have been posted.
    ///
    /// # Safety
    ///
    /// The chain and what it points to is valid; what it sends from or reads into stays, and is not used otherwise, until it
    /// completed or the pair is gone (inline data may go at once).
    pub unsafe fn post_send(&self, first: *mut ibv_send_wr) -> Result<(), RdmaError> {
        let post = self.domain.device().ops().post_send.expect("every driver has it");
        let mut bad = ptr::null_mut();
        // SAFETY: as the caller says.
        RdmaError::check("posting work", unsafe { post(self.pair, first, &mut bad) })
    }

    /// Posts a chain of receives.
    ///
    /// # Errors
    ///
    /// As [`post_send`](Self::post_send).
    ///
    /// # Safety
    ///
    /// As there.
    pub unsafe fn post_receive(&self, first: *mut ibv_recv_wr) -> Result<(), RdmaError> {
        let post = self.domain.device().ops().post_recv.expect("every driver has it");
        let mut bad = ptr::null_mut();
        // SAFETY: as the caller says.
        RdmaError::check("posting receives", unsafe { post(self.pair, first, &mut bad) })
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        // SAFETY: made by us.
        let _ = unsafe { (self.domain.device().library().ibv_destroy_qp)(self.pair) };
    }
}

impl ibv_send_wr {
    /// A work request without memory, alone in its chain, that completes with `number`.
    pub fn new(opcode: u32, number: u64) -> Self {
        Self {
            wr_id: number,
            next: ptr::null_mut(),
            sg_list: ptr::null_mut(),
            num_sge: 0,
            opcode,
            send_flags: IBV_SEND_SIGNALED,
            invalidate_rkey: 0,
            wr: ibv_send_wr_wr { atomic: ibv_send_wr_atomic { remote_addr: 0, compare_add: 0, swap: 0, rkey: 0 } },
            remote_srqn: 0,
            bind_mw: [0; 6],
        }
    }
}
