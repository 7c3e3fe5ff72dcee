//! PostgreSQL for real: `pg_basebackup` of a running cluster goes to the S3 server, and what comes back starts and is right.

// Processes and servers live in real time; helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use integration::chaos::Tool;
use integration::place::Place;
use integration::server::{Cluster, Kind};
use integration::tool::vdstream_command;

/// Big enough for a backup of a few seconds and several segments.
const SCALE: &str = "8";

fn vdstream(place: &Place, arguments: &[&str]) -> Command {
    let mut command = vdstream_command();
    command.envs(place.environment()).args(arguments).stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// `vdstream backup … -- pg_basebackup …`, to stdout as one tar with the WAL that it needs to be consistent.
fn backup(place: &Place, cluster: &Cluster) -> Command {
    let url = place.url();
    let mut command = vdstream(place, &["backup", &url, "--segment-size", "16MiB", "--part-size", "5MiB", "--"]);
    let producer = cluster.client("pg_basebackup");
    command.arg(producer.get_program()).args(producer.get_args());
    command.args(["-D", "-", "-F", "tar", "-X", "fetch", "--checkpoint=fast", "--manifest-checksums=sha256"]);
    command.current_dir("/");
    command
}

/// Writes that never stop: pgbench's own transactions keep the sum of the accounts equal to that of the tellers and of the history.
struct Writes(std::process::Child);

impl Writes {
    fn begin(cluster: &Cluster) -> Self {
        let mut pgbench = cluster.client("pgbench");
        pgbench.args(["-n", "-c", "2", "-T", "600", "postgres"]).stdout(Stdio::null()).stderr(Stdio::null());
        Self(pgbench.spawn().unwrap())
    }
}

impl Drop for Writes {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn history(cluster: &Cluster) -> u64 {
    cluster.query("select count(*) from pgbench_history").parse().unwrap()
}

/// Waits until the writers have written more.
fn until_written(cluster: &Cluster, more: u64) -> u64 {
    let (start, limit) = (history(cluster), Instant::now() + Duration::from_secs(60));
    loop {
        let now = history(cluster);
        if now >= start + more {
            return now;
        }
        assert!(Instant::now() < limit, "pgbench writes nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn written_to() -> Cluster {
    let cluster = Cluster::start();
    let mut fill = cluster.client("pgbench");
    run({
        fill.args(["-i", "-q", "-s", SCALE, "postgres"]);
        fill
    });
    cluster
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_written_to_comes_back_and_its_sums_are_right() {
    let place = Place::server(Kind::Garage).await;
    let cluster = written_to();
    let writes = Writes::begin(&cluster);
    let before = until_written(&cluster, 20);
    run(backup(&place, &cluster));
    let after = until_written(&cluster, 1);
    drop(writes);

    let restored = Cluster::empty();
    let data = restored.data().display().to_string();
    run(vdstream(&place, &["restore", &place.url(), "latest", "--", "tar", "-x", "-C", &data]));
    restored.hand_over();
    // The producer's own manifest: every file with its SHA-256, and the WAL up to the end of the backup.
    let bin = integration::tool::installed("POSTGRES");
    let verified = restored.expect(&["pg_verifybackup", &data]);
    assert!(verified.contains("backup successfully verified"), "{verified} from {}", bin.display());

    let mut restored = restored;
    restored.begin();
    let sums = "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), \
                (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history)";
    let line = restored.query(sums);
    let sums: Vec<_> = line.split('|').collect();
    assert!(sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0]), "a transaction came back in part: {line}");
    let count = history(&restored);
    assert!((before..=after).contains(&count), "{count} transactions came back, there were {before} to {after}");
    assert_eq!(restored.query("select count(*) from pgbench_accounts"), "800000");
    restored.stop();
    let checked = restored.expect(&["pg_checksums", "--check", "-D", &data]);
    assert!(checked.contains("Bad checksums:  0"), "{checked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pg_basebackup_that_is_killed_half_way_leaves_nothing() {
    let place = Place::server(Kind::Garage).await;
    let cluster = written_to();
    let tool = Tool::start(backup(&place, &cluster));
    // Something is stored, so the producer is at work.
    let limit = Instant::now() + Duration::from_secs(60);
    while !place.objects().await.iter().any(|name| name.contains("/uploads/")) {
        assert!(Instant::now() < limit, "nothing is ever stored");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let killed = cluster.query("select count(pg_terminate_backend(pid)) from pg_stat_replication");
    assert_eq!(killed, "1", "the producer was through before it could be killed");
    let ended = tool.wait(Duration::from_secs(100));
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.last_line().contains("exit status: 1"), "{ended:?}");
    place.assert_empty().await;
    assert_eq!(cluster.query("select count(*) from pg_stat_replication"), "0");
}
