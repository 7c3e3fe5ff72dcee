//! From the codes of the device set to errors that name their cause.

use crate::error::{Error, ErrorKind};
use crate::vdi::{CompletionCode, server};

/// Why a command of `device` did not succeed. The reason, if somebody gave one, keeps its kind.
pub(super) fn of_completion(device: &str, what: &'static str, completion: &server::Completion) -> Error {
    let message = format!("device {device}: {what} ended with {}", completion.code);
    match &completion.reason {
        Some(reason) => reason.clone().context(message),
        None => Error::new(kind_of(completion.code), message),
    }
}

/// A read was answered with bytes that did not come along.
pub(super) fn without_buffer(device: &str, completion: &server::Completion) -> Error {
    let count = completion.bytes_transferred;
    let message = format!("device {device}: the client answered a read of {count} bytes while their buffer was mapped");
    Error::new(ErrorKind::Invalid, message)
}

/// Writes were answered as successes that did not take all of their bytes.
pub(super) fn short_write(device: &str, missing: u64) -> Error {
    let message = format!(
        "device {device}: the client answered writes with success and did not take {missing} of their bytes: it must answer with the \
         number of bytes that it took, or with a failure"
    );
    Error::new(ErrorKind::Invalid, message)
}

fn kind_of(code: CompletionCode) -> ErrorKind {
    match code {
        CompletionCode::OperationAborted => ErrorKind::Aborted,
        CompletionCode::DiskFull
        | CompletionCode::HandleDiskFull
        | CompletionCode::EomOverflow
        | CompletionCode::NoSystemResources => ErrorKind::Exhausted,
        CompletionCode::NotSupported => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    }
}

/// A stream was dropped before its end.
pub(super) fn dropped(what: &'static str, device: &str) -> Error {
    Error::new(ErrorKind::Aborted, format!("the {what} of device {device} was dropped before its end"))
}
