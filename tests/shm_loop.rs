//! Ten thousand device sets, one after the other. Alone in its process, because it counts what the process has.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::time::Duration;

use vdstream::clock::{SystemClock, timeout};
use vdstream::vdi::client::Completion;
use vdstream::vdi::server::Command;
use vdstream::vdi::{Config, ServerConfig, ShmHub, ShmOptions, Status, client, server};
use vdstream::{Error, ErrorKind};

/// Fails if something hangs.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(&SystemClock::new(), Some(Duration::from_secs(60)), future).await.expect("nothing hangs")
}

/// One set: a command goes through it, or it is aborted, or dropped on either side.
async fn round(hub: &ShmHub, number: u32) {
    let client = client::DeviceSet::create(hub, "set", Config::pipe(1)).unwrap();
    let server = server::DeviceSet::open(hub, "set").await.unwrap();
    server.begin_configuration(ServerConfig::default()).unwrap().request_buffers(65_536, 0, 4).unwrap();
    server.end_configuration().await.unwrap();
    soon(client.configuration(None)).await.unwrap();
    match number % 4 {
        0 => {
            let (output, mut input) = (server.open_device().unwrap(), client.open_device("set").unwrap());
            let mut buffer = server.allocate_buffer(65_536, 0).unwrap();
            buffer.fill(7);
            let work = async {
                let answer = output.send(Command::write(buffer, 65_536)).unwrap();
                let command = input.next_command(None).await.unwrap();
                assert!(command.data().iter().all(|byte| *byte == 7));
                command.complete(Completion::transferred(65_536)).unwrap();
                assert!(answer.await.is_success());
                output.close().unwrap();
                assert_eq!(input.next_command(None).await.unwrap_err().status(), Status::Close);
            };
            let (returned, ()) = soon(async { tokio::join!(server.completion_agent(), work) }).await;
            returned.unwrap();
        }
        1 => server.abort(Error::new(ErrorKind::Denied, "enough")).unwrap(),
        2 => client.abort(Error::new(ErrorKind::Denied, "enough")).unwrap(),
        _ => {}
    }
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
}

/// Descriptors, mappings, and kibibytes of memory.
fn counts() -> (usize, usize, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap().matches("vdstream").count();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kibibytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), maps, kibibytes)
}

#[tokio::test]
async fn ten_thousand_sets_leave_no_memory_no_descriptor_and_no_name() {
    let root = tempfile::tempdir().unwrap();
    let hub = ShmHub::open(ShmOptions { directory: Some(root.path().join("hub")), ..ShmOptions::default() }).unwrap();
    for number in 0..200 {
        round(&hub, number).await;
    }
    let (descriptors, mappings, memory) = counts();
    for number in 0..10_000 {
        round(&hub, number).await;
    }
    let after = counts();
    assert_eq!((after.0, after.1), (descriptors, mappings));
    // A set that left 100 bytes would show as 1,000 KiB.
    assert!(after.2 < memory + 1000, "{memory} KiB before, {} KiB after", after.2);
    assert_eq!(std::fs::read_dir(hub.path()).unwrap().count(), 0);
}
