//! One process of a device set, for the test `shm_kill`: `shm-party server|primary|watcher|secondary HUB PAUSE_AT`.
//!
//! It goes through a fixed session. At the step that it was told it prints `at STEP` and waits for a line on stdin. When the set
//! is aborted it says why on stderr and leaves with 1; when something of the set is left in its memory, with 3.

// A tool of a test: it talks by its output, takes real time, and fails loudly.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use vdstream::Result;
use vdstream::vdi::client::{self, Completion};
use vdstream::vdi::server::{self, Command};
use vdstream::vdi::{CommandCode, CompletionCode, Config, Features, ServerConfig, ShmHub, ShmOptions, Status};

/// The name of the set.
const NAME: &str = "killed";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("three arguments");
    let (role, hub, step) = (next(), PathBuf::from(next()), next());
    let hub = ShmHub::open(ShmOptions { directory: Some(hub), ..ShmOptions::default() }).expect("the hub opens");
    let script = Script { step };
    let ended = match role.as_str() {
        "server" => engine(&hub, &script).await,
        "primary" => primary(&hub, &script, true).await,
        "watcher" => primary(&hub, &script, false).await,
        "secondary" => secondary(&hub, &script).await,
        other => panic!("unknown role {other}"),
    };
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    if maps.contains("memfd:vdstream") {
        eprintln!("shared memory is still mapped");
        std::process::exit(3);
    }
    if let Err(error) = ended {
        eprintln!("{}", error.report());
        std::process::exit(1);
    }
    // A read of stdin may still block a thread.
    std::process::exit(0);
}

struct Script {
    step: String,
}

impl Script {
    /// Waits here if this is the step.
    async fn at(&self, step: &str) {
        if step != self.step {
            return;
        }
        println!("at {step}");
        std::io::stdout().flush().expect("the test reads it");
        let line = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        line.await.expect("reading does not panic").expect("stdin is open");
    }
}

async fn engine(hub: &ShmHub, script: &Script) -> Result<()> {
    let set = loop {
        match server::DeviceSet::open(hub, NAME).await {
            Err(error) if error.status() == Status::Invalid => tokio::time::sleep(Duration::from_millis(5)).await,
            opened => break opened?,
        }
    };
    let outcome = session(&set, script).await;
    if outcome.is_ok() {
        script.at("closing").await;
    }
    let closed = set.close().await;
    outcome?;
    Ok(closed?)
}

async fn session(set: &server::DeviceSet, script: &Script) -> Result<()> {
    script.at("opened").await;
    set.begin_configuration(ServerConfig { max_transfer_size: 1 << 20, ..ServerConfig::default() })?;
    script.at("begun").await;
    set.request_buffers(1 << 20, 0, 4)?;
    set.end_configuration().await?;
    script.at("configured").await;
    let agent = tokio::spawn(set.completion_agent());
    let device = set.open_device()?;
    script.at("device-open").await;
    for code in CommandCode::ALL {
        if code == CommandCode::ClearError {
            continue;
        }
        let command = match code {
            CommandCode::Write => {
                let mut buffer = set.allocate_buffer(1 << 20, 0)?;
                buffer.fill(7);
                Command::write(buffer, 1 << 20)
            }
            CommandCode::Read => Command::read(set.allocate_buffer(1 << 20, 0)?, 1 << 20),
            other => Command::from_code(other),
        };
        run(&device, script, command).await?;
        if code == CommandCode::Write {
            // The area grows while the devices are open.
            set.request_buffers(4096, 0, 1)?;
            script.at("grown").await;
        }
    }
    device.close()?;
    script.at("device-closed").await;
    Ok(agent.await.expect("the agent does not panic")?)
}

/// Sends a command and, if it fails, clears the error.
async fn run(device: &server::Device, script: &Script, command: Command) -> Result<()> {
    let code = command.code();
    let Some(mut completion) = send(device, script, command).await? else { return Ok(()) };
    if code == CommandCode::GetError || !completion.is_success() {
        completion = send(device, script, Command::clear_error()).await?.expect("ClearError is always supported");
    }
    assert!(completion.is_success(), "{code} ended with {}", completion.code);
    Ok(())
}

/// `None` if the client did not ask for this command, so that it cannot be sent.
async fn send(device: &server::Device, script: &Script, command: Command) -> Result<Option<server::Completion>> {
    let code = command.code();
    let answer = match device.send(command) {
        Err(refused) if refused.status() == Status::NotSupported => return Ok(None),
        sent => sent?,
    };
    script.at(&format!("sent-{code}")).await;
    let completion = answer.await;
    if completion.code == CompletionCode::OperationAborted {
        return Err(completion.reason.expect("an abort has a reason"));
    }
    Ok(Some(completion))
}

/// `SHM_PARTY_TIMEOUT` is the no-progress limit in milliseconds; none without it.
fn config() -> Config {
    let millis = std::env::var("SHM_PARTY_TIMEOUT").map_or(0, |millis| millis.parse().expect("a number"));
    Config {
        features: Features::PIPE | Features::REQUEST_COMPLETE | Features::SNAPSHOT_PREPARE,
        server_timeout: Duration::from_millis(millis),
        ..Config::default()
    }
}

/// The client that creates the set; it serves the device itself, or leaves that to a secondary.
async fn primary(hub: &ShmHub, script: &Script, is_serving: bool) -> Result<()> {
    let set = client::DeviceSet::create(hub, NAME, config())?;
    let outcome = async {
        script.at("created").await;
        set.configuration(None).await?;
        script.at("configured").await;
        if is_serving {
            return serve(&set, script).await;
        }
        while !matches!(set.state(), client::State::NormallyTerminated | client::State::Aborted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(set.configuration(None).await.map(|_| ())?)
    };
    let outcome = outcome.await;
    if outcome.is_ok() {
        script.at("closing").await;
    }
    let closed = set.close().await;
    outcome?;
    Ok(closed?)
}

async fn secondary(hub: &ShmHub, script: &Script) -> Result<()> {
    let set = loop {
        match client::DeviceSet::open_in_secondary(hub, NAME).await {
            Err(error) if error.status() == Status::Protocol => tokio::time::sleep(Duration::from_millis(5)).await,
            joined => break joined?,
        }
    };
    script.at("configured").await;
    let outcome = serve(&set, script).await;
    if outcome.is_ok() {
        script.at("closing").await;
    }
    let closed = set.close().await;
    outcome?;
    Ok(closed?)
}

async fn serve(set: &client::DeviceSet, script: &Script) -> Result<()> {
    let mut device = set.open_device(NAME)?;
    script.at("device-open").await;
    loop {
        let mut command = match device.next_command(None).await {
            Ok(command) => command,
            Err(error) if error.status() == Status::Close => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let code = command.code();
        script.at(&format!("holding-{code}")).await;
        let completion = match code {
            CommandCode::Write => {
                assert!(command.data().iter().all(|byte| *byte == 7), "the bytes are the server's");
                Completion::transferred(command.size())
            }
            CommandCode::Read => {
                command.data_mut().fill(9);
                Completion::transferred(command.size())
            }
            CommandCode::GetError => Completion::failed(CompletionCode::NotSupported),
            _ => Completion::success(),
        };
        command.complete(completion)?;
    }
}
