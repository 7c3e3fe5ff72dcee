//! The conformance suite on the hub between processes, and what only such a hub has. Both sides are in this process, which
//! makes no difference to them: they have a core each, a socket between them, and two mappings of the memory.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::time::Duration;

use vdstream::clock::{SystemClock, timeout};
use vdstream::testing::transport_suite;
use vdstream::vdi::client::{self, BufferHandle, Completion};
use vdstream::vdi::server::{self, Command};
use vdstream::vdi::{CompletionCode, Config, ServerConfig, ShmHub, ShmOptions, Status};
use vdstream::{Error, ErrorKind};

fn hub(root: &Path) -> ShmHub {
    ShmHub::open(ShmOptions { directory: Some(root.join("hub")), ..ShmOptions::default() }).unwrap()
}

fn assert_empty(hub: &ShmHub) {
    assert_eq!(std::fs::read_dir(hub.path()).unwrap().count(), 0, "nothing is left in the directory");
}

/// Fails if something hangs.
async fn soon<F: Future>(future: F) -> F::Output {
    timeout(&SystemClock::new(), Some(Duration::from_secs(60)), future).await.expect("nothing hangs")
}

/// A set with both ends open in this process, and its agent as a task.
struct Pair {
    hub: ShmHub,
    client: client::DeviceSet,
    server: server::DeviceSet,
    agent: tokio::task::JoinHandle<Result<(), vdstream::vdi::Error>>,
}

async fn pair(root: &Path, config: Config, buffers: usize) -> Pair {
    let hub = hub(root);
    let client = client::DeviceSet::create(&hub, "set", config).unwrap();
    let server = server::DeviceSet::open(&hub, "set").await.unwrap();
    server.begin_configuration(ServerConfig::default()).unwrap().request_buffers(512, 0, buffers).unwrap();
    server.end_configuration().await.unwrap();
    soon(client.configuration(None)).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let agent = tokio::spawn(server.completion_agent());
    Pair { hub, client, server, agent }
}

fn status<T>(result: Result<T, vdstream::vdi::Error>) -> Option<Status> {
    result.err().map(|error| error.status())
}

#[tokio::test]
async fn the_hub_between_processes_passes_the_transport_suite() {
    let root = tempfile::tempdir().unwrap();
    let hub = hub(root.path());
    soon(transport_suite::all(&hub, root.path())).await.unwrap();
    assert_empty(&hub);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_hub_between_processes_passes_the_transport_suite_on_threads() {
    for _ in 0..3 {
        let root = tempfile::tempdir().unwrap();
        let hub = hub(root.path());
        soon(transport_suite::all(&hub, root.path())).await.unwrap();
        assert_empty(&hub);
    }
}

#[tokio::test]
async fn a_secondary_client_serves_devices_and_gets_what_was_queued_before_it_came() {
    let root = tempfile::tempdir().unwrap();
    let Pair { hub, client, server, agent } = pair(root.path(), Config::pipe(2), 16).await;
    let outputs = [server.open_device().unwrap(), server.open_device().unwrap()];
    let mut answers = Vec::new();
    for number in 0..4 {
        for output in &outputs {
            let mut buffer = server.allocate_buffer(512, 0).unwrap();
            buffer.fill(number * 2 + u8::try_from(output.index()).unwrap());
            answers.push(output.send(Command::write(buffer, 512)).unwrap());
        }
    }
    let second = soon(client::DeviceSet::open_in_secondary(&hub, "set")).await.unwrap();
    let mut input = second.open_device("set-2").unwrap();
    assert_eq!(status(second.open_device("set-2")), Some(Status::Protocol));
    assert_eq!(status(client.open_device("set-2")), Some(Status::Protocol), "whoever was first has it");
    let mut first = client.open_all().unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(status(second.open_all()), Some(Status::Open));
    for number in 0..4 {
        for (device, index) in [(&mut first[0], 0), (&mut input, 1)] {
            let command = soon(device.next_command(None)).await.unwrap();
            assert!(command.data().iter().all(|byte| *byte == number * 2 + index));
            command.complete(Completion::transferred(512)).unwrap();
        }
    }
    for answer in answers {
        assert!(soon(answer).await.is_success());
    }
    // The error protocol, with the server two processes away.
    let failing = outputs[1].send(Command::flush()).unwrap();
    let dropped = outputs[1].send(Command::flush()).unwrap();
    let command = soon(input.next_command(None)).await.unwrap();
    command.fail(CompletionCode::DiskFull, Error::new(ErrorKind::Exhausted, "no space")).unwrap();
    let failed = soon(failing).await;
    assert_eq!(failed.code, CompletionCode::DiskFull);
    assert!(failed.reason.unwrap().report().contains("no space"));
    assert_eq!(soon(dropped).await.code, CompletionCode::IoDevice);
    let cleared = outputs[1].send(Command::clear_error()).unwrap();
    let command = soon(input.next_command(None)).await.unwrap();
    command.complete(Completion::success()).unwrap();
    assert!(soon(cleared).await.is_success());
    for output in &outputs {
        output.close().unwrap();
    }
    assert_eq!(status(soon(input.next_command(None)).await), Some(Status::Close));
    assert_eq!(status(soon(first[0].next_command(None)).await), Some(Status::Close));
    soon(agent).await.unwrap().unwrap();
    soon(second.close()).await.unwrap();
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

#[tokio::test]
async fn a_handle_is_mapped_by_another_client_also_in_memory_that_came_late() {
    let root = tempfile::tempdir().unwrap();
    let config = Config { prefix_zone_size: 16, ..Config::pipe(1) };
    let Pair { hub, client, server, agent } = pair(root.path(), config, 1).await;
    let second = soon(client::DeviceSet::open_in_secondary(&hub, "set")).await.unwrap();
    let output = server.open_device().unwrap();
    let mut input = client.open_device("set").unwrap();
    for late in [false, true] {
        if late {
            server.request_buffers(8192, 0, 1).unwrap();
        }
        let size = if late { 8192 } else { 512 };
        let mut buffer = server.allocate_buffer(size, 0).unwrap();
        buffer.fill(7);
        let answer = output.send(Command::write(buffer, size)).unwrap();
        let mut command = soon(input.next_command(None)).await.unwrap();
        command.prefix_mut()[..4].copy_from_slice(b"note");
        let handle = command.buffer_handle().unwrap();
        let number = BufferHandle::from_number(handle.number());
        let mut mapped = second.map_buffer(number).unwrap();
        assert_eq!((mapped.len(), mapped[0], mapped[size - 1]), (size, 7, 7));
        assert_eq!(mapped.prefix_mut()[..4], *b"note", "clients share the prefix zone");
        assert_eq!(status(client.map_buffer(handle)), Some(Status::Busy));
        mapped[0] = 9;
        drop(mapped);
        assert_eq!(client.map_buffer(handle).unwrap()[0], 9);
        command.complete(Completion::transferred(size)).unwrap();
        assert_eq!(status(second.map_buffer(number)), Some(Status::Invalid));
        assert!(soon(answer).await.buffer.is_some());
    }
    // Mapped beyond the end of its command: the server gets its answer without the buffer, and the memory later.
    let answer = output.send(Command::write(server.allocate_buffer(512, 0).unwrap(), 512)).unwrap();
    let mut command = soon(input.next_command(None)).await.unwrap();
    let mapped = second.map_buffer(command.buffer_handle().unwrap()).unwrap();
    command.complete(Completion::transferred(512)).unwrap();
    assert!(soon(answer).await.buffer.is_none());
    let before = server.query_available_buffers(512, 0).unwrap();
    drop(mapped);
    soon(async {
        while server.query_available_buffers(512, 0).unwrap() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    output.close().unwrap();
    assert_eq!(status(soon(input.next_command(None)).await), Some(Status::Close));
    soon(agent).await.unwrap().unwrap();
    soon(second.close()).await.unwrap();
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

/// Waits until that many buffers can be allocated.
async fn until_free(server: &server::DeviceSet, free: usize) {
    soon(async {
        while server.query_available_buffers(512, 0).unwrap() != free {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The one buffer of a set is lent by a second client, and given back by whoever maps it before or after the others learn that its
/// command has ended. It comes back to the server each time, and all who saw it let it be used again.
#[tokio::test]
async fn a_buffer_that_is_mapped_beyond_its_command_comes_back_however_the_news_overtake_each_other() {
    let root = tempfile::tempdir().unwrap();
    let Pair { hub, client, server, agent } = pair(root.path(), Config::pipe(1), 1).await;
    let second = soon(client::DeviceSet::open_in_secondary(&hub, "set")).await.unwrap();
    let third = soon(client::DeviceSet::open_in_secondary(&hub, "set")).await.unwrap();
    let (output, mut input) = (server.open_device().unwrap(), second.open_device("set").unwrap());
    let free = server.query_available_buffers(512, 0).unwrap();
    for by in [&client, &second, &third] {
        for is_answered_first in [false, true, false] {
            let buffer = server.allocate_buffer(512, 0).unwrap();
            let mut answer = output.send(Command::write(buffer, 512)).unwrap();
            let mut command = soon(input.next_command(None)).await.unwrap();
            let mapped = by.map_buffer(command.buffer_handle().unwrap()).unwrap();
            command.complete(Completion::transferred(512)).unwrap();
            let completion = if is_answered_first {
                let completion = soon(&mut answer).await;
                drop(mapped);
                completion
            } else {
                // Nobody has read of the end of the command.
                drop(mapped);
                soon(&mut answer).await
            };
            assert!(completion.is_success() && completion.buffer.is_none());
            until_free(&server, free).await;
        }
    }
    output.close().unwrap();
    assert_eq!(status(soon(input.next_command(None)).await), Some(Status::Close));
    soon(agent).await.unwrap().unwrap();
    soon(second.close()).await.unwrap();
    soon(third.close()).await.unwrap();
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

#[tokio::test]
async fn a_secondary_that_leaves_with_a_device_open_aborts_the_set_for_all() {
    let root = tempfile::tempdir().unwrap();
    let Pair { hub, client, server, agent } = pair(root.path(), Config::pipe(2), 4).await;
    let second = soon(client::DeviceSet::open_in_secondary(&hub, "set")).await.unwrap();
    let output = server.open_device().unwrap();
    let answer = output.send(Command::flush()).unwrap();
    let input = second.open_device("set").unwrap();
    assert_eq!(status(soon(second.close()).await), Some(Status::Open));
    let completion = soon(answer).await;
    assert_eq!(completion.code, CompletionCode::OperationAborted);
    assert!(
        completion.reason.unwrap().report().contains("the client closed the device set while devices were open: set")
    );
    assert_eq!(status(soon(agent).await.unwrap()), Some(Status::Abort));
    drop(input);
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

#[tokio::test]
async fn the_queue_is_as_deep_as_agreed_and_room_comes_when_the_client_takes() {
    let root = tempfile::tempdir().unwrap();
    let Pair { hub, client, server, agent } = pair(root.path(), Config::pipe(1), 4).await;
    let output = server.open_device().unwrap();
    let mut input = client.open_device("set").unwrap();
    let mut answers: Vec<_> = (0..4).map(|_| output.send(Command::flush()).unwrap()).collect();
    assert_eq!(output.send(Command::flush()).err().map(|error| error.status()), Some(Status::QueueFull));
    let held = soon(input.next_command(None)).await.unwrap();
    // Taken is enough, nothing is completed.
    answers.push(soon(output.send_when_ready(Command::flush())).await.unwrap());
    assert_eq!(output.send(Command::flush()).err().map(|error| error.status()), Some(Status::QueueFull));
    held.complete(Completion::success()).unwrap();
    for _ in 0..4 {
        soon(input.next_command(None)).await.unwrap().complete(Completion::success()).unwrap();
    }
    for answer in answers {
        assert!(soon(answer).await.is_success());
    }
    output.close().unwrap();
    assert_eq!(status(soon(input.next_command(None)).await), Some(Status::Close));
    soon(agent).await.unwrap().unwrap();
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

#[tokio::test]
async fn a_server_whose_open_is_dropped_has_not_opened() {
    let root = tempfile::tempdir().unwrap();
    let hub = hub(root.path());
    let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
    for _ in 0..3 {
        let mut open = Box::pin(server::DeviceSet::open(&hub, "set"));
        assert!(futures::poll!(&mut open).is_pending());
        drop(open);
        tokio::task::yield_now().await;
    }
    // The next one may come before the end of the last one was seen.
    let server = soon(async {
        loop {
            match server::DeviceSet::open(&hub, "set").await {
                Ok(server) => return server,
                Err(error) => assert_eq!(error.status(), Status::Protocol),
            }
        }
    })
    .await;
    soon(server.close()).await.unwrap();
    soon(client.close()).await.unwrap();
    assert_empty(&hub);
}

/// The tasks of a side say goodbye to the other one; the client's frees the name then.
#[tokio::test]
async fn whoever_waits_for_a_closing_that_was_dropped_waits_for_its_tasks_and_the_name() {
    let root = tempfile::tempdir().unwrap();
    let hub = hub(root.path());
    let open = async || {
        let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
        (server::DeviceSet::open(&hub, "set").await.unwrap(), client)
    };

    let (server, client) = open().await;
    assert!(futures::poll!(Box::pin(server.clone().close())).is_pending());
    for _ in 0..2 {
        assert!(futures::poll!(Box::pin(server.wait_closed())).is_pending(), "no task has run yet");
    }
    soon(server.wait_closed()).await;
    assert_empty(&hub);
    soon(client.close()).await.unwrap();

    let (server, client) = open().await;
    assert!(futures::poll!(Box::pin(client.clone().close())).is_pending());
    for _ in 0..2 {
        assert!(futures::poll!(Box::pin(client.wait_closed())).is_pending(), "no task has run yet");
    }
    soon(client.wait_closed()).await;
    assert_empty(&hub);
    soon(server.close()).await.unwrap();
}

#[tokio::test]
async fn memory_is_counted_and_a_client_that_cannot_have_it_says_so() {
    let root = tempfile::tempdir().unwrap();
    let budget = vdstream::buffer::MemoryBudget::new(1 << 20);
    let ours = hub(root.path()).with_budget(&budget);
    let theirs = hub(root.path());
    for (count, fits) in [(32, true), (4096, false)] {
        let client = client::DeviceSet::create(&ours, "set", Config::pipe(1)).unwrap();
        let server = server::DeviceSet::open(&theirs, "set").await.unwrap();
        server.begin_configuration(ServerConfig::default()).unwrap().request_buffers(512, 0, count).unwrap();
        server.end_configuration().await.unwrap();
        let configured = soon(client.configuration(None)).await;
        assert_eq!(configured.is_ok(), fits);
        if let Err(error) = configured {
            assert!(Error::from(error).report().contains("memory limit"));
        }
        soon(server.close()).await.unwrap();
        soon(client.close()).await.unwrap();
        assert_eq!((budget.used(), budget.reserved()), (0, 0));
    }
    assert_empty(&ours);
}
