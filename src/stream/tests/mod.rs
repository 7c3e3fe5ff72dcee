//! Both sides of a set in one test, joined by their streams.
//!
//! | file | what it is |
//! |---|---|
//! | `streams` | bytes, flushes and ends, as they should be |
//! | `buffers` | the buffers that a producer fills itself |
//! | `failures` | what goes wrong, and what each side is told |

mod buffers;
mod failures;
mod streams;

use tokio::task::JoinHandle;

use crate::vdi::{Config, Features, LocalHub, ServerConfig, client, server};

const TRANSFER: usize = 65_536;

struct Pair {
    hub: LocalHub,
    server: server::DeviceSet,
    client: client::DeviceSet,
    agent: JoinHandle<()>,
}

impl Pair {
    async fn open(config: Config, buffers: usize) -> Self {
        let hub = LocalHub::new();
        let client = client::DeviceSet::create(&hub, "set", config).unwrap();
        let server = server::DeviceSet::open(&hub, "set").await.unwrap();
        let server_config = ServerConfig {
            features: Features::WRITE_MEDIA | Features::READ_MEDIA | Features::COMPLETE_ENABLED,
            ..ServerConfig::default()
        };
        server.begin_configuration(server_config).unwrap().request_buffers(TRANSFER, 0, buffers).unwrap();
        server.end_configuration().await.unwrap();
        client.configuration(None).await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test joins it")]
        let agent = tokio::spawn(async_agent(server.completion_agent()));
        Self { hub, server, client, agent }
    }

    async fn pipe() -> Self {
        Self::open(Config::pipe(1), 4).await
    }

    fn devices(&self) -> (server::Device, client::Device) {
        (self.server.open_device().unwrap(), self.client.open_all().unwrap().remove(0))
    }

    /// Closes both sides in good order; nothing may be left.
    async fn close(self) {
        self.client.close().await.unwrap();
        self.server.close().await.unwrap();
        self.agent.await.unwrap();
        drop(client::DeviceSet::create(&self.hub, "set", Config::pipe(1)).unwrap());
    }
}

async fn async_agent(agent: server::CompletionAgent) {
    let _reported_by_the_streams = agent.await;
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}
