//! Device sets whose parts are real processes: what goes well there, who is let in, and what is found in the directory.

// Helpers of tests fail as loudly as tests.
#![allow(clippy::disallowed_methods, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use integration::party::{NOBODY, PATIENCE, Party, Stage, as_nobody, command};
use integration::tool;

#[test]
fn a_secondary_client_serves_a_set_that_grows() {
    let stage = Stage::new();
    let mut watcher = Party::start("watcher", &stage.hub(), "none");
    let mut server = Party::start("server", &stage.hub(), "none");
    let mut secondary = Party::start("secondary", &stage.hub(), "none");
    for party in [&mut server, &mut secondary, &mut watcher] {
        party.succeeds();
    }
    stage.assert_empty("after a session");
}

#[test]
fn a_buffer_is_filled_by_another_process_also_in_memory_that_came_late() {
    let stage = Stage::new();
    let mut lender = Party::start("lender", &stage.hub(), "none");
    let mut server = Party::start("server", &stage.hub(), "none");
    let mut mapper = Party::start_joined("mapper", &stage.hub());
    // One before the set has grown, one after it.
    for _ in 0..2 {
        let line = lender.line();
        let Some(number) = line.strip_prefix("handle ") else { panic!("it said {line:?} and {}", lender.stderr()) };
        mapper.say(number);
        assert_eq!(mapper.line(), format!("mapped {number}"));
        lender.go_on();
    }
    drop(mapper.child.stdin.take());
    for party in [&mut server, &mut mapper, &mut lender] {
        party.succeeds();
    }
    stage.assert_empty("after a session");
}

#[test]
fn a_socket_of_a_process_that_died_alone_is_replaced() {
    let stage = Stage::new();
    let mut alone = Party::start("primary", &stage.hub(), "created");
    alone.reach("created");
    alone.kill();
    assert_eq!(stage.names(), ["killed.set"], "nobody was there to remove it");
    let mut primary = Party::start("primary", &stage.hub(), "none");
    let mut server = Party::start("server", &stage.hub(), "none");
    server.succeeds();
    primary.succeeds();
    stage.assert_empty("after a session under the same name");
}

/// A hub that both users can enter. The program is beside it, because a home directory may be closed to others.
struct Open {
    stage: Stage,
}

impl Open {
    fn new() -> Self {
        let stage = Stage::new();
        let open = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        std::fs::create_dir(stage.hub()).expect("a directory");
        open(&stage.hub(), 0o777);
        open(&stage.path(""), 0o755);
        let program = tool::build_directory().join("shm-party");
        std::fs::copy(program, stage.path("shm-party")).expect("the program is there");
        open(&stage.path("shm-party"), 0o755);
        Self { stage }
    }

    fn command(&self, role: &str, variable: &str, number: u32) -> std::process::Command {
        let mut command = std::process::Command::new(self.stage.path("shm-party"));
        command.arg(role).arg(self.stage.hub()).arg("none").env(variable, number.to_string());
        command
    }
}

fn own_ids() -> (u32, u32) {
    use std::os::unix::fs::MetadataExt as _;
    let own = std::fs::metadata("/proc/self").expect("Linux has it");
    (own.uid(), own.gid())
}

#[test]
fn another_user_is_let_in_by_number_or_by_group_and_by_nothing_else() {
    let (user, group) = own_ids();
    let somebody_else = 12_345;
    for (variable, ours, theirs, is_let_in) in [
        ("SHM_PARTY_USERS", NOBODY, user, true),
        ("SHM_PARTY_GROUPS", NOBODY, group, true),
        ("SHM_PARTY_USERS", somebody_else, user, false),
        ("SHM_PARTY_GROUPS", somebody_else, group, false),
        ("SHM_PARTY_USERS", NOBODY, somebody_else, false),
    ] {
        for (our_role, their_role) in [("primary", "server"), ("server", "primary")] {
            let scene = format!("our {our_role} lets {ours} in, the other user's {their_role} {theirs}, by {variable}");
            let open = Open::new();
            let mut us = Party::spawn("our side", open.command(our_role, variable, ours));
            let them = as_nobody(&open.command(their_role, variable, theirs));
            let mut them = Party::spawn("the other user's side", them);
            if is_let_in {
                us.succeeds();
                them.succeeds();
                open.stage.assert_empty(&scene);
                continue;
            }
            // The server is refused, or refuses; the client goes on waiting for a better one.
            let (server, client) = if our_role == "server" { (&mut us, &mut them) } else { (&mut them, &mut us) };
            let status = server.wait(PATIENCE).and_then(|status| status.code());
            let said = server.stderr();
            assert_eq!(status, Some(1), "{scene}: {said}");
            assert!(said.contains("is not allowed to be the other side"), "{scene}: {said}");
            assert!(client.wait(Duration::from_millis(50)).is_none(), "{scene}: the client waits");
        }
    }
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let open = Open::new();
    let stage = &open.stage;
    // Others may make files here, as in /tmp.
    std::fs::set_permissions(stage.path(""), std::fs::Permissions::from_mode(0o1777)).expect("it is ours");
    std::fs::remove_dir(stage.hub()).expect("it is empty");
    let theirs = as_nobody(&open.command("primary", "SHM_PARTY_USERS", own_ids().0));
    let mut theirs = Party::spawn("the other user's side", theirs);
    while !stage.hub().join("killed.set").exists() {
        assert!(theirs.wait(Duration::from_millis(5)).is_none(), "it waits: {}", theirs.stderr());
    }
    let mut ours = Party::spawn("our side", command("server", &stage.hub(), "none"));
    let status = ours.wait(PATIENCE).and_then(|status| status.code());
    let said = ours.stderr();
    assert_eq!(status, Some(1), "{said}");
    let expected = format!("it belongs to user {NOBODY} and has mode 700");
    // Without the right to look into it, the kernel refuses first.
    assert!(said.contains(&expected) || said.contains("ermission denied"), "{said}");
}

#[test]
fn a_backup_and_a_restore_go_through_two_processes() {
    let stage = Stage::new();
    let parts: Vec<Vec<u8>> = [3_000_001_usize, 0, 70_000]
        .iter()
        .map(|len| (0..*len).map(|at| u8::try_from(at * 7 % 251).expect("below 251")).collect())
        .collect();
    for (number, part) in parts.iter().enumerate() {
        std::fs::write(stage.path(&format!("in{number}")), part).expect("a file");
    }
    let engine = |what: &str, option: &str, prefix: &str| {
        let mut command = tool::vdstream_command();
        command.args(["engine", what, "--device-set", "whole", "--hub"]).arg(stage.hub());
        for number in 0..parts.len() {
            command.arg(option).arg(stage.path(&format!("{prefix}{number}")));
        }
        Party::spawn("engine", command)
    };
    // The engine comes first: it waits for the agent.
    let mut sending = engine("backup", "--input", "in");
    let mut command = tool::vdstream_command();
    command
        .arg("backup")
        .arg(stage.path("store"))
        .args(["--device-set", "whole", "--devices", "3", "--hub"])
        .arg(stage.hub());
    let mut agent = Party::spawn("agent", command);
    agent.succeeds();
    sending.succeeds();
    assert_eq!(stage.backups(), 1);

    let mut command = tool::vdstream_command();
    command.arg("restore").arg(stage.path("store")).args(["latest", "--device-set", "whole", "--hub"]).arg(stage.hub());
    let mut agent = Party::spawn("agent", command);
    let mut receiving = engine("restore", "--output", "out");
    agent.succeeds();
    receiving.succeeds();
    for (number, part) in parts.iter().enumerate() {
        assert!(std::fs::read(stage.path(&format!("out{number}"))).expect("restored") == *part, "part {number}");
    }
    stage.assert_empty("after a backup and a restore");
}
