//! A device set with both sides at hand.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::task::Poll;

use futures::FutureExt;
use vdstream::vdi::{self, Config, LocalHub, ServerConfig, Transport, client, server};
use vdstream::{Error, ErrorKind};

pub(crate) struct Pair {
    pub(crate) hub: LocalHub,
    pub(crate) client: client::DeviceSet,
    pub(crate) server: server::DeviceSet,
}

/// A future that must be ready at once.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("ready at once")
}

pub(crate) fn reason(text: &'static str) -> Error {
    Error::new(ErrorKind::Denied, text)
}

/// Both sides configured, buffers of one block reserved for every device and depth, nothing opened.
pub(crate) fn configured(config: Config, server_config: ServerConfig) -> Pair {
    configured_on(LocalHub::new(), config, server_config)
}

pub(crate) fn configured_on(hub: LocalHub, config: Config, server_config: ServerConfig) -> Pair {
    let devices = config.device_count as usize;
    let depth = server_config.max_io_depth as usize;
    let client = client::DeviceSet::create(&hub, "set", config).unwrap();
    let server = now(server::DeviceSet::open(&hub, "set")).unwrap();
    server.begin_configuration(server_config).unwrap().request_buffers(512, 0, devices * depth * 4).unwrap();
    let agreed = now(server.end_configuration()).unwrap();
    assert_eq!(now(client.configuration(None)).unwrap(), agreed);
    Pair { hub, client, server }
}

pub(crate) struct Active {
    pub(crate) pair: Pair,
    pub(crate) devices: Vec<server::Device>,
    pub(crate) client_devices: Vec<client::Device>,
}

/// Every device open on both sides.
pub(crate) fn active(devices: u32) -> Active {
    active_with(Config::pipe(devices), ServerConfig::default())
}

pub(crate) fn active_with(config: Config, server_config: ServerConfig) -> Active {
    open_all(configured(config, server_config))
}

pub(crate) fn open_all(pair: Pair) -> Active {
    let client_devices = pair.client.open_all().unwrap();
    let devices = client_devices.iter().map(|_| pair.server.open_device().unwrap()).collect();
    Active { pair, devices, client_devices }
}

pub(crate) fn write(server: &server::DeviceSet) -> server::Command {
    server::Command::write(server.allocate_buffer(512, 0).unwrap(), 512)
}

/// The next command, which must be there.
pub(crate) fn next(device: &mut client::Device) -> client::Command {
    now(device.next_command(Some(std::time::Duration::ZERO))).unwrap()
}

pub(crate) fn next_error(device: &mut client::Device) -> vdi::Error {
    now(device.next_command(Some(std::time::Duration::ZERO))).unwrap_err()
}

pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx)
}

/// Nothing of any set is left in the hub.
pub(crate) fn assert_empty(hub: &LocalHub) {
    assert_eq!(hub.names(), Vec::<String>::new());
}
