//! A pool in a file that several processes map, each by a path of its own, with no hardware that keeps it coherent.

mod rig;

use dmrpc_memnode::NodeConfig;
use dmrpc_objstore::{AnyRef, CacheLines, EmbeddedOptions, Granted, Store, StoreError, StoreOptions, block_on};
use dmrpc_wire::Coherence;
use rig::process::{Player, role, tell};
use rig::{PATIENCE, node, pattern, pool};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Bytes of the objects that are passed.
const SIZES: [usize; 4] = [4096, 5000, 100_000, (1 << 20) + 1];
/// Where an object is edited, and what it becomes there.
const EDIT: (u64, &[u8]) = (70_000, b"edited");

fn lines(bytes: usize) -> u64 {
    bytes.div_ceil(64) as u64
}

fn flushed(pool_file: &Path) -> NodeConfig {
    NodeConfig { pool_file: Some(pool_file.to_owned()), coherence: Coherence::Flush, ..pool(64 << 20) }
}

fn bytes(granted: &str, store: &Store) -> Vec<u8> {
    let granted: Granted = granted.parse().expect("a grant");
    block_on(async { store.redeem(&granted).await?.get().await }).expect("it is there").as_bytes().to_vec()
}

/// Whether this process has mapped the file at that path, as its own mounts name it.
fn has_mapped(path: &str) -> bool {
    std::fs::read_to_string("/proc/self/maps").expect("what is mapped").lines().any(|line| line.ends_with(path))
}

#[test]
#[ignore = "a part that another process plays"]
fn play() {
    let Some((role, argument)) = role() else { return };
    let [url, folder, own] = argument.split(' ').collect::<Vec<_>>()[..] else { panic!("three words: {argument}") };
    // These mounts are this process's alone.
    let status = Command::new("mount").args(["--bind", folder, own]).status().expect("mount is there");
    assert!(status.success(), "mount: {status}");
    let path = format!("{own}/pool");
    let mut options = StoreOptions::new(url);
    options.pool_at = Some(path.clone().into());
    options.deadline = PATIENCE;
    let store = block_on(Store::connect_with(options)).expect("the node is there");
    let grant = |any: &AnyRef| block_on(any.grant(Duration::from_secs(600))).expect("a grant").to_string();
    match role.as_str() {
        "writer" => {
            let mut expected = 0;
            let mut last = None;
            for size in SIZES {
                let object = block_on(store.put(pattern(size, 9))).expect("room");
                assert_eq!(store.cache_lines().written_back, expected, "not before it is published");
                let text = grant(object.as_any());
                expected += lines(size);
                assert_eq!(store.cache_lines().written_back, expected);
                tell(&text);
                last = Some(object);
            }
            // Only the page that is written differs, and only it is written back.
            let edited = block_on(async {
                let mut edit = last.expect("there are sizes").edit().await?;
                edit.write(EDIT.0, EDIT.1)?;
                edit.commit().await
            });
            let edited = edited.expect("room for a page");
            let text = grant(edited.as_any());
            assert_eq!(store.cache_lines().written_back, expected + lines(4096));
            assert_eq!(store.cache_lines().dropped, 0, "it was told of nothing");
            tell(&text);
            assert!(has_mapped(&path));
            wait_for_a_line();
            drop(edited);
        }
        "reader" => {
            let mut expected = 0;
            for size in SIZES {
                assert_eq!(bytes(&wait_for_a_line(), &store), pattern(size, 9));
                expected += lines(size);
                assert_eq!(store.cache_lines(), CacheLines { dropped: expected, ..CacheLines::default() });
            }
            let size = SIZES[SIZES.len() - 1];
            let mut edited = pattern(size, 9);
            edited[EDIT.0 as usize..][..EDIT.1.len()].copy_from_slice(EDIT.1);
            assert_eq!(bytes(&wait_for_a_line(), &store), edited);
            assert_eq!(store.cache_lines().dropped, expected + lines(size));
            assert!(has_mapped(&path));
            tell("read");
        }
        other => panic!("no role {other}"),
    }
}

fn wait_for_a_line() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a pipe can be read");
    line.trim_end().to_owned()
}

/// Whether mounts of one's own can be had here.
fn has_mounts() -> bool {
    Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn two_processes_map_one_file_each_in_mounts_of_its_own() {
    if !has_mounts() {
        eprintln!("skipped: a mount namespace takes root (or CAP_SYS_ADMIN) and the program unshare");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir(&path).expect("a folder");
        path
    };
    let (shared, left, right) = (at("shared"), at("left"), at("right"));
    let host = node(flushed(&shared.join("pool")));
    let argument = |own: &Path| format!("{} {} {}", host.url(), shared.display(), own.display());
    let mut writer = Player::start_in_own_mounts("play", "writer", &argument(&left));
    let mut reader = Player::start_in_own_mounts("play", "reader", &argument(&right));
    for _ in 0..=SIZES.len() {
        reader.say(&writer.told());
    }
    assert_eq!(reader.told(), "read");
    assert!(!left.join("pool").exists() && !right.join("pool").exists(), "their mounts are theirs alone");
}

#[test]
fn a_client_over_the_network_reads_and_writes_through_the_node() {
    let folder = tempfile::tempdir().expect("a folder");
    let host = node(flushed(&folder.path().join("pool")));
    let far = rig::remote(&host);
    let pass = |from: &Store, to: &Store, seed| {
        let object = block_on(from.put(pattern(300_000, seed))).expect("room");
        let granted = block_on(object.grant(Duration::from_secs(600))).expect("a grant").to_string();
        assert_eq!(bytes(&granted, to), pattern(300_000, seed));
    };
    pass(&host, &far, 1);
    pass(&far, &host, 2);
    assert_eq!(host.cache_lines().written_back, lines(300_000));
    assert_eq!(host.cache_lines().dropped, lines(300_000));
    assert_eq!(far.cache_lines(), CacheLines::default(), "it maps nothing");
}

#[test]
fn with_coherent_hardware_no_line_is_touched() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = NodeConfig { coherence: Coherence::Hardware, ..flushed(&folder.path().join("pool")) };
    let host = node(config);
    let object = block_on(host.put(pattern(300_000, 1))).expect("room");
    block_on(object.grant(Duration::from_secs(600))).expect("a grant");
    assert_eq!(host.cache_lines(), CacheLines::default());
}

#[test]
fn another_file_is_not_taken_for_the_pool() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = EmbeddedOptions::default();
    options.node = flushed(&folder.path().join("pool"));
    let other = folder.path().join("other");
    std::fs::write(&other, vec![0; 1 << 20]).expect("a file");
    options.store.pool_at = Some(other);
    let store = block_on(Store::embedded_with(options)).expect("a node starts");
    let error = block_on(store.put(pattern(100_000, 1))).expect_err("nothing is written anywhere");
    assert!(matches!(&error, StoreError::Io { why, .. } if why.contains("is not the file")), "{error}");
}

#[test]
fn only_a_file_can_be_without_coherence() {
    let mut options = EmbeddedOptions::default();
    options.node = NodeConfig { coherence: Coherence::Flush, ..pool(8 << 20) };
    let error = block_on(Store::embedded_with(options)).expect_err("it does not start");
    assert!(error.to_string().contains("only a pool file"), "{error}");
}
