//! The whole network, as a user starts it: real processes, real posts, few requests.

use std::path::Path;
use std::process::{Command, Output};

fn run(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_social-network"))
        .args(["--rounds", "1", "--seconds", "0.1", "--media-bytes", "20000"])
        .args(arguments)
        .env("TMPDIR", folder)
        .output()
        .unwrap()
}

/// Runs it and checks that it found nothing wrong, and left nothing behind.
fn check(arguments: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let Output { status, stdout, stderr } = run(arguments, folder.path());
    let (text, errors) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(status.success(), "{status}: {errors}");
    assert!(text.contains("by value") && text.contains("by reference") && text.contains("Checked"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "files are left");
}

#[test]
fn so_many_at_a_time() {
    check(&["--concurrency", "4"]);
}

#[test]
fn so_many_a_second_and_mostly_posts() {
    check(&["--rate", "50", "--mix", "70,20"]);
}

#[test]
fn a_graph_that_is_none_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let graph = folder.path().join("graph");
    std::fs::write(&graph, "1 2\nnobody\n").unwrap();
    let output = run(&["--graph", graph.to_str().unwrap()], folder.path());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("nobody"));
}
