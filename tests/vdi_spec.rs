//! What the VDI specification demands, statement by statement.
//!
//! Statement 1, the state tables, is walked by the library's own tests; 13 stands with the close contract and 15 with the
//! no-progress timer; 14 is about the death of processes and concerns the transport across processes.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

mod vdi_support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use vdi_support::*;
use vdstream::testing::SimClock;
use vdstream::vdi::client::{self, BufferHandle, Completion};
use vdstream::vdi::server::{self, Command, Whence};
use vdstream::vdi::{CommandCode, CompletionCode, Config, Features, LocalHub, ServerConfig, Status};

type Agent = task::Spawn<server::CompletionAgent>;

fn running_agent(server: &server::DeviceSet) -> Agent {
    let mut agent = task::spawn(server.completion_agent());
    assert_pending!(agent.poll());
    agent
}

fn create(config: Config) -> Result<client::DeviceSet, Status> {
    client::DeviceSet::create(&LocalHub::new(), "set", config).map_err(|error| error.status())
}

/// Statement 2: "Create with deviceCount 0 and 65; alignment not a power of two; unsupported feature mix -> VD_E_NOTSUPPORTED."
#[test]
fn spec_02_create_refuses_an_unsupported_configuration() {
    for device_count in [1, 2, 63, 64] {
        assert!(create(Config { device_count, ..Config::default() }).is_ok());
    }
    for alignment in [0, 1, 2, 512, 1024, 65_536] {
        assert!(create(Config { alignment, ..Config::default() }).is_ok());
    }
    let wrong = [
        Config { device_count: 0, ..Config::default() },
        Config { device_count: 65, ..Config::default() },
        Config { device_count: u32::MAX, ..Config::default() },
        Config { alignment: 3, ..Config::default() },
        Config { alignment: 1000, ..Config::default() },
        Config { alignment: 131_072, ..Config::default() },
        Config { features: Features::FILE_MARKS, ..Config::default() },
        Config { features: Features::TAPE | Features::RANDOM_ACCESS, ..Config::default() },
        Config { features: Features::WRITE_MEDIA, ..Config::default() },
        Config { features: Features::COMPLETE_ENABLED, ..Config::default() },
        Config { prefix_zone_size: 65_537, ..Config::default() },
        Config { soft_file_mark_block_size: 512, ..Config::default() },
        Config { server_timeout: Duration::MAX, ..Config::default() },
    ];
    for config in wrong {
        assert_eq!(create(config.clone()).unwrap_err(), Status::NotSupported, "{config:?}");
    }
    for name in ["", "a\\b", "a\0b"] {
        let error = client::DeviceSet::create(&LocalHub::new(), name, Config::default()).unwrap_err();
        assert_eq!(error.status(), Status::Invalid);
    }
}

/// Statement 3: "BeginConfiguration: blockSize 256, 1000, 131072; alignment < blockSize; maxTransfer not a 64 KiB multiple;
/// alignment 0 -> blockSize."
#[test]
fn spec_03_begin_configuration_checks_every_bound_and_may_be_tried_again() {
    let hub = LocalHub::new();
    let _client = client::DeviceSet::create(&hub, "set", Config::default()).unwrap();
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    let base = ServerConfig::default;
    let mut wrong = vec![
        ServerConfig { alignment: 256, ..base() },
        ServerConfig { alignment: 1024, block_size: 2048, ..base() },
        ServerConfig { alignment: 1000, ..base() },
        ServerConfig { alignment: 131_072, ..base() },
        ServerConfig { features: Features::DISK, ..base() },
        ServerConfig { device_names: vec!["x".into()], ..base() },
    ];
    wrong.extend([0, 1, 256, 511, 513, 1000, 65_537, 131_072].map(|block_size| ServerConfig { block_size, ..base() }));
    wrong.extend(
        [0, 1, 65_535, 65_537, 100_000, 4_194_303, 4_194_305, 4_259_840, u32::MAX]
            .map(|max_transfer_size| ServerConfig { max_transfer_size, ..base() }),
    );
    wrong.extend([0, 257].map(|max_io_depth| ServerConfig { max_io_depth, ..base() }));
    for config in wrong {
        let error = server.begin_configuration(config.clone()).unwrap_err();
        assert_eq!(error.status(), Status::Invalid, "{config:?}");
        assert_eq!(server.state(), server::State::Connected);
    }
    server.begin_configuration(ServerConfig { block_size: 4096, max_transfer_size: 4_194_304, ..base() }).unwrap();
    let agreed = server.configuration().unwrap();
    assert_eq!((agreed.alignment, agreed.block_size, agreed.max_io_depth), (4096, 4096, 4));
    assert_eq!(server.begin_configuration(base()).unwrap_err().status(), Status::Protocol);
}

/// Statement 4: "EndConfiguration with impossible memory -> VD_E_MEMORY, still Configurable, smaller retry succeeds."
#[test]
fn spec_04_too_much_memory_leaves_the_set_configurable() {
    let hub = LocalHub::new();
    let client = client::DeviceSet::create(&hub, "set", Config::default()).unwrap();
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    let mut waiting = task::spawn(client.configuration(None));
    assert_pending!(waiting.poll());
    server.begin_configuration(ServerConfig::default()).unwrap();
    for count in [65_536, usize::MAX] {
        server.request_buffers(65_536, 0, 1).unwrap().request_buffers(65_536, 0, count).unwrap();
        assert_eq!(now(server.end_configuration()).unwrap_err().status(), Status::Memory);
        assert_eq!(server.state(), server::State::Configurable);
        assert_eq!(server.query_available_buffers(65_536, 0).unwrap(), 0);
        assert!(!waiting.is_woken());
    }
    server.request_buffers(65_536, 0, 2).unwrap();
    assert_eq!(now(server.end_configuration()).unwrap().buffer_area_size, 131_072);
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().buffer_area_size, 131_072);
    assert_eq!(server.query_available_buffers(65_536, 0).unwrap(), 2);
}

/// Statement 5: "RequestBuffers after EndConfiguration grows the area; client (and secondary) can map a buffer from the new area."
#[test]
fn spec_05_the_area_grows_and_a_secondary_maps_a_buffer_of_it() {
    let mut active = active(1);
    let server = &active.pair.server;
    let all: Vec<_> = std::iter::from_fn(|| server.allocate_buffer(512, 0).ok()).collect();
    assert_eq!(all.len(), 16);
    server.request_buffers(512, 0, 1).unwrap();
    assert_eq!(server.query_available_buffers(512, 0).unwrap(), 1);
    let mut buffer = server.allocate_buffer(512, 0).unwrap();
    assert!(server.is_shared_buffer(&buffer));
    assert_eq!(server.allocate_buffer(512, 0).unwrap_err().status(), Status::Memory);
    buffer.fill(7);
    let agent = &mut running_agent(server);
    let future = active.devices[0].send(Command::read(buffer, 512)).unwrap();

    let mut command = next(&mut active.client_devices[0]);
    let handle = command.buffer_handle().unwrap();
    let secondary = now(client::DeviceSet::open_in_secondary(&active.pair.hub, "set")).unwrap();
    let mut mapped = secondary.map_buffer(BufferHandle::from_number(handle.number())).unwrap();
    assert_eq!(active.pair.client.map_buffer(handle).unwrap_err().status(), Status::Busy);
    assert_eq!(mapped[..], [7; 512]);
    mapped.fill(9);
    drop(mapped);
    command.complete(Completion::transferred(512)).unwrap();
    assert_eq!(secondary.map_buffer(handle).unwrap_err().status(), Status::Invalid);
    assert_pending!(agent.poll());
    assert_eq!(now(future).buffer.unwrap()[..], [9; 512]);
}

/// Statement 6: "Data start aligned for prefixZoneSize in {0, 1, 512, 4097}; prefix writes never disturb a neighbour."
#[test]
fn spec_06_data_is_aligned_behind_a_prefix_zone_of_its_own() {
    for prefix in [0, 1, 512, 4097] {
        for alignment in [0, 512, 4096, 65_536] {
            let config = Config { prefix_zone_size: prefix, alignment: 1024, ..Config::pipe(1) };
            let server_config = ServerConfig { alignment: alignment.max(1024), ..ServerConfig::default() };
            let mut active = active_with(config, server_config);
            let expected = alignment.max(1024) as usize;
            let buffers: Vec<_> = (0..4).map(|_| active.pair.server.allocate_buffer(512, 0).unwrap()).collect();
            let mut held = Vec::new();
            for (number, mut buffer) in (0u8..).zip(buffers) {
                assert_eq!(buffer.as_ptr().addr() % expected, 0);
                buffer.fill(number);
                let _future = active.devices[0].send(Command::write(buffer, 512)).unwrap();
                let mut command = next(&mut active.client_devices[0]);
                assert_eq!(command.prefix_mut().len(), prefix as usize);
                command.prefix_mut().fill(0xEE);
                held.push(command);
            }
            for (number, command) in (0u8..).zip(&mut held) {
                assert_eq!(command.data(), [number; 512]);
                assert!(command.prefix_mut().iter().all(|byte| *byte == 0xEE));
            }
        }
    }
}

/// Statement 7: "n devices: n opens then VD_E_OPEN on both sides; open by unknown name -> VD_E_INVALID; same name twice ->
/// VD_E_PROTOCOL."
#[test]
fn spec_07_every_device_opens_once() {
    for count in [1, 2, 64] {
        let pair = configured(Config::pipe(count), ServerConfig::default());
        assert_eq!(pair.client.open_device("unknown").unwrap_err().status(), Status::Invalid);
        let first = pair.client.open_device("set").unwrap();
        assert_eq!((first.name(), first.index()), ("set", 0));
        let again = pair.client.open_device("set").unwrap_err();
        assert_eq!(again.status(), if count == 1 { Status::Open } else { Status::Protocol });
        let rest = if count == 1 { Vec::new() } else { pair.client.open_all().unwrap() };
        assert_eq!(rest.len(), count as usize - 1);
        assert_eq!(pair.client.open_all().unwrap_err().status(), Status::Open);
        assert_eq!(pair.client.open_device("SET").unwrap_err().status(), Status::Invalid, "names are case-sensitive");
        for index in 0..count as usize {
            assert_eq!(pair.server.open_device().unwrap().index(), index);
        }
        assert_eq!(pair.server.open_device().unwrap_err().status(), Status::Open);
    }
}

/// Statement 8: "GetCommand: 0 polls, negative/INFINITE blocks, timeout leaves state unchanged." The same for the configuration.
#[test]
fn spec_08_waiting_polls_blocks_or_times_out() {
    let clock = SimClock::new();
    let hub = LocalHub::with_clock(clock.shared());
    let client = client::DeviceSet::create(&hub, "early", Config::default()).unwrap();
    assert_eq!(now(client.configuration(Some(Duration::ZERO))).unwrap_err().status(), Status::Timeout);
    let mut configuration = task::spawn(client.configuration(Some(Duration::from_millis(90))));
    assert_pending!(configuration.poll());

    let mut active = open_all(configured_on(hub, Config::pipe(1), ServerConfig::default()));
    let device = &mut active.client_devices[0];
    assert_eq!(next_error(device).status(), Status::Timeout);
    let mut timed = task::spawn(device.next_command(Some(Duration::from_millis(90))));
    assert_pending!(timed.poll());
    clock.advance(Duration::from_millis(89));
    assert!(!timed.is_woken() && !configuration.is_woken());
    clock.advance(Duration::from_millis(1));
    assert_eq!(assert_ready!(timed.poll()).unwrap_err().status(), Status::Timeout);
    assert_eq!(assert_ready!(configuration.poll()).unwrap_err().status(), Status::Timeout);
    assert_eq!(client.state(), client::State::Configurable);
    drop(timed);
    let mut endless = task::spawn(active.client_devices[0].next_command(None));
    assert_pending!(endless.poll());
    clock.advance(Duration::from_secs(1 << 40));
    assert!(!endless.is_woken());
    let _future = active.devices[0].send(Command::flush()).unwrap();
    assert!(endless.is_woken());
    assert_eq!(assert_ready!(endless.poll()).unwrap().code(), CommandCode::Flush);
}

/// Statement 9: "Double completion and foreign pointers -> VD_E_INVALID." Completing takes the command by value, so the first does not
/// compile; a foreign buffer is refused.
#[test]
fn spec_09_a_buffer_of_another_set_is_refused_and_comes_back() {
    let (first, second) = (active(1), active(1));
    let foreign = second.pair.server.allocate_buffer(512, 0).unwrap();
    assert!(!first.pair.server.is_shared_buffer(&foreign));
    let error = first.devices[0].send(Command::write(foreign, 512)).unwrap_err();
    assert_eq!(error.status(), Status::Invalid);
    let foreign = error.into_command().into_buffer().unwrap();
    assert!(second.pair.server.is_shared_buffer(&foreign));
    assert_eq!(first.pair.server.free_buffer(foreign).unwrap_err().status(), Status::Invalid);
}

/// A count that a client reports is not believed.
#[test]
fn more_bytes_than_the_command_has_are_an_io_error() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    for (reported, expected) in [(512, CompletionCode::Success), (513, CompletionCode::IoDevice)] {
        let future = active.devices[0].send(write(&active.pair.server)).unwrap();
        let result = next(&mut active.client_devices[0]).complete(Completion::transferred(reported));
        assert_eq!(result.is_ok(), reported == 512);
        assert_pending!(agent.poll());
        let completion = now(future);
        assert_eq!(completion.code, expected);
        assert_eq!(completion.bytes_transferred, if reported == 512 { 512 } else { 0 });
    }
    // Commands that move nothing report nothing.
    let future = active.devices[0].send(Command::clear_error()).unwrap();
    next(&mut active.client_devices[0]).complete(Completion::transferred(9)).unwrap();
    assert_pending!(agent.poll());
    assert_eq!(now(future).bytes_transferred, 0);
}

/// Statement 10: "Error protocol: with 4 delivered + k queued, fail one; k complete with 1117 unseen by the client; ClearError arrives
/// only after the other 3."
#[test]
fn spec_10_the_error_protocol() {
    for queued in [0, 1, 4] {
        let mut active = active(1);
        let mut agent = running_agent(&active.pair.server);
        let (device, client) = (&active.devices[0], &mut active.client_devices[0]);
        let mut delivered = Vec::new();
        let mut futures = Vec::new();
        for _ in 0..4 {
            futures.push(device.send(write(&active.pair.server)).unwrap());
            delivered.push(next(client));
        }
        let dropped: Vec<_> = (0..queued).map(|_| device.send(write(&active.pair.server)).unwrap()).collect();
        let cause = reason("disk full");
        delivered.pop().unwrap().fail(CompletionCode::DiskFull, cause).unwrap();
        assert_pending!(agent.poll());
        for future in dropped {
            let completion = now(future);
            assert_eq!(completion.code, CompletionCode::IoDevice);
            assert!(completion.buffer.is_some());
        }
        let failed = now(futures.pop().unwrap());
        assert_eq!(failed.code, CompletionCode::DiskFull);
        assert_eq!(failed.reason.unwrap().to_string(), "disk full");
        let clear = device.send(Command::clear_error()).unwrap();
        for command in delivered {
            assert_eq!(next_error(client).status(), Status::Timeout, "withheld");
            command.complete(Completion::transferred(512)).unwrap();
        }
        let command = next(client);
        assert_eq!(command.code(), CommandCode::ClearError);
        assert_eq!(next_error(client).status(), Status::Timeout);
        command.complete(Completion::success()).unwrap();
        assert_pending!(agent.poll());
        assert!(now(clear).is_success());
        for future in futures {
            assert!(now(future).is_success());
        }
        let _accepted = device.send(write(&active.pair.server)).unwrap();
    }
}

/// A withheld `ClearError` wakes the client when it may come.
#[test]
fn a_client_that_waits_is_woken_when_clear_error_is_released() {
    let mut active = active(1);
    let device = &active.devices[0];
    let _futures = [device.send(Command::flush()).unwrap(), device.send(Command::flush()).unwrap()];
    let (first, second) = (next(&mut active.client_devices[0]), next(&mut active.client_devices[0]));
    drop(first);
    let _clear = device.send(Command::clear_error()).unwrap();
    let mut waiting = task::spawn(active.client_devices[0].next_command(None));
    assert_pending!(waiting.poll());
    second.complete(Completion::success()).unwrap();
    assert!(waiting.is_woken());
    assert_eq!(assert_ready!(waiting.poll()).unwrap().code(), CommandCode::ClearError);
}

/// Statement 11: "SendCommand in IO-ERROR: returns error and calls back on the same thread; ClearError accepted."
#[test]
fn spec_11_a_refused_send_returns_the_error_and_calls_back_on_the_sending_task() {
    let seen = Arc::new(Mutex::new(None));
    let send = |device: &server::Device, command: Command| {
        let (called, thread) = (Arc::clone(&seen), std::thread::current().id());
        let result = device.send_with(command, move |completion: server::Completion| {
            assert_eq!(std::thread::current().id(), thread);
            *called.lock().unwrap() = Some((completion.code.code(), completion.buffer.is_some()));
        });
        (result.err().map(|error| error.status()), seen.lock().unwrap().take())
    };
    let mut active = active(1);
    let device = &active.devices[0];
    for _ in 0..4 {
        assert_eq!(send(device, Command::flush()), (None, None));
    }
    let full = send(device, write(&active.pair.server));
    assert_eq!(full, (Some(Status::QueueFull), Some((1450, true))));
    drop(next(&mut active.client_devices[0]));
    assert_eq!(send(device, write(&active.pair.server)), (Some(Status::IoError), Some((1117, true))));
    assert_eq!(send(device, Command::clear_error()), (None, None));
    assert_eq!(send(device, Command::complete()), (Some(Status::IoError), Some((1117, false))));
    device.close().unwrap();
    assert_eq!(send(device, Command::clear_error()), (Some(Status::Protocol), Some((6, false))));
    active.pair.client.abort(reason("stop")).unwrap();
    assert_eq!(send(device, Command::clear_error()), (Some(Status::Abort), Some((995, false))));
}

/// Statement 12: "Abort from each side in each state with: blocked GetConfiguration, blocked GetCommand, delivered commands, queued
/// commands. Exactly one callback each, code 995; buffers readable until Close." The blocked calls are tested with close.
#[test]
fn spec_12_an_abort_calls_back_once_for_each_command_and_buffers_stay_readable() {
    let mut active = active(2);
    let mut agent = running_agent(&active.pair.server);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut held = Vec::new();
    for (device, client) in active.devices.iter().zip(&mut active.client_devices) {
        for number in 0..4u8 {
            let mut buffer = active.pair.server.allocate_buffer(512, 0).unwrap();
            buffer.fill(number);
            let seen = Arc::clone(&seen);
            let callback = move |completion: server::Completion| seen.lock().unwrap().push(completion.code.code());
            device.send_with(Command::write(buffer, 512), callback).unwrap();
            if number < 2 {
                held.push((number, next(client)));
            }
        }
    }
    active.pair.client.abort(reason("stop")).unwrap();
    let _ended = assert_ready!(agent.poll());
    assert_eq!(*seen.lock().unwrap(), [995; 8]);
    for (number, command) in held {
        assert_eq!(command.data(), [number; 512]);
        assert_eq!(command.complete(Completion::transferred(512)).unwrap_err().status(), Status::Abort);
    }
    now(active.pair.server.close()).unwrap();
    now(active.pair.client.close()).unwrap();
    assert_eq!(seen.lock().unwrap().len(), 8);
    assert_empty(&active.pair.hub);
}

/// Statement 16: "RESTORE reading in different sizes than BACKUP wrote; short successful read; EOF with partial count; several
/// outstanding reads at EOF."
#[test]
fn spec_16_reads_may_be_short_and_end_while_others_are_outstanding() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    let device = &active.devices[0];
    let read = || Command::read(active.pair.server.allocate_buffer(512, 0).unwrap(), 512);
    let futures: Vec<_> = (0..4).map(|_| device.send(read()).unwrap()).collect();
    let mut commands: Vec<_> = (0..4).map(|_| next(&mut active.client_devices[0])).collect();
    for (number, command) in (1u8..).zip(&mut commands) {
        command.data_mut().fill(number);
    }
    let ends = [
        Completion::transferred(512),
        Completion::transferred(100),
        Completion { bytes_transferred: 7, ..Completion::failed(CompletionCode::HandleEof) },
        Completion::failed(CompletionCode::HandleEof),
    ];
    for (command, end) in commands.into_iter().zip(ends) {
        command.complete(end).unwrap();
    }
    assert_pending!(agent.poll());
    for ((number, end), future) in (1u8..).zip(ends).zip(futures) {
        let completion = now(future);
        assert_eq!((completion.code, completion.bytes_transferred), (end.code, end.bytes_transferred));
        assert!(completion.buffer.unwrap().iter().all(|byte| *byte == number));
    }
    assert_eq!(device.send(read()).unwrap_err().status(), Status::IoError);
    device.close().unwrap();
    assert_eq!(next_error(&mut active.client_devices[0]).status(), Status::Close);
}

/// Statement 17: "Multiple Flush with data afterwards; Complete only if requested; Complete failure fails the backup."
#[test]
fn spec_17_flush_may_come_often_and_complete_only_if_agreed() {
    for (requested, offered) in [(true, true), (true, false), (false, true), (false, false)] {
        let features = if requested { Features::REQUEST_COMPLETE } else { Features::PIPE };
        let offer = if offered { Features::WRITE_MEDIA | Features::COMPLETE_ENABLED } else { Features::WRITE_MEDIA };
        let config = Config { features, ..Config::default() };
        let mut active = active_with(config, ServerConfig { features: offer, ..ServerConfig::default() });
        let mut agent = running_agent(&active.pair.server);
        let device = &active.devices[0];
        for _ in 0..3 {
            for command in [write(&active.pair.server), Command::flush()] {
                let future = device.send(command).unwrap();
                next(&mut active.client_devices[0]).complete(Completion::success()).unwrap();
                assert_pending!(agent.poll());
                assert!(now(future).is_success());
            }
        }
        let enabled = active.pair.server.configuration().unwrap().features.contains(Features::COMPLETE_ENABLED);
        assert_eq!(enabled, requested && offered);
        match device.send(Command::complete()) {
            Ok(future) => {
                assert!(enabled);
                next(&mut active.client_devices[0]).complete(Completion::failed(CompletionCode::DiskFull)).unwrap();
                assert_pending!(agent.poll());
                assert_eq!(now(future).code, CompletionCode::DiskFull);
            }
            Err(error) => assert_eq!((enabled, error.status()), (false, Status::NotSupported)),
        }
    }
}

/// Statement 18: "Old client (no RequestComplete) never sees code 19; server without support leaves CompleteEnabled clear."
#[test]
fn spec_18_features_are_the_clients_and_the_servers_bits() {
    let config = Config { features: Features::DISK | Features::DISCARD, ..Config::default() };
    let server_config =
        ServerConfig { features: Features::READ_MEDIA | Features::COMPLETE_ENABLED, ..ServerConfig::default() };
    let active = active_with(config, server_config);
    let features = now(active.pair.client.configuration(None)).unwrap().features;
    assert_eq!(features, Features::DISK | Features::DISCARD | Features::READ_MEDIA);
    assert_eq!(active.devices[0].send(Command::complete()).unwrap_err().status(), Status::NotSupported);
}

/// Statement 19: "Reuse of the same set object after Close; same name while the old set exists -> VD_E_PROTOCOL."
#[test]
fn spec_19_a_name_is_busy_until_close_and_free_again_after() {
    let hub = LocalHub::new();
    let first = client::DeviceSet::create(&hub, "set", Config::default()).unwrap();
    let again = || client::DeviceSet::create(&hub, "set", Config::default());
    assert_eq!(again().unwrap_err().status(), Status::Protocol);
    assert_eq!(first.create_again("set", Config::default()).unwrap_err().status(), Status::Protocol);
    first.abort(reason("stop")).unwrap();
    assert_eq!(again().unwrap_err().status(), Status::Protocol, "an aborted set exists until it is closed");
    now(first.clone().close()).unwrap();
    let second = first.create_again("set", Config::default()).unwrap();
    drop(first);
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    assert_eq!(now(server::DeviceSet::open(&hub, "set")).unwrap_err().status(), Status::Protocol);
    assert_eq!(now(server::DeviceSet::open(&hub, "other")).unwrap_err().status(), Status::Invalid);
    drop((server, second));
    assert_empty(&hub);
}

/// Statement 20: "Snapshot order: writes, PrepareToFreeze only if asked, Snapshot; refusal by 995; two devices refused."
#[test]
fn spec_20_snapshots_take_one_device_and_prepare_only_if_asked() {
    let asked = Config { features: Features::SNAPSHOT_PREPARE, ..Config::default() };
    let prepare = || Command::from_code(CommandCode::PrepareToFreeze);
    let snapshot = || Command::from_code(CommandCode::Snapshot);

    let mut one = active_with(asked.clone(), ServerConfig::default());
    let mut agent = running_agent(&one.pair.server);
    for command in [write(&one.pair.server), prepare()] {
        let future = one.devices[0].send(command).unwrap();
        next(&mut one.client_devices[0]).complete(Completion::success()).unwrap();
        assert_pending!(agent.poll());
        assert!(now(future).is_success());
    }
    let refused = one.devices[0].send(snapshot()).unwrap();
    let command = next(&mut one.client_devices[0]);
    command.complete(Completion::failed(CompletionCode::OperationAborted)).unwrap();
    assert_pending!(agent.poll());
    assert_eq!(now(refused).code, CompletionCode::OperationAborted);

    let unasked = active(1);
    assert_eq!(unasked.devices[0].send(prepare()).unwrap_err().status(), Status::NotSupported);
    assert!(unasked.devices[0].send(snapshot()).is_ok());

    let two = active_with(Config { device_count: 2, ..asked }, ServerConfig::default());
    for command in [prepare(), snapshot(), Command::from_code(CommandCode::MountSnapshot)] {
        assert_eq!(two.devices[0].send(command).unwrap_err().status(), Status::NotSupported);
    }
}

/// "All transfers: integral multiples of blockSize", and the extension: a transfer marked short may be of any length.
#[test]
fn transfers_are_whole_blocks_unless_marked_short() {
    let active = active_with(Config::default(), ServerConfig { block_size: 1024, ..ServerConfig::default() });
    let server = &active.pair.server;
    server.request_buffers(131_072, 0, 1).unwrap();
    let attempt = |len: usize, short: bool| {
        let buffer = server.allocate_buffer(131_072, 0).unwrap();
        let command = Command::write(buffer, len);
        active.devices[0].send(if short { command.short() } else { command })
    };
    assert_eq!(active.devices[0].send(Command::from_code(CommandCode::Read)).unwrap_err().status(), Status::Invalid);
    let mut accepted = Vec::new();
    for len in [0, 1, 1023, 1025, 65_537, 66_560, 131_072, 131_073, usize::MAX] {
        assert_eq!(attempt(len, false).unwrap_err().status(), Status::Invalid, "{len}");
    }
    for len in [0, 65_537, usize::MAX] {
        assert_eq!(attempt(len, true).unwrap_err().status(), Status::Invalid, "{len}");
    }
    accepted.push(attempt(65_536, false).unwrap());
    let small = server.request_buffers(512, 0, 1).unwrap().allocate_buffer(512, 0).unwrap();
    assert_eq!(active.devices[0].send(Command::write(small, 1024)).unwrap_err().status(), Status::Invalid);
    for len in [1, 511, 512] {
        let small = server.allocate_buffer(512, 0).unwrap();
        accepted.push(active.devices[0].send(Command::write(small, len).short()).unwrap());
    }
}

/// "Deliver FIFO, accept completions in any order."
#[test]
fn commands_are_delivered_in_order_and_completed_in_any() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    let device = &active.devices[0];
    let mut futures: Vec<_> = (0..4u64).map(|at| device.send(Command::flush().at(at)).unwrap()).collect();
    let mut commands: Vec<_> = (0..4).map(|_| next(&mut active.client_devices[0])).collect();
    assert_eq!(commands.iter().map(client::Command::position).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for index in [2, 0, 1, 0] {
        let command = commands.remove(index);
        let position = command.position();
        command.complete(Completion::success().at(position)).unwrap();
        assert_pending!(agent.poll());
        let future = futures.remove(index);
        assert_eq!(now(future).position, position);
    }
}

/// Counts, positions and choices of the other modes arrive as they were sent.
#[test]
fn commands_of_every_mode_carry_their_values() {
    let config = Config { features: Features::TAPE, soft_file_mark_block_size: 1024, ..Config::default() };
    let mut active = active_with(config, ServerConfig { max_io_depth: 32, ..ServerConfig::default() });
    let commands = [
        Command::rewind(),
        Command::write_mark(),
        Command::skip_marks(-3),
        Command::skip_blocks(i32::MAX),
        Command::load(),
        Command::get_position(),
        Command::set_position(u64::MAX, Whence::End),
        Command::from_code(CommandCode::Discard),
        Command::from_code(CommandCode::Other(77)),
    ];
    for command in commands {
        let _future = active.devices[0].send(command).unwrap();
    }
    // Held to the end: dropping one would fail the device.
    let taken: Vec<_> = (0..9).map(|_| next(&mut active.client_devices[0])).collect();
    let codes: Vec<_> = taken.iter().map(|command| command.code().code()).collect();
    assert_eq!(codes, [4, 5, 6, 7, 8, 9, 10, 11, 77]);
    assert_eq!((taken[2].count(), taken[3].count()), (-3, i32::MAX));
    assert_eq!((taken[6].position(), taken[6].whence()), (u64::MAX, 2));
}

struct WritesOnly;

#[async_trait::async_trait]
impl client::Handler for WritesOnly {
    async fn carry_out(&mut self, command: &mut client::Command) -> Option<Completion> {
        (command.code() == CommandCode::Write).then(|| Completion::transferred(command.size()))
    }
}

/// "A client that gets an unknown command should complete it with ERROR_NOT_SUPPORTED."
#[test]
fn a_command_that_a_handler_does_not_know_is_not_supported() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    let device = &active.devices[0];
    let written = device.send(write(&active.pair.server)).unwrap();
    let unknown = device.send(Command::from_code(CommandCode::GetError)).unwrap();
    device.close().unwrap();
    now(active.client_devices[0].serve(&mut WritesOnly)).unwrap();
    assert_ready!(agent.poll()).unwrap();
    assert!(now(written).is_success());
    assert_eq!(now(unknown).code, CompletionCode::NotSupported);
}

struct CountsTooMuch;

#[async_trait::async_trait]
impl client::Handler for CountsTooMuch {
    async fn carry_out(&mut self, command: &mut client::Command) -> Option<Completion> {
        Some(Completion::transferred(command.size() + 1))
    }
}

/// A handler whose count is wrong fails its command, and the next one is its to carry out all the same.
#[test]
fn a_handler_that_reports_too_many_bytes_goes_on() {
    let mut active = active(1);
    let mut agent = running_agent(&active.pair.server);
    let device = &active.devices[0];
    let written = device.send(write(&active.pair.server)).unwrap();
    let mut handler = CountsTooMuch;
    let mut serving = task::spawn(active.client_devices[0].serve(&mut handler));
    assert_pending!(serving.poll());
    let cleared = device.send(Command::clear_error()).unwrap();
    device.close().unwrap();
    assert!(serving.is_woken());
    assert_ready!(serving.poll()).unwrap();
    assert_ready!(agent.poll()).unwrap();
    assert_eq!(now(written).code, CompletionCode::IoDevice);
    assert_eq!(now(cleared).code, CompletionCode::OperationAborted, "withheld when the device was closed");
}

#[test]
fn a_secondary_joins_a_configured_set_and_answers_for_its_own_devices() {
    let hub = LocalHub::new();
    let join = |hub: &LocalHub| now(client::DeviceSet::open_in_secondary(hub, "set"));
    assert_eq!(join(&hub).unwrap_err().status(), Status::Protocol);
    let early = client::DeviceSet::create(&hub, "set", Config::pipe(1)).unwrap();
    assert_eq!(join(&hub).unwrap_err().status(), Status::Protocol, "not ready for secondaries");
    drop(early);

    let pair = configured_on(hub.clone(), Config::pipe(2), ServerConfig::default());
    let (idle, secondary) = (join(&hub).unwrap(), join(&hub).unwrap());
    now(idle.clone().close()).unwrap();
    now(idle.wait_closed());
    assert_eq!(idle.open_device("set").unwrap_err().status(), Status::Protocol);
    let mut own = secondary.open_device("set-2").unwrap();
    let devices = [pair.server.open_device().unwrap(), pair.server.open_device().unwrap()];
    let _future = devices[1].send(Command::flush()).unwrap();
    next(&mut own).complete(Completion::success()).unwrap();
    let error = now(secondary.clone().close()).unwrap_err();
    assert_eq!(error.status(), Status::Open);
    assert!(error.to_string().contains("set-2"));
    assert_eq!(devices[0].send(Command::flush()).unwrap_err().status(), Status::Abort);
    now(pair.client.close()).unwrap();
    assert_empty(&hub);
}

/// A client can hold 1,024 commands unanswered. Whoever waits for room then is woken by an answer, not by a command that is taken.
#[test]
fn waiting_for_room_ends_when_the_client_answers_one_of_too_many() {
    let mut active = active(1);
    let device = &active.devices[0];
    let mut held: Vec<_> = (0..1024)
        .map(|_| {
            drop(device.send(Command::flush()).unwrap());
            next(&mut active.client_devices[0])
        })
        .collect();
    assert_eq!(device.send(Command::flush()).unwrap_err().status(), Status::QueueFull);
    let mut waiting = task::spawn(device.send_when_ready(Command::flush()));
    assert_pending!(waiting.poll());
    held.pop().unwrap().complete(Completion::success()).unwrap();
    assert!(waiting.is_woken());
    drop(assert_ready!(waiting.poll()).unwrap());
}

#[test]
fn waiting_for_room_ends_when_the_client_takes_a_command_and_can_be_given_up() {
    let mut active = active(1);
    let device = &active.devices[0];
    let _futures: Vec<_> = (0..4).map(|_| device.send(Command::flush()).unwrap()).collect();
    let mut given_up = task::spawn(device.send_when_ready(write(&active.pair.server)));
    let mut waiting = task::spawn(device.send_when_ready(Command::flush()));
    assert_pending!(given_up.poll());
    assert_pending!(waiting.poll());
    let available = active.pair.server.query_available_buffers(512, 0).unwrap();
    drop(given_up);
    assert_eq!(active.pair.server.query_available_buffers(512, 0).unwrap(), available + 1);
    drop(next(&mut active.client_devices[0]));
    assert!(waiting.is_woken());
    // The command that made room failed.
    assert_eq!(assert_ready!(waiting.poll()).unwrap_err().status(), Status::IoError);
}
