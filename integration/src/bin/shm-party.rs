//! One process of a device set, for the tests `shm_kill` and `shm_processes`: `shm-party ROLE HUB PAUSE_AT`.
//!
//! | role | what it does |
//! |---|---|
//! | `server` | sends every command once |
//! | `primary` | creates the set and answers the commands |
//! | `watcher` | creates the set and leaves the answers to a secondary client |
//! | `lender` | as `primary`, but lets another process fill what it reads: it prints `handle N` and waits for a line |
//! | `secondary` | joins and answers the commands |
//! | `mapper` | joins, and for each handle that comes as a line fills the buffer and prints `mapped N` |
//!
//! It goes through a fixed session. At the step that it was told it prints `at STEP` and waits for a line on stdin. When the set
//! is aborted it says why on stderr and leaves with 1; when something of the set is left in its memory, with 3.

// A tool of a test: it talks by its output, takes real time, and fails loudly.
#![allow(clippy::disallowed_methods, clippy::panic, clippy::print_stderr, clippy::print_stdout)]

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use vdstream::Result;
use vdstream::vdi::client::{self, BufferHandle, Completion};
use vdstream::vdi::server::{self, Command};
use vdstream::vdi::{CommandCode, CompletionCode, Config, Features, ServerConfig, ShmHub, ShmOptions, Status};

/// The name of the set.
const NAME: &str = "killed";
/// Larger than all that is there before.
const LATE: usize = 8 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("three arguments");
    let (role, hub, step) = (next(), PathBuf::from(next()), next());
    let options =
        ShmOptions { directory: Some(hub), users: numbers("SHM_PARTY_USERS"), groups: numbers("SHM_PARTY_GROUPS") };
    let hub = match ShmHub::open(options) {
        Ok(hub) => hub,
        Err(error) => {
            eprintln!("{}", error.report());
            std::process::exit(1);
        }
    };
    let script = Script { step };
    let ended = match role.as_str() {
        "server" => engine(&hub, &script).await,
        "primary" => primary(&hub, &script, Serving::Itself).await,
        "lender" => primary(&hub, &script, Serving::Lending).await,
        "watcher" => primary(&hub, &script, Serving::Nothing).await,
        "secondary" => secondary(&hub, &script).await,
        "mapper" => mapper(&hub, &script).await,
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

/// The numbers of a variable, by commas.
fn numbers(variable: &str) -> Vec<u32> {
    let list = std::env::var(variable).unwrap_or_default();
    list.split(',').filter(|number| !number.is_empty()).map(|number| number.parse().expect("a number")).collect()
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
        say(&format!("at {step}"));
        line().await;
    }
}

fn say(text: &str) {
    println!("{text}");
    std::io::stdout().flush().expect("the test reads it");
}

/// The next line of stdin; none at its end. The set's tasks run meanwhile.
async fn line() -> Option<String> {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).expect("stdin is text");
        line
    });
    let line = line.await.expect("reading does not panic");
    (!line.is_empty()).then(|| line.trim_end().to_owned())
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
            // The area grows while the devices are open. No other region has room for this buffer.
            set.request_buffers(LATE, 0, 1)?;
            script.at("grown").await;
            run(&device, script, Command::read(set.allocate_buffer(LATE, 0)?, 1 << 20)).await?;
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
    if code == CommandCode::Read && completion.is_success() {
        let buffer = completion.buffer.take().expect("the client gave it back");
        assert!(buffer[..completion.bytes_transferred].iter().all(|byte| *byte == 9), "the bytes are the client's");
    }
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

/// What a client does about the commands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Serving {
    Nothing,
    Itself,
    Lending,
}

/// The client that creates the set.
async fn primary(hub: &ShmHub, script: &Script, serving: Serving) -> Result<()> {
    let set = client::DeviceSet::create(hub, NAME, config())?;
    let outcome = async {
        script.at("created").await;
        set.configuration(None).await?;
        script.at("configured").await;
        if serving != Serving::Nothing {
            return serve(&set, script, serving).await;
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

async fn join(hub: &ShmHub) -> Result<client::DeviceSet> {
    loop {
        match client::DeviceSet::open_in_secondary(hub, NAME).await {
            Err(error) if error.status() == Status::Protocol => tokio::time::sleep(Duration::from_millis(5)).await,
            joined => return Ok(joined?),
        }
    }
}

/// Fills buffers of other clients until its stdin ends.
async fn mapper(hub: &ShmHub, script: &Script) -> Result<()> {
    let set = join(hub).await?;
    script.at("configured").await;
    while let Some(number) = line().await {
        let mut mapped = set.map_buffer(BufferHandle::from_number(number.parse().expect("a number")))?;
        mapped.fill(9);
        drop(mapped);
        say(&format!("mapped {number}"));
    }
    Ok(set.close().await?)
}

async fn secondary(hub: &ShmHub, script: &Script) -> Result<()> {
    let set = join(hub).await?;
    script.at("configured").await;
    let outcome = serve(&set, script, Serving::Itself).await;
    if outcome.is_ok() {
        script.at("closing").await;
    }
    let closed = set.close().await;
    outcome?;
    Ok(closed?)
}

async fn serve(set: &client::DeviceSet, script: &Script, serving: Serving) -> Result<()> {
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
            CommandCode::Read if serving == Serving::Lending => {
                say(&format!("handle {}", command.buffer_handle()?.number()));
                line().await;
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
