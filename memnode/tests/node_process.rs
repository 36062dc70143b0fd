//! The program: what it prints, what it refuses, how it ends.

mod rig;

use rig::{Client, NodeProcess, pattern, wait_until};
use rustix::process::Signal;
use std::io::Write as _;
use std::process::Output;

#[test]
fn it_says_once_when_it_is_ready_and_gives_everything_back_on_sigterm() {
    let mut node = NodeProcess::start(&["--pool", "32MiB", "--hugepages", "never"]);
    assert!(node.is_running());
    let (unix, tcp) = (node.unix().to_string(), node.tcp().to_string());
    assert!(!tcp.ends_with(":0"), "{tcp}");
    let expected = format!("dmrpc-memnode ready: listen={unix},{tcp} pool=32MiB page=4KiB memory=memfd node=");
    assert!(node.ready.starts_with(&expected), "{}", node.ready);

    // With clients in it that hold memory, do not listen, or have yet to say hello.
    let mut local = Client::local(node.unix());
    let (info, _mapped) = local.lease(64, 4).expect("a lease");
    local.commit(info.segment, 0, 8, 8 * 4096);
    let mut remote = Client::remote(node.tcp());
    remote.write(&pattern(1, 100_000)).expect("an object");
    let _silent = std::net::TcpStream::connect(tcp.trim_start_matches("tcp://")).expect("a connection");

    let exit = node.end(Signal::TERM);
    assert!(exit.success);
    assert_eq!(exit.stdout, "", "one line is all that it prints");
    assert!(!exit.socket.exists());
    // Both hear of it, and then of the end of the link.
    for client in [&mut local, &mut remote] {
        let mut last = None;
        while let Ok(answer) = client.next() {
            last = Some(answer.status());
        }
        assert_eq!(last, Some(dmrpc_wire::Status::ShuttingDown));
    }
}

#[test]
fn it_ends_on_sigint_too() {
    let exit = NodeProcess::start(&["--pool", "8MiB"]).end(Signal::INT);
    assert!(exit.success && !exit.socket.exists());
}

#[test]
fn a_socket_file_of_a_dead_node_is_replaced_and_one_of_a_living_node_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("unix://{}/node", folder.path().display());
    let start = || NodeProcess::program().args(["--listen", &url, "--pool", "8MiB"]).output().expect("it starts");
    let mut first = NodeProcess::program();
    let mut first = first.args(["--listen", &url, "--pool", "8MiB"]).spawn().expect("it starts");
    let address = url.parse().expect("a URL");
    let reach = || dmrpc_fabric::listen::connect(&address, &Default::default(), rig::limit()).is_ok();
    wait_until("the first node", reach);
    let refused = start();
    check_refusal(&refused, "can't listen on unix://");
    first.kill().expect("our child");
    first.wait().expect("our child");
    assert!(folder.path().join("node").exists());

    let mut second = NodeProcess::program();
    let mut second = second.args(["--listen", &url, "--pool", "8MiB"]).spawn().expect("it starts");
    wait_until("the second node", reach);
    second.kill().expect("our child");
    second.wait().expect("our child");
}

#[track_caller]
fn check_refusal(output: &Output, expected: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it started");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "one line says what is wrong: {stderr}");
    assert!(output.stdout.is_empty());
}

#[track_caller]
fn check_refused(args: &[&str], expected: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("unix://{}/node", folder.path().display());
    let output = NodeProcess::program().args(["--listen", &url]).args(args).output().expect("it starts");
    check_refusal(&output, expected);
    assert!(!folder.path().join("node").exists());
}

#[test]
fn what_can_not_be_is_refused_in_one_line() {
    check_refused(&["--pool", "1KiB"], "a pool of 1KiB is too small: make it 4KiB or more");
    check_refused(&["--pool", "512TiB"], "too large");
    check_refused(&["--numa", "63"], "there is no NUMA node 63 on this host, only: 0");
    check_refused(&["--tenant-token-file", "/nowhere"], "the token file /nowhere: No such file");
    check_refused(&["--tenant-token-file", "/dev/null"], "the token file /dev/null: it has no token");
    check_refused(&["--tenant-token", ""], "a tenant's token has 1 to 1024 bytes");
    check_refused(&["--pool-file", "/dev/null"], "the pool file");
    check_refused(&["--pool-file", "/nowhere/pool"], "the pool file \"/nowhere/pool\": opening it: No such file");
    check_refused(&["--listen", "tcp://192.0.2.1:1"], "can't listen on tcp://192.0.2.1:1");
}

#[test]
fn huge_pages_that_are_not_there_can_not_be_required() {
    check_refused(&["--pool", "1TiB", "--hugepages", "require"], "the pool needs 524288 huge pages of 2MiB and ");
}

#[test]
fn a_port_in_use_is_refused() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("tcp://{}", taken.local_addr().expect("it is bound"));
    check_refused(&["--listen", &url], &format!("can't listen on {url}"));
}

#[test]
fn its_figures_can_be_asked_for() {
    let node = NodeProcess::start(&["--pool", "64MiB", "--page", "8KiB"]);
    let mut client = Client::remote(node.tcp());
    let bytes = pattern(7, 8192 * 3);
    let first = client.write(&bytes).expect("an object");
    client.write_over(first, bytes.len() as u64, &[(0, b"new")]).expect("an object that shares two pages");

    let output = node.stat(&["--json"]);
    assert!(output.status.success());
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["pool_pages"], 8192);
    assert_eq!(value["page_bytes"], 8192);
    assert_eq!(value["objects"], 2);
    assert_eq!(value["live_pages"], 4);
    assert_eq!(value["logical_pages"], 6);
    assert_eq!(value["sharing_ratio"], 1.5);
    assert_eq!(value["sessions"], 2);

    let output = node.stat(&[]);
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(table.contains("sharing ratio                  1.50  6 pages of objects in 4\n"), "{table}");
    assert!(table.contains("pool                       64.0 MiB  100.0% 8192 pages\n"), "{table}");
}

#[test]
fn figures_are_for_tenants_only() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"# who may come in\n\n  first secret  \nsecond secret\n").expect("written");
    let node = NodeProcess::start(&["--pool", "8MiB", "--tenant-token-file", file.path().to_str().expect("a path")]);
    assert!(!node.stat(&[]).status.success());
    assert!(String::from_utf8_lossy(&node.stat(&["--token", "third secret"]).stderr).contains("Denied"));
    assert!(node.stat(&["--token", "first secret"]).status.success());
    assert!(node.stat(&["--token", "second secret"]).status.success());
}

#[test]
fn nobody_at_home_is_said_within_the_deadline() {
    let output = NodeProcess::program().args(["stat", "unix:///nowhere/node"]).output().expect("it starts");
    check_refusal(&output, "asking unix:///nowhere/node");
}

#[test]
fn a_pool_in_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pool");
    std::fs::write(&path, pattern(3, 1 << 20)).expect("a file with something in it");
    let args = ["--pool", "8MiB", "--pool-file", path.to_str().expect("a path")];
    let node = NodeProcess::start(&args);
    assert!(node.ready.contains("memory=file"), "{}", node.ready);
    assert_eq!(std::fs::metadata(&path).expect("the file").len(), 8 << 20);

    let mut first = Client::local(node.unix());
    let (info, mut mapped) = first.lease(16, 4).expect("a lease");
    assert_eq!(mapped.read(0, 16 * 4096), vec![0; 16 * 4096], "what was in the file before is nobody's to see");
    let bytes = pattern(4, 10_000);
    mapped.write(4096, &bytes);
    let id = first.commit(info.segment, 1, 3, bytes.len() as u64);

    let mut second = Client::local(node.unix());
    let (other, _) = second.lease(16, 4).expect("a lease");
    assert_ne!((other.segment, other.file_offset), (info.segment, info.file_offset));
    assert_eq!(second.read(id, 0, 10_000), Ok(bytes));

    // One file, one node.
    check_refused(&args, "does another node use it?");
}
