//! Every command in every mode, on the reference client: what a mode does not have is answered `NotSupported`.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::path::Path;

use tokio_test::{assert_pending, task};
use vdi_support::*;
use vdstream::testing::FileDevice;
use vdstream::vdi::client::{Completion, Handler};
use vdstream::vdi::server::{self, Command, Whence};
use vdstream::vdi::{CommandCode, CompletionCode, Config, Features, ServerConfig, Status};

/// The support matrix: `x` works, `-` is answered `NotSupported`, `wish` works if the client asked for it and is refused by `send`
/// otherwise, `opt` works if the client offered it.
const TABLE: &str = "
    command         | pipe | pipes | disk | disks | tape
    Read            | x    | x     | x    | x     | x
    Write           | x    | x     | x    | x     | x
    ClearError      | x    | x     | x    | x     | x
    Rewind          | -    | -     | -    | -     | x
    WriteMark       | -    | -     | -    | -     | x
    SkipMarks       | -    | -     | -    | -     | x
    SkipBlocks      | -    | -     | -    | -     | x
    Load            | -    | x     | -    | x     | x
    GetPosition     | -    | -     | x    | x     | x
    SetPosition     | -    | -     | x    | x     | x
    Discard         | opt  | opt   | opt  | opt   | opt
    Flush           | x    | x     | x    | x     | x
    Snapshot        | x    | x     | x    | x     | x
    MountSnapshot   | x    | x     | x    | x     | x
    PrepareToFreeze | wish | wish  | wish | wish  | wish
    FileInfoBegin   | -    | -     | -    | -     | -
    FileInfoEnd     | -    | -     | -    | -     | -
    GetError        | -    | -     | -    | -     | -
    Complete        | wish | wish  | wish | wish  | wish
    Other(20)       | -    | -     | -    | -     | -
    Other(0)        | -    | -     | -    | -     | -
";

const MODES: [Features; 5] = [
    Features::PIPE,
    Features::REMOVABLE,
    Features::DISK,
    Features::from_bits(Features::DISK.bits() | Features::REMOVABLE.bits()),
    Features::TAPE,
];

/// An engine that sends one command at a time to a reference client.
struct Engine {
    active: Active,
    files: FileDevice,
    agent: task::Spawn<server::CompletionAgent>,
}

impl Engine {
    fn new(directory: &Path, features: Features) -> Self {
        let active = active_with(Config { features, ..Config::default() }, ServerConfig::default());
        let configuration = active.pair.server.configuration().unwrap();
        let files = FileDevice::open(directory, "device", &configuration, None).unwrap();
        let volume = directory.join("volume");
        std::fs::write(&volume, "the database").unwrap();
        std::fs::write(directory.join("device.snapshot"), "the snapshot").unwrap();
        let mut agent = task::spawn(active.pair.server.completion_agent());
        assert_pending!(agent.poll());
        Self { active, files: files.with_volume(&volume), agent }
    }

    fn command(&self, code: CommandCode) -> Command {
        let buffer = || self.active.pair.server.allocate_buffer(512, 0).unwrap();
        match code {
            CommandCode::Read => Command::read(buffer(), 512),
            CommandCode::Write => Command::write(buffer(), 512),
            other => Command::from_code(other),
        }
    }

    fn run(&mut self, command: Command) -> Result<server::Completion, Status> {
        let future = self.active.devices[0].send(command).map_err(|error| error.status())?;
        let mut command = next(&mut self.active.client_devices[0]);
        let completion = now(self.files.carry_out(&mut command));
        command.complete(completion.unwrap_or_else(|| Completion::failed(CompletionCode::NotSupported))).unwrap();
        assert_pending!(self.agent.poll());
        Ok(now(future))
    }
}

#[test]
fn every_command_in_every_mode_does_what_the_support_matrix_says() {
    let mut lines = TABLE.trim().lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap().len(), MODES.len() + 1);
    let codes = CommandCode::ALL.into_iter().chain([CommandCode::Other(20), CommandCode::Other(0)]);
    let mut rows = 0;
    for (row, code) in lines.zip(codes) {
        assert_eq!(row[0], format!("{code:?}"));
        rows += 1;
        for (mode, cell) in MODES.into_iter().zip(&row[1..]) {
            for offers in [true, false] {
                let extras = Features::DISCARD | Features::SNAPSHOT_PREPARE | Features::REQUEST_COMPLETE;
                let directory = tempfile::tempdir().unwrap();
                let mut engine = Engine::new(directory.path(), if offers { mode | extras } else { mode });
                // So that there is something to read.
                assert!(engine.run(engine.command(CommandCode::Write)).unwrap().is_success());
                if code == CommandCode::Read && mode == Features::TAPE {
                    assert!(engine.run(Command::rewind()).unwrap().is_success());
                }
                let done = engine.run(engine.command(code)).map(|completion| completion.code);
                let is_end_of_data = code == CommandCode::Read && (mode & !Features::REMOVABLE) == Features::PIPE;
                let expected = match (*cell, offers) {
                    // A pipe cannot go back: what was written is behind it.
                    ("x", _) if is_end_of_data && mode == Features::PIPE => Ok(CompletionCode::HandleEof),
                    ("x", _) if is_end_of_data => Ok(CompletionCode::NoDataDetected),
                    ("x", _) | ("wish" | "opt", true) => Ok(CompletionCode::Success),
                    ("-", _) | ("opt", false) => Ok(CompletionCode::NotSupported),
                    ("wish", false) => Err(Status::NotSupported),
                    other => panic!("no cell {other:?}"),
                };
                assert_eq!(done, expected, "{code} in {mode:?}, extras offered: {offers}");
            }
        }
    }
    assert_eq!(rows, 21);
}

/// "Flush also implies end of file: the file must end at the last written position." A header that is read at the start, as
/// validation does, or a position that is set, is not where the data ends.
#[test]
fn a_flush_of_a_disk_keeps_what_was_written_wherever_was_read_since() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("device.0");
    std::fs::write(&path, [7; 4096]).unwrap();
    let mut engine = Engine::new(directory.path(), Features::DISK);
    let length = || std::fs::metadata(&path).unwrap().len();
    assert!(engine.run(Command::flush()).unwrap().is_success());
    assert_eq!(length(), 4096, "nothing was written, so nothing ends");
    for position in [0, 512, 1024] {
        let write = engine.command(CommandCode::Write).at(position);
        assert!(engine.run(write).unwrap().is_success());
    }
    assert!(engine.run(engine.command(CommandCode::Read)).unwrap().is_success());
    assert!(engine.run(Command::set_position(0, Whence::Beginning)).unwrap().is_success());
    assert!(engine.run(Command::flush()).unwrap().is_success());
    assert_eq!(length(), 1536, "a longer old file is cut, what was written stays");
}

/// A block address that the device never gave is refused, and nothing is computed with it.
#[test]
fn a_tape_refuses_an_address_beyond_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut engine = Engine::new(directory.path(), Features::TAPE);
    assert!(engine.run(engine.command(CommandCode::Write)).unwrap().is_success());
    let end = engine.run(Command::get_position()).unwrap().position;
    for (address, code) in [(end, CompletionCode::Success), (end + 1, CompletionCode::NoDataDetected)] {
        let moved = engine.run(Command::set_position(address, Whence::Beginning)).unwrap();
        assert_eq!((moved.code, moved.position), (code, end));
    }
    assert!(engine.run(Command::clear_error()).unwrap().is_success());
    let far = engine.run(Command::set_position(u64::MAX, Whence::Beginning)).unwrap();
    assert_eq!((far.code, far.position), (CompletionCode::NoDataDetected, end));
    assert!(engine.run(Command::clear_error()).unwrap().is_success());
    assert_eq!(engine.run(Command::skip_blocks(i32::MAX)).unwrap().code, CompletionCode::NoDataDetected);
}
