//! What each feature brings in, asked from Cargo.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

use integration::tool;

/// The packages that a user of the library builds with these features.
fn packages(features: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(tool::repository())
        .args(["tree", "--offline", "--package", "vdstream", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}"])
        .args(features)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

fn assert_none(packages: &BTreeSet<String>, unwanted: &[&str], of: &str) {
    let found: Vec<_> = unwanted.iter().filter(|name| packages.contains(**name)).collect();
    assert!(found.is_empty(), "{of} brings in {found:?}");
}

const TLS: &[&str] = &["rustls", "ring", "aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys"];
const HTTP: &[&str] = &["reqwest", "hyper", "h2"];
const COMMAND_LINE: &[&str] = &["clap", "clap_builder", "indicatif", "tracing-subscriber"];
const ENCRYPTION: &[&str] = &["age", "chacha20poly1305", "aes-gcm"];
const TESTS: &[&str] = &["loom", "proptest", "tempfile", "tokio-test"];

#[test]
fn the_default_build_has_no_tls_no_http_no_argument_parser_and_no_encryption() {
    let default = packages(&[]);
    for unwanted in [TLS, HTTP, COMMAND_LINE, ENCRYPTION, TESTS] {
        assert_none(&default, unwanted, "the default build");
    }
    // The question was answered at all.
    assert!(default.contains("tokio") && default.contains("zstd"), "{default:?}");
}

#[test]
fn without_default_features_there_is_no_system_interface() {
    assert_none(&packages(&["--no-default-features"]), &["rustix", "nix", "walkdir"], "the smallest build");
}

#[test]
fn the_command_line_alone_speaks_to_no_cloud() {
    let cli = packages(&["--features", "cli"]);
    assert_none(&cli, TLS, "the feature `cli`");
    assert_none(&cli, HTTP, "the feature `cli`");
    assert!(cli.contains("clap"), "{cli:?}");
}

#[test]
fn every_cloud_uses_rustls_alone() {
    for cloud in ["aws", "azure", "gcp"] {
        let packages = packages(&["--features", cloud]);
        assert_none(&packages, &["native-tls", "openssl", "openssl-sys"], cloud);
        assert!(packages.contains("rustls"), "{cloud} has no TLS");
    }
}
