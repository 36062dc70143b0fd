//! The services, as a user starts them.

use std::process::Command;

#[test]
fn by_value_and_by_reference() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"all the same, or nearly so. ".repeat(20_000)).unwrap();
    let sockets = folder.path().join("sockets");
    std::fs::create_dir(&sockets).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_offload"))
        .args(["--seconds", "0.05", "--size", "1KiB,20KiB,256KiB"])
        .arg(&file)
        .env("TMPDIR", &sockets)
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert!(text.contains("by reference") && text.contains("256KiB") && text.contains("Checked"), "{text}");
    assert_eq!(std::fs::read_dir(&sockets).unwrap().count(), 0, "sockets are left");
}
