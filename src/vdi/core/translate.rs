//! Errors, wishes and choices as they cross to another process, and back.

use std::time::Duration;

use super::super::config::{Config, ServerConfig};
use super::super::features::Features;
use super::super::status::{Error, Status};
use crate::error::ErrorKind;
use crate::shm::ShmError;
use crate::shm::wire::{Choice, Reason, Wishes};

/// An error as it crosses to another process.
pub(crate) fn reason(error: &crate::Error) -> Reason {
    let mut layers = vec![error.message().to_owned()];
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        layers.push(cause.to_string());
        next = cause.source();
    }
    Reason { kind: error.kind().as_str().to_owned(), layers }
}

/// An error that came from another process. A kind that is not known here is an abort.
pub(crate) fn error_of(reason: Reason) -> crate::Error {
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == reason.kind).unwrap_or(ErrorKind::Aborted);
    let mut layers = reason.layers.into_iter().rev();
    let first = crate::Error::new(kind, layers.next().unwrap_or_else(|| "no reason was given".to_owned()));
    layers.fold(first, crate::Error::context)
}

pub(crate) fn choice(config: &ServerConfig) -> Choice {
    Choice {
        features: config.features.bits(),
        alignment: config.alignment,
        block_size: config.block_size,
        max_transfer_size: config.max_transfer_size,
        max_io_depth: config.max_io_depth,
        device_names: config.device_names.clone(),
    }
}

pub(super) fn server_config(choice: Choice) -> ServerConfig {
    ServerConfig {
        features: Features::from_bits(choice.features),
        alignment: choice.alignment,
        block_size: choice.block_size,
        max_transfer_size: choice.max_transfer_size,
        max_io_depth: choice.max_io_depth,
        device_names: choice.device_names,
    }
}

/// A client's wishes, as they are told to a process that connects.
pub(crate) fn wishes(config: &Config) -> Wishes {
    Wishes {
        device_count: config.device_count,
        features: config.features.bits(),
        prefix_zone_size: config.prefix_zone_size,
        alignment: config.alignment,
        soft_file_mark_block_size: config.soft_file_mark_block_size,
        eom_warning_size: config.eom_warning_size,
        // `Config::validate` has bounded it.
        server_timeout_millis: u32::try_from(config.server_timeout.as_millis()).unwrap_or(u32::MAX),
    }
}

/// The wishes of another process, checked as if they were this one's.
pub(crate) fn config_of(wishes: &Wishes) -> Result<Config, Error> {
    Config {
        device_count: wishes.device_count,
        features: Features::from_bits(wishes.features),
        prefix_zone_size: wishes.prefix_zone_size,
        alignment: wishes.alignment,
        soft_file_mark_block_size: wishes.soft_file_mark_block_size,
        eom_warning_size: wishes.eom_warning_size,
        server_timeout: Duration::from_millis(wishes.server_timeout_millis.into()),
    }
    .validate()
}

pub(super) fn no_memory(error: ShmError) -> Error {
    let error = crate::Error::new(ErrorKind::Exhausted, "shared memory").with_source(error);
    Error::from(Status::Memory).because(Some(error))
}

const KINDS: [ErrorKind; 11] = [
    ErrorKind::Aborted,
    ErrorKind::Closed,
    ErrorKind::Conflict,
    ErrorKind::Corrupt,
    ErrorKind::Denied,
    ErrorKind::Exhausted,
    ErrorKind::Internal,
    ErrorKind::Invalid,
    ErrorKind::NotFound,
    ErrorKind::Throttled,
    ErrorKind::Unavailable,
];
