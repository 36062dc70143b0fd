//! Clients on the node's host: segments that they map, and what becomes of them.

mod rig;

use dmrpc_wire::Status;
use rig::{Client, Mapped, NodeProcess, Terms, pattern};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

#[test]
fn what_one_client_commits_another_maps_and_reads() {
    check_commit_and_read(&["--pool", "64MiB", "--hugepages", "never"], "memory=memfd ");
}

#[test]
fn memory_in_pieces_of_huge_pages() {
    // Never those that this host has set aside, however many.
    check_commit_and_read(&["--pool", "64MiB", "--hugepages", "auto"], "memory=memfd+thp ");
}

#[test]
fn huge_pages_that_were_set_aside() {
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    if free.is_ok_and(|free| free.trim().parse().is_ok_and(|free: u64| free >= 8)) {
        check_commit_and_read(&["--pool", "16MiB", "--hugepages", "require"], "memory=hugetlb ");
    } else {
        eprintln!("skipped: this host has not set 8 huge pages aside (sysctl vm.nr_hugepages=8)");
    }
}

fn check_commit_and_read(args: &[&str], memory: &str) {
    let node = NodeProcess::start(args);
    assert!(node.ready.contains(memory), "{}", node.ready);
    let mut writer = Client::local(node.unix());
    let (info, mut arena) = writer.lease(1024, 16).expect("a lease");
    assert_eq!(info.pages, 1024);
    assert_eq!(arena.read(0, 1024 * 4096), vec![0; 1024 * 4096], "fresh pages are zero");
    let bytes = pattern(1, 3 * 4096 + 100);
    arena.write(5 * 4096, &bytes);
    let id = writer.commit(info.segment, 5, 4, bytes.len() as u64);

    // The hold may overtake the commit: it waits for it.
    let mut reader = Client::local(node.unix());
    assert_eq!(reader.hold(id), Status::Ok);
    let (size, extents) = reader.resolve(id).expect("it is held");
    assert_eq!((size, extents.len()), (bytes.len() as u64, 1));
    assert_eq!((extents[0].segment.0, extents[0].first, extents[0].count), (info.segment, 5, 4));
    let (seen, fd) = reader.segment(info.segment).expect("a segment of the tenant");
    assert_eq!(seen, info);
    let len = seen.pages as usize * 4096;
    let view = Mapped::read_only(&fd, seen.file_offset, len).expect("it can be read");
    assert_eq!(view.read(5 * 4096, bytes.len()), bytes);

    // Nobody but its writer can map it writable, by whatever name.
    Mapped::writable(&fd, seen.file_offset, len).map(drop).expect_err("it is sealed");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    if let Ok(again) = std::fs::File::options().read(true).write(true).open(path) {
        Mapped::writable(&again.into(), seen.file_offset, len).map(drop).expect_err("it is sealed");
    }
    rustix::fs::ftruncate(&fd, 4096).expect_err("it can't be cut short under its readers");
    rustix::io::pwrite(&fd, b"x", 5 * 4096).expect_err("nor be written by a system call");

    // A private mapping can be written, and nobody else sees it.
    let mut private = Mapped::private(&fd, seen.file_offset, len).expect("copy on write");
    private.write(5 * 4096, b"changed");
    assert_eq!(view.read(5 * 4096, bytes.len()), bytes);

    // The writer's own mapping goes on.
    arena.write(100 * 4096, b"more");
    let more = writer.commit(info.segment, 100, 1, 4);
    assert_eq!(reader.hold(more), Status::Ok);
    assert_eq!(view.read(100 * 4096, 4), b"more");
}

#[test]
fn an_object_outlives_its_maker_as_long_as_it_is_held() {
    let node = NodeProcess::start(&["--pool", "16MiB", "--grace", "50ms"]);
    let mut writer = Client::local(node.unix());
    let (info, mut arena) = writer.lease(64, 4).expect("a lease");
    let bytes = pattern(2, 4096);
    arena.write(0, &bytes);
    let id = writer.commit(info.segment, 0, 1, 4096);
    let mut reader = Client::local(node.unix());
    assert_eq!(reader.hold(id), Status::Ok);
    writer.bye();
    let stats = node.wait_for("the writer's unpublished pages", |stats| stats.unpublished_pages == 0);
    assert_eq!((stats.objects.get(), stats.live_pages.get()), (1, 1));
    assert_eq!(reader.read(id, 0, 4096), Ok(bytes));
    reader.bye();
    node.wait_for("all of it", |stats| stats.committed_pages == 0 && stats.objects == 0);
}

/// Run as a process of its own by the test below, which kills it.
#[test]
#[ignore = "a part of the test below"]
fn a_client_that_is_killed() {
    let address = std::env::var("NODE").expect("run by the test below").parse().expect("a URL");
    let mut client = Client::local(&address);
    let (info, mut arena) = client.lease(256, 16).expect("a lease");
    arena.write(0, &pattern(5, 8 * 4096));
    let id = client.commit(info.segment, 0, 8, 8 * 4096);
    client.sync();
    writeln!(std::io::stdout(), "committed {id}").expect("somebody listens");
    std::io::stdin().lines().for_each(drop);
}

#[test]
fn a_client_killed_with_holds_and_unpublished_pages_leaves_nothing_behind() {
    let node = NodeProcess::start(&["--pool", "16MiB", "--grace", "100ms"]);
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "a_client_that_is_killed", "--ignored", "--nocapture"])
        .env("NODE", node.unix().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program, again");
    let stdout = BufReader::new(child.stdout.take().expect("piped"));
    let ready = stdout.lines().map_while(Result::ok).any(|line| line.starts_with("committed"));
    assert!(ready, "the client got as far as its commit");
    let before = node.stats();
    assert_eq!((before.live_pages.get(), before.unpublished_pages.get()), (8, 248));
    assert_eq!((before.objects.get(), before.holds.get(), before.sessions.get()), (1, 1, 2));

    child.kill().expect("our child");
    child.wait().expect("our child");
    let after = node.wait_for("everything of the dead client", |stats| {
        stats.committed_pages == 0 && stats.sessions == 1 && stats.objects == 0
    });
    assert_eq!((after.holds.get(), after.live_pages.get(), after.quarantined_pages.get()), (0, 0, 0));
    // And the node goes on.
    let mut client = Client::local(node.unix());
    client.lease(4096, 1).map(drop).expect("the whole pool is there again");
}

#[test]
fn a_full_pool_says_so_and_serves_again_when_something_comes_free() {
    let node = NodeProcess::start(&["--pool", "4MiB", "--grace", "10ms"]);
    let mut first = Client::local(node.unix());
    let held = first.lease(1024, 4).expect("all of it");
    let mut second = Client::local(node.unix());
    assert_eq!(second.lease(1, 1).map(drop), Err(Status::OutOfMemory));
    assert_eq!(second.write(b"bytes").map(drop), Err(Status::OutOfMemory));
    drop(held);
    first.bye();
    node.wait_for("the pages of the first", |stats| stats.committed_pages == 0);
    second.lease(1024, 1).map(drop).expect("all of it");
}

#[test]
fn a_quota_holds() {
    let node = NodeProcess::start(&["--pool", "16MiB", "--quota", "1MiB"]);
    let mut client = Client::local(node.unix());
    assert_eq!(client.welcome.quota_pages, 256);
    assert_eq!(client.lease(257, 1).map(drop), Err(Status::QuotaExceeded));
    client.lease(256, 1).map(drop).expect("within the quota");
    assert_eq!(client.lease(1, 1).map(drop), Err(Status::QuotaExceeded));
    // Asking for more than there is gives what there is; asking for less gives less.
    let greedy = Client::open(node.unix(), &Terms { quota_pages: 1 << 20, ..Terms::default() }).expect("a session");
    assert_eq!(greedy.welcome.quota_pages, 256);
    let modest = Client::open(node.unix(), &Terms { quota_pages: 16, ..Terms::default() }).expect("a session");
    assert_eq!(modest.welcome.quota_pages, 16);
}

#[test]
fn segments_of_every_size() {
    let node = NodeProcess::start(&["--pool", "256MiB", "--hugepages", "auto"]);
    let mut client = Client::local(node.unix());
    for pages in [1, 2, 511, 512, 513, 1024, 1024, 1024, 8192, 1, 16384] {
        let (info, mut arena) = client.lease(pages, 1).expect("a lease");
        let len = info.pages as usize * 4096;
        assert!(info.pages >= pages);
        assert_eq!(arena.read(0, len), vec![0; len]);
        let bytes = pattern(pages.into(), 4096);
        arena.write(len - 4096, &bytes);
        let id = client.commit(info.segment, info.pages - 1, 1, 4096);
        assert_eq!(client.read(id, 0, 4096), Ok(bytes));
    }
}
