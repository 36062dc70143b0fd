//! Invariant 2: the layouts are those of the headers that are installed, if any are.
#![allow(clippy::print_stdout, reason = "a test that could not be made says so")]

use dmrpc_rdma_sys::raw::*;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of};
use std::process::Command;

/// What C and we say of structs: sizes, and where fields are.
#[derive(Default)]
struct Layouts {
    program: String,
    ours: Vec<(String, usize)>,
}

impl Layouts {
    fn add(&mut self, what: &str, c: &str, ours: usize) {
        writeln!(self.program, "  printf(\"%zu\\n\", (size_t)({c}));").unwrap();
        self.ours.push((what.to_owned(), ours));
    }
}

macro_rules! layouts {
    ($($name:ident { $($field:tt $(as $c:literal)?),* $(,)? })*) => {{
        let mut layouts = Layouts::default();
        $(
            layouts.add(
                concat!("size of ", stringify!($name)),
                concat!("sizeof(struct ", stringify!($name), ")"),
                size_of::<$name>(),
            );
            $(
                #[allow(unused_mut, unused_assignments, reason = "most fields have their own name in C")]
                let mut c = stringify!($field);
                $(c = $c;)?
                layouts.add(
                    concat!(stringify!($name), ".", stringify!($field)),
                    &format!("offsetof(struct {}, {c})", stringify!($name)),
                    offset_of!($name, $field),
                );
            )*
        )*
        layouts
    }};
}

#[test]
fn layouts_are_those_of_the_headers() {
    let mut layouts = layouts! {
        ibv_context { device, ops, cmd_fd, async_fd, num_comp_vectors, mutex, abi_compat }
        ibv_context_ops { poll_cq, req_notify_cq, post_send, post_recv }
        ibv_device_attr { max_mr_size, max_qp_wr, max_cqe, max_qp_rd_atom, max_qp_init_rd_atom, phys_port_cnt }
        ibv_port_attr { state, active_mtu, gid_tbl_len, max_msg_sz, link_layer, port_cap_flags2 }
        ibv_gid_entry { gid, gid_index, port_num, gid_type, ndev_ifindex }
        ibv_pd { context, handle }
        ibv_mr { addr, length, lkey, rkey }
        ibv_comp_channel { context, fd, refcnt }
        ibv_cq { context, channel, cqe, comp_events_completed }
        ibv_qp { context, qp_num, state, qp_type, events_completed }
        ibv_qp_init_attr { send_cq, recv_cq, srq, cap, qp_type, sq_sig_all }
        ibv_qp_cap { max_send_wr, max_recv_wr, max_send_sge, max_recv_sge, max_inline_data }
        ibv_global_route { dgid, flow_label, sgid_index, hop_limit, traffic_class }
        ibv_ah_attr { grh, dlid, sl, is_global, port_num }
        ibv_qp_attr {
            qp_state, path_mtu, rq_psn, sq_psn, dest_qp_num, qp_access_flags, cap, ah_attr, pkey_index, max_rd_atomic,
            max_dest_rd_atomic, min_rnr_timer, port_num, timeout, retry_cnt, rnr_retry, rate_limit
        }
        ibv_sge { addr, length, lkey }
        ibv_send_wr {
            wr_id, next, sg_list, num_sge, opcode, send_flags, invalidate_rkey, wr, remote_srqn as "qp_type", bind_mw
        }
        ibv_recv_wr { wr_id, next, sg_list, num_sge }
        ibv_wc { wr_id, status, opcode, vendor_err, byte_len, imm_data, qp_num, wc_flags, sl, dlid_path_bits }
    };
    let send_wr = "offsetof(struct ibv_send_wr, wr";
    layouts.add(
        "a remote address",
        &format!("{send_wr}.rdma.remote_addr) - {send_wr})"),
        offset_of!(ibv_send_wr_rdma, remote_addr),
    );
    layouts.add("a remote key", &format!("{send_wr}.rdma.rkey) - {send_wr})"), offset_of!(ibv_send_wr_rdma, rkey));
    for (name, ours) in [
        ("IBV_PORT_ACTIVE", IBV_PORT_ACTIVE),
        ("IBV_GID_TYPE_ROCE_V2", IBV_GID_TYPE_ROCE_V2),
        ("IBV_ACCESS_REMOTE_WRITE", IBV_ACCESS_REMOTE_WRITE as u32),
        ("IBV_ACCESS_REMOTE_READ", IBV_ACCESS_REMOTE_READ as u32),
        ("IBV_QPT_RC", IBV_QPT_RC),
        ("IBV_QP_DEST_QPN", IBV_QP_DEST_QPN as u32),
        ("IBV_QP_MIN_RNR_TIMER", IBV_QP_MIN_RNR_TIMER as u32),
        ("IBV_QPS_ERR", IBV_QPS_ERR),
        ("IBV_WR_RDMA_READ", IBV_WR_RDMA_READ),
        ("IBV_SEND_INLINE", IBV_SEND_INLINE),
        ("IBV_WC_WR_FLUSH_ERR", IBV_WC_WR_FLUSH_ERR),
        ("IBV_WC_REM_ACCESS_ERR", IBV_WC_REM_ACCESS_ERR),
        ("IBV_WC_RETRY_EXC_ERR", IBV_WC_RETRY_EXC_ERR),
    ] {
        layouts.add(name, name, ours as usize);
    }

    let folder = tempfile::tempdir().unwrap();
    let (source, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\nint main(void) {{\n{}  return 0;\n}}\n",
        layouts.program
    );
    std::fs::write(&source, text).unwrap();
    let has = |args: &[&str]| Command::new("cc").args(args).output().is_ok_and(|output| output.status.success());
    if !has(&["--version"]) {
        println!("skipped: there is no C compiler here");
        return;
    }
    let empty = folder.path().join("empty.c");
    std::fs::write(&empty, "#include <infiniband/verbs.h>\n").unwrap();
    if !has(&["-fsyntax-only", empty.to_str().unwrap()]) {
        println!("skipped: the headers of libibverbs are not installed (Debian: libibverbs-dev)");
        return;
    }
    let compiled = Command::new("cc").arg(&source).arg("-o").arg(&program).output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = Command::new(&program).output().unwrap();
    let theirs: Vec<usize> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(theirs.len(), layouts.ours.len());
    for ((what, ours), theirs) in layouts.ours.iter().zip(theirs) {
        assert_eq!(*ours, theirs, "{what}");
    }
}
