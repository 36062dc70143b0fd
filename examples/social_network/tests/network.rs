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

/// A Redis server of the test's own, at a socket in a folder.
#[cfg(feature = "redis")]
struct Redis {
    folder: tempfile::TempDir,
    child: std::process::Child,
}

#[cfg(feature = "redis")]
impl Redis {
    /// None if there is no such program here.
    fn start() -> Option<Self> {
        use std::io::{BufRead as _, BufReader};
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--unixsocket"]).arg(socket).current_dir(folder.path());
        let mut child = match command.stdout(std::process::Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => panic!("{error}"),
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("ready to accept connections")), "redis-server does not start");
        // What else it says is for nobody.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { folder, child })
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }
}

#[cfg(feature = "redis")]
impl Drop for Redis {
    fn drop(&mut self) {
        // A panic here would hide why the test failed.
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

#[cfg(feature = "redis")]
#[test]
fn data_at_a_redis_server() {
    let Some(server) = Redis::start() else {
        eprintln!("skipped: no redis-server here (Debian: apt-get install redis-server)");
        return;
    };
    check(&["--database", &server.url()]);
    // Its tables are gone with the network.
    let client = redis::Client::open(server.url()).unwrap();
    let left: u64 = redis::cmd("DBSIZE").query(&mut client.get_connection().unwrap()).unwrap();
    assert_eq!(left, 0);
}

#[cfg(feature = "redis")]
#[test]
fn a_server_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["--database", "redis://127.0.0.1:1/"], folder.path());
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("can't be reached"));
}
