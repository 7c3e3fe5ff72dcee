//! Close against abort, with commands in flight: every future resolves exactly once, and says why.

#![allow(clippy::print_stdout, reason = "examples print what they do")]
#![allow(clippy::disallowed_methods, reason = "an engine spawns where it likes")]

use vdstream::vdi::server::Command;
use vdstream::vdi::{CompletionCode, Config, LocalHub, ServerConfig, client, server};
use vdstream::{Error, ErrorKind, Result};

const TRANSFER: usize = 65_536;

#[tokio::main]
async fn main() -> Result<()> {
    close_with_commands_in_flight().await?;
    abort_from_the_other_side().await
}

/// A set with one device and four writes that the client never takes.
struct InFlight {
    server: server::DeviceSet,
    client: client::DeviceSet,
    agent: tokio::task::JoinHandle<()>,
    writes: Vec<server::CommandFuture>,
    /// A client that lets go of an open device aborts the set.
    _devices: Vec<client::Device>,
}

async fn four_writes(hub: &LocalHub) -> Result<InFlight> {
    let client = client::DeviceSet::create(hub, "nightly", Config::pipe(1))?;
    let server = server::DeviceSet::open(hub, "nightly").await?;
    server.begin_configuration(ServerConfig::default())?.request_buffers(TRANSFER, 0, 4)?;
    server.end_configuration().await?;
    client.configuration(None).await?;

    // The agent is a future; where it runs is the engine's choice.
    let agent = server.completion_agent();
    let agent = tokio::spawn(async move {
        let outcome = agent.await;
        println!("  the agent has returned: {outcome:?}");
    });
    let device = server.open_device()?;
    let devices = client.open_all()?;
    let mut writes = Vec::new();
    for _ in 0..4 {
        let buffer = server.allocate_buffer(TRANSFER, 0)?;
        writes.push(device.send(Command::write(buffer, TRANSFER)).map_err(server::SendError::into_error)?);
    }
    Ok(InFlight { server, client, agent, writes, _devices: devices })
}

async fn close_with_commands_in_flight() -> Result<()> {
    println!("close:");
    let hub = LocalHub::new();
    let set = four_writes(&hub).await?;
    // The device is still open, so close reports a protocol error, and releases everything all the same.
    let closed = set.server.close().await;
    println!("  close says: {closed:?}");
    for write in set.writes {
        let completion = write.await;
        assert_eq!(completion.code, CompletionCode::OperationAborted);
    }
    println!("  four futures resolved as aborted");
    set.agent.await.expect("the agent does not panic");
    set.client.close().await?;
    // Nothing is left: the name is free again.
    client::DeviceSet::create(&hub, "nightly", Config::pipe(1))?.close().await?;
    Ok(())
}

async fn abort_from_the_other_side() -> Result<()> {
    println!("abort:");
    let hub = LocalHub::new();
    let set = four_writes(&hub).await?;
    set.client.abort(Error::new(ErrorKind::Exhausted, "the bucket is full"))?;
    for write in set.writes {
        let completion = write.await;
        assert_eq!(completion.code, CompletionCode::OperationAborted);
        let reason = completion.reason.expect("an abort has a reason");
        assert_eq!(reason.kind(), ErrorKind::Exhausted);
    }
    println!("  four futures resolved as aborted, each with the reason: the bucket is full");
    set.agent.await.expect("the agent does not panic");
    set.client.close().await?;
    set.server.close().await?;
    Ok(())
}
