//! The whole service, as a user starts it: real processes, real photographs, few requests; and what is left when it ends
//! otherwise than it should.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that has to happen.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder for one run, which its processes can be told by: their arguments name it.
struct Run {
    folder: TempDir,
}

impl Run {
    fn new() -> Self {
        let run = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(run.path("sockets")).unwrap();
        fs::create_dir(run.path("photos")).unwrap();
        for photo in ["chelsea.jpg", "rocket.jpg", "camera.png"] {
            let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("photos").join(photo);
            fs::copy(shipped, run.path("photos").join(photo)).unwrap();
        }
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-transcode"));
        command
            .args(["--quiet", "--side", "128"])
            .args(arguments.split_whitespace())
            .arg("--photos")
            .arg(self.path("photos"))
            .arg("--out")
            .arg(self.path("out"))
            .arg("--json")
            .arg(self.path("report.json"))
            .env("TMPDIR", self.path("sockets"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn report(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("report.json")).unwrap()).unwrap()
    }

    /// The processes of this run that play a tier of this name, or any.
    fn processes(&self, name: &str) -> Vec<Pid> {
        let folder = self.path("sockets").display().to_string();
        let tier = format!("\"name\":\"{name}");
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let of_run = pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains(&folder) && line.contains("--tier") && line.contains(&tier)
        });
        of_run.filter_map(Pid::from_raw).collect()
    }

    fn wait_until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// A run that goes on until it is ended, whose processes are all there.
    fn endless(&self) -> Child {
        let child = self.command("--pool 64MiB --requests 10000000 --rounds 1 --payload-only").spawn().unwrap();
        self.wait_until("the firewall listens", Self::is_up);
        child
    }

    /// The firewall, which is started last, listens.
    fn is_up(&self) -> bool {
        let folders = fs::read_dir(self.path("sockets")).unwrap().filter_map(Result::ok);
        folders.map(|folder| folder.path().join("firewall.sock")).any(|socket| socket.exists())
    }

    fn assert_nothing_is_left(&self) {
        self.wait_until("all processes end", |run| run.processes("").is_empty());
    }
}

fn ended(child: Child) -> (ExitStatus, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status, String::from_utf8(stderr).unwrap())
}

fn pid(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Runs the service and checks the report; gives it for more.
fn check(arguments: &str) -> Value {
    let run = Run::new();
    let output = run.command(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("requests/s") && text.contains("by reference"), "{text}");
    run.assert_nothing_is_left();
    let sockets = fs::read_dir(run.path("sockets")).unwrap();
    assert_eq!(sockets.count(), 0, "sockets are left");

    let report = run.report();
    assert_eq!(report["watermark"]["changed_pages"], 1);
    let live = report["watermark"]["live_pages"].as_u64().unwrap();
    let object = report["watermark"]["object_pages"].as_u64().unwrap();
    assert_eq!(live, object + 1, "original and watermarked picture share all pages but one");
    assert_eq!(report["watermark"]["logical_pages"], 2 * object);
    for name in ["chelsea", "rocket", "camera"] {
        let by = |way: &str| fs::read(run.path("out").join(way).join(format!("{name}.jpg"))).unwrap();
        let (value, reference) = (by("by-value"), by("by-reference"));
        assert!(value == reference, "{name} differs");
        let image = image::load_from_memory(&value).unwrap();
        assert_eq!(image.width().max(image.height()), 128);
    }
    report
}

/// The bytes of images that all tiers but the workers had in their messages, for a request.
fn bytes_between(row: &Value) -> f64 {
    let tiers = row["tiers"].as_array().unwrap();
    let between = tiers.iter().filter(|tier| tier["tier"] != "worker");
    between.map(|tier| tier["image_bytes"].as_f64().unwrap()).sum()
}

#[test]
fn by_value_and_by_reference_over_shared_memory() {
    let report = check("--pool 64MiB --requests 12 --transcodes 6 --rounds 1");
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "three loads, two ways");
    for row in rows {
        let between = bytes_between(row);
        if row["passing"] == "value" {
            // Client, firewall, three balancers, dispatcher.
            assert!(between >= 6.0 * row["mean_bytes"].as_f64().unwrap(), "{row}");
        } else {
            assert_eq!(between, 0.0, "{row}");
        }
    }
    assert_eq!(report["checks"]["written"], 6);
    assert_eq!(report["checks"]["refused"], 12);
}

#[test]
fn by_value_and_by_reference_over_tcp() {
    check("--pool 64MiB --requests 6 --transcodes 3 --rounds 1 --link tcp");
}

#[test]
fn several_of_each_kind_and_large_pages() {
    check(
        "--pool 64MiB --requests 12 --transcodes 6 --rounds 1 --replicas 2 --workers 3 --page 64KiB --size 4KiB,200KiB",
    );
}

#[test]
fn a_tier_that_is_killed_is_named() {
    for tier in ["balancer 2", "worker", "memory node"] {
        let run = Run::new();
        let child = run.endless();
        kill_process(run.processes(tier)[0], Signal::KILL).unwrap();
        let (status, errors) = ended(child);
        assert!(!status.success());
        assert!(errors.contains(tier) && errors.contains("ended unbidden: signal: 9"), "{errors}");
        run.assert_nothing_is_left();
    }
}

#[test]
fn an_interrupt_ends_everything() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let run = Run::new();
        let child = run.endless();
        kill_process(pid(&child), signal).unwrap();
        let (status, _) = ended(child);
        assert_eq!(status.code(), Some(code));
        run.assert_nothing_is_left();
        assert_eq!(fs::read_dir(run.path("sockets")).unwrap().count(), 0, "sockets are left");
    }
}

#[test]
fn the_tiers_do_not_outlive_a_killed_client() {
    let run = Run::new();
    let mut child = run.endless();
    child.kill().unwrap();
    child.wait().unwrap();
    run.assert_nothing_is_left();
}

#[test]
fn a_folder_without_photographs_is_an_error() {
    let run = Run::new();
    fs::remove_dir_all(run.path("photos")).unwrap();
    fs::create_dir(run.path("photos")).unwrap();
    let (status, errors) = ended(run.command("").spawn().unwrap());
    assert!(!status.success() && errors.contains("there is no .jpg"), "{errors}");
}

#[test]
fn a_pool_that_is_too_small_is_an_error() {
    let run = Run::new();
    let (status, errors) = ended(run.command("--pool 64KiB").spawn().unwrap());
    assert!(!status.success() && !errors.contains("panicked"), "{errors}");
    run.assert_nothing_is_left();
}
