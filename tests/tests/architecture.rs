//! The rooms and the arrows between them, as ARCHITECTURE.md draws them.

use std::process::Command;

/// Every arrow that is allowed. `acceptance` may use anything.
const EDGES: [(&str, &[&str]); 9] = [
    ("envelope-format", &[]),
    ("worker", &["envelope-format"]),
    ("runtime", &["envelope-format"]),
    ("registry", &["envelope-format"]),
    ("server", &["envelope-format", "runtime"]),
    ("batch", &["envelope-format", "runtime"]),
    (
        "cli",
        &["envelope-format", "runtime", "registry", "server", "batch"],
    ),
    (
        "model-envelope-python",
        &["envelope-format", "runtime", "registry", "worker"],
    ),
    (
        "acceptance",
        &["envelope-format", "runtime", "registry", "server", "batch"],
    ),
];

#[test]
fn arrows_go_only_where_the_picture_says() {
    for package in metadata()["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        let Some((_, allowed)) = EDGES.iter().find(|(room, _)| *room == name) else {
            panic!("`{name}` is not a room of ARCHITECTURE.md: add it there and here");
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let target = dependency["name"].as_str().expect("a name");
            let ours = dependency["path"].is_string();
            let only_tests = dependency["kind"] == "dev" && target == "acceptance";
            assert!(
                !ours || only_tests || allowed.contains(&target),
                "`{name}` uses `{target}`, an arrow that ARCHITECTURE.md does not draw"
            );
        }
    }
}

#[test]
fn only_the_worker_and_the_package_know_python() {
    for room in ["cli", "server", "batch", "registry", "runtime"] {
        let tree = cargo(&[
            "tree",
            "--package",
            room,
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]);
        assert!(!tree.contains("pyo3"), "`{room}` has pyo3 below it");
    }
}

fn metadata() -> serde_json::Value {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps"]);
    serde_json::from_str(&text).expect("cargo metadata prints JSON")
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(acceptance::root())
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}
