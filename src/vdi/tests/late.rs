//! What a client does too late: the command was answered by an abort or a close, and only its memory is left to be placed.

use std::sync::Arc;

use futures::FutureExt;

use super::super::area::Area;
use super::super::client::{self, Completion};
use super::super::server::{self, Command};
use super::super::{CompletionCode, Config, LocalHub, ServerConfig, Status};

const BLOCK: usize = 512;

struct Late {
    client: client::DeviceSet,
    server: server::DeviceSet,
    input: client::Device,
    area: Arc<Area>,
    command: client::Command,
}

/// The client holds one write, whose buffer is the only one that is out.
fn held() -> Late {
    let hub = LocalHub::new();
    let client = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    server.begin_configuration(ServerConfig::default()).unwrap().request_buffers(BLOCK, 0, 4).unwrap();
    now(server.end_configuration()).unwrap();
    now(client.configuration(None)).unwrap();
    let (mut input, output) = (client.open_device("set").unwrap(), server.open_device().unwrap());
    let buffer = server.allocate_buffer(BLOCK, 0).unwrap();
    let area = Arc::clone(&buffer.area);
    drop(output.send(Command::write(buffer, BLOCK)).unwrap());
    let command = now(input.next_command(None)).unwrap();
    Late { client, server, input, area, command }
}

fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("ready at once")
}

fn stop() -> crate::Error {
    crate::Error::new(crate::ErrorKind::Denied, "stop")
}

/// Bytes that are out, and blocks that wait to be used again.
fn memory(area: &Area) -> (u64, usize) {
    let inner = area.inner.lock();
    (inner.taken, inner.free.len())
}

type Ending = fn(client::Command) -> Result<(), Status>;

/// Every way to end a command that is held.
const ENDINGS: [Ending; 3] = [
    |command| command.complete(Completion::transferred(BLOCK)).map_err(|error| error.status()),
    |command| command.fail(CompletionCode::DiskFull, stop()).map_err(|error| error.status()),
    |command| {
        drop(command);
        Err(Status::Abort)
    },
];

#[test]
fn the_buffer_of_a_completion_after_an_abort_goes_back_to_its_area() {
    for ending in ENDINGS {
        for is_lent in [false, true] {
            let Late { client, server, input, area, mut command } = held();
            let handle = is_lent.then(|| command.buffer_handle().unwrap());
            client.abort(stop()).unwrap();
            assert_eq!(memory(&area), (BLOCK as u64, 0), "the client holds it until it lets go");
            assert_eq!(ending(command), Err(Status::Abort));
            assert_eq!(memory(&area), (0, 1), "and then it is free");
            if let Some(handle) = handle {
                assert_eq!(client.map_buffer(handle).unwrap_err().status(), Status::Invalid, "the loan is over");
            }
            drop((input, server, client));
            assert_eq!(Arc::strong_count(&area), 1, "nobody keeps a buffer of it");
        }
    }
}

#[test]
fn the_buffer_of_a_completion_after_close_is_freed_by_it() {
    for ending in ENDINGS {
        let Late { client, server, input, area, command } = held();
        assert!(now(server.close()).is_err(), "its device is open");
        assert_eq!(memory(&area), (0, 0), "detached: nothing is counted");
        assert_eq!(command.data().len(), BLOCK, "and still valid");
        assert_eq!(ending(command), Err(Status::Abort));
        assert_eq!(memory(&area), (0, 0), "not kept for anybody");
        drop((input, client));
        assert_eq!(Arc::strong_count(&area), 1, "nobody keeps a buffer of it");
    }
}

/// A buffer that is mapped when its command ends late is placed by whoever unmaps it.
#[test]
fn a_mapped_buffer_goes_back_when_it_is_unmapped_after_a_late_completion() {
    let Late { client, server, input, area, mut command } = held();
    let handle = command.buffer_handle().unwrap();
    let mapped = client.map_buffer(handle).unwrap();
    server.abort(stop()).unwrap();
    assert_eq!(command.complete(Completion::success()).unwrap_err().status(), Status::Abort);
    assert_eq!(memory(&area), (BLOCK as u64, 0));
    drop(mapped);
    assert_eq!(memory(&area), (0, 1));
    drop((input, client, server));
    assert_eq!(Arc::strong_count(&area), 1);
}
