//! Every public future of the crate is in the table below, and for each there is a test that drops it where it waits and a
//! row in the manual's page on cancellation.
//!
//! A public `async fn`, `Future`, `Stream`, `AsyncRead` or `AsyncWrite` that is added fails this test until it has all three.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What is dropped (file below `src`, name), the test that does it (file, name), and what the manual calls it.
const TABLE: &str = "
    backup/catalog.rs          find                tests/cancel_backup.rs          calls_that_only_read                 | find
    backup/catalog.rs          intent              tests/cancel_backup.rs          calls_that_only_read                 | intent
    backup/catalog.rs          latest              tests/cancel_backup.rs          calls_that_only_read                 | latest
    backup/catalog.rs          list                tests/cancel_backup.rs          calls_that_only_read                 | list
    backup/catalog.rs          series_of           tests/cancel_backup.rs          calls_that_only_read                 | series_of
    backup/catalog.rs          standing            tests/cancel_backup.rs          calls_that_only_read                 | standing
    backup/collection/apply.rs apply               tests/cancel_backup.rs          collecting_what_is_left              | collection::apply
    backup/collection/apply.rs plan                tests/cancel_backup.rs          calls_that_only_read                 | collection::plan
    backup/devices.rs          finish              tests/cancel_backup.rs          finishing_the_readers                | Restore::finish
    backup/devices.rs          serve               tests/cancel_backup.rs          serving_an_engine_that_backs_up      | Backup::serve
    backup/devices.rs          serve               tests/cancel_backup.rs          serving_an_engine_that_restores      | Restore::serve
    backup/doctor/run.rs       examine             tests/cancel_backup.rs          trying_a_store                       | doctor::examine
    backup/encryption.rs       unlock              tests/cancel_backup.rs          unlocking_a_backup                   | unlock
    backup/reader.rs           stripe              tests/cancel_backup.rs          a_stream_of_a_stripe                 | Restore::stripe
    backup/reader.rs           write_to            tests/cancel_backup.rs          writing_a_stripe_out                 | Restore::write_to
    backup/resume.rs           resume              tests/cancel_backup.rs          resuming                             | Backup::resume
    backup/retention/apply.rs  apply               tests/cancel_backup.rs          deleting_by_a_plan                   | retention::apply
    backup/retention/apply.rs  plan                tests/cancel_backup.rs          calls_that_only_read                 | retention::plan
    backup/retention/apply.rs  plan_deletion       tests/cancel_backup.rs          calls_that_only_read                 | plan_deletion
    backup/store/handle.rs     create_only         tests/cancel_backup.rs          asking_whether_a_store_keeps_create_only | Store::create_only
    backup/store/handle.rs     wait_idle           tests/cancel_backup.rs          waiting_for_the_store                | Store::wait_idle
    backup/verify/record.rs    verifications       tests/cancel_backup.rs          calls_that_only_read                 | verifications
    backup/verify/run.rs       verify              tests/cancel_backup.rs          verifying_on_record                  | verify
    backup/writer.rs           abort               tests/cancel_backup.rs          abort                                | Backup::abort
    backup/writer.rs           begin               tests/cancel_backup.rs          begin                                | Backup::begin
    backup/writer.rs           commit              tests/cancel_backup.rs          commit                               | Backup::commit
    backup/writer.rs           wait_stripes        tests/cancel_backup.rs          wait_stripes                         | Backup::wait_stripes
    buffer/pool.rs             acquire             src/buffer/pool.rs              a_waiter_dropped_after_any_poll_leaves_no_trace | BufferPool::acquire
    clock.rs                   sleep               tests/cancel_vdi.rs             a_time_limit                         | Clock::sleep
    clock.rs                   timeout             tests/cancel_vdi.rs             a_time_limit                         | clock::timeout
    pipeline/pipeline.rs       backup_stripe       src/pipeline/tests/faults.rs    a_backup_dropped_at_any_await_leaves_nothing_behind | Pipeline::backup_stripe
    pipeline/pipeline.rs       backup_stripe_noticed src/pipeline/tests/faults.rs  a_backup_dropped_at_any_await_leaves_nothing_behind | Pipeline::backup_stripe
    pipeline/pipeline.rs       restore_stripe      tests/cancel_backup.rs          a_stream_of_a_stripe                 | Pipeline::restore_stripe
    pipeline/pipeline.rs       wait_idle           tests/cancel_backup.rs          a_stream_of_a_stripe                 | Pipeline::wait_idle
    pipeline/segment.rs        abort               tests/cancel_backup.rs          commit                               | SegmentUpload
    pipeline/segment.rs        begin               tests/cancel_backup.rs          commit                               | SegmentStore
    pipeline/segment.rs        complete            tests/cancel_backup.rs          commit                               | SegmentUpload
    pipeline/segment.rs        put                 tests/cancel_backup.rs          commit                               | SegmentStore
    pipeline/segment.rs        put_part            tests/cancel_backup.rs          commit                               | SegmentUpload
    pipeline/segment.rs        read                tests/cancel_backup.rs          writing_a_stripe_out                 | SegmentStore
    pipeline/segment.rs        read_into           tests/cancel_backup.rs          writing_a_stripe_out                 | SegmentStore
    stream/client_reader.rs    ClientReader        tests/cancel_stream.rs          a_stream_abandoned_after_any_poll_is_an_abort_that_leaves_nothing | ClientReader::read
    stream/client_writer.rs    ClientWriter        tests/cancel_stream.rs          a_restore_whose_every_call_is_dropped_at_every_wait_comes_through_whole | ClientWriter::write
    stream/device_reader.rs    DeviceReader        tests/cancel_stream.rs          a_restore_whose_every_call_is_dropped_at_every_wait_comes_through_whole | DeviceReader::read
    stream/device_stream.rs    DeviceStream        tests/cancel_stream.rs          a_backup_whose_every_call_is_dropped_at_every_wait_comes_through_whole | DeviceStream::next
    stream/device_writer.rs    DeviceWriter        tests/cancel_stream.rs          a_backup_whose_every_call_is_dropped_at_every_wait_comes_through_whole | DeviceWriter::write
    stream/device_writer.rs    next_buffer         tests/cancel_stream.rs          buffers_taken_and_given_back_at_every_wait | DeviceWriter::next_buffer
    stream/device_writer.rs    write_buffer        tests/cancel_stream.rs          buffers_taken_and_given_back_at_every_wait | DeviceWriter::write_buffer
    stream/device_writer.rs    write_from          tests/cancel_stream.rs          a_backup_whose_every_call_is_dropped_at_every_wait_comes_through_whole | DeviceWriter::write_from
    vdi/answer.rs              CommandFuture       tests/cancel_vdi.rs             waiting_for_an_answer                | CommandFuture
    vdi/client/device.rs       next_command        tests/cancel_vdi.rs             waiting_for_commands                 | client::Device::next_command
    vdi/client/handler.rs      carry_out           tests/cancel_vdi.rs             serving_a_device                     | Handler::carry_out
    vdi/client/handler.rs      serve               tests/cancel_vdi.rs             serving_a_device                     | client::Device::serve
    vdi/client/set.rs          close               tests/cancel_vdi.rs             closing_and_waiting_for_it           | close
    vdi/client/set.rs          configuration       tests/cancel_vdi.rs             the_configuration_on_either_side     | client::DeviceSet::configuration
    vdi/client/set.rs          open_in_secondary   tests/cancel_vdi.rs             opening_a_set_on_either_side         | client::DeviceSet::open_in_secondary
    vdi/client/set.rs          wait_closed         tests/cancel_vdi.rs             closing_and_waiting_for_it           | wait_closed
    vdi/server/agent.rs        CompletionAgent     tests/cancel_vdi.rs             the_agent_itself                     | CompletionAgent
    vdi/server/device.rs       send_when_ready     tests/cancel_vdi.rs             waiting_for_room_and_sending         | server::Device::send_when_ready
    vdi/server/set.rs          close               tests/cancel_vdi.rs             closing_and_waiting_for_it           | close
    vdi/server/set.rs          end_configuration   tests/cancel_vdi.rs             the_configuration_on_either_side     | server::DeviceSet::end_configuration
    vdi/server/set.rs          open                tests/cancel_vdi.rs             opening_a_set_on_either_side         | server::DeviceSet::open
    vdi/server/set.rs          wait_closed         tests/cancel_vdi.rs             closing_and_waiting_for_it           | wait_closed
    vdi/transport/mod.rs       open                tests/cancel_vdi.rs             opening_a_set_on_either_side         | server::DeviceSet::open
    vdi/transport/mod.rs       open_in_secondary   tests/cancel_vdi.rs             opening_a_set_on_either_side         | client::DeviceSet::open_in_secondary
";

struct Row {
    future: (String, String),
    test: (String, String),
    manual: String,
}

fn table() -> Vec<Row> {
    let rows = TABLE.trim().lines().map(|line| {
        let (left, manual) = line.split_once('|').unwrap();
        let words: Vec<String> = left.split_whitespace().map(str::to_owned).collect();
        let [file, name, test_file, test] = words.try_into().unwrap();
        Row { future: (file, name), test: (test_file, test), manual: manual.trim().to_owned() }
    });
    rows.collect()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source file that is part of the library's own public face, below `src`.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            // The tool has no callers, the suites of `testing` are tests themselves.
            let is_other = ["bin", "manual", "testing"].contains(&name.as_str()) || name.ends_with("tests");
            if path.is_dir() && !is_other {
                directories.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                files.push(name);
            }
        }
    }
    files
}

/// The names of what can be awaited or polled in a file, as far as it is public.
fn futures_in(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let word = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut found = Vec::new();
    let mut in_trait = false;
    let mut signature = None;
    for line in source.lines() {
        let text = line.trim_start();
        if line.starts_with("pub trait ") {
            in_trait = true;
        } else if line.starts_with('}') {
            in_trait = false;
        }
        if let Some(rest) = text.strip_prefix("pub async fn ") {
            found.push(word(rest));
        } else if let Some(rest) = text.strip_prefix("async fn ").filter(|_| in_trait) {
            found.push(word(rest));
        } else if let Some(rest) =
            text.strip_prefix("pub fn ").or_else(|| text.strip_prefix("fn ").filter(|_| in_trait))
        {
            signature = Some(word(rest));
        }
        // What a plain function returns may stand on a later line of its signature.
        if let Some(name) = &signature {
            let returns = line.split_once("->").map(|(_, returns)| returns).unwrap_or_default();
            if ["impl Future", "impl Stream", "BoxFuture", "BoxStream"].iter().any(|kind| returns.contains(kind)) {
                found.push(name.clone());
                signature = None;
            } else if line.ends_with('{') || line.ends_with(';') {
                signature = None;
            }
        }
        if let Some(rest) = text.strip_prefix("impl") {
            for kind in ["Future for ", "Stream for ", "AsyncRead for ", "AsyncWrite for "] {
                let name = rest.split_once(kind).map(|(_, name)| word(name));
                found.extend(name.filter(|name| source.contains(&format!("pub struct {name}"))));
            }
        }
    }
    found
}

#[test]
fn every_public_future_is_in_the_table() {
    let known: BTreeSet<_> = table().into_iter().map(|row| row.future).collect();
    let found: BTreeSet<_> = sources()
        .into_iter()
        .flat_map(|file| {
            let futures = futures_in(&read(Path::new("src").join(&file)));
            futures.into_iter().map(move |name| (file.clone(), name))
        })
        .collect();
    assert!(found.len() > 40, "only {} futures were found", found.len());
    let missing: Vec<_> = found.difference(&known).collect();
    assert!(missing.is_empty(), "no test drops these, or it is not in the table of {}: {missing:#?}", file!());
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "in the table, and not in the sources any more: {gone:#?}");
}

#[test]
fn every_row_of_the_table_has_its_test_and_its_row_in_the_manual() {
    let manual = read("src/manual/cancellation.md");
    for Row { future: (file, name), test: (test_file, test), manual: called } in table() {
        assert!(read(&test_file).contains(&format!("fn {test}()")), "{test_file} has no test {test} for {name}");
        let is_told = manual.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{called}`")));
        assert!(is_told, "manual/cancellation.md has no row for `{called}` ({file}: {name})");
    }
}
