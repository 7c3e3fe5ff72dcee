//! The conformance suite on the hub within a process, and the modes of the reference client.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use tokio_test::{assert_pending, task};
use vdi_support::*;
use vdstream::testing::{FileDevice, transport_suite};
use vdstream::vdi::client::{Completion, Handler};
use vdstream::vdi::server::{self, Command, Whence};
use vdstream::vdi::{CommandCode, CompletionCode, Config, Features, LocalHub, ServerConfig};

#[tokio::test]
async fn the_local_hub_passes_the_transport_suite() {
    let directory = tempfile::tempdir().unwrap();
    transport_suite::all(&LocalHub::new(), directory.path()).await.unwrap();
}

/// An engine that sends one command at a time to a reference client.
struct Engine {
    active: Active,
    files: FileDevice,
    agent: task::Spawn<server::CompletionAgent>,
}

impl Engine {
    fn new(directory: &std::path::Path, features: Features, media: Features, capacity: Option<u64>) -> Self {
        let config = Config { features, eom_warning_size: 512, ..Config::default() };
        let active = active_with(config, ServerConfig { features: media, ..ServerConfig::default() });
        let configuration = active.pair.server.configuration().unwrap();
        let files = FileDevice::open(directory, "device", &configuration, capacity).unwrap();
        let mut agent = task::spawn(active.pair.server.completion_agent());
        assert_pending!(agent.poll());
        Self { active, files, agent }
    }

    fn run(&mut self, command: Command) -> server::Completion {
        let future = self.active.devices[0].send(command).unwrap();
        let mut command = next(&mut self.active.client_devices[0]);
        let completion = now(self.files.carry_out(&mut command));
        command.complete(completion.unwrap_or_else(|| Completion::failed(CompletionCode::NotSupported))).unwrap();
        assert_pending!(self.agent.poll());
        let completion = now(future);
        if !matches!(completion.code, CompletionCode::Success | CompletionCode::EndOfMedia) {
            let cleared = self.active.devices[0].send(Command::clear_error()).unwrap();
            next(&mut self.active.client_devices[0]).complete(Completion::success()).unwrap();
            assert_pending!(self.agent.poll());
            assert!(now(cleared).is_success());
        }
        completion
    }

    fn write(&mut self, byte: u8, position: u64) -> CompletionCode {
        let mut buffer = self.active.pair.server.allocate_buffer(512, 0).unwrap();
        buffer.fill(byte);
        self.run(Command::write(buffer, 512).at(position)).code
    }

    /// The code, the count, and the byte that all of the data is.
    fn read(&mut self, position: u64) -> (CompletionCode, usize, u8) {
        let buffer = self.active.pair.server.allocate_buffer(512, 0).unwrap();
        let done = self.run(Command::read(buffer, 512).at(position));
        let data = &done.buffer.as_deref().unwrap()[..done.bytes_transferred];
        let byte = data.first().copied().unwrap_or(0);
        assert!(data.iter().all(|other| *other == byte));
        (done.code, done.bytes_transferred, byte)
    }
}

#[test]
fn a_disk_is_written_anywhere_and_flush_fixes_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::new(directory.path(), Features::DISK, Features::WRITE_MEDIA, None);
    for (byte, position) in [(1, 0), (2, 512), (3, 1024), (9, 512)] {
        assert_eq!(engine.write(byte, position), CompletionCode::Success);
    }
    assert_eq!(engine.read(1024), (CompletionCode::Success, 512, 3));
    assert_eq!(engine.read(512), (CompletionCode::Success, 512, 9));
    assert_eq!(engine.run(Command::set_position(0, Whence::End)).position, 1536);
    assert_eq!(engine.run(Command::set_position(0, Whence::Current)).position, 1536);
    assert_eq!(engine.run(Command::set_position(1024, Whence::Beginning)).position, 1024);
    assert_eq!(engine.run(Command::get_position()).position, 1024);
    assert!(engine.run(Command::flush()).is_success());
    assert_eq!(engine.files.medium_path(0).metadata().unwrap().len(), 1024, "the end is where the last write ended");
    assert_eq!(engine.run(Command::rewind()).code, CompletionCode::NotSupported);
}

#[test]
fn a_tape_has_marks_and_positions() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::new(directory.path(), Features::TAPE, Features::WRITE_MEDIA, None);
    let mut positions = Vec::new();
    for byte in 1..=3 {
        positions.push(engine.run(Command::get_position()).position);
        assert_eq!(engine.write(byte, 0), CompletionCode::Success);
        assert!(engine.run(Command::write_mark()).is_success());
    }
    assert!(engine.run(Command::rewind()).is_success());
    assert_eq!(engine.read(0), (CompletionCode::Success, 512, 1));
    assert_eq!(engine.read(0), (CompletionCode::FilemarkDetected, 0, 0));
    assert_eq!(engine.read(0), (CompletionCode::Success, 512, 2));
    assert!(engine.run(Command::skip_marks(-1)).is_success());
    assert_eq!(engine.read(0).0, CompletionCode::FilemarkDetected);
    assert!(engine.run(Command::skip_marks(1)).is_success());
    assert_eq!(engine.read(0), (CompletionCode::Success, 512, 3));
    for (byte, position) in (1..).zip(positions) {
        assert_eq!(engine.run(Command::set_position(position, Whence::Beginning)).position, position);
        assert_eq!(engine.read(0), (CompletionCode::Success, 512, byte));
    }
    assert_eq!(engine.run(Command::skip_marks(2)).code, CompletionCode::NoDataDetected);
    assert_eq!(engine.run(Command::skip_marks(-4)).code, CompletionCode::Other(1102));
    assert!(engine.run(Command::skip_blocks(1)).is_success());
    assert_eq!(engine.run(Command::skip_blocks(1)).code, CompletionCode::FilemarkDetected);
    assert!(engine.run(Command::skip_blocks(1)).is_success());
    assert!(engine.run(Command::skip_blocks(-1)).is_success());
    assert_eq!(engine.run(Command::skip_blocks(-1)).code, CompletionCode::FilemarkDetected);
    assert!(engine.run(Command::flush()).is_success());

    let mut again = Engine::new(directory.path(), Features::TAPE, Features::READ_MEDIA, None);
    assert!(again.run(Command::skip_marks(2)).is_success());
    assert_eq!(again.read(0), (CompletionCode::Success, 512, 3), "marks are kept with the medium");
}

#[test]
fn removable_media_warn_before_their_end_and_the_next_one_is_loaded() {
    let directory = tempfile::tempdir().unwrap();
    let features = Features::PIPE | Features::REMOVABLE;
    let mut engine = Engine::new(directory.path(), features, Features::WRITE_MEDIA, Some(1536));
    assert_eq!(engine.write(1, 0), CompletionCode::Success);
    assert_eq!(engine.write(2, 0), CompletionCode::EndOfMedia, "stored, and the warning zone is reached");
    assert_eq!(engine.write(3, 0), CompletionCode::EndOfMedia);
    assert_eq!(engine.write(4, 0), CompletionCode::EomOverflow);
    assert!(engine.run(Command::load()).is_success());
    assert_eq!(engine.write(4, 0), CompletionCode::Success);
    assert!(engine.run(Command::flush()).is_success());

    let mut again = Engine::new(directory.path(), features, Features::READ_MEDIA, None);
    for byte in 1..=3 {
        assert_eq!(again.read(0), (CompletionCode::Success, 512, byte));
    }
    assert_eq!(again.read(0), (CompletionCode::NoDataDetected, 0, 0));
    assert!(again.run(Command::load()).is_success());
    assert_eq!(again.read(0), (CompletionCode::Success, 512, 4));
    assert_eq!(again.run(Command::load()).code, CompletionCode::NoDataDetected);
}

#[test]
fn a_full_pipe_reports_what_it_stored_and_discard_empties_it() {
    let directory = tempfile::tempdir().unwrap();
    let features = Features::PIPE | Features::DISCARD;
    let mut engine = Engine::new(directory.path(), features, Features::WRITE_MEDIA, Some(700));
    assert_eq!(engine.write(1, 0), CompletionCode::Success);
    let buffer = engine.active.pair.server.allocate_buffer(512, 0).unwrap();
    let done = engine.run(Command::write(buffer, 512));
    assert_eq!((done.code, done.bytes_transferred), (CompletionCode::DiskFull, 188));
    assert!(engine.run(Command::from_code(CommandCode::Discard)).is_success());
    assert_eq!(engine.write(1, 0), CompletionCode::Success);
}
